//! The `Signature` header: `algorithm=RSA256,keyVersion=<n>,signature=<value>`.
//!
//! Written in exactly that form, because two official SDKs read by position. Read tolerantly (any
//! order, blanks, upper or lower case, unknown keys) but never ambiguously: a key given twice or a
//! value that is not strict base64 is an error naming the part. Whether the signature verifies is not
//! asked here.

use std::{error::Error, fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, percent_decode, utf8_percent_encode};

/// Only these three of the base64 alphabet are percent-encoded; the documents call it
/// `base64UrlEncode`, but mean neither RFC 4648 base64url nor form encoding.
const ENCODED: &AsciiSet = &AsciiSet::EMPTY.add(b'+').add(b'/').add(b'=');

/// Which of a client's keys made a signature. 0, 1 and 2 are all seen; the default is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyVersion(u32);

/// What a `Signature` header says. The algorithm is always RSA256: SHA-256 with RSA.
///
/// Its [`Display`](fmt::Display) is the exact form to send.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    /// The key that made it.
    pub key_version: KeyVersion,
    /// The bytes of the signature, as long as the key's modulus when it is a whole one.
    pub value: Vec<u8>,
}

/// The text is not a decimal number of at most 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyVersionError;

/// Why a `Signature` header cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignatureHeaderError {
    /// Something between two commas is not `key=value`.
    NotAPair,
    /// `algorithm` is given twice.
    RepeatedAlgorithm,
    /// `keyVersion` is given twice.
    RepeatedKeyVersion,
    /// `signature` is given twice.
    RepeatedSignature,
    /// Another key is given twice.
    RepeatedUnknown,
    /// `algorithm` is neither `RSA256` nor `SHA256withRSA`.
    UnknownAlgorithm,
    /// `keyVersion` is not a decimal number of at most 32 bits.
    BadKeyVersion,
    /// There is no `signature`, or it is empty.
    MissingSignature,
    /// A `%` in `signature` without two hexadecimal digits after it.
    BadPercentEscape,
    /// `signature` is not padded standard base64 (RFC 4648, section 4).
    NotBase64,
}

impl KeyVersion {
    /// A version by its number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl Default for KeyVersion {
    fn default() -> Self {
        Self(1)
    }
}

impl From<u32> for KeyVersion {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl FromStr for KeyVersion {
    type Err = KeyVersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `u32::from_str` alone would take a leading `+`.
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(KeyVersionError);
        }
        text.parse().map(Self).or(Err(KeyVersionError))
    }
}

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Signature {
    /// Reads the value of a `Signature` header.
    pub fn parse(text: &str) -> Result<Self, SignatureHeaderError> {
        let fields = Fields::split(text)?;
        if !fields.algorithm.is_none_or(is_rsa_sha256) {
            return Err(SignatureHeaderError::UnknownAlgorithm);
        }
        let key_version = match fields.key_version {
            None => KeyVersion::default(),
            Some(number) => number.parse().map_err(SignatureHeaderError::from)?,
        };
        let value = fields.signature.filter(|value| !value.is_empty());
        let value = decode(value.ok_or(SignatureHeaderError::MissingSignature)?)?;
        Ok(Self { key_version, value })
    }
}

impl FromStr for Signature {
    type Err = SignatureHeaderError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base64 = STANDARD.encode(&self.value);
        let value = utf8_percent_encode(&base64, ENCODED);
        write!(
            f,
            "algorithm=RSA256,keyVersion={},signature={value}",
            self.key_version
        )
    }
}

/// Signatures do not belong in logs: only the length is shown.
impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signature")
            .field("key_version", &self.key_version.0)
            .field("length", &self.value.len())
            .finish()
    }
}

impl fmt::Display for KeyVersionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key version is not a decimal number of at most 32 bits")
    }
}

impl Error for KeyVersionError {}

impl From<KeyVersionError> for SignatureHeaderError {
    fn from(_: KeyVersionError) -> Self {
        Self::BadKeyVersion
    }
}

impl fmt::Display for SignatureHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAPair => "a part of the signature header is not key=value",
            Self::RepeatedAlgorithm => "algorithm is given twice",
            Self::RepeatedKeyVersion => "keyVersion is given twice",
            Self::RepeatedSignature => "signature is given twice",
            Self::RepeatedUnknown => "a key is given twice",
            Self::UnknownAlgorithm => "algorithm is not RSA256",
            Self::BadKeyVersion => "keyVersion is not a decimal number of at most 32 bits",
            Self::MissingSignature => "signature is missing",
            Self::BadPercentEscape => "signature holds a malformed percent escape",
            Self::NotBase64 => "signature is not padded standard base64",
        })
    }
}

impl Error for SignatureHeaderError {}

/// The three known keys of a header, trimmed and not yet understood.
#[derive(Default)]
struct Fields<'a> {
    algorithm: Option<&'a str>,
    key_version: Option<&'a str>,
    signature: Option<&'a str>,
    /// Keys of no meaning to us; what they say is ignored, but not that they say it twice.
    unknown: Vec<&'a str>,
}

impl<'a> Fields<'a> {
    fn split(text: &'a str) -> Result<Self, SignatureHeaderError> {
        let mut fields = Self::default();
        // Empty list elements are skipped as in RFC 9110, section 5.6.1.2.
        for part in text.split(',').map(trim).filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or(SignatureHeaderError::NotAPair)?;
            fields.put(trim(key), trim(value))?;
        }
        Ok(fields)
    }

    fn put(&mut self, key: &'a str, value: &'a str) -> Result<(), SignatureHeaderError> {
        let (field, repeated) = if key.eq_ignore_ascii_case("algorithm") {
            (&mut self.algorithm, SignatureHeaderError::RepeatedAlgorithm)
        } else if key.eq_ignore_ascii_case("keyVersion") {
            (
                &mut self.key_version,
                SignatureHeaderError::RepeatedKeyVersion,
            )
        } else if key.eq_ignore_ascii_case("signature") {
            (&mut self.signature, SignatureHeaderError::RepeatedSignature)
        } else if key.is_empty() {
            return Err(SignatureHeaderError::NotAPair);
        } else if self
            .unknown
            .iter()
            .any(|seen| seen.eq_ignore_ascii_case(key))
        {
            return Err(SignatureHeaderError::RepeatedUnknown);
        } else {
            self.unknown.push(key);
            return Ok(());
        };
        field.replace(value).map_or(Ok(()), |_| Err(repeated))
    }
}

/// Blanks of a header value: space and tab (RFC 9110, section 5.6.3).
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn is_rsa_sha256(algorithm: &str) -> bool {
    algorithm.eq_ignore_ascii_case("RSA256") || algorithm.eq_ignore_ascii_case("SHA256withRSA")
}

fn decode(value: &str) -> Result<Vec<u8>, SignatureHeaderError> {
    if !escapes_are_whole(value) {
        return Err(SignatureHeaderError::BadPercentEscape);
    }
    let base64: Vec<u8> = percent_decode(value.as_bytes()).collect();
    STANDARD
        .decode(base64)
        .or(Err(SignatureHeaderError::NotBase64))
}

/// The decoder passes a lone `%` on as it is; here that is an error.
fn escapes_are_whole(value: &str) -> bool {
    value.split('%').skip(1).all(|after| {
        let mut digits = after.bytes().take(2);
        digits.len() == 2 && digits.all(|digit| digit.is_ascii_hexdigit())
    })
}
