//! Reads one key from where the configuration says it is.
//!
//! Refuses anything the protocol crate does not take, and names the file and what was found in it.
//! File contents never appear in a message.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use countersign_protocol::key::KeyError as FormError;
use countersign_protocol::{PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::KeyConfig;

/// No key file comes near this size.
const LARGEST_KEY_FILE: u64 = 64 * 1024;

/// Why a key cannot be used.
#[derive(Debug)]
pub struct KeyError {
    place: String,
    file: PathBuf,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Unreadable(io::Error),
    Directory,
    TooLarge,
    NoKey(FormError),
    OwnPublicKey,
}

impl KeyError {
    /// Where the configuration names the key.
    pub fn place(&self) -> &str {
        &self.place
    }

    pub(super) fn own_public_key(config: &KeyConfig) -> Self {
        Self::new(config, &config.file, Problem::OwnPublicKey)
    }

    fn new(config: &KeyConfig, file: &Path, problem: Problem) -> Self {
        Self {
            place: config.place.clone(),
            file: file.to_owned(),
            problem,
        }
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match &self.problem {
            Problem::Unreadable(error) if error.kind() == io::ErrorKind::NotFound => {
                write!(f, "{file}: no such file")
            }
            Problem::Unreadable(error) => write!(f, "{file}: cannot be read: {error}"),
            Problem::Directory => write!(f, "{file}: is a directory; name the key file in it"),
            Problem::TooLarge => write!(f, "{file}: over 64 KiB, so no key file"),
            Problem::NoKey(error) => write!(f, "{file}: {error}"),
            Problem::OwnPublicKey => write!(
                f,
                "{file}: this is the partner's own public key; Alipay+'s public key belongs here, \
                 copy it from the Alipay+ console"
            ),
        }
    }
}

impl Error for KeyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.problem {
            Problem::Unreadable(error) => Some(error),
            Problem::NoKey(error) => Some(error),
            Problem::Directory | Problem::TooLarge | Problem::OwnPublicKey => None,
        }
    }
}

/// Reads a private key.
pub(super) fn private_key(config: &KeyConfig) -> Result<PrivateKey, KeyError> {
    let passphrase = match &config.passphrase_file {
        Some(file) => Some(passphrase(&read(config, file)?)),
        None => None,
    };
    let bytes = read(config, &config.file)?;
    let passphrase = passphrase.as_ref().map(|secret| secret.as_slice());
    PrivateKey::parse(&bytes, passphrase)
        .map_err(|error| KeyError::new(config, &config.file, Problem::NoKey(error)))
}

/// Reads a public key.
pub(super) fn public_key(config: &KeyConfig) -> Result<PublicKey, KeyError> {
    let bytes = read(config, &config.file)?;
    PublicKey::parse(&bytes)
        .map_err(|error| KeyError::new(config, &config.file, Problem::NoKey(error)))
}

/// A file with a secret; its bytes are overwritten when dropped.
fn read(config: &KeyConfig, file: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let fail = |problem| KeyError::new(config, file, problem);
    let opened = File::open(file).map_err(|error| fail(Problem::Unreadable(error)))?;
    let facts = opened
        .metadata()
        .map_err(|error| fail(Problem::Unreadable(error)))?;
    if facts.is_dir() {
        return Err(fail(Problem::Directory));
    }
    // One buffer of the full size: growing would leave copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 * 1024 + 1));
    opened
        .take(LARGEST_KEY_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| fail(Problem::Unreadable(error)))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LARGEST_KEY_FILE) {
        return Err(fail(Problem::TooLarge));
    }
    Ok(bytes)
}

/// A passphrase file without the line end an editor adds.
fn passphrase(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    Zeroizing::new(bytes.strip_suffix(b"\r").unwrap_or(bytes).to_vec())
}
