//! Makes TLS settings for hosts, each with a certificate of its own under the local CA.
//!
//! Everything slow is done aside and at first need: the CA in memory, one key pair an algorithm, one
//! certificate a host and algorithm. Refuses hosts the CA may not vouch for. Each setting is of one
//! host, so a TLS session is never resumed at another; early data stays off (ADR 2). Called by
//! `egress`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::pkey::{PKey, Private};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::OnceCell;

use super::cache::{Cache, Minted};
use super::certificate::{self, Validity};
use super::constraints::Permitted;
use super::error::AuthorityError;
use super::local::Local;
use super::{Config, directory};
use crate::clock::Clock;
use crate::net::tls;
use crate::task;
use crate::telemetry::Metrics;

/// How long a host's certificate is valid.
const LIFE: Duration = Duration::from_hours(30 * 24);
/// How long before its end it is made anew.
const MARGIN: Duration = Duration::from_hours(10 * 24);
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The local CA at work; clones share everything.
#[derive(Clone, Debug)]
pub struct Authority(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    permitted: Permitted,
    life: Duration,
    local: OnceCell<Arc<Local>>,
    rsa: OnceCell<Arc<PKey<Private>>>,
    ecdsa: OnceCell<Arc<PKey<Private>>>,
    cache: Cache,
}

/// What a certificate's key is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Algorithm {
    Rsa,
    Ecdsa,
}

impl Authority {
    /// Loads the CA of the configured directory, or makes it there; without a directory it is made
    /// when it is needed.
    ///
    /// # Errors
    /// When a pattern would permit every host, or the directory's CA is of no use. Without a pattern
    /// there is nothing to vouch for, and every certificate is refused.
    pub fn new(config: &Config, patterns: &[String], clock: Clock) -> Result<Self, AuthorityError> {
        let permitted = match patterns {
            [] => Permitted::default(),
            _ => Permitted::of(patterns)?,
        };
        let local = match &config.directory {
            Some(directory) if !patterns.is_empty() => {
                let now = clock.now();
                let local = directory::load_or_make(directory, patterns, config.life, now)?;
                OnceCell::new_with(Some(Arc::new(local)))
            }
            _ => OnceCell::new(),
        };
        Ok(Self(Arc::new(Shared {
            clock,
            permitted,
            life: config.life,
            local,
            rsa: OnceCell::new(),
            ecdsa: OnceCell::new(),
            cache: Cache::default(),
        })))
    }

    /// Whether certificates are made for this host, given in lower case.
    pub fn covers(&self, host: &str) -> bool {
        self.0.permitted.covers(host)
    }

    /// The certificate apps must trust, as PEM; made now if it was not needed before.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn ca_pem(&self) -> Result<String, AuthorityError> {
        let pem = self.0.local().await?.root.to_pem()?;
        Ok(String::from_utf8_lossy(&pem).into_owned())
    }

    /// Shows when the CA ends, if there is one by now.
    pub fn publish(&self, metrics: &Metrics) {
        let end = self.0.local.get().and_then(|local| local.end().ok());
        let since = end.and_then(|end| end.duration_since(UNIX_EPOCH).ok());
        if let Some(since) = since {
            let shown = metrics.local_ca_expiry.with_label_values::<&str>(&[]);
            shown.set(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
        }
    }

    /// The TLS settings for a host, with an ECDSA or an RSA certificate.
    ///
    /// # Errors
    /// When the host is no name or not covered, the CA expired, or a certificate cannot be made.
    pub async fn server_config(
        &self,
        host: &str,
        ecdsa: bool,
    ) -> Result<Arc<ServerConfig>, AuthorityError> {
        let host = canonical(host)?;
        if !self.covers(&host) {
            return Err(AuthorityError::NotCovered(host));
        }
        let algorithm = if ecdsa {
            Algorithm::Ecdsa
        } else {
            Algorithm::Rsa
        };
        let now = self.0.clock.now();
        let place = self.0.cache.place(&host, algorithm, now);
        let minted = place
            .get_or_try_init(|| self.0.mint(host, algorithm, now))
            .await?;
        Ok(Arc::clone(&minted.config))
    }
}

impl Shared {
    async fn mint(
        &self,
        host: String,
        algorithm: Algorithm,
        now: SystemTime,
    ) -> Result<Minted, AuthorityError> {
        let local = self.local().await?;
        let key = self.key(algorithm).await?;
        task::aside(move || mint(&local, &host, &key, now)).await?
    }

    async fn local(&self) -> Result<Arc<Local>, AuthorityError> {
        if self.permitted.names().is_empty() {
            return Err(AuthorityError::NoHosts);
        }
        let made = self.local.get_or_try_init(|| async {
            let (permitted, life, now) = (self.permitted.clone(), self.life, self.clock.now());
            let local = task::aside(move || Local::make(&permitted, life, now)).await??;
            Ok::<_, AuthorityError>(Arc::new(local))
        });
        Ok(Arc::clone(made.await?))
    }

    /// The key all certificates of an algorithm share, in memory only.
    async fn key(&self, algorithm: Algorithm) -> Result<Arc<PKey<Private>>, AuthorityError> {
        let place = match algorithm {
            Algorithm::Rsa => &self.rsa,
            Algorithm::Ecdsa => &self.ecdsa,
        };
        let made = place.get_or_try_init(|| async {
            let key = task::aside(move || match algorithm {
                Algorithm::Rsa => certificate::rsa_key(),
                Algorithm::Ecdsa => certificate::ec_key(),
            });
            Ok::<_, AuthorityError>(Arc::new(key.await??))
        });
        Ok(Arc::clone(made.await?))
    }
}

/// The name as it stands in the certificate.
fn canonical(host: &str) -> Result<String, AuthorityError> {
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    match DnsName::try_from(name.as_str()) {
        Ok(_) => Ok(name),
        Err(_) => Err(AuthorityError::NoName(host.to_owned())),
    }
}

fn mint(
    local: &Local,
    host: &str,
    key: &PKey<Private>,
    now: SystemTime,
) -> Result<Minted, AuthorityError> {
    let end = local.end()?;
    if end <= now {
        return Err(AuthorityError::Over(end));
    }
    let validity = Validity::starting(now, LIFE);
    let leaf = local.vouch(host, key, validity)?;
    let chain = vec![
        CertificateDer::from(leaf.to_der()?),
        CertificateDer::from(local.issuing.certificate.to_der()?),
    ];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.private_key_to_pkcs8()?));
    let config = tls::server(chain, key, &PROTOCOLS)?;
    Ok(Minted {
        config: Arc::new(config),
        // One that ends with the CA cannot be made to live longer.
        renewal: end.min(validity.to.checked_sub(MARGIN).unwrap_or(validity.to)),
    })
}
