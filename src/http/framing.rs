//! Whether a head says in exactly one way where its body ends (RFC 9112 section 6.3).
//!
//! hyper takes the first of several answers to that question; a second reader on the way may take
//! another, and then bytes of one message become the next one. Looks at parsed heads only: what the
//! parser already dropped cannot be seen here.

use ::http::HeaderMap;
use ::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

/// Whether there is at most one `Content-Length`, a plain number, or exactly one `chunked`, and never
/// both.
pub fn is_unambiguous(fields: &HeaderMap) -> bool {
    let mut codings = fields.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    let coding = (codings.next(), codings.next());
    let length = (lengths.next(), lengths.next());
    match (coding, length) {
        ((None, _), (None, _)) => true,
        ((None, _), (Some(length), None)) => {
            !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit)
        }
        ((Some(coding), None), (None, _)) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::*;

    #[test]
    fn one_plain_length_or_one_chunked_and_nothing_else() {
        for (codings, lengths, expected) in [
            (&[][..], &[][..], true),
            (&[], &["0"], true),
            (&["chunked"], &[], true),
            (&["Chunked"], &[], true),
            (&[], &["5", "5"], false),
            (&[], &["5, 5"], false),
            (&[], &["+5"], false),
            (&["chunked"], &["5"], false),
            (&["chunked", "chunked"], &[], false),
            (&["gzip, chunked"], &[], false),
            (&["identity"], &[], false),
        ] {
            let mut fields = HeaderMap::new();
            for coding in codings {
                fields.append(TRANSFER_ENCODING, HeaderValue::from_static(coding));
            }
            for length in lengths {
                fields.append(CONTENT_LENGTH, HeaderValue::from_static(length));
            }
            assert_eq!(is_unambiguous(&fields), expected, "{codings:?} {lengths:?}");
        }
    }
}
