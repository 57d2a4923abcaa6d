//! A PKCS#12 file with trusted certificates, in the form Java and OpenSSL both read (RFC 7292).
//!
//! The certificates are not encrypted, as they are public; a MAC by the password guards against
//! accidents. Java sees an entry only if it bears Oracle's attribute `trustedKeyUsage`, which OpenSSL
//! does not write. Called by the trust material.

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rand::rand_bytes;
use openssl::sha::sha256;
use openssl::sign::Signer;

use super::der::{
    BMP_STRING, NULL, OCTET_STRING, SEQUENCE, SET, constructed, identifier, integer, value,
};
use super::trust::Trusted;

const DATA: &str = "1.2.840.113549.1.7.1";
const CERT_BAG: &str = "1.2.840.113549.1.12.10.1.3";
const X509_CERTIFICATE: &str = "1.2.840.113549.1.9.22.1";
const FRIENDLY_NAME: &str = "1.2.840.113549.1.9.20";
const TRUSTED_KEY_USAGE: &str = "2.16.840.1.113894.746875.1.1";
const ANY_USAGE: &str = "2.5.29.37.0";
const SHA256: &str = "2.16.840.1.101.3.4.2.1";
/// What Java's own keytool takes.
const ITERATIONS: u32 = 10_000;

/// The file's content.
pub(super) fn write(entries: &[Trusted], password: &str) -> Result<Vec<u8>, ErrorStack> {
    let bags: Result<Vec<_>, _> = entries.iter().map(bag).collect();
    let contents = value(SEQUENCE, &[&bags?.concat()]);
    let safe = value(SEQUENCE, &[&data(&contents)?]);
    let mac = mac(&safe, password)?;
    let version = integer(3);
    Ok(value(SEQUENCE, &[&version, &data(&safe)?, &mac]))
}

/// A `ContentInfo` of type data.
fn data(content: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    let octets = value(OCTET_STRING, &[content]);
    let explicit = value(constructed(0), &[&octets]);
    Ok(value(SEQUENCE, &[&identifier(DATA)?, &explicit]))
}

/// A `SafeBag` with one certificate.
fn bag(entry: &Trusted) -> Result<Vec<u8>, ErrorStack> {
    let octets = value(OCTET_STRING, &[&entry.der]);
    let certificate = value(
        SEQUENCE,
        &[
            &identifier(X509_CERTIFICATE)?,
            &value(constructed(0), &[&octets]),
        ],
    );
    let name: Vec<u8> = entry
        .alias
        .encode_utf16()
        .flat_map(u16::to_be_bytes)
        .collect();
    let mut attributes = [
        attribute(FRIENDLY_NAME, &value(BMP_STRING, &[&name]))?,
        attribute(TRUSTED_KEY_USAGE, &identifier(ANY_USAGE)?)?,
    ];
    // X.690 section 11.6: the members of a set stand in the order of their encodings.
    attributes.sort();
    Ok(value(
        SEQUENCE,
        &[
            &identifier(CERT_BAG)?,
            &value(constructed(0), &[&certificate]),
            &value(SET, &[&attributes.concat()]),
        ],
    ))
}

fn attribute(kind: &str, content: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    Ok(value(
        SEQUENCE,
        &[&identifier(kind)?, &value(SET, &[content])],
    ))
}

/// `MacData` over the authenticated safe.
fn mac(safe: &[u8], password: &str) -> Result<Vec<u8>, ErrorStack> {
    let mut salt = [0; 16];
    rand_bytes(&mut salt)?;
    let key = PKey::hmac(&mac_key(password, &salt))?;
    let digest = Signer::new(MessageDigest::sha256(), &key)?.sign_oneshot_to_vec(safe)?;
    let algorithm = value(SEQUENCE, &[&identifier(SHA256)?, &value(NULL, &[])]);
    let digest = value(SEQUENCE, &[&algorithm, &value(OCTET_STRING, &[&digest])]);
    let salt = value(OCTET_STRING, &[&salt]);
    Ok(value(SEQUENCE, &[&digest, &salt, &integer(ITERATIONS)]))
}

/// RFC 7292 appendix B.2 with SHA-256 and the id of MAC keys; one block is all that is needed.
fn mac_key(password: &str, salt: &[u8]) -> [u8; 32] {
    const ID: u8 = 3;
    const BLOCK: usize = 64;
    let whole = |bytes: &[u8]| -> Vec<u8> {
        let length = bytes.len().div_ceil(BLOCK) * BLOCK;
        bytes.iter().copied().cycle().take(length).collect()
    };
    // The end of the password's text is part of it.
    let password: Vec<u8> = password
        .encode_utf16()
        .chain([0])
        .flat_map(u16::to_be_bytes)
        .collect();
    let first = [vec![ID; BLOCK], whole(salt), whole(&password)].concat();
    (1..ITERATIONS).fold(sha256(&first), |hash, _| sha256(&hash))
}
