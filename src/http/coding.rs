//! Undoes a content coding a server applied though it was asked for `identity`.
//!
//! Knows `gzip` (`x-gzip`) and `deflate` (zlib, RFC 9110 section 8.4.1.2). Refuses other codings,
//! several at once, and anything that unpacks to more than the limit. What it unpacks counts as a
//! held body.

use ::http::HeaderMap;
use ::http::header::CONTENT_ENCODING;
use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};

use super::body::{BodyError, Budget, Held};

/// How the body is coded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Not at all.
    Identity,
    /// The bytes it unpacks to.
    Decoded(Bytes),
    /// In a way we cannot undo, or to more than the limit.
    Opaque,
}

/// Looks at `Content-Encoding` and unpacks at most `limit` bytes, as far as `budget` has room.
///
/// # Errors
/// [`BodyError::OverBudget`] when it has none.
pub fn decode(
    headers: &HeaderMap,
    body: &Bytes,
    limit: usize,
    budget: &Budget,
) -> Result<Coding, BodyError> {
    // An answer to HEAD, a 204 or a 304 may name the coding of what it does not hold.
    if body.is_empty() {
        return Ok(Coding::Identity);
    }
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        let none = headers.get(CONTENT_ENCODING).is_none();
        return Ok(if none {
            Coding::Identity
        } else {
            Coding::Opaque
        });
    };
    let Ok(name) = value.to_str() else {
        return Ok(Coding::Opaque);
    };
    let unpacked = match name.trim().to_ascii_lowercase().as_str() {
        "identity" | "" => return Ok(Coding::Identity),
        "gzip" | "x-gzip" => Held::read(MultiGzDecoder::new(body.as_ref()), limit, budget),
        "deflate" => Held::read(ZlibDecoder::new(body.as_ref()), limit, budget),
        _ => return Ok(Coding::Opaque),
    };
    match unpacked {
        Ok(held) => Ok(Coding::Decoded(Bytes::from_owner(held))),
        Err(BodyError::OverBudget) => Err(BodyError::OverBudget),
        Err(BodyError::TooLarge(_) | BodyError::Broken(_)) => Ok(Coding::Opaque),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use ::http::HeaderValue;
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use prometheus::IntGauge;

    use super::*;

    fn coded(name: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
        headers
    }

    fn gzip(data: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap().into()
    }

    fn decode(headers: &HeaderMap, body: &Bytes, limit: usize) -> Coding {
        let gauge = IntGauge::new("held", "held").unwrap();
        super::decode(headers, body, limit, &Budget::new(1 << 20, gauge)).unwrap()
    }

    #[test]
    fn unpacks_gzip_and_deflate() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(b"{}").unwrap();
        let zlib = Bytes::from(zlib.finish().unwrap());
        let expected = Coding::Decoded(Bytes::from_static(b"{}"));
        assert_eq!(decode(&coded("GZip"), &gzip(b"{}"), 10), expected);
        assert_eq!(decode(&coded("deflate"), &zlib, 10), expected);
        assert_eq!(decode(&HeaderMap::new(), &zlib, 10), Coding::Identity);
    }

    #[test]
    fn a_bomb_an_unknown_coding_and_broken_data_stay_opaque() {
        let bomb = gzip(&vec![b'0'; 1_000_000]);
        assert_eq!(decode(&coded("gzip"), &bomb, 1_000), Coding::Opaque);
        assert_eq!(decode(&coded("br"), &bomb, 1_000), Coding::Opaque);
        assert_eq!(decode(&coded("gzip, gzip"), &bomb, 1_000), Coding::Opaque);
        assert_eq!(
            decode(&coded("gzip"), &Bytes::from_static(b"no"), 1_000),
            Coding::Opaque
        );
    }

    #[test]
    fn what_is_unpacked_counts_until_it_is_dropped_and_finds_no_room_beyond_the_budget() {
        let gauge = IntGauge::new("held", "held").unwrap();
        let budget = Budget::new(100_000, gauge.clone());
        let packed = gzip(&vec![b'0'; 70_000]);
        let first = super::decode(&coded("gzip"), &packed, 1 << 20, &budget).unwrap();
        assert_eq!(gauge.get(), 70_000);
        let second = super::decode(&coded("gzip"), &packed, 1 << 20, &budget);
        assert!(matches!(second, Err(BodyError::OverBudget)));
        drop(first);
        assert_eq!(gauge.get(), 0);
    }
}
