//! Undoes a content coding a server applied though it was asked for `identity`.
//!
//! Knows `gzip` (`x-gzip`) and `deflate` (zlib, RFC 9110 section 8.4.1.2). Refuses other codings,
//! several at once, and anything that unpacks to more than the limit.

use std::io::Read;

use ::http::HeaderMap;
use ::http::header::CONTENT_ENCODING;
use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};

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

/// Looks at `Content-Encoding` and unpacks at most `limit` bytes.
pub fn decode(headers: &HeaderMap, body: &Bytes, limit: usize) -> Coding {
    // An answer to HEAD, a 204 or a 304 may name the coding of what it does not hold.
    if body.is_empty() {
        return Coding::Identity;
    }
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        let none = headers.get(CONTENT_ENCODING).is_none();
        return if none {
            Coding::Identity
        } else {
            Coding::Opaque
        };
    };
    let Ok(name) = value.to_str() else {
        return Coding::Opaque;
    };
    match name.trim().to_ascii_lowercase().as_str() {
        "identity" | "" => Coding::Identity,
        "gzip" | "x-gzip" => unpack(MultiGzDecoder::new(body.as_ref()), limit),
        "deflate" => unpack(ZlibDecoder::new(body.as_ref()), limit),
        _ => Coding::Opaque,
    }
}

fn unpack(decoder: impl Read, limit: usize) -> Coding {
    let mut decoded = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    match decoder.take(most).read_to_end(&mut decoded) {
        Ok(_) if decoded.len() <= limit => Coding::Decoded(Bytes::from(decoded)),
        Ok(_) | Err(_) => Coding::Opaque,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use ::http::HeaderValue;
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

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
}
