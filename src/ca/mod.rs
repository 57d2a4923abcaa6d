//! The local CA: certificates made on the fly for the hosts that are signed for.
//!
//! To look into an app's TLS, the sidecar ends it with a certificate of its own, which the app trusts
//! because it was given this CA. What the CA may vouch for is written into its certificates as
//! critical name constraints, so it is worth nothing for any other site. Refuses hosts outside of
//! them. Used by `egress`, `cli` and, for its throw-away certificate, by the sandbox.
//!
//! The CA that apps trust signs one issuing CA and its key is dropped at once; only the issuing key is
//! kept. One CA would do for most clients, but Java does not look at the name constraints of what it
//! trusts, only at those of certificates below.

mod authority;
mod cache;
pub mod certificate;
mod constraints;
mod der;
pub mod directory;
mod error;
mod file;
mod jks;
pub mod local;
mod pkcs12;
pub mod service;
pub mod trust;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use authority::Authority;
pub use constraints::Permitted;
pub use error::{AuthorityError, Problem};

/// Where the CA and what apps must trust are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the CA is kept; without one it is made anew in memory at every start.
    pub directory: Option<PathBuf>,
    /// How long a CA that is made is valid.
    pub life: Duration,
    /// Where the files for apps are written, if anywhere.
    pub trust_directory: Option<PathBuf>,
}

/// How long a CA is valid unless the configuration says otherwise: ten years.
pub const LIFE: Duration = Duration::from_hours(3650 * 24);

impl Config {
    /// Makes the directories that are written to, where they are missing; who confines the process to
    /// them needs them there. What cannot be made is told by who writes to it.
    pub fn make_directories(&self) -> Vec<&Path> {
        let all = [(&self.directory, 0o700), (&self.trust_directory, 0o755)];
        let named = all.into_iter().filter_map(|(directory, mode)| {
            let directory = directory.as_deref()?;
            let made = file::make_directory(directory, mode);
            made.ok().map(|()| directory)
        });
        named.collect()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            directory: None,
            life: LIFE,
            trust_directory: None,
        }
    }
}
