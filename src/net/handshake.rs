//! The TLS handshakes of a listener: by the settings of the moment, counted by how they end.
//!
//! Settings are replaced as a whole, for handshakes that begin afterwards; connections that stand go on.
//! With the settings goes their session cache, so no session is resumed that client certificates
//! trusted earlier opened. Refuses to warn of a failed handshake: a port scanner would fill the log.
//! Called by `serve`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::IntCounterVec;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::serve::HANDSHAKE;
use crate::telemetry::Metrics;

/// TLS as a listener speaks it now; clones share it.
#[derive(Clone)]
pub struct Tls {
    settings: Arc<Mutex<Arc<ServerConfig>>>,
    counted: Option<(IntCounterVec, &'static str)>,
}

/// Why there is no TLS with a peer.
#[derive(Debug)]
enum Failed {
    /// It went away, as port scanners and TCP probes do.
    Closed,
    /// It took too long.
    TimedOut,
    /// It showed no certificate though one is required, or one that is not trusted.
    ClientCertificate(io::Error),
    /// Anything else: no TLS, too old a version, or it does not trust us.
    Other(io::Error),
}

impl Tls {
    /// Settings to begin with; handshakes are not counted.
    pub fn new(settings: impl Into<Arc<ServerConfig>>) -> Self {
        Self {
            settings: Arc::new(Mutex::new(settings.into())),
            counted: None,
        }
    }

    /// Counts handshakes under the listener's name.
    #[must_use]
    pub fn counted(self, listener: &'static str, metrics: &Metrics) -> Self {
        Self {
            counted: Some((metrics.handshakes.clone(), listener)),
            ..self
        }
    }

    /// Replaces the settings for handshakes that begin from now on.
    pub fn replace(&self, settings: impl Into<Arc<ServerConfig>>) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings.into();
    }

    /// Shakes hands, at most [`HANDSHAKE`] long.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Option<TlsStream<TcpStream>> {
        let settings = {
            let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(&settings)
        };
        let why = match timeout(HANDSHAKE, TlsAcceptor::from(settings).accept(stream)).await {
            Ok(Ok(stream)) => {
                self.count("ok");
                return Some(stream);
            }
            Ok(Err(error)) => Failed::from(error),
            Err(_elapsed) => Failed::TimedOut,
        };
        self.count(why.result());
        let listener = self.counted.as_ref().map(|(_, listener)| *listener);
        debug!(listener, %peer, result = why.result(), reason = %why, "TLS handshake failed");
        None
    }

    fn count(&self, result: &str) {
        if let Some((handshakes, listener)) = &self.counted {
            handshakes.with_label_values(&[*listener, result]).inc();
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Failed {
    /// The result in `countersign_handshakes_total`.
    fn result(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::TimedOut => "timeout",
            Self::ClientCertificate(_) => "client_certificate",
            Self::Other(_) => "failed",
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the peer closed the connection"),
            Self::TimedOut => write!(f, "it took longer than {HANDSHAKE:?}"),
            Self::ClientCertificate(error) | Self::Other(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => return Self::Closed,
            _ => {}
        }
        match error.get_ref().and_then(|cause| cause.downcast_ref()) {
            // Only a peer's certificate can be invalid here; ours was looked at when it was loaded.
            Some(rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_)) => {
                Self::ClientCertificate(error)
            }
            _ => Self::Other(error),
        }
    }
}
