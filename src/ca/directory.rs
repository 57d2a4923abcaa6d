//! A CA kept in a directory: `ca.pem` for apps, `issuing.pem` and `issuing.key` for the sidecar.
//!
//! Refuses a key others can read, files that do not belong together, and a CA that expired or does not
//! permit a host that is signed for. Who writes holds the directory's lock, so that of two processes
//! that start at once one makes the CA and the other finds it whole.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use zeroize::Zeroizing;

use super::certificate::{Issuer, not_after, not_before};
use super::constraints::Permitted;
use super::error::{AuthorityError, Problem};
use super::file::{exists, make_directory, publish};
use super::local::{Local, Refusal};

/// The CA certificate that apps trust.
pub const ROOT: &str = "ca.pem";
/// The certificate that stands between the root and a host's certificate.
pub const ISSUING: &str = "issuing.pem";
/// Its key.
pub const KEY: &str = "issuing.key";

/// The CA of a directory, made first if there is none, and good for hosts like these.
///
/// # Errors
/// When it cannot be read, made or used.
pub fn load_or_make(
    directory: &Path,
    patterns: &[String],
    life: Duration,
    now: SystemTime,
) -> Result<Local, AuthorityError> {
    let permitted = Permitted::of(patterns)?;
    if let Some(local) = find(directory, patterns, now)? {
        return Ok(local);
    }
    let _lock = lock_to_write(directory)?;
    // Another process may have been faster.
    match read(directory)? {
        Some(local) => check(&local, directory, patterns, now).map(|()| local),
        None => make(directory, &permitted, life, now),
    }
}

/// The CA of a directory, good for hosts like these; nothing where it would have to be made.
///
/// # Errors
/// When it cannot be read or used.
pub fn find(
    directory: &Path,
    patterns: &[String],
    now: SystemTime,
) -> Result<Option<Local>, AuthorityError> {
    let local = read_locked(directory)?;
    if let Some(local) = &local {
        check(local, directory, patterns, now)?;
    }
    Ok(local)
}

/// Makes a CA in a directory; replaces one only when told to.
///
/// # Errors
/// When there is one, or it cannot be made or written.
pub fn create(
    directory: &Path,
    patterns: &[String],
    life: Duration,
    now: SystemTime,
    replace: bool,
) -> Result<Local, AuthorityError> {
    let permitted = Permitted::of(patterns)?;
    let _lock = lock_to_write(directory)?;
    let there = [ROOT, ISSUING, KEY].map(|name| directory.join(name));
    if let Some(file) = there.iter().find(|file| exists(file))
        && !replace
    {
        return Err(Problem::Exists.of(file));
    }
    make(directory, &permitted, life, now)
}

/// The CA of a directory as it is, expired or not.
///
/// # Errors
/// When there is none, or its files are of no use.
pub fn load(directory: &Path) -> Result<Local, AuthorityError> {
    read_locked(directory)?.ok_or_else(|| Problem::Empty(directory.to_owned()).of(directory))
}

/// Whether the CA is good now for hosts like these.
///
/// # Errors
/// With what is wrong and what mends it.
pub fn check(
    local: &Local,
    directory: &Path,
    patterns: &[String],
    now: SystemTime,
) -> Result<(), AuthorityError> {
    let certificates = [(ROOT, &local.root), (ISSUING, &local.issuing.certificate)];
    for (name, certificate) in certificates {
        let file = directory.join(name);
        let (from, to) = (not_before(certificate)?, not_after(certificate)?);
        if now < from {
            return Err(Problem::Early(from, directory.to_owned()).of(&file));
        }
        if now > to {
            return Err(Problem::Expired(to, directory.to_owned()).of(&file));
        }
    }
    for pattern in patterns {
        let file = directory.join(ISSUING);
        let directory = directory.to_owned();
        let problem = match local.accepted(&pattern.replace('*', "x"), now)? {
            Ok(()) => continue,
            Err(Refusal::NotPermitted) => Problem::NotPermitted {
                host: pattern.clone(),
                directory,
            },
            Err(Refusal::Other(why)) => Problem::Refused { why, directory },
        };
        return Err(problem.of(&file));
    }
    Ok(())
}

