//! Sends a request onward: pooled connections, deadlines, and at most one delivery. Opens connections
//! for those who speak on them themselves.
//!
//! The one room that knows hyper's client. Re-sends nothing that may have been written: a pooled
//! connection that turns out closed before the first byte is replaced, anything later is a
//! [`Fault`] whose delivery is unknown. Refuses to call this process's own listeners. Called by the
//! flows; what an answer means is theirs to judge.

pub mod connect;
mod failure;
pub mod guard;
pub mod nameservers;
pub mod origin;
pub mod own;
pub mod pattern;
pub mod proxy;
pub mod resolve;
pub mod stream;

use std::time::Duration;

use ::http::header::UPGRADE;
use ::http::{HeaderMap, Request, Response, StatusCode};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::rt::TokioTimer;
use tokio::time::timeout;

pub use connect::Connector;
pub use origin::{Host, Origin};
pub use own::OwnAddresses;
pub use pattern::HostPattern;
pub use proxy::Proxy;
pub use resolve::Resolver;
pub use stream::Dialled;

use self::failure::{body_fault, fault, malformed, too_slow, unconnected};
use crate::clock::Stopwatch;
use crate::exchange::{Code, Delivery, Exchange, Fault};
use crate::http::body::{self, Body, Budget, Held};
use crate::http::framing;
use crate::task::Executor;

/// How long an unused connection is kept. Shorter than the minute common servers and load balancers
/// allow, so that they seldom close one just as we use it.
const IDLE: Duration = Duration::from_secs(30);
/// Unused connections kept to one host.
const IDLE_PER_HOST: usize = 32;

/// How often an HTTP/2 connection in use is asked whether it lives, and how long it may take to say so.
const HTTP2_PING: Duration = Duration::from_secs(10);

/// The client for everything that leaves the sidecar; clones share the pool.
#[derive(Clone, Debug)]
pub struct Upstream {
    client: Client<Connector, Body>,
    /// For requests that ask for another protocol, which HTTP/2 cannot change to.
    http1: Client<Connector, Body>,
    dialler: Connector,
    budget: Budget,
}

/// How destinations are reached.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where names are looked up.
    pub resolve: resolve::Config,
    /// The proxy that connections go through.
    pub proxy: Option<proxy::Config>,
}

impl Config {
    /// What is out of the ordinary, in words, nothing secret.
    pub fn lines(&self) -> Vec<String> {
        let Self { resolve, proxy } = self;
        let proxy = proxy.as_ref().map(ToString::to_string);
        let sentences = resolve.sentences().into_iter().chain(proxy);
        sentences.map(|text| format!("upstream: {text}")).collect()
    }
}

/// What one request may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From handing it over to the last byte of the answer.
    pub timeout: Duration,
    /// The answer's body, in bytes.
    pub response_limit: usize,
}

