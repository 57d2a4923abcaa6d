//! Reads one key from where the configuration says it is, and collects what is wrong with all of them.
//!
//! Refuses anything the protocol crate does not take. What was read is overwritten after use.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use countersign_protocol::{PrivateKey, PublicKey};
use rustix::fs::{StatVfsMountFlags, statfs, statvfs};
use zeroize::Zeroizing;

use super::error::{Problem, exposed};
use super::identity::SigningKey;
use super::token::{self, TokenKey};
use super::{Environment, KeyConfig, KeyError, Source, named};
use crate::confinement;

/// No key comes near this size, in bytes.
const LARGEST: u64 = 64 * 1024;
/// Permissions of group and others to read or write; to execute says nothing.
const OF_OTHERS: u32 = 0o066;

/// `TMPFS_MAGIC` of statfs(2).
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// What was read; overwritten when dropped.
type Secret = Zeroizing<Vec<u8>>;

/// Reads keys, and keeps what is wrong with them.
pub(super) struct Reader<'a> {
    environment: &'a Environment,
    now: SystemTime,
    warnings: Vec<String>,
    problems: Vec<KeyError>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(environment: &'a Environment, now: SystemTime) -> Self {
        Self {
            environment,
            now,
            warnings: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Since when the keys it reads are in use.
    pub(super) fn now(&self) -> SystemTime {
        self.now
    }

    pub(super) fn problem(&mut self, problem: KeyError) {
        self.problems.push(problem);
    }

    /// Warnings, and problems.
    pub(super) fn finish(self) -> (Vec<String>, Vec<KeyError>) {
        (self.warnings, self.problems)
    }

    /// Reads or opens a signing key; a problem is kept.
    pub(super) fn signing_key(&mut self, config: &KeyConfig) -> Option<SigningKey> {
        let key = match &config.source {
            Source::Token(token) => self.open(config, token).map(SigningKey::Token),
            _ => self.private_key(config).map(SigningKey::Held),
        };
        key.map_err(|problem| self.problem(problem)).ok()
    }

    /// Reads a public key; a problem is kept.
    pub(super) fn public_key(&mut self, config: &KeyConfig) -> Option<PublicKey> {
        let bytes = self.bytes(config);
        let key = bytes.and_then(|bytes| {
            let key = PublicKey::parse(&bytes);
            key.map_err(|error| fail(config, Problem::NoKey(error)))
        });
        key.map_err(|problem| self.problem(problem)).ok()
    }

    fn open(&mut self, config: &KeyConfig, token: &token::Config) -> Result<TokenKey, KeyError> {
        if let Some(file) = &token.pin_file {
            self.look_at_secret(config, file, "pin_file")?;
        }
        TokenKey::open(token).map_err(|error| fail(config, Problem::Token(Box::new(error))))
    }

    fn private_key(&mut self, config: &KeyConfig) -> Result<PrivateKey, KeyError> {
        let passphrase = match &config.passphrase_file {
            Some(file) => {
                self.look_at_secret(config, file, "passphrase_file")?;
                Some(line(&file_bytes(config, file)?))
            }
            None => None,
        };
        if let Source::File(file) = &config.source {
            self.look_at_permissions(config, file)?;
        }
        let bytes = self.bytes(config)?;
        let passphrase = passphrase.as_ref().map(|secret| secret.as_slice());
        let key = PrivateKey::parse(&bytes, passphrase);
        key.map_err(|error| fail(config, Problem::NoKey(error)))
    }

    fn bytes(&self, config: &KeyConfig) -> Result<Secret, KeyError> {
        match &config.source {
            Source::File(file) => file_bytes(config, file),
            Source::Variable(name) => {
                let value = self.environment.variable(name);
                let value = value.filter(|value| !value.is_empty());
                let value = value.ok_or_else(|| fail(config, Problem::NoVariable))?;
                Ok(Zeroizing::new(value.into_vec()))
            }
            Source::Descriptor(number) => {
                // Opened by its name, as to take over a number would be `unsafe`; a pipe is the same
                // pipe, and it is empty afterwards.
                let file = PathBuf::from(format!("/dev/fd/{number}"));
                let opened = File::open(file);
                let bytes = opened.and_then(|opened| whole(opened, LARGEST));
                let bytes = bytes.map_err(|error| fail(config, Problem::NotOpen(error)))?;
                sized(bytes).ok_or_else(|| fail(config, Problem::TooLarge))
            }
            Source::Token(_) => Err(fail(config, Problem::NotForVerifying)),
        }
    }

    /// The same for a file with a passphrase or PIN. Its name is not shown when it is not there: it may
    /// be the secret itself, by mistake.
    fn look_at_secret(
        &mut self,
        config: &KeyConfig,
        file: &Path,
        key: &str,
    ) -> Result<(), KeyError> {
        if !file.exists() {
            let name = format!("the file that {key} names");
            let missing = Problem::Unreadable(io::ErrorKind::NotFound.into());
            return Err(KeyError::new(config, name, missing));
        }
        self.look_at_permissions(config, file)
    }

    /// Refuses or reports a secret that others may read or write. One that is not there is reported
    /// when it is read.
    fn look_at_permissions(&mut self, config: &KeyConfig, file: &Path) -> Result<(), KeyError> {
        let Ok(facts) = file.metadata() else {
            return Ok(());
        };
        let mode = facts.permissions().mode() & 0o7777;
        if mode & OF_OTHERS == 0 || !facts.is_file() || is_mounted_secret(file) {
            return Ok(());
        }
        let name = named(file).into_owned();
        if config.strict_permissions {
            return Err(KeyError::new(config, name, Problem::Exposed(mode)));
        }
        let exposed = exposed(&name, mode);
        self.warnings.push(format!(
            "{}: {exposed}; chmod 600 it, or set strict_permissions to have such files refused",
            config.place
        ));
        Ok(())
    }
}

/// Whether a file is in memory and on a mount nobody can write through, as Kubernetes mounts a Secret: who
/// sees it is decided by whom it is mounted for, and it must be readable for a user who is not root.
fn is_mounted_secret(file: &Path) -> bool {
    let in_memory = statfs(file).is_ok_and(|facts| facts.f_type == TMPFS);
    let flags = statvfs(file).map(|facts| facts.f_flag);
    in_memory && flags.is_ok_and(|flags| flags.contains(StatVfsMountFlags::RDONLY))
}

fn fail(config: &KeyConfig, problem: Problem) -> KeyError {
    KeyError::new(config, config.source.to_string(), problem)
}

fn file_bytes(config: &KeyConfig, file: &Path) -> Result<Secret, KeyError> {
    let fail = |problem| KeyError::new(config, named(file).into_owned(), problem);
    let opened = File::open(file)
        .map_err(|error| fail(Problem::Unreadable(confinement::explain(file, error))))?;
    let facts = opened
        .metadata()
        .map_err(|error| fail(Problem::Unreadable(error)))?;
    if facts.is_dir() {
        return Err(fail(Problem::Directory));
    }
    let bytes = whole(opened, LARGEST).map_err(|error| fail(Problem::Unreadable(error)))?;
    sized(bytes).ok_or_else(|| fail(Problem::TooLarge))
}

/// At most one byte over `most`.
fn whole(from: impl Read, most: u64) -> io::Result<Secret> {
    // One buffer of the full size: growing would leave copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 * 1024 + 1));
    from.take(most + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn sized(bytes: Secret) -> Option<Secret> {
    let fits = u64::try_from(bytes.len()).is_ok_and(|length| length <= LARGEST);
    fits.then_some(bytes)
}

/// A passphrase or PIN without the line end an editor adds.
fn line(bytes: &[u8]) -> Secret {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    Zeroizing::new(bytes.strip_suffix(b"\r").unwrap_or(bytes).to_vec())
}