/// Reads while nobody writes. A missing directory holds no CA.
fn read_locked(directory: &Path) -> Result<Option<Local>, AuthorityError> {
    match File::open(directory) {
        Ok(opened) => {
            opened
                .lock_shared()
                .map_err(|error| Problem::Unreadable(error).of(directory))?;
            read(directory)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Problem::Unreadable(error).of(directory)),
    }
}

/// The lock ends with the file that is returned, or with the process.
fn lock_to_write(directory: &Path) -> Result<File, AuthorityError> {
    let fail = |error| Problem::Unwritable(error).of(directory);
    make_directory(directory, 0o700).map_err(fail)?;
    let opened = File::open(directory).map_err(fail)?;
    opened.lock().map_err(fail)?;
    Ok(opened)
}

fn make(
    directory: &Path,
    permitted: &Permitted,
    life: Duration,
    now: SystemTime,
) -> Result<Local, AuthorityError> {
    let local = Local::make(permitted, life, now)?;
    let key = Zeroizing::new(local.issuing.key.private_key_to_pem_pkcs8()?);
    for (name, content, mode) in [
        (KEY, key.as_slice(), 0o600),
        (ISSUING, &local.issuing.certificate.to_pem()?, 0o644),
        (ROOT, &local.root.to_pem()?, 0o644),
    ] {
        let file = directory.join(name);
        publish(&file, content, mode).map_err(|error| Problem::Unwritable(error).of(&file))?;
    }
    Ok(local)
}

/// The CA, or nothing where none of its files is.
fn read(directory: &Path) -> Result<Option<Local>, AuthorityError> {
    let files = [ROOT, ISSUING, KEY].map(|name| directory.join(name));
    if !files.iter().any(|file| exists(file)) {
        return Ok(None);
    }
    let [root, issuing, key] = &files;
    let root = certificate(root, directory)?;
    let issuer = Issuer {
        certificate: certificate(issuing, directory)?,
        key: private_key(key, directory)?,
    };
    if !issuer.certificate.public_key()?.public_eq(&issuer.key) {
        return Err(Problem::OtherKey(directory.to_owned()).of(key));
    }
    Ok(Some(Local {
        root,
        issuing: issuer,
    }))
}

fn certificate(file: &Path, directory: &Path) -> Result<X509, AuthorityError> {
    let pem = content(file, directory)?;
    X509::from_pem(&pem).map_err(|_syntax| Problem::NoCertificate(directory.to_owned()).of(file))
}

fn private_key(file: &Path, directory: &Path) -> Result<PKey<Private>, AuthorityError> {
    let pem = content(file, directory)?;
    let facts = fs::metadata(file).map_err(|error| Problem::Unreadable(error).of(file))?;
    // A mounted secret belongs to root, and its group is the only way to let us read it.
    let harmless = if facts.uid() == 0 { 0o740 } else { 0o700 };
    let mode = facts.mode() & 0o777;
    if mode & !harmless != 0 {
        let file = file.to_owned();
        return Err(Problem::Open {
            mode,
            file: file.clone(),
        }
        .of(&file));
    }
    // Without this OpenSSL would ask the terminal for a passphrase.
    let no_passphrase = |_: &mut [u8]| Err(ErrorStack::get());
    PKey::private_key_from_pem_callback(&pem, no_passphrase)
        .map_err(|_syntax| Problem::NoKey(directory.to_owned()).of(file))
}

fn content(file: &Path, directory: &Path) -> Result<Zeroizing<Vec<u8>>, AuthorityError> {
    let read = fs::read(file).map(Zeroizing::new);
    read.map_err(|error: io::Error| match error.kind() {
        ErrorKind::NotFound => Problem::Missing(directory.to_owned()).of(file),
        _ => Problem::Unreadable(error).of(file),
    })
}
