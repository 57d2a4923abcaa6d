//! Which kind of key structure a DER encoding is.
//!
//! Looks at no more than the outermost elements, and exactly at the outer length, so that a file cut
//! short or with something behind the key is told apart from a foreign one. Reading the numbers is
//! OpenSSL's work.

use openssl::{pkey::PKey, x509::X509Req};

use super::error::{Algorithm, Found, KeyError};

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// The structures a file of keys may hold.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// PKCS#8, or PKCS#1 and its like for other algorithms.
    Private,
    /// PKCS#8, encrypted.
    EncryptedPrivate,
    /// SPKI.
    Public,
    /// PKCS#1.
    RsaPublic,
    /// X.509.
    Certificate,
    /// PKCS#10.
    CertificateRequest,
    /// PKCS#12.
    Pkcs12,
}

pub(super) fn of(der: &[u8]) -> Result<Form, KeyError> {
    let outer = whole(der)?;
    let tags = tags(outer).ok_or(KeyError::NotAKey)?;
    match *tags.as_slice() {
        [INTEGER, INTEGER] => Ok(Form::RsaPublic),
        [INTEGER, INTEGER | OCTET_STRING, ..] | [INTEGER, SEQUENCE, OCTET_STRING, ..] => {
            Ok(Form::Private)
        }
        [INTEGER, SEQUENCE, ..] => Ok(Form::Pkcs12),
        [SEQUENCE, BIT_STRING] => Ok(Form::Public),
        [SEQUENCE, OCTET_STRING] => Ok(Form::EncryptedPrivate),
        [SEQUENCE, SEQUENCE, BIT_STRING] if X509Req::from_der(der).is_ok() => {
            Ok(Form::CertificateRequest)
        }
        [SEQUENCE, SEQUENCE, BIT_STRING] => Ok(Form::Certificate),
        _ => Err(KeyError::NotAKey),
    }
}

impl Form {
    /// The same in words for the owner of the file, with the algorithm where it can be read.
    pub(super) fn found(self, der: &[u8]) -> Found {
        match self {
            Self::Private => {
                let id = PKey::private_key_from_der(der).map(|key| key.id());
                Found::Private(id.map_or(Algorithm::Other, Algorithm::of))
            }
            Self::Public => {
                let id = PKey::public_key_from_der(der).map(|key| key.id());
                Found::Public(id.map_or(Algorithm::Other, Algorithm::of))
            }
            Self::RsaPublic => Found::Public(Algorithm::Rsa),
            Self::EncryptedPrivate => Found::EncryptedPrivate,
            Self::Certificate => Found::Certificate,
            Self::CertificateRequest => Found::CertificateRequest,
            Self::Pkcs12 => Found::Pkcs12,
        }
    }
}

/// The inside of the one outer sequence. Blanks behind it are an editor's, anything else is a mistake.
fn whole(der: &[u8]) -> Result<&[u8], KeyError> {
    let (tag, length, content) = header(der).ok_or(KeyError::NotAKey)?;
    if tag != SEQUENCE {
        return Err(KeyError::NotAKey);
    }
    let (inside, behind) = content.split_at_checked(length).ok_or(KeyError::CutShort)?;
    if !behind.trim_ascii().is_empty() {
        return Err(KeyError::TrailingBytes);
    }
    Ok(inside)
}

fn tags(mut elements: &[u8]) -> Option<Vec<u8>> {
    let mut tags = Vec::new();
    while !elements.is_empty() {
        let (tag, length, content) = header(elements)?;
        tags.push(tag);
        elements = content.get(length..)?;
    }
    Some(tags)
}

/// Tag, length, and the bytes after both. Only definite lengths of at most four bytes: keys are DER.
fn header(der: &[u8]) -> Option<(u8, usize, &[u8])> {
    let [tag, first, rest @ ..] = der else {
        return None;
    };
    if *first < 0x80 {
        return Some((*tag, usize::from(*first), rest));
    }
    let count = usize::from(first & 0x7f);
    let (length, rest) = rest
        .split_at_checked(count)
        .filter(|_| (1..=4).contains(&count))?;
    let length = length
        .iter()
        .fold(0, |length, byte| length << 8 | usize::from(*byte));
    Some((*tag, length, rest))
}
