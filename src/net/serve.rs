//! Accepts connections and speaks HTTP on them until the drain closes them: HTTP/1.1, and HTTP/2 where
//! TLS negotiated it (ALPN).
//!
//! Refuses connections over the limit by leaving them in the kernel's queue, and heads that do not
//! arrive in time. What is spoken on a connection and what a request means is the service's business.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use ::http::header::CONNECTION;
use ::http::{HeaderValue, Method, Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tracing::{debug, warn};

use super::busy::Busy;
use super::drain::{Drain, Phase};
use super::guard::{Guarded, Link};
use super::handshake::Tls;
use crate::exchange::Fault;
use crate::http::body::full;
use crate::http::wire::Limits;
use crate::http::{Body, answer};
use crate::task;
use crate::telemetry::Metrics;

/// How long a TLS handshake may take.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a request head may take. Also ends connections without a request, so it is longer than
/// any client keeps one by default (Java 5 s, Node 5 s, most pools under a minute).
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a peer may take no byte of its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest request head, in bytes.
const HEAD_LIMIT: usize = 64 * 1024;
/// How long accepting pauses when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The two ends of a connection; never `::ffff:192.0.2.1`, as IPv4 looks to a listener at `[::]`.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Ours.
    pub local: SocketAddr,
    /// That of who connected.
    pub peer: SocketAddr,
}

impl Ends {
    fn new(local: SocketAddr, peer: SocketAddr) -> Self {
        let canonical = |one: SocketAddr| SocketAddr::new(one.ip().to_canonical(), one.port());
        Self {
            local: canonical(local),
            peer: canonical(peer),
        }
    }
}

/// Answers what arrives at a listener.
pub trait Service: Send + Sync + Sized + 'static {
    /// What is known of a connection before its first request; at least its ends.
    type Arrival: From<Ends> + Clone + Send + Sync + 'static;

    /// Whether requests are passed on to hosts of their choice. A proxy keeps no connection of
    /// HTTP/1.0, whose `keep-alive` may have been meant for another (RFC 9112 section 9.3).
    const IS_PROXY: bool = false;

    /// Answers one request.
    fn answer(
        &self,
        request: Request<Incoming>,
        arrival: &Self::Arrival,
    ) -> impl Future<Output = Response<Body>> + Send;

    /// Answers in place of a request that could not be read; the connection ends with it.
    fn refuse(&self, fault: &Fault) -> Response<Body> {
        answer::unknown(fault).map(full)
    }

    /// Takes a connection and stays with it to its end: speaks HTTP on it, unless the service knows
    /// better.
    fn receive(
        self: Arc<Self>,
        stream: TcpStream,
        ends: Ends,
        speaker: Speaker,
    ) -> impl Future<Output = ()> + Send {
        async move { speaker.as_configured(&self, stream, ends).await }
    }
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
    pub connections: u32,
    /// How long a request head may take, the wait for the next one on the connection included.
    pub head_timeout: Duration,
    /// The largest request head, in bytes.
    pub head_limit: usize,
    /// TLS, unless the listener speaks plain HTTP.
    pub tls: Option<Tls>,
    /// Shows the open connections.
    pub open: IntGauge,
    /// Who counts what never becomes a request, and the listener's name.
    pub counted: Option<(Metrics, &'static str)>,
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
            counted: None,
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
    pub async fn run<S: Service>(self, service: Arc<S>, drain: Drain) {
        let Self { listener, settings } = self;
        let everything = settings.connections;
        let slots = Arc::new(Semaphore::new(everything as usize));
        let speaker = Speaker { settings, drain };
        let drain = speaker.drain.clone();
        let mut closing = pin!(drain.reached(Phase::Closing));
        let mut failing = false;
        loop {
            let accepted = tokio::select! {
                () = &mut closing => break,
                accepted = speaker.settings.accept(&listener, &slots, &mut failing) => accepted,
            };
            if let Some((stream, peer, slot)) = accepted {
                let receiving = take(Arc::clone(&service), speaker.clone(), (stream, peer), slot);
                task::spawn(receiving);
            }
        }
        drop(listener);
        // Every connection holds a slot until it ends.
        let _all_ended = slots.acquire_many(everything).await;
    }
}

impl Settings {
    /// Takes the next connection; `failing` is whether the last attempt failed.
    async fn accept(
        &self,
        listener: &TcpListener,
        slots: &Arc<Semaphore>,
        failing: &mut bool,
    ) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        // A slot first: without one the connection waits in the kernel's queue.
        let slot = match Arc::clone(slots).try_acquire_owned() {
            Ok(slot) => slot,
            Err(_full) => {
                // Once for each time it is full, however many wait.
                if let Some((metrics, name)) = &self.counted {
                    metrics.connections_full.with_label_values(&[*name]).inc();
                }
                warn!("all connections that limits.connections allows are open; new ones wait");
                Arc::clone(slots).acquire_owned().await.ok()?
            }
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                *failing = false;
                Some((stream, peer, slot))
            }
            Err(error) => {
                // Most likely out of file descriptors (EMFILE): connections that end will free some. One
                // line however long it takes, or the disk would be the next to fill.
                if !std::mem::replace(failing, true) {
                    warn!(%error, "cannot accept a connection; trying again until it can be done");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }
}

/// Hands a connection to the service; its slot and its place in the gauge last as long.
async fn take<S: Service>(
    service: Arc<S>,
    speaker: Speaker,
    (stream, peer): (TcpStream, SocketAddr),
    _slot: OwnedSemaphorePermit,
) {
    let _open = Open::count(&speaker.settings.open);
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let ends = Ends::new(local, peer);
    // Answers are written whole; waiting to fill a segment would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot set TCP_NODELAY");
    }
    service.receive(stream, ends, speaker).await;
}

