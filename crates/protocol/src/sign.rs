//! Making a signature: RSASSA-PKCS1-v1_5 with SHA-256 over a [`Content`].
//!
//! Deterministic: the same key and content always give the same bytes. It costs one private RSA
//! operation, a quarter of a millisecond or more, so callers on an event loop may want it elsewhere.

use std::{error::Error, fmt};

use openssl::{error::ErrorStack, hash::MessageDigest, rsa::Padding, sign::Signer};

use crate::{
    content::{Content, ContentError},
    key::PrivateKey,
};

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
