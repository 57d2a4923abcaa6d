//! What apps must be given so that they trust the local CA: files, and the settings that name them.
//!
//! Everything here is public. Settings such as `SSL_CERT_FILE` and Java's trust store replace what a
//! runtime trusts by itself, so the files for them hold the system's roots as well. Called by `app`,
//! by `countersign ca bundle`, and by `kube`, which hands the variables to apps in pods.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::x509::X509;

use super::file::{make_directory, publish};
use super::{jks, pkcs12};
use crate::net::tls;

/// The CA alone.
pub const CA: &str = "ca.pem";
/// The CA and the system's roots.
pub const BUNDLE: &str = "ca-bundle.pem";
/// The same for Java.
pub const PKCS12: &str = "truststore.p12";
/// The same for Java older than 8u301.
pub const JKS: &str = "truststore.jks";
/// What Java's own stores have; it guards nothing, as nothing here is secret.
pub const PASSWORD: &str = "changeit";

/// The variable with options for every Java machine.
pub const JAVA: &str = "JAVA_TOOL_OPTIONS";

/// Why the files could not be written.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file or the directory is not to be written.
    #[error("{}: cannot be written: {error}", .file.display())]
    Unwritable {
        /// Which.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// OpenSSL cannot read the CA or write a store.
    #[error("the trust store cannot be made: {0}")]
    Crypto(#[from] ErrorStack),
}

/// A certificate in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trusted {
    /// What it is called there: lower case, as Java has it, and given once.
    pub(super) alias: String,
    /// Whose it is, for people.
    pub(super) subject: String,
    pub(super) der: Vec<u8>,
}

/// One setting that makes a runtime trust the CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// Which runtimes.
    pub runtime: &'static str,
    /// The environment variable, or the arguments, ready to paste.
    pub setting: String,
}

/// One environment variable that does so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Which runtimes look at it.
    pub runtime: &'static str,
    /// What it is called.
    pub name: &'static str,
    /// What must stand there.
    pub value: String,
}

/// Writes all files for apps into a directory, which is made if it is missing; returns how many
/// certificates the bundle and the stores hold.
///
/// # Errors
/// [`TrustError`]; files that were written before stay.
pub fn write(directory: &Path, ca_pem: &str, now: SystemTime) -> Result<usize, TrustError> {
    let entries = entries(ca_pem)?;
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let milliseconds = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let fail = |file: &Path, error| TrustError::Unwritable {
        file: file.to_owned(),
        error,
    };
    make_directory(directory, 0o755).map_err(|error| fail(directory, error))?;
    for (name, content) in [
        (CA, ca_pem.as_bytes().to_vec()),
        (BUNDLE, bundle(&entries)?),
        (PKCS12, pkcs12::write(&entries, PASSWORD)?),
        (JKS, jks::write(&entries, PASSWORD, milliseconds)),
    ] {
        let file = directory.join(name);
        publish(&file, &content, 0o644).map_err(|error| fail(&file, error))?;
    }
    Ok(entries.len())
}

/// The environment variables that make runtimes trust the CA, with a directory as [`write()`] leaves it.
pub fn variables(directory: &Path) -> Vec<Variable> {
    let file = |name| directory.join(name).display().to_string();
    let variable = |runtime, name, value| Variable {
        runtime,
        name,
        value,
    };
    vec![
        variable(
            "OpenSSL, Python, Ruby, Go, .NET",
            "SSL_CERT_FILE",
            file(BUNDLE),
        ),
        variable("Python requests", "REQUESTS_CA_BUNDLE", file(BUNDLE)),
        variable("curl", "CURL_CA_BUNDLE", file(BUNDLE)),
        variable("Node", "NODE_EXTRA_CA_CERTS", file(CA)),
        variable("Deno", "DENO_CERT", file(CA)),
        variable("Java", JAVA, java(&file(PKCS12), "PKCS12")),
    ]
}

