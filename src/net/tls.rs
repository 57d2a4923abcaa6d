//! TLS settings: whom we trust upstream, and what our own TLS listeners show.
//!
//! One crypto provider for the whole process: OpenSSL, the library that also does the signatures.
//! Refuses certificates that the system's roots (or the bundled ones, where there are none) and the
//! extra CA file do not vouch for; there is no switch to skip that.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tracing::warn;

use crate::confinement;

/// Why TLS cannot be set up.
#[derive(Debug)]
pub enum TlsError {
    /// A file that cannot be read.
    Unreadable(PathBuf, io::Error),
    /// A file that holds no usable certificate.
    NoCertificate(PathBuf),
    /// The provider refuses the settings.
    Settings(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(file, error) if error.kind() == io::ErrorKind::NotFound => {
                write!(f, "{}: no such file", file.display())
            }
            Self::Unreadable(file, error) => {
                write!(f, "{}: cannot be read: {error}", file.display())
            }
            Self::NoCertificate(file) => write!(
                f,
                "{}: holds no usable CA certificate; a PEM file with CERTIFICATE blocks is needed",
                file.display()
            ),
            Self::Settings(error) => write!(f, "TLS cannot be set up: {error}"),
        }
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unreadable(_, error) => Some(error),
            Self::Settings(error) => Some(error),
            Self::NoCertificate(_) => None,
        }
    }
}

/// The process's crypto provider.
pub fn provider() -> Arc<CryptoProvider> {
    // Made once: making it tries every key exchange.
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls_openssl::default_provider()));
    Arc::clone(&PROVIDER)
}

/// The root certificates of the system, or the bundled ones where the system has none.
pub fn system_roots() -> Vec<CertificateDer<'static>> {
    let native = rustls_native_certs::load_native_certs();
    if !native.certs.is_empty() {
        return native.certs;
    }
    if let Some(error) = native.errors.first() {
        warn!(%error, "no system certificates, using the bundled ones");
    }
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec()
}

/// The certificates we trust: [`system_roots`] and those of `extra`.
///
/// # Errors
/// When `extra` cannot be used. A system root that cannot be parsed is skipped, as browsers do.
pub fn roots(extra: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(system_roots());
    if let Some(file) = extra {
        let (added, _) = roots.add_parsable_certificates(certificates(file)?);
        if added == 0 {
            return Err(TlsError::NoCertificate(file.to_owned()));
        }
    }
    Ok(roots)
}

/// Settings for connections to the gateway: verified certificates, HTTP/2 and HTTP/1.1 by ALPN.
///
/// # Errors
/// When the provider offers no usable protocol version, which would be a defect.
pub fn client(roots: RootCertStore) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Settings)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Settings for a TLS listener that offers these protocols by ALPN, the preferred one first.
///
/// # Errors
/// When the key does not fit the certificate.
pub fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    protocols: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Settings)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Settings)?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// Settings for a TLS listener that has no certificate yet: every handshake fails at once.
///
/// # Errors
/// When the provider offers no usable protocol version, which would be a defect.
pub fn nothing_to_show() -> Result<ServerConfig, TlsError> {
    Ok(ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Settings)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Nothing)))
}

/// Shows no certificate to anybody.
#[derive(Debug)]
struct Nothing;

impl ResolvesServerCert for Nothing {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// The certificates of a PEM file.
///
/// # Errors
/// When it cannot be read or holds none.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = fs::read(file).map_err(|error| {
        let error = confinement::explain(file, error);
        TlsError::Unreadable(file.to_owned(), error)
    })?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(TlsError::NoCertificate(file.to_owned())),
    }
}
