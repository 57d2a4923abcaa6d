//! The certificate a listener shows, loaded anew when its files change, and whose client certificates
//! it takes.
//!
//! All or nothing: files that cannot be used, or do not fit each other, change nothing at a reload, and
//! the last good set goes on. Refuses such files at the start. An expired certificate is shown with a
//! warning: to refuse all calls would help nobody. Revocation is not looked at. Prepared and followed
//! by `app`.

mod error;
mod load;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::ServerConfig;
use tracing::{info, warn};

pub use error::CertificateError;

use super::drain::Drain;
use super::handshake::Tls;
use super::watch::Watch;
use crate::clock::{Clock, written};
use crate::task;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Reload;

/// Where a listener's certificate is.
#[derive(Clone, Debug)]
pub struct Config {
    /// The chain as PEM, the server's own certificate first.
    pub certificate: Source,
    /// The private key as PEM, plain; may be the same file.
    pub key: Source,
    /// Whose client certificates are taken.
    pub clients: Option<Clients>,
    /// How often the files are looked at.
    pub reload_interval: Duration,
}

/// A file, and the place where the configuration names it, for messages.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// `FILE:LINE: key.path`.
    pub place: String,
}

/// What clients must show.
#[derive(Clone, Debug)]
pub struct Clients {
    /// The CAs they may come from, as PEM.
    pub ca: Source,
    /// Whether those without a certificate are refused.
    pub required: bool,
}

/// A certificate that can be shown.
#[derive(Debug)]
pub struct Served {
    config: Config,
    clock: Clock,
    watch: Watch,
    loaded: Loaded,
}

/// One good set of files.
#[derive(Debug)]
struct Loaded {
    settings: ServerConfig,
    from: SystemTime,
    to: SystemTime,
}

impl Served {
    /// Loads it; one out of its time is a warning only.
    ///
    /// # Errors
    /// When a file cannot be used, or the files do not fit each other.
    pub fn load(config: &Config, clock: &Clock) -> Result<Self, CertificateError> {
        let clients = config.clients.iter().map(|clients| &clients.ca);
        let sources = [&config.certificate, &config.key]
            .into_iter()
            .chain(clients);
        let files = sources.map(|source| source.file.clone()).collect();
        let watch = Watch::new(files);
        let loaded = load::all(config, clock)?;
        if let Some(why) = loaded.out_of_time(clock.now()) {
            warn!(file = %config.certificate.file.display(), "the certificate {why}");
        }
        Ok(Self {
            config: config.clone(),
            clock: clock.clone(),
            watch,
            loaded,
        })
    }

    /// What is shown, in words: `certificate.pem, valid until 2027-01-01T00:00:00Z, client
    /// certificates required`.
    pub fn summary(&self) -> String {
        let file = self.config.certificate.file.display();
        let valid = match self.loaded.out_of_time(self.clock.now()) {
            Some(why) => why.to_uppercase(),
            None => format!("valid until {}", written(self.loaded.to)),
        };
        let clients = match &self.config.clients {
            Some(clients) if clients.required => ", client certificates required",
            Some(_) => ", client certificates optional",
            None => "",
        };
        format!("{file}, {valid}{clients}")
    }

    /// Begins to watch the files until the drain closes; returns the TLS of the listener of that
    /// name, which always shows the last good set; reloads are counted as `what`.
    pub fn follow(
        self,
        listener: &'static str,
        what: Reload,
        metrics: &Metrics,
        drain: Drain,
    ) -> Tls {
        let Self {
            config,
            clock,
            watch,
            loaded,
        } = self;
        let expiry = metrics.certificate_expiry.with_label_values(&[listener]);
        expiry.set(seconds(loaded.to));
        metrics.can_reload(what);
        let tls = Tls::new(loaded.settings).counted(listener, metrics);
        let every = config.reload_interval;
        let (shown, metrics) = (tls.clone(), metrics.clone());
        let reload = move || {
            let (config, clock) = (config.clone(), clock.clone());
            let (shown, metrics, expiry) = (shown.clone(), metrics.clone(), expiry.clone());
            async move {
                let loaded = reload(listener, config, clock).await;
                let ok = loaded.is_some();
                if let Some(loaded) = loaded {
                    expiry.set(seconds(loaded.to));
                    shown.replace(loaded.settings);
                }
                metrics.reloaded(what, ok);
            }
        };
        drop(task::spawn(watch.run(every, drain, reload)));
        tls
    }
}

/// Loads the files again and says in the log what came of it.
async fn reload(listener: &str, config: Config, clock: Clock) -> Option<Loaded> {
    let now = clock.now();
    let certificate = config.certificate.file.clone();
    let file = certificate.display();
    let loaded = match task::aside(move || load::all(&config, &clock)).await {
        Ok(Ok(loaded)) => loaded,
        Ok(Err(error)) => {
            warn!(listener, reason = %error, "certificate not reloaded, the last good one stays");
            return None;
        }
        Err(error) => {
            warn!(listener, reason = %error, "certificate not reloaded, the last good one stays");
            return None;
        }
    };
    if let Some(why) = loaded.out_of_time(now) {
        warn!(listener, %file, "the certificate {why}");
    }
    let until = written(loaded.to);
    info!(listener, %file, until, "certificate reloaded");
    Some(loaded)
}

impl Loaded {
    /// What is wrong with its dates.
    fn out_of_time(&self, now: SystemTime) -> Option<String> {
        if now > self.to {
            Some(format!("expired at {}", written(self.to)))
        } else if now < self.from {
            Some(format!("is not valid before {}", written(self.from)))
        } else {
            None
        }
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
