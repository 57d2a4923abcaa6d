//! Why a key cannot be used, said so that its owner can mend it.
//!
//! Names the file or variable and what was found in it; contents never appear in a message.

use std::error::Error;
use std::fmt;
use std::io;

use countersign_protocol::key::KeyError as FormError;

use super::KeyConfig;
use super::token::TokenError;

/// Why a key cannot be used.
#[derive(Debug)]
pub struct KeyError {
    place: String,
    source: String,
    problem: Problem,
}

#[derive(Debug)]
pub(super) enum Problem {
    Unreadable(io::Error),
    Directory,
    TooLarge,
    NoKey(FormError),
    OwnPublicKey,
    /// The permission bits of a secret's file.
    Exposed(u32),
    NoVariable,
    NotOpen(io::Error),
    Token(Box<TokenError>),
    NotForVerifying,
}

impl KeyError {
    /// A problem with what `source` names, as for people.
    pub(super) fn new(config: &KeyConfig, source: String, problem: Problem) -> Self {
        Self {
            place: config.place.clone(),
            source,
            problem,
        }
    }

    pub(super) fn own_public_key(config: &KeyConfig) -> Self {
        Self::new(config, config.source.to_string(), Problem::OwnPublicKey)
    }

    /// Where the configuration names the key.
    pub fn place(&self) -> &str {
        &self.place
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = &self.source;
        match &self.problem {
            Problem::Unreadable(error) if error.kind() == io::ErrorKind::NotFound => {
                write!(f, "{source}: no such file")
            }
            Problem::Unreadable(error) => write!(f, "{source}: cannot be read: {error}"),
            Problem::Directory => write!(f, "{source}: is a directory; name the key file in it"),
            Problem::TooLarge => write!(f, "{source}: over 64 KiB, so no key"),
            Problem::NoKey(error) => write!(f, "{source}: {error}"),
            Problem::OwnPublicKey => write!(
                f,
                "{source}: this is the partner's own public key; Alipay+'s public key belongs here, \
                 copy it from the Alipay+ console"
            ),
            Problem::Exposed(mode) => write!(
                f,
                "{}, and strict_permissions is true; it must be its owner's alone, as after chmod 600",
                exposed(source, *mode)
            ),
            // Names module, token and key itself, as far as each matters.
            Problem::Token(error) => error.fmt(f),
            Problem::NotForVerifying => {
                write!(
                    f,
                    "{source}: only signing keys can be in a token; name a file"
                )
            }
            Problem::NoVariable => write!(f, "{source}: is not set, or empty"),
            Problem::NotOpen(error) => write!(
                f,
                "{source}: cannot be read: {error}; it must be open for reading at the start, as by \
                 a shell's 3< FILE"
            ),
        }
    }
}

/// What is wrong with the permissions of a secret's file.
pub(super) fn exposed(file: &str, mode: u32) -> String {
    format!("{file}: mode {mode:04o} lets others than its owner read or write it")
}

impl Error for KeyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.problem {
            Problem::Unreadable(error) | Problem::NotOpen(error) => Some(error),
            Problem::NoKey(error) => Some(error),
            Problem::Token(error) => Some(&**error),
            _ => None,
        }
    }
}
