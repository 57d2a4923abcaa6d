//! Why the local CA cannot be used, or cannot vouch for a host.
//!
//! The texts are for people: which file, what is wrong, what mends it. No key appears in them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use openssl::error::ErrorStack;

use crate::clock::written;
use crate::net::tls::TlsError;

/// What is wrong with a CA or a request to it.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// No pattern of hosts was given.
    #[error("a local CA needs at least one host to vouch for")]
    NoHosts,
    /// A pattern that would permit every host.
    #[error(
        "\"{0}\" would let the local CA vouch for every host; write the last labels without '*', \
         like open-*-global.alipayplus.com"
    )]
    Pattern(String),
    /// What certificates are not made for.
    #[error("\"{0}\" is no DNS name; the local CA vouches for names only")]
    NoName(String),
    /// A host nobody signs for.
    #[error("the local CA does not vouch for {0}")]
    NotCovered(String),
    /// The CA's time is over.
    #[error("the local CA expired on {}", written(*.0))]
    Over(SystemTime),
    /// A file or directory of the CA is of no use.
    #[error("{}: {problem}", .file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        problem: Problem,
    },
    /// A certificate or key could not be made.
    #[error("the local CA cannot make a certificate: {0}")]
    Crypto(#[from] ErrorStack),
    /// TLS could not be set up with it.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The work ended before it was done.
    #[error("the local CA was interrupted: {0}")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// What is wrong with a file of the CA.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// It cannot be written.
    #[error("cannot be written: {0}")]
    Unwritable(io::Error),
    /// There are others, but not this one.
    #[error("is missing, though the CA's other files are there; {}", mend(.0))]
    Missing(PathBuf),
    /// There is a CA already.
    #[error("there is a CA already, and apps may trust it; --force replaces it")]
    Exists,
    /// There is no CA.
    #[error("holds no CA; make one by: countersign ca create --directory {}", .0.display())]
    Empty(PathBuf),
    /// It is no certificate.
    #[error("holds no certificate in PEM form; {}", mend(.0))]
    NoCertificate(PathBuf),
    /// It is no key.
    #[error("holds no private key in PEM form without passphrase; {}", mend(.0))]
    NoKey(PathBuf),
    /// Others than its owner can read it.
    #[error("others can read or write this key (mode {mode:04o}); mend it by: chmod 600 {}", .file.display())]
    Open {
        /// Who may what.
        mode: u32,
        /// The key.
        file: PathBuf,
    },
    /// Another certificate's key.
    #[error("does not belong to issuing.pem; {}", mend(.0))]
    OtherKey(PathBuf),
    /// Its time is over.
    #[error("expired on {}; {}", written(*.0), mend(.1))]
    Expired(SystemTime, PathBuf),
    /// Its time has not begun.
    #[error("is valid only from {}; look at the clock, or {}", written(*.0), mend(.1))]
    Early(SystemTime, PathBuf),
    /// Its constraints do not cover what is signed for.
    #[error("this CA does not permit {host}; {} --config FILE", mend(.directory))]
    NotPermitted {
        /// The pattern of the configuration.
        host: String,
        /// The CA's directory.
        directory: PathBuf,
    },
    /// Clients would refuse what it signs.
    #[error("clients refuse what this CA signs ({why}); {}", mend(.directory))]
    Refused {
        /// What OpenSSL says.
        why: &'static str,
        /// The CA's directory.
        directory: PathBuf,
    },
}

impl Problem {
    /// The problem of this file.
    pub(super) fn of(self, file: &Path) -> AuthorityError {
        AuthorityError::File {
            file: file.to_owned(),
            problem: self,
        }
    }
}

fn mend(directory: &Path) -> String {
    format!(
        "make a new CA by: countersign ca create --directory {} --force",
        directory.display()
    )
}
