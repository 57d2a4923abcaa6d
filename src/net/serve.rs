//! Accepts connections and hands them to a service until the drain closes them.
//!
//! Refuses connections over the limit: they wait in the kernel's queue, or another one gives way (`places`). What is
//! spoken on a connection is the speaker's business, what a request means the service's. Used by `app`, and by whatever
//! serves.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response};
use hyper::body::Incoming;
use prometheus::IntGauge;
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use super::drain::{Drain, Phase};
use super::handshake::Tls;
use super::linger::Linger;
use super::places::{Place, Places};
use super::speaker::Speaker;
use crate::exchange::Fault;
use crate::http::body::full;
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

/// The same address; of IPv4 that looks like IPv6 (`::ffff:192.0.2.1`), the IPv4 it is. Flow and scope are left out.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Ends {
    fn new(local: SocketAddr, peer: SocketAddr) -> Self {
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
    /// Whether a connection without a request gives way to a new one when all are open. If not, new ones wait.
    pub quiet_give_way: bool,
    /// How long a request head may take, the wait for the next one on the connection included.
    pub head_timeout: Duration,
    /// How long a peer may take no byte of its answer.
    pub write_timeout: Duration,
    /// How long a connection lingers whose client is still sending when it was answered.
    pub linger: Linger,
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
    /// A plain HTTP listener with the usual limits: 1024 connections, over which new ones wait, heads of 64 KiB within
    /// 75 s, and 30 s in which a peer takes no byte.
    pub fn plain(open: IntGauge) -> Self {
        Self {
            connections: 1024,
            quiet_give_way: false,
            head_timeout: HEAD_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            linger: Linger::default(),
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
        let places = Arc::new(Places::new(&settings));
        let mut closing = pin!(drain.reached(Phase::Closing));
        let mut failing = false;
        loop {
            let accepted = tokio::select! {
                () = &mut closing => break,
                accepted = accept(&listener, &places, &mut failing) => accepted,
            };
            if let Some((stream, peer, place)) = accepted {
                let speaker = Speaker {
                    settings: settings.clone(),
                    drain: drain.clone(),
                    busy: place.busy.clone(),
                };
                let (service, places) = (Arc::clone(&service), Arc::clone(&places));
                task::spawn(take(service, speaker, (stream, peer), (place, places)));
            }
        }
        drop(listener);
        places.all_ended().await;
    }
}

/// Takes the next connection and finds it a place; `failing` is whether the last attempt failed.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Places>,
    failing: &mut bool,
) -> Option<(TcpStream, SocketAddr, Place)> {
    let place = if places.can_be_made() {
        // Nobody has to give way before somebody comes.
        None
    } else {
        // A place first: without one the connection waits in the kernel's queue.
        Some(places.take(None).await)
    };
    match listener.accept().await {
        Ok((stream, peer)) => {
            *failing = false;
            let place = match place {
                Some(place) => place,
                None => places.take(Some(peer.ip().to_canonical())).await,
            };
            Some((stream, peer, place))
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

/// Hands a connection to the service; its place, the one in the gauge too, lasts as long, or until another one needs it.
async fn take<S: Service>(
    service: Arc<S>,
    speaker: Speaker,
    (stream, peer): (TcpStream, SocketAddr),
    (place, places): (Place, Arc<Places>),
) {
    let open = Open::count(&speaker.settings.open);
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let ends = Ends::new(local, peer);
    // Answers are written whole; waiting to fill a segment would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot set TCP_NODELAY");
    }
    let busy = place.busy.clone();
    let mut receiving = pin!(service.receive(stream, ends, speaker));
    tokio::select! {
        // First the connection: a request that has come keeps its place.
        biased;
        () = &mut receiving => return,
        () = busy.dismissed() => drop((open, place)),
    }
    // The place is free; who has asked may still hear that the connection ends, and take what it was answered.
    let moment = busy.has_asked().then(|| places.last_moment()).flatten();
    if moment.is_some() {
        receiving.await;
    }
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
}
