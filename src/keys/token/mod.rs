//! Signing keys that never leave a PKCS#11 token: an HSM, a smart card, or a service that plays one.
//!
//! The token makes one raw RSA operation a signature, over 51 bytes; bodies stay here. A few threads
//! with a session each do that (`worker`), fed by a bounded queue (`desk`); what they have in common
//! of a module is in one place for the whole process (`module`). Every signature is verified before
//! it is used. When the token goes away, requests get an error at once, and the threads find it again
//! by themselves. A PIN that was refused is never tried again, as PINs lock.
//!
//! Refuses to sign with another key than the one that was found at the start. Opened by the keyring
//! and by the command `sign`. Without the feature `pkcs11` there is a [`TokenKey`] that cannot be
//! opened, and says so.

#[cfg(not(feature = "pkcs11"))]
mod absent;
#[cfg(feature = "pkcs11")]
mod connection;
#[cfg(feature = "pkcs11")]
mod desk;
mod error;
#[cfg(feature = "pkcs11")]
mod gate;
#[cfg(feature = "pkcs11")]
mod key;
#[cfg(feature = "pkcs11")]
mod module;
#[cfg(feature = "pkcs11")]
mod pin;
#[cfg(feature = "pkcs11")]
mod search;
#[cfg(feature = "pkcs11")]
mod worker;

use std::path::PathBuf;

#[cfg(not(feature = "pkcs11"))]
pub use absent::{TokenKey, finish};
pub use error::{CallError, PinProblem, Place, TokenError};
#[cfg(feature = "pkcs11")]
pub use key::TokenKey;
#[cfg(feature = "pkcs11")]
pub use module::finish;

/// How many sessions a key has unless the configuration says otherwise.
pub const DEFAULT_SESSIONS: usize = 4;

/// The most sessions a key can have. Each is a thread.
pub const MAX_SESSIONS: usize = 64;

/// Where a key is and how to get at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The shared library the token's maker gives, such as `/usr/lib/softhsm/libsofthsm2.so`. A name
    /// without a slash is searched for as the system searches for libraries.
    pub module: PathBuf,
    /// The label of the token. Exactly one token of the module must have it.
    pub token_label: String,
    /// The label of the RSA private key. Exactly one key of the token must have it.
    pub key_label: String,
    /// A file with the user's PIN. One line end behind it is not part of it. Without a file nobody is
    /// logged in.
    pub pin_file: Option<PathBuf>,
    /// How many signatures the token makes at a time: 1 to [`MAX_SESSIONS`].
    pub sessions: usize,
}

impl Config {
    /// The place of the key, for messages.
    pub fn place(&self) -> Place {
        Place {
            module: self.module.clone(),
            token: self.token_label.clone(),
            key: self.key_label.clone(),
        }
    }
}
