//! TLS with the app: ends it with a certificate of the local CA, so that requests can be signed.
//!
//! Counts how every handshake ended and says in the log what a person can do about it. Refuses names
//! that do not fit; the app is told by a TLS alert (RFC 8446 section 6).

use std::error::Error;
use std::fmt;
use std::io;

use rustls::AlertDescription;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use super::arrival::Arrival;
use super::reception::{App, Reception};
use crate::net::opening::Hello;
use crate::net::serve::HANDSHAKE;
use crate::upstream::Host;

/// Alerts that are told without TLS, each fatal and in a record of its own.
const UNRECOGNIZED_NAME: u8 = 112;
const ACCESS_DENIED: u8 = 49;
const HANDSHAKE_FAILURE: u8 = 40;

/// Why TLS with the app did not come about.
#[derive(Debug)]
pub(super) enum Failed {
    /// The app does not trust the local CA.
    Distrusted(AlertDescription),
    /// The server name is not the host of the CONNECT.
    NameMismatch,
    /// No server name, and nothing to guess it from.
    Nameless,
    /// It did not come to an end in time.
    TimedOut,
    /// What came is no TLS greeting.
    Malformed,
    /// The port is none of those that are signed for.
    WrongPort(u16),
    /// The client left before it had asked for anything.
    Left,
    /// The app closed the connection when it had seen the certificate.
    Closed,
    /// The connection broke, or TLS found no common ground.
    Broken(io::Error),
    /// No certificate could be made.
    NoCertificate(Box<dyn Error + Send + Sync>),
}

impl Failed {
    /// The result in `countersign_interceptions_total`.
    fn result(&self) -> &'static str {
        match self {
            Self::Distrusted(_) => "distrusted",
            Self::NameMismatch => "name_mismatch",
            Self::Nameless => "no_name",
            Self::TimedOut => "timeout",
            Self::Malformed => "malformed",
            Self::WrongPort(_) => "wrong_port",
            Self::Left => "left",
            Self::Closed => "closed",
            Self::Broken(_) => "broken",
            Self::NoCertificate(_) => "no_certificate",
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Distrusted(alert) => write!(
                f,
                "the app does not trust the local CA (alert {alert:?}); give it the trust material \
                 of countersign ca bundle, and restart it if the sidecar's CA is new"
            ),
            Self::NameMismatch => {
                f.write_str("the TLS server name is not the host that CONNECT asked for")
            }
            Self::Nameless => f.write_str(
                "the client names no server (SNI), and egress.default_host is not set to guess it",
            ),
            Self::TimedOut => write!(f, "the handshake took longer than {HANDSHAKE:?}"),
            Self::Malformed => f.write_str("what came is no TLS greeting that can be read"),
            Self::WrongPort(port) => write!(
                f,
                "the host is signed for on ports 443 and 80 only, and this is for port {port}"
            ),
            Self::Left => {
                f.write_str("the client left before its TLS greeting was complete; a probe does so")
            }
            Self::Closed => f.write_str(
                "the app closed the connection during the handshake, as some do that do not trust \
                 the local CA; give it the trust material of countersign ca bundle",
            ),
            Self::Broken(error) => write!(f, "the handshake failed: {error}"),
            Self::NoCertificate(error) => write!(f, "no certificate could be made: {error}"),
        }
    }
}

impl Failed {
    /// Why no greeting came.
    pub(super) fn greeting(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Self::Left,
            _ => Self::Broken(error),
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => return Self::TimedOut,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => return Self::Closed,
            _ => {}
        }
        let tls = error.get_ref().and_then(|cause| cause.downcast_ref());
        match tls {
            Some(rustls::Error::AlertReceived(alert)) if is_distrust(*alert) => {
                Self::Distrusted(*alert)
            }
            _ => Self::Broken(error),
        }
    }
}

/// What clients say when they cannot build a chain to a root they trust.
fn is_distrust(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied
    )
}

impl Reception {
    /// Serves the requests of a TLS connection for that signed host.
    pub(super) async fn intercept(&self, app: App, host: Host, hello: Hello) {
        let config = self
            .egress
            .authority
            .server_config(host.as_str(), hello.takes_ecdsa)
            .await;
        let config = match config {
            Ok(config) => config,
            Err(error) => return self.failed(Some(&host), &Failed::NoCertificate(error.into())),
        };
        let handshake = timeout(HANDSHAKE, TlsAcceptor::from(config).accept(app));
        let Some(handshake) = self.unless_closing(handshake).await else {
            return;
        };
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return self.failed(Some(&host), &Failed::from(error)),
            Err(_elapsed) => return self.failed(Some(&host), &Failed::TimedOut),
        };
        self.count("ok");
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let arrival = Arrival::inside(self.local, host);
        if is_http2 {
            self.speaker.http2(&self.egress, stream, arrival).await;
        } else {
            self.speaker.http1(&self.egress, stream, arrival).await;
        }
    }

    /// Ends a connection whose TLS cannot be served.
    pub(super) async fn refuse(&self, mut app: App, host: Option<&Host>, why: &Failed) {
        self.failed(host, why);
        let alert = match why {
            Failed::NameMismatch | Failed::Nameless => UNRECOGNIZED_NAME,
            Failed::WrongPort(_) => ACCESS_DENIED,
            Failed::Malformed => HANDSHAKE_FAILURE,
            _ => return,
        };
        // A client that does not read it is gone all the same.
        let _told = app.write_all(&[21, 3, 3, 0, 2, 2, alert]).await;
        let _closed = app.shutdown().await;
    }

    fn failed(&self, host: Option<&Host>, why: &Failed) {
        self.count(why.result());
        let result = why.result();
        if let Some(host) = host.map(Host::as_str) {
            warn!(host, result, reason = %why, "TLS with the app failed");
        } else {
            // Nobody's payment: a probe, or a client that went astray.
            info!(result, reason = %why, "TLS with a client failed");
        }
    }

    fn count(&self, result: &str) {
        let interceptions = &self.egress.metrics.interceptions;
        interceptions.with_label_values(&[result]).inc();
    }
}
