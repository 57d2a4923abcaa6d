//! Opens connections: resolve once, dial what was checked, TLS with real certificate checks.
//!
//! Refuses to dial this process's own listeners, which would send a request in circles. Errors say
//! at which step it failed; the pool above turns them into faults.

use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::Uri;
use ::http::uri::Scheme;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::origin::{Host, Origin, split};
use crate::telemetry::Metrics;

/// How long resolving, connecting and the TLS handshake may each take.
const STEP: Duration = Duration::from_secs(5);

/// Where this process listens; filled once all listeners are bound.
#[derive(Clone, Debug, Default)]
pub struct OwnAddresses(Arc<OnceLock<Vec<SocketAddr>>>);

impl OwnAddresses {
    /// Makes the addresses known; a second call changes nothing.
    pub fn set(&self, addresses: Vec<SocketAddr>) {
        let _first_wins = self.0.set(addresses);
    }

    /// Whether a connection to `peer`, made from `local` if it is already made, ends at ourselves.
    fn include(&self, peer: SocketAddr, local: Option<SocketAddr>) -> bool {
        // `::ffff:127.0.0.1` is 127.0.0.1.
        let (peer_ip, local) = (
            peer.ip().to_canonical(),
            local.map(|one| one.ip().to_canonical()),
        );
        let own = self.0.get().map_or(&[] as &[SocketAddr], Vec::as_slice);
        own.iter()
            .filter(|own| own.port() == peer.port())
            .any(|own| {
                // A listener on all addresses is reached when both ends are the same machine.
                let same_machine = peer_ip.is_loopback() || local == Some(peer_ip);
                own.ip().to_canonical() == peer_ip || (own.ip().is_unspecified() && same_machine)
            })
    }
}

/// At which step a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URI has no usable host.
    #[error("{0}")]
    Target(String),
    /// The name does not resolve.
    #[error("cannot resolve {host}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No TCP connection.
    #[error("cannot connect to {host}")]
    Tcp {
        /// Host and port.
        host: String,
        /// What the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No trusted TLS.
    #[error("TLS with {host} failed")]
    Tls {
        /// The name the certificate must have.
        host: String,
        /// What TLS said.
        source: io::Error,
    },
    /// The address is one of our own listeners.
    #[error("{address} is this sidecar's own listener")]
    Loop {
        /// The address that was about to be dialled.
        address: SocketAddr,
    },
}

impl ConnectError {
    fn result(&self) -> &'static str {
        match self {
            Self::Target(_) => "invalid",
            Self::Resolve { .. } => "resolve_failed",
            Self::Tcp { .. } => "connect_failed",
            Self::Tls { .. } => "tls_failed",
            Self::Loop { .. } => "loop",
        }
    }
}

/// Opens connections for the pool.
#[derive(Clone)]
pub struct Connector {
    tls: Arc<ClientConfig>,
    own: OwnAddresses,
    metrics: Metrics,
}

impl Connector {
    /// A connector that trusts what `tls` trusts and never dials `own`.
    pub fn new(tls: ClientConfig, own: OwnAddresses, metrics: Metrics) -> Self {
        Self {
            tls: Arc::new(tls),
            own,
            metrics,
        }
    }

    async fn open(self, uri: Uri) -> Result<Stream, ConnectError> {
        let origin = origin(&uri)?;
        let tcp = self.dial(&origin).await?;
        if !origin.secure {
            return Ok(Stream::Plain(TokioIo::new(tcp)));
        }
        let host = origin.host.as_str().to_owned();
        let fail = |source| ConnectError::Tls {
            host: host.clone(),
            source,
        };
        let name = ServerName::try_from(host.clone())
            .map_err(|error| fail(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let handshake = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp);
        let tls = timeout(STEP, handshake)
            .await
            .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
            .map_err(fail)?;
        Ok(Stream::Tls(Box::new(TokioIo::new(tls))))
    }

    async fn dial(&self, origin: &Origin) -> Result<TcpStream, ConnectError> {
        let addresses = resolve(&origin.host, origin.port).await?;
        if let Some(address) = addresses.iter().find(|peer| self.own.include(**peer, None)) {
            return Err(ConnectError::Loop { address: *address });
        }
        let host = || format!("{}:{}", origin.host, origin.port);
        let mut dialler = HttpConnector::new_with_resolver(Checked(addresses));
        dialler.enforce_http(false);
        dialler.set_nodelay(true);
        dialler.set_connect_timeout(Some(STEP));
        dialler.set_keepalive(Some(Duration::from_mins(1)));
        // The name is resolved already; the placeholder makes the dialler ask `Checked`.
        let target = Uri::from_static("http://checked");
        let tcp = dialler
            .call(target)
            .await
            .map_err(|error| ConnectError::Tcp {
                host: host(),
                source: error.into(),
            })?
            .into_inner();
        match tcp.peer_addr() {
            Ok(peer) if self.own.include(peer, tcp.local_addr().ok()) => {
                Err(ConnectError::Loop { address: peer })
            }
            _ => Ok(tcp),
        }
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector")
            .field("own", &self.own)
            .finish_non_exhaustive()
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connector, metrics) = (self.clone(), self.metrics.clone());
        Box::pin(async move {
            let opened = connector.open(uri).await;
            let result = opened
                .as_ref()
                .map_or_else(ConnectError::result, |_stream| "ok");
            metrics.upstream_connects.with_label_values(&[result]).inc();
            opened
        })
    }
}

fn origin(uri: &Uri) -> Result<Origin, ConnectError> {
    let secure = uri.scheme() == Some(&Scheme::HTTPS);
    let authority = uri
        .authority()
        .ok_or_else(|| ConnectError::Target("a URI without a host".to_owned()))?;
    let (host, port) = split(authority).map_err(|error| ConnectError::Target(error.to_string()))?;
    Ok(Origin {
        secure,
        host,
        port: port.unwrap_or(if secure { 443 } else { 80 }),
    })
}

async fn resolve(host: &Host, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    let fail = |source| ConnectError::Resolve {
        host: host.to_string(),
        source,
    };
    let found: Vec<_> = timeout(STEP, lookup_host((host.as_str(), port)))
        .await
        .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
        .map_err(fail)?
        .collect();
    if found.is_empty() {
        return Err(fail(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        )));
    }
    Ok(found)
}

/// Answers every name with the addresses that were checked.
#[derive(Clone)]
struct Checked(Vec<SocketAddr>);

impl Service<Name> for Checked {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Ready<Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(self.0.clone().into_iter()))
    }
}

/// A connection, with or without TLS.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Plain(TokioIo<TcpStream>),
    /// TLS on TCP.
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(tls) if tls.inner().get_ref().1.alpn_protocol() == Some(b"h2") => {
                Connected::new().negotiated_h2()
            }
            Self::Tls(_) | Self::Plain(_) => Connected::new(),
        }
    }
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl Write for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }
}
