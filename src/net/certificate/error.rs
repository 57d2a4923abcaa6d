//! Why a listener's certificate cannot be shown, in words that name the file and never quote it.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use super::Source;

/// Why a certificate, its key or the client CAs cannot be used.
#[derive(Debug)]
pub struct CertificateError {
    place: String,
    file: PathBuf,
    problem: Problem,
}

#[derive(Debug)]
pub(super) enum Problem {
    Unreadable(io::Error),
    Directory,
    TooLarge,
    Damaged,
    NoCertificate,
    UnreadableLeaf,
    NoKey,
    EncryptedKey,
    UnusableKey,
    /// The key belongs to another certificate than the first of that file; perhaps to one further
    /// down in it.
    OtherKey(PathBuf, bool),
    NoAuthority,
    Settings(rustls::Error),
}

impl CertificateError {
    pub(super) fn new(source: &Source, problem: Problem) -> Self {
        Self {
            place: source.place.clone(),
            file: source.file.clone(),
            problem,
        }
    }

    /// Where the configuration names the file.
    pub fn place(&self) -> &str {
        &self.place
    }
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file.display())?;
        match &self.problem {
            Problem::Unreadable(error) if error.kind() == io::ErrorKind::NotFound => {
                f.write_str("no such file")
            }
            Problem::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Problem::Directory => f.write_str("is a directory; name the file in it"),
            Problem::TooLarge => f.write_str("over 1 MiB, so no file of certificates or keys"),
            Problem::Damaged => f.write_str("is cut short or damaged; a whole PEM file is needed"),
            Problem::NoCertificate => f.write_str(
                "holds no certificate; a PEM file with CERTIFICATE blocks is needed, the server's \
                 own first",
            ),
            Problem::UnreadableLeaf => f.write_str("its first certificate cannot be read"),
            Problem::NoKey => f.write_str(
                "holds no private key; a PEM file with a PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE \
                 KEY block is needed",
            ),
            Problem::EncryptedKey => {
                f.write_str("the private key is encrypted; a plain one is needed")
            }
            Problem::UnusableKey => f.write_str(
                "the private key cannot be used; RSA, or EC on P-256, P-384 or P-521 is needed",
            ),
            Problem::OtherKey(certificates, further_down) => {
                let certificates = certificates.display();
                write!(f, "the private key does not fit the first certificate of {certificates}")?;
                if *further_down {
                    f.write_str(" but a later one; the server's own must come first")?;
                }
                Ok(())
            }
            Problem::NoAuthority => f.write_str(
                "holds no usable CA certificate; a PEM file with CERTIFICATE blocks is needed",
            ),
            Problem::Settings(error) => write!(f, "TLS cannot be set up: {error}"),
        }
    }
}

impl Error for CertificateError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.problem {
            Problem::Unreadable(error) => Some(error),
            Problem::Settings(error) => Some(error),
            _ => None,
        }
    }
}
