//! Reads the files of a listener's certificate and makes TLS settings of them, or says which is wrong.
//!
//! TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN. Refuses keys no client could verify. File contents
//! never appear in a message.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{Error as TlsError, RootCertStore, ServerConfig, SignatureScheme};
use zeroize::Zeroizing;

use super::error::Problem;
use super::{CertificateError, Clients, Config, Loaded, Source};
use crate::clock::Clock;
use crate::confinement;
use crate::net::{tls, x509};

/// A long chain has some 10 KiB, all the CAs of a system some 250.
const LARGEST_FILE: u64 = 1 << 20;
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// What clients verify, of the keys a certificate can have here.
const SCHEMES: [SignatureScheme; 4] = [
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
];

/// Loads one set of files.
pub(super) fn all(config: &Config, clock: &Clock) -> Result<Loaded, CertificateError> {
    let chain = certificates(&config.certificate, Problem::NoCertificate)?;
    let leaf = |_unreadable| CertificateError::new(&config.certificate, Problem::UnreadableLeaf);
    let first = chain.first().map_or(&[][..], |first| first.as_ref());
    let (from, to) = x509::dates(first).map_err(leaf)?;
    let certified = certify(config, chain)?;
    let verifier = match &config.clients {
        Some(clients) => verifier(clients)?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let time = Arc::new(Time(clock.clone()));
    let mut settings = ServerConfig::builder_with_details(tls::provider(), time)
        .with_safe_default_protocol_versions()
        .map_err(|error| CertificateError::new(&config.certificate, Problem::Settings(error)))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    settings.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
    Ok(Loaded { settings, from, to })
}

/// The chain with its key, which must be the first certificate's.
fn certify(
    config: &Config,
    chain: Vec<CertificateDer<'static>>,
) -> Result<CertifiedKey, CertificateError> {
    let key = key(&config.key)?;
    let fits = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], Arc::clone(&key)).keys_match()
    };
    let Some((first, rest)) = chain.split_first() else {
        let missing = Problem::NoCertificate;
        return Err(CertificateError::new(&config.certificate, missing));
    };
    match fits(first) {
        Ok(()) => Ok(CertifiedKey::new(chain, key)),
        Err(TlsError::InconsistentKeys(_)) => {
            let further_down = rest.iter().any(|certificate| fits(certificate).is_ok());
            let problem = Problem::OtherKey(config.certificate.file.clone(), further_down);
            Err(CertificateError::new(&config.key, problem))
        }
        Err(error) => {
            let problem = Problem::Settings(error);
            Err(CertificateError::new(&config.certificate, problem))
        }
    }
}

fn key(source: &Source) -> Result<Arc<dyn SigningKey>, CertificateError> {
    let fail = |problem| CertificateError::new(source, problem);
    let pem = read(source)?;
    let der = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        PemError::NoItemsFound if is_encrypted(&pem) => fail(Problem::EncryptedKey),
        PemError::NoItemsFound => fail(Problem::NoKey),
        _ if is_encrypted(&pem) => fail(Problem::EncryptedKey),
        _ => fail(Problem::Damaged),
    })?;
    let key = tls::provider().key_provider.load_private_key(der).ok();
    key.filter(|key| key.choose_scheme(&SCHEMES).is_some())
        .ok_or_else(|| fail(Problem::UnusableKey))
}

/// Whether a key is encrypted: in PKCS#8, or in the older way that says so in a header of the block.
fn is_encrypted(pem: &[u8]) -> bool {
    [
        &b"BEGIN ENCRYPTED PRIVATE KEY"[..],
        b"Proc-Type: 4,ENCRYPTED",
    ]
    .iter()
    .any(|sign| pem.windows(sign.len()).any(|window| window == *sign))
}

fn verifier(clients: &Clients) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    let unusable = || CertificateError::new(&clients.ca, Problem::NoAuthority);
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&clients.ca, Problem::NoAuthority)? {
        // Each of them, or somebody would be locked out without a word.
        roots.add(certificate).map_err(|_unusable| unusable())?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider());
    let builder = if clients.required {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    builder.build().map_err(|_no_roots| unusable())
}

/// All certificates of a file; `none` is the problem of a file without.
fn certificates(
    source: &Source,
    none: Problem,
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let pem = read(source)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(CertificateError::new(source, none)),
        Err(_damaged) => Err(CertificateError::new(source, Problem::Damaged)),
    }
}

/// A file that may hold a key; its bytes are overwritten when dropped.
fn read(source: &Source) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    let fail = |problem| CertificateError::new(source, problem);
    let unreadable = |error| fail(Problem::Unreadable(error));
    let file = File::open(&source.file);
    let file = file.map_err(|error| unreadable(confinement::explain(&source.file, error)))?;
    let facts = file.metadata().map_err(unreadable)?;
    if facts.is_dir() {
        return Err(fail(Problem::Directory));
    }
    if facts.len() > LARGEST_FILE {
        return Err(fail(Problem::TooLarge));
    }
    // One buffer of the full size and a byte to see the end: growing would leave copies of a key.
    let size = usize::try_from(facts.len()).unwrap_or(0);
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + 1));
    file.take(LARGEST_FILE)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(bytes)
}

/// The process's clock for the dates of client certificates.
#[derive(Debug)]
struct Time(Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let since = self.0.now().duration_since(UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}
