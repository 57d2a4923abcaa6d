//! Opens connections: resolve once, dial what was checked, CONNECT where a proxy is configured, TLS
//! with real certificate checks.
//!
//! Refuses to dial this process's own listeners, which would send a request in circles. Errors say
//! at which step it failed; the pool above turns them into faults.

use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::uri::Scheme;
use ::http::{StatusCode, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::origin::{Host, Origin, split};
use super::own::OwnAddresses;
use super::proxy::Proxy;
use super::resolve::Resolver;
use super::stream::{Dialled, Stream};
use crate::http::body::BoxError;
use crate::telemetry::Metrics;

/// How long resolving, connecting, the proxy's consent and the TLS handshake may each take.
const STEP: Duration = Duration::from_secs(5);

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
        source: BoxError,
    },
    /// The proxy wants to know who we are.
    #[error("the proxy {proxy} {}", credentials_text(*given, *status))]
    ProxyCredentials {
        /// The proxy's host and port.
        proxy: String,
        /// Whether it was told.
        given: bool,
        /// 407, or 401 from proxies that confuse the two.
        status: StatusCode,
    },
    /// The proxy does not want to reach the destination, or cannot.
    #[error("the proxy {proxy} refuses CONNECT to {destination} ({status})")]
    ProxyRefused {
        /// The proxy's host and port.
        proxy: String,
        /// The destination's.
        destination: String,
        /// What the proxy answered.
        status: StatusCode,
    },
    /// No valid answer to CONNECT.
    #[error("the proxy {proxy} did not answer CONNECT")]
    Proxy {
        /// The proxy's host and port.
        proxy: String,
        /// What went wrong.
        source: BoxError,
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
    #[error("{}", loop_text(host, *address))]
    Loop {
        /// The destination.
        host: Host,
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
            Self::ProxyCredentials { .. } | Self::ProxyRefused { .. } => "proxy_refused",
            Self::Proxy { .. } => "proxy_failed",
            Self::Tls { .. } => "tls_failed",
            Self::Loop { .. } => "loop",
        }
    }
}

fn credentials_text(given: bool, status: StatusCode) -> String {
    let code = status.as_u16();
    if given {
        format!("refuses the credentials in upstream_proxy.credentials_file ({code})")
    } else {
        format!("asks for credentials ({code}); set upstream_proxy.credentials_file")
    }
}

fn loop_text(host: &Host, address: SocketAddr) -> String {
    if host.ip().is_some() {
        return format!("{address} is this sidecar's own listener");
    }
    format!(
        "{host} resolves to {address}, this sidecar's own listener; set resolve.nameservers or \
         resolve.hosts so that the sidecar finds the real address"
    )
}

/// Opens connections for the pool, and for those who speak for themselves on them.
#[derive(Clone)]
pub struct Connector {
    tls: Arc<ClientConfig>,
    resolver: Resolver,
    proxy: Option<Proxy>,
    own: OwnAddresses,
    metrics: Metrics,
}

impl Connector {
    /// A connector that trusts what `tls` trusts, goes through `proxy` where that is meant to be, and
    /// never dials `own`.
    pub fn new(
        tls: ClientConfig,
        resolver: Resolver,
        proxy: Option<Proxy>,
        own: OwnAddresses,
        metrics: Metrics,
    ) -> Self {
        Self {
            tls: Arc::new(tls),
            resolver,
            proxy,
            own,
            metrics,
        }
    }

    /// The same, for connections that may change their protocol: HTTP/1.1 only.
    pub(super) fn http1_only(&self) -> Self {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            tls: Arc::new(tls),
            ..self.clone()
        }
    }

    /// Opens a connection for whatever the caller wants to speak on it, and counts it.
    pub(super) async fn dial(&self, host: &Host, port: u16) -> Result<Dialled, ConnectError> {
        let dialled = self.reach(host, port).await;
        self.count(&dialled);
        dialled
    }

    fn count<T>(&self, opened: &Result<T, ConnectError>) {
        let result = opened
            .as_ref()
            .map_or_else(ConnectError::result, |_opened| "ok");
        let connects = &self.metrics.upstream_connects;
        connects.with_label_values(&[result]).inc();
    }

    async fn open(&self, uri: Uri) -> Result<Stream, ConnectError> {
        let origin = origin(&uri)?;
        let dialled = self.reach(&origin.host, origin.port).await?;
        if !origin.secure {
            return Ok(Stream::plain(dialled));
        }
        let host = origin.host.as_str().to_owned();
        let fail = |source| ConnectError::Tls {
            host: host.clone(),
            source,
        };
        let name = ServerName::try_from(host.clone())
            .map_err(|error| fail(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let handshake = TlsConnector::from(Arc::clone(&self.tls)).connect(name, dialled);
        let tls = timeout(STEP, handshake)
            .await
            .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
            .map_err(fail)?;
        Ok(Stream::tls(tls))
    }

    async fn reach(&self, host: &Host, port: u16) -> Result<Dialled, ConnectError> {
        let Some(proxy) = self.proxy.as_ref().filter(|proxy| proxy.carries(host)) else {
            return self.tcp("", host, port).await;
        };
        let stream = self.tcp("the proxy ", &proxy.host, proxy.port).await?;
        let consent = timeout(STEP, proxy.connect(stream, host, port)).await;
        consent.unwrap_or_else(|elapsed| {
            Err(ConnectError::Proxy {
                proxy: proxy.to_string(),
                source: elapsed.into(),
            })
        })
    }

    /// A TCP connection; `role` stands before the host's name in errors.
    async fn tcp(&self, role: &str, host: &Host, port: u16) -> Result<Dialled, ConnectError> {
        let addresses = timeout(STEP, self.resolver.addresses(host, port))
            .await
            .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| ConnectError::Resolve {
                host: format!("{role}{host}"),
                source,
            })?;
        let itself = |address| ConnectError::Loop {
            host: host.clone(),
            address,
        };
        if let Some(address) = addresses.iter().find(|peer| self.own.include(**peer, None)) {
            return Err(itself(*address));
        }
        let fail = |source| ConnectError::Tcp {
            host: format!("{role}{host}:{port}"),
            source,
        };
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
            .map_err(|error| fail(error.into()))?
            .into_inner();
        // Before anything is written, so that whoever gets the first byte can ask whose it is.
        let registration = self
            .own
            .register(&tcp)
            .map_err(|error| fail(error.into()))?;
        match tcp.peer_addr() {
            Ok(peer) if self.own.include(peer, tcp.local_addr().ok()) => Err(itself(peer)),
            _ => Ok(Dialled::new(tcp, registration)),
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
        let connector = self.clone();
        Box::pin(async move {
            let opened = connector.open(uri).await;
            connector.count(&opened);
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
