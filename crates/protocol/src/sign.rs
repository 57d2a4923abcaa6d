//! Making a signature: RSASSA-PKCS1-v1_5 with SHA-256 over a [`Content`].
//!
//! Deterministic: the same key and content always give the same bytes. It costs one private RSA
//! operation, a quarter of a millisecond or more, so callers on an event loop may want it elsewhere.
//!
//! A key that is kept in a token signs the [`digest_info`] of a content: the body never leaves the
//! process, and the token needs to know no more than the raw operation.

use std::{error::Error, fmt};

use openssl::{error::ErrorStack, hash::MessageDigest, rsa::Padding, sha::Sha256, sign::Signer};

use crate::{
    content::{Content, ContentError},
    key::PrivateKey,
};

/// How many bytes [`digest_info`] returns.
pub const DIGEST_INFO: usize = 51;

/// What stands before a SHA-256 digest in its `DigestInfo` (RFC 8017, section 9.2, note 1).
const SHA_256: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// Why a content was not signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignError {
    /// The content is ambiguous.
    Content(ContentError),
    /// The RSA operation failed. The key signed when it was read, so memory is the likely cause.
    Rsa,
}

/// Signs a content. The signature is as long as the key's modulus.
pub fn sign(key: &PrivateKey, content: &Content<'_>) -> Result<Vec<u8>, SignError> {
    content.check().map_err(SignError::Content)?;
    rsa_sha256(key, &content.pieces()).or(Err(SignError::Rsa))
}

/// What a token signs with the plain RSASSA-PKCS1-v1_5 operation (`CKM_RSA_PKCS`) to make the signature
/// [`sign`] would make: the DER `DigestInfo` of the content's SHA-256 digest.
///
/// # Errors
/// When the content is ambiguous.
pub fn digest_info(content: &Content<'_>) -> Result<[u8; DIGEST_INFO], ContentError> {
    content.check()?;
    let mut digest = Sha256::new();
    for piece in content.pieces() {
        digest.update(piece);
    }
    let mut info = [0; DIGEST_INFO];
    let bytes = SHA_256.into_iter().chain(digest.finish());
    info.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    Ok(info)
}

pub(crate) fn rsa_sha256(key: &PrivateKey, pieces: &[&[u8]]) -> Result<Vec<u8>, ErrorStack> {
    let mut signer = Signer::new(MessageDigest::sha256(), key.rsa())?;
    signer.set_rsa_padding(Padding::PKCS1)?;
    pieces.iter().try_for_each(|piece| signer.update(piece))?;
    signer.sign_to_vec()
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Content(_) => "the content is ambiguous and was not signed",
            Self::Rsa => "the RSA operation failed",
        })
    }
}

impl Error for SignError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Content(source) => Some(source),
            Self::Rsa => None,
        }
    }
}