/// Speaks HTTP on connections as their listener is set.
#[derive(Clone, Debug)]
pub struct Speaker {
    settings: Settings,
    drain: Drain,
}

impl Speaker {
    /// Serves HTTP/1.1, or behind TLS what ALPN chose, as the listener is configured.
    pub async fn as_configured<S: Service>(&self, service: &Arc<S>, stream: TcpStream, ends: Ends) {
        let Some(tls) = &self.settings.tls else {
            return self.http1(service, patient(stream), ends.into()).await;
        };
        match tls.accept(stream, ends.peer).await {
            Some(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                self.http2(service, patient(stream), ends.into()).await;
            }
            Some(stream) => self.http1(service, patient(stream), ends.into()).await,
            None => {}
        }
    }

    /// How long a request head may take.
    pub fn head_timeout(&self) -> Duration {
        self.settings.head_timeout
    }

    /// Speaks HTTP/1.1 until the connection ends, or until a request took it over (CONNECT, Upgrade).
    pub async fn http1<S, I>(&self, service: &Arc<S>, io: I, arrival: S::Arrival)
    where
        S: Service,
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (busy, link) = (Busy::default(), Arc::<Link>::default());
        let limits = Limits::of_head(self.settings.head_limit);
        let counted = self.settings.counted.as_ref();
        let malformed = counted.map(|(metrics, name)| (metrics.malformed.clone(), *name));
        let io = Guarded::new(io, Arc::clone(&link), limits, malformed);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.settings.head_timeout)
            .max_buf_size(self.settings.head_limit)
            // An app that half-closes after its request still wants the answer; and a payment in
            // mid-air is better finished and logged than cut off.
            .half_close(true)
            .serve_connection(
                TokioIo::new(io),
                hyper_service(service, arrival, &busy, Some(Arc::clone(&link))),
            )
            .with_upgrades();
        let shut_down = http1::UpgradeableConnection::graceful_shutdown;
        self.to_its_end(connection, shut_down, &busy).await;
        if let Some((metrics, name)) = counted.filter(|_| link.is_in_a_head()) {
            metrics.unfinished_heads.with_label_values(&[*name]).inc();
        }
    }

    /// Speaks HTTP/2 until the connection ends.
    pub async fn http2<S, I>(&self, service: &Arc<S>, io: I, arrival: S::Arrival)
    where
        S: Service,
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let busy = Busy::default();
        let head_limit = u32::try_from(self.settings.head_limit).unwrap_or(u32::MAX);
        let connection = http2::Builder::new(task::Executor)
            .timer(TokioTimer::new())
            .max_header_list_size(head_limit)
            .keep_alive_interval(self.settings.head_timeout)
            .serve_connection(
                TokioIo::new(io),
                hyper_service(service, arrival, &busy, None),
            );
        let shut_down = http2::Connection::graceful_shutdown;
        self.to_its_end(connection, shut_down, &busy).await;
    }

    /// Ends an idle connection when the drain closes, one with a request in it after its answer.
    async fn to_its_end<C>(&self, connection: C, shut_down: impl FnOnce(Pin<&mut C>), busy: &Busy)
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            // First the connection: hyper ends one on which it has read nothing, and what has come must
            // be served.
            biased;
            ended = &mut connection => ended,
            () = self.drain.reached(Phase::Closing) => {
                shut_down(connection.as_mut());
                tokio::select! {
                    ended = connection => ended,
                    // A peer that never finishes a head has no exchange to be waited for.
                    () = busy.has_been_idle() => return,
                }
            }
        };
        if let Err(error) = ended {
            debug!(%error, "connection ended");
        }
    }
}

/// The same connection, broken when its peer takes no byte for too long: what it does not read is held
/// in memory.
fn patient<I: AsyncRead + AsyncWrite>(io: I) -> Pin<Box<TimeoutStream<I>>> {
    let mut io = TimeoutStream::new(io);
    io.set_write_timeout(Some(WRITE_TIMEOUT));
    Box::pin(io)
}

/// A service as hyper wants it.
fn hyper_service<S: Service>(
    service: &Arc<S>,
    arrival: S::Arrival,
    busy: &Busy,
    link: Option<Arc<Link>>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Body>, Infallible>> + Send + use<S>,
> + use<S> {
    let (service, busy) = (Arc::clone(service), busy.clone());
    service_fn(move |request: Request<Incoming>| {
        let (service, arrival, exchange) = (Arc::clone(&service), arrival.clone(), busy.enter());
        let entered = link.as_ref().map_or(Ok(()), |link| link.enter());
        let link = link.clone();
        // On the heap while there is a request: most connections are idle, and many.
        Box::pin(async move {
            let is_connect = request.method() == Method::CONNECT;
            let is_last = S::IS_PROXY && request.version() == Version::HTTP_10;
            let mut response = match entered {
                Ok(()) => service.answer(request, &arrival).await,
                Err(reason) => service.refuse(&reason.fault()),
            };
            if let Some(link) = &link {
                link.answered(is_connect, response.status());
                if entered.is_err() || is_last || link.is_broken() {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(CONNECTION, close);
                }
            }
            Ok(response.map(|body| exchange.until_sent(body)))
        })
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn ipv4_looks_the_same_whichever_socket_took_it() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (seen, is) in [
            ("[::ffff:127.0.0.1]:1", "127.0.0.1:1"),
            ("[::ffff:192.0.2.1]:1", "192.0.2.1:1"),
            ("[::1]:1", "[::1]:1"),
        ] {
            let ends = Ends::new(address(seen), address(seen));
            assert_eq!([ends.local, ends.peer], [address(is); 2]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_is_given_up() {
        let (_never_reads, near) = tokio::io::duplex(8);
        let error = patient(near).write_all(&[0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }
}
