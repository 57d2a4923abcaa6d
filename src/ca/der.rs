//! As much of DER as name constraints and PKCS#12 need: tag, length, value.
//!
//! Writes any nesting; reads only one level of what this process or OpenSSL wrote. X.690 sections 8.1
//! and 10.1. Used by this room alone.

use openssl::asn1::Asn1Object;
use openssl::error::ErrorStack;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const NULL: u8 = 0x05;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const BMP_STRING: u8 = 0x1e;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// The context's tag of a constructed value.
pub(super) const fn constructed(number: u8) -> u8 {
    0xa0 | number
}

/// The context's tag of a primitive value.
pub(super) const fn primitive(number: u8) -> u8 {
    0x80 | number
}

/// One value, put together from parts that are written one after another.
pub(super) fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut der = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => der.push(short),
        _ => {
            let bytes = significant(&length.to_be_bytes());
            // A length has at most eight bytes.
            der.push(0x80 | u8::try_from(bytes.len()).unwrap_or(8));
            der.extend(bytes);
        }
    }
    der.extend(parts.concat());
    der
}

/// A number that is not negative.
pub(super) fn integer(number: u32) -> Vec<u8> {
    let mut bytes = significant(&number.to_be_bytes());
    if bytes.first().is_none_or(|first| *first >= 0x80) {
        bytes.insert(0, 0);
    }
    value(INTEGER, &[&bytes])
}

/// An object identifier written with dots.
pub(super) fn identifier(dotted: &str) -> Result<Vec<u8>, ErrorStack> {
    let object = Asn1Object::from_str(dotted)?;
    Ok(value(OBJECT_IDENTIFIER, &[object.as_slice()]))
}

/// Tag and content of each value in a row; stops at what is no DER.
pub(super) fn values(mut der: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    while let Some((tag, content, rest)) = first(der) {
        found.push((tag, content));
        der = rest;
    }
    found
}

fn first(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, length], rest) = der.split_first_chunk()?;
    let (length, rest) = if length < 0x80 {
        (usize::from(length), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        let length = bytes.iter().try_fold(0_usize, |length, byte| {
            length.checked_mul(256)?.checked_add(usize::from(*byte))
        })?;
        (length, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// A big-endian number without its leading zeros.
fn significant(bytes: &[u8]) -> Vec<u8> {
    bytes
        .iter()
        .copied()
        .skip_while(|byte| *byte == 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_as_short_as_they_can_be() {
        for (length, head) in [
            (0, vec![0x30, 0]),
            (127, vec![0x30, 127]),
            (128, vec![0x30, 0x81, 128]),
            (256, vec![0x30, 0x82, 1, 0]),
            (65536, vec![0x30, 0x83, 1, 0, 0]),
        ] {
            let content = vec![7; length];
            let der = value(SEQUENCE, &[&content]);
            assert!(der.starts_with(&head), "{length}");
            assert_eq!(values(&der), [(SEQUENCE, content.as_slice())], "{length}");
        }
    }

    #[test]
    fn numbers_stay_positive() {
        assert_eq!(integer(0), [2, 1, 0]);
        assert_eq!(integer(127), [2, 1, 127]);
        assert_eq!(integer(128), [2, 2, 0, 128]);
        assert_eq!(integer(10_000), [2, 2, 0x27, 0x10]);
    }

    #[test]
    fn what_is_no_der_is_not_read() {
        for bad in [
            &[0x30][..],
            &[0x30, 2, 0],
            &[0x30, 0x89],
            &[0x30, 0x88, 255, 255, 255, 255, 255, 255, 255, 255],
        ] {
            assert!(values(bad).is_empty(), "{bad:?}");
        }
    }
}
