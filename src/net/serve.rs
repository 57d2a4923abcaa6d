//! Accepts connections and serves HTTP on them until the drain closes them: HTTP/1.1, and HTTP/2 where
//! TLS negotiated it (ALPN).
//!
//! Refuses connections over the limit by leaving them in the kernel's queue, and heads that do not
//! arrive in time. What a request means is the service's business.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::drain::{Drain, Phase};
use super::task;
use crate::http::Body;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a request head may take. Also ends connections without a request, so it is longer than
/// any client keeps one by default (Java 5 s, Node 5 s, most pools under a minute).
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// The largest request head, in bytes.
const HEAD_LIMIT: usize = 64 * 1024;
/// How long accepting pauses when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers the requests of a listener.
pub trait Service: Send + Sync + 'static {
    /// Answers one request that arrived on a connection whose local end is `local`.
    fn answer(
        &self,
        request: Request<Incoming>,
        local: SocketAddr,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// A listening socket with all that serving it needs.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    settings: Settings,
}

/// How a listener treats its connections.
#[derive(Clone)]
pub struct Settings {
    /// How many connections may be open at a time.
    pub connections: usize,
    /// How long a request head may take, the wait for the next one on the connection included.
    pub head_timeout: Duration,
    /// The largest request head, in bytes.
    pub head_limit: usize,
    /// TLS, unless the listener speaks plain HTTP.
    pub tls: Option<TlsAcceptor>,
    /// Shows the open connections.
    pub open: IntGauge,
}

impl Settings {
    /// A plain HTTP listener with the usual limits: 1024 connections, heads of 64 KiB within 75 s.
    pub fn plain(open: IntGauge) -> Self {
        Self {
            connections: 1024,
            head_timeout: HEAD_TIMEOUT,
            head_limit: HEAD_LIMIT,
            tls: None,
            open,
        }
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// A server that has not accepted anything yet.
    pub fn new(listener: TcpListener, settings: Settings) -> Self {
        Self { listener, settings }
    }

    /// Serves until the drain closes, then until the last connection is finished.
    pub async fn run<S: Service>(self, service: S, drain: Drain) {
        let Self { listener, settings } = self;
        let service = Arc::new(service);
        let graceful = GracefulShutdown::new();
        let slots = Arc::new(Semaphore::new(settings.connections));
        let closing = drain.reached(Phase::Closing);
        tokio::pin!(closing);
        loop {
            let accepted = tokio::select! {
                () = &mut closing => break,
                accepted = accept(&listener, &slots) => accepted,
            };
            if let Some((stream, slot)) = accepted {
                let (service, settings) = (Arc::clone(&service), settings.clone());
                let connection = Connection {
                    service,
                    settings,
                    watcher: graceful.watcher(),
                };
                task::spawn(connection.serve(stream, slot));
            }
        }
        drop(listener);
        graceful.shutdown().await;
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    // A slot first: without one the connection waits in the kernel's queue.
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _peer)) => Some((stream, slot)),
        Err(error) => {
            // Most likely out of file descriptors (EMFILE): connections that end will free some.
            warn!(%error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// One accepted connection on its way to hyper.
struct Connection<S> {
    service: Arc<S>,
    settings: Settings,
    watcher: Watcher,
}

impl<S: Service> Connection<S> {
    async fn serve(self, stream: TcpStream, _slot: OwnedSemaphorePermit) {
        let _open = Open::count(&self.settings.open);
        let Ok(local) = stream.local_addr() else {
            return;
        };
        // Answers are written whole; waiting to fill a segment would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "cannot set TCP_NODELAY");
        }
        match self.settings.tls.clone() {
            None => self.speak_http1(stream, local).await,
            Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                    self.speak_http2(stream, local).await;
                }
                Ok(Ok(stream)) => self.speak_http1(stream, local).await,
                Ok(Err(error)) => debug!(%error, "TLS handshake failed"),
                Err(_elapsed) => debug!("TLS handshake took too long"),
            },
        }
    }

    async fn speak_http1<I>(self, io: I, local: SocketAddr)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.settings.head_timeout)
            .max_buf_size(self.settings.head_limit)
            // An app that half-closes after its request still wants the answer; and a payment in
            // mid-air is better finished and logged than cut off.
            .half_close(true)
            .serve_connection(TokioIo::new(io), hyper_service(self.service, local));
        report(self.watcher.watch(connection).await);
    }

    async fn speak_http2<I>(self, io: I, local: SocketAddr)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let head_limit = u32::try_from(self.settings.head_limit).unwrap_or(u32::MAX);
        let connection = http2::Builder::new(task::Executor)
            .timer(TokioTimer::new())
            .max_header_list_size(head_limit)
            .keep_alive_interval(self.settings.head_timeout)
            .serve_connection(TokioIo::new(io), hyper_service(self.service, local));
        report(self.watcher.watch(connection).await);
    }
}

fn report(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}

/// A service as hyper wants it.
fn hyper_service<S: Service>(
    service: Arc<S>,
    local: SocketAddr,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Body>, Infallible>> + Send,
> {
    service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok(service.answer(request, local).await) }
    })
}

/// Counts a connection while it is open.
struct Open(IntGauge);

impl Open {
    fn count(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
