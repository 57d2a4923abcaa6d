//! What stands for a token key in a build without PKCS#11: nothing that could exist.
//!
//! A configuration that names a token is refused with one clear line.

use countersign_protocol::{Content, PublicKey};

use super::{Config, TokenError};

/// A key that no build without the feature `pkcs11` can have.
#[derive(Clone, Debug)]
pub enum TokenKey {}

impl TokenKey {
    /// Says that this build has no PKCS#11.
    ///
    /// # Errors
    /// Always.
    pub fn open(config: &Config) -> Result<Self, TokenError> {
        Err(TokenError::NotBuiltIn(config.module.clone()))
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        match *self {}
    }

    /// Whether both log in with the same PIN.
    pub fn has_pin_of(&self, _other: &Self) -> bool {
        match *self {}
    }

    /// How many sessions have the token.
    pub fn connected(&self) -> usize {
        match *self {}
    }

    /// Signs.
    #[expect(clippy::unused_async, reason = "the real one waits")]
    pub async fn sign(&self, _content: &Content<'_>) -> Result<Vec<u8>, TokenError> {
        match *self {}
    }
}

/// There is nothing to end.
pub fn finish() {}