/// The settings for each runtime, with such a directory.
pub fn hints(directory: &Path) -> Vec<Hint> {
    let file = |name| directory.join(name).display().to_string();
    let set = |runtime, name: &str, value: &str| Hint {
        runtime,
        setting: if value.contains(' ') {
            format!("{name}=\"{value}\"")
        } else {
            format!("{name}={value}")
        },
    };
    let variables = variables(directory);
    let mut hints: Vec<Hint> = variables
        .iter()
        .map(|variable| set(variable.runtime, variable.name, &variable.value))
        .collect();
    hints.push(set("Java before 8u301", JAVA, &java(&file(JKS), "JKS")));
    let bundle = file(BUNDLE);
    hints.push(Hint {
        runtime: "PHP",
        setting: format!("php -d openssl.cafile={bundle} -d curl.cainfo={bundle}"),
    });
    hints
}

fn java(store: &str, kind: &str) -> String {
    format!(
        "-Djavax.net.ssl.trustStore={store} -Djavax.net.ssl.trustStorePassword={PASSWORD} \
         -Djavax.net.ssl.trustStoreType={kind}"
    )
}

/// The CA and the system's roots, each once; a root OpenSSL cannot read is left out.
fn entries(ca_pem: &str) -> Result<Vec<Trusted>, ErrorStack> {
    let ca = X509::from_pem(ca_pem.as_bytes())?;
    let roots = tls::system_roots();
    let roots = roots.iter().filter_map(|der| X509::from_der(der).ok());
    let (mut seen, mut aliases) = (HashSet::new(), HashSet::new());
    let mut entries = Vec::new();
    for certificate in std::iter::once(ca).chain(roots) {
        let der = certificate.to_der()?;
        if seen.insert(der.clone()) {
            let subject = subject(&certificate);
            let alias = alias(&subject, &mut aliases);
            entries.push(Trusted {
                alias,
                subject,
                der,
            });
        }
    }
    Ok(entries)
}

/// PEM blocks, each behind a line that says whose it is.
fn bundle(entries: &[Trusted]) -> Result<Vec<u8>, ErrorStack> {
    let mut bundle = Vec::new();
    for entry in entries {
        bundle.extend(format!("# {}\n", entry.subject).into_bytes());
        bundle.extend(X509::from_der(&entry.der)?.to_pem()?);
    }
    Ok(bundle)
}

/// The name people know a CA by, on one line of ASCII: some runtimes read comments as they read PEM.
fn subject(certificate: &X509) -> String {
    let names = [
        Nid::COMMONNAME,
        Nid::ORGANIZATIONALUNITNAME,
        Nid::ORGANIZATIONNAME,
    ];
    let name = names.iter().find_map(|kind| {
        let entry = certificate.subject_name().entries_by_nid(*kind).next()?;
        entry.data().to_string().ok()
    });
    let printable = |c: char| {
        if c == ' ' || c.is_ascii_graphic() {
            c
        } else {
            '?'
        }
    };
    name.unwrap_or_default().chars().map(printable).collect()
}

fn alias(subject: &str, taken: &mut HashSet<String>) -> String {
    let words = subject.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let base = words.join("-").to_ascii_lowercase();
    let mut alias = base.clone();
    let mut number = 2;
    while alias.is_empty() || !taken.insert(alias.clone()) {
        alias = format!("{base}-{number}");
        number += 1;
    }
    alias
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_lower_case_and_never_the_same() {
        let mut taken = HashSet::new();
        let mut next = |subject| alias(subject, &mut taken);
        assert_eq!(next("ISRG Root X1"), "isrg-root-x1");
        assert_eq!(next("ISRG root (X1)"), "isrg-root-x1-2");
        assert_eq!(next("isrg root x1 2"), "isrg-root-x1-2-2");
        assert_eq!(next("????"), "-2");
        assert_eq!(next(""), "-3");
    }
}