impl Upstream {
    /// A client without connections; answers are held within `budget`.
    pub fn new(connector: Connector, budget: Budget) -> Self {
        let mut builder = Client::builder(Executor);
        builder
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .http2_keep_alive_interval(HTTP2_PING)
            .http2_keep_alive_timeout(HTTP2_PING)
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new());
        Self {
            client: builder.build(connector.clone()),
            http1: builder.build(connector.http1_only()),
            dialler: connector,
            budget,
        }
    }

    /// Sends a request once and waits for the whole answer, which carries its [`Used`] connection as
    /// an extension.
    ///
    /// # Errors
    /// A [`Fault`] that says whether the request may have arrived.
    pub async fn send(
        &self,
        exchange: &mut Exchange,
        request: Request<Bytes>,
        limits: Limits,
    ) -> Result<Response<Held>, Fault> {
        let since = Stopwatch::start();
        // As often as there can be kept connections, all of which may have ended unseen.
        for _ in 0..IDLE_PER_HOST {
            let within = limits.timeout.saturating_sub(since.elapsed());
            match self.send_on(exchange, &request, within, limits).await {
                Err(fault) if was_dead(&fault) => {}
                answer => return answer,
            }
        }
        let within = limits.timeout.saturating_sub(since.elapsed());
        self.send_on(exchange, &request, within, limits).await
    }

    /// Sends a request on one connection, a kept or a new one.
    async fn send_on(
        &self,
        exchange: &mut Exchange,
        request: &Request<Bytes>,
        within: Duration,
        limits: Limits,
    ) -> Result<Response<Held>, Fault> {
        let mut request = request.clone().map(body::full);
        let connection = Used(capture_connection(&mut request));
        let answer = self.receive(request, limits.response_limit);
        let within = (within, limits.timeout);
        let mut answer = deliver(exchange, &connection, within, answer).await?;
        answer.extensions_mut().insert(connection);
        Ok(answer)
    }

    /// The memory that answers are held in.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Sends a request once and hands back the answer's head, which must come within `head_timeout`,
    /// with its body still streaming.
    ///
    /// A request with an `Upgrade` field goes over HTTP/1.1 and may be answered with 101; then
    /// `hyper::upgrade::on` of the answer is the connection. A 101 nobody asked for is a fault.
    ///
    /// # Errors
    /// A [`Fault`] that says whether the request may have arrived.
    pub async fn relay(
        &self,
        exchange: &mut Exchange,
        mut request: Request<Body>,
        head_timeout: Duration,
    ) -> Result<Response<Incoming>, Fault> {
        let connection = Used(capture_connection(&mut request));
        let answer = async {
            if request.headers().contains_key(UPGRADE) {
                self.http1.request(request).await.map_err(fault)
            } else {
                let answer = self.client.request(request).await;
                answer.map_err(fault).and_then(not_switched)
            }
            .and_then(unambiguous)
        };
        let within = (head_timeout, head_timeout);
        deliver(exchange, &connection, within, answer).await
    }

    /// Opens a connection for the caller to speak on what it wants.
    ///
    /// # Errors
    /// A [`Fault`] like those of a request that was not sent.
    pub async fn dial(&self, host: &Host, port: u16) -> Result<Dialled, Fault> {
        let dialled = self.dialler.dial(host, port).await;
        dialled.map_err(|error| unconnected(&error).because(error))
    }

    async fn receive(&self, request: Request<Body>, limit: usize) -> Result<Response<Held>, Fault> {
        let answer = self.client.request(request).await.map_err(fault)?;
        let (head, body) = not_switched(answer).and_then(unambiguous)?.into_parts();
        let held = body::hold(body, limit, &self.budget)
            .await
            .map_err(body_fault)?;
        if held.trailers.as_ref().is_some_and(carries_signature) {
            return Err(malformed(
                "the gateway sent signature headers behind the body",
            ));
        }
        Ok(Response::from_parts(head, held))
    }
}

/// Whether a kept connection turned out to have ended before a byte of the request was written: the only
/// failure after which another connection may be tried.
fn was_dead(fault: &Fault) -> bool {
    fault.code() == Code::UpstreamBrokeOff && fault.delivered() == Delivery::NotSent
}

/// Waits for what a request brings, at most for what is left of its time.
///
/// A connection on which something went wrong is never used again, over HTTP/2 neither: what comes
/// on it later could be taken for another answer, and it may well be dead.
async fn deliver<T>(
    exchange: &mut Exchange,
    connection: &Used,
    (left, limit): (Duration, Duration),
    answer: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    exchange.handing_over();
    let answer = exchange.away(timeout(left, answer)).await;
    let answer = answer.unwrap_or_else(|_elapsed| Err(too_slow(connection, limit)));
    if answer.is_err() {
        connection.give_up();
    }
    answer
}

/// The connection that an exchange has used, if it came to one.
#[derive(Clone, Debug)]
pub struct Used(CaptureConnection);

impl Used {
    /// Lets no further exchange use it; those under way go on.
    pub fn give_up(&self) {
        if let Some(connection) = self.0.connection_metadata().as_ref() {
            connection.poison();
        }
    }

    fn is_open(&self) -> bool {
        self.0.connection_metadata().is_some()
    }
}

/// Refuses a change of protocol that the request did not ask for (RFC 9110 section 7.8).
fn not_switched(answer: Response<Incoming>) -> Result<Response<Incoming>, Fault> {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(malformed("the gateway switched protocols unasked"));
    }
    Ok(answer)
}

/// Refuses an answer whose end two readers could see in different places (RFC 9112 section 6.3).
fn unambiguous(answer: Response<Incoming>) -> Result<Response<Incoming>, Fault> {
    if !framing::is_unambiguous(answer.headers()) {
        return Err(malformed("the answer says in two ways where it ends"));
    }
    Ok(answer)
}

/// Trailers must not carry what is only read from the head (RFC 9110 section 6.5.1).
fn carries_signature(trailers: &HeaderMap) -> bool {
    ["signature", "response-time", "client-id"]
        .iter()
        .any(|name| trailers.contains_key(*name))
}
