//! From the app to the gateway: route, buffer, sign, send, buffer, verify, answer.
//!
//! `Egress::flow` is the whole story, one sentence a line; it holds no counter, log call, status
//! code or header name. Refuses to hand the app anything that was not verified, unless the route says
//! so by name. Built by `app`; served by `net`.

pub mod answer;
pub mod arrival;
pub mod binding;
pub mod connect;
mod handshake;
pub mod identity;
mod purpose;
pub mod reception;
pub mod relay;
pub mod request;
pub mod route;
pub mod self_check;
mod tunnel;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

pub use self::binding::Binding;
pub use self::identity::ClientIdField;
pub use self::route::{Route, Routes, Unmatched};

use self::answer::Verified;
use self::arrival::Arrival;
use self::reception::Reception;
use self::relay::How;
use self::request::Buffered;
use self::route::Target;
use crate::ca::Authority;
use crate::clock::Clock;
use crate::exchange::{Direction, Exchange, Fault, Ids, UNMATCHED};
use crate::http::body::{Body, Budget, full};
use crate::http::intake::Room;
use crate::http::pace::Pace;
use crate::http::retries::{self, AttemptMemory};
use crate::http::{answer as fault_answer, intake};
use crate::keys::{Identity, Keyring};
use crate::live::Live;
use crate::net::drain::Drain;
use crate::net::listener::Place;
use crate::net::serve::{Ends, Service};
use crate::net::speaker::Speaker;
use crate::telemetry::Metrics;
use crate::upstream::{Limits, Origin, OwnAddresses, Upstream};

/// How much of a body an app must send while it is waited for; it is next door.
const APPS_PACE: Pace = Pace {
    within: Duration::from_secs(10),
    least: 1 << 10,
};

/// What the configuration says of egress.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the app finds us.
    pub listen: Vec<Place>,
    /// Where requests go.
    pub routes: Routes,
    /// How long a request's body may take.
    pub request_timeout: Duration,
    /// How connections are treated whose bytes pass unread.
    pub tunnel: Tunnels,
    /// How connections are treated that the kernel redirected.
    pub transparent: Transparent,
}

/// How connections are treated whose bytes pass unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnels {
    /// The ports CONNECT may name; all when absent.
    pub ports: Option<Vec<u16>>,
    /// How long nothing may move; for ever when absent.
    pub idle_timeout: Option<Duration>,
}

impl Default for Tunnels {
    fn default() -> Self {
        Self {
            ports: None,
            idle_timeout: Some(Duration::from_hours(1)),
        }
    }
}

/// How connections are treated that the kernel redirected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transparent {
    /// Whether original destinations are looked for at all.
    pub enabled: bool,
    /// How long a client may be silent before its server is taken to speak first.
    pub peek_timeout: Duration,
    /// Destination ports whose connections pass without a look.
    pub opaque_ports: Vec<u16>,
    /// How often it is checked that the redirect rules are in force.
    pub self_check: Option<Duration>,
}

impl Default for Transparent {
    fn default() -> Self {
        Self {
            enabled: true,
            peek_timeout: Duration::from_millis(300),
            opaque_ports: Vec::new(),
            self_check: None,
        }
    }
}

/// What a reload replaces as a whole; an exchange goes on with what it began with.
#[derive(Debug)]
pub struct Rules {
    /// What is configured.
    pub config: Config,
    /// Whose keys sign and verify.
    pub keyring: Arc<Keyring>,
}

/// Everything an egress exchange needs.
pub struct Egress {
    /// Where requests go, and whose keys sign and verify.
    pub rules: Live<Rules>,
    /// How requests leave.
    pub upstream: Upstream,
    /// Who vouches for us towards the app when we look inside its TLS.
    pub authority: Arc<Authority>,
    /// What must not be dialled, and what we dialled ourselves.
    pub own: OwnAddresses,
    /// What time it is.
    pub clock: Clock,
    /// The memory for bodies.
    pub budget: Budget,
    /// How many exchanges may be under way.
    pub slots: Arc<Semaphore>,
    /// What connections of the self-check are answered with.
    pub token: self_check::Token,
    /// How earlier attempts with the same content ended.
    pub attempts: AttemptMemory,
    /// How many connections may be tunnels.
    pub tunnels: Arc<Semaphore>,
    /// Who counts.
    pub metrics: Metrics,
    /// Who names exchanges.
    pub ids: Arc<Ids>,
    /// Our name in `Via`.
    pub pseudonym: String,
    /// Whether we are stopping.
    pub drain: Drain,
}

impl Service for Egress {
    type Arrival = Arrival;
    const IS_PROXY: bool = true;

    async fn answer(&self, request: Request<Incoming>, arrival: &Arrival) -> Response<Body> {
        let mut exchange = self.start(&request);
        let result = {
            let flow = pin!(self.flow(&mut exchange, request, arrival));
            self.drain.unless_expired(flow).await
        };
        let result = result.unwrap_or_else(|| Err(Fault::shutting_down(&exchange)));
        let response = result.unwrap_or_else(|fault| {
            exchange.failed(&fault);
            fault_answer::unknown(&fault).map(full)
        });
        fault_answer::finish(exchange, response)
    }

    fn refuse(&self, fault: &Fault) -> Response<Body> {
        let exchange = Exchange::unread(Direction::Egress, &self.metrics, &self.ids);
        fault_answer::unread(exchange, fault, fault_answer::unknown(fault))
    }

    async fn receive(self: Arc<Self>, stream: TcpStream, ends: Ends, speaker: Speaker) {
        Reception::new(self, ends.local, speaker)
            .receive(stream)
            .await;
    }
}

impl Egress {
    async fn flow(
        &self,
        exchange: &mut Exchange,
        mut request: Request<Incoming>,
        arrival: &Arrival,
    ) -> Result<Response<Body>, Fault> {
        let rules = self.rules.now();
        exchange.occupy(&self.slots)?;
        intake::refuse_unservable(request.uri(), request.headers(), &self.pseudonym)?;
        if request.method() == Method::CONNECT {
            return connect::grant(self, &rules.config, exchange, request, arrival).await;
        }
        let target = rules
            .config
            .routes
            .target(request.uri(), request.headers(), arrival)?;
        intake::count_hop(&request.method().clone(), request.headers_mut())?;
        let (route, origin) = match target {
            Target::Signed(route, origin) => (route, origin),
            Target::Forward(origin) => {
                exchange.on_route(UNMATCHED);
                let how = How::forwarded(rules.config.tunnel.idle_timeout);
                return relay::pass(self, exchange, request, (&origin, arrival), how).await;
            }
        };
        exchange.on_route(&route.name);
        if relay::is_unsigned_call(&request) {
            retries::admit_unseen(exchange, request.headers(), route.retries)?;
            let how = How::unsigned(route.timeout);
            return relay::pass(self, exchange, request, (&origin, arrival), how).await;
        }
        let identity = rules.identity(route, request.headers())?;
        let room = rules.room(route);
        let buffered = Buffered::read(exchange, request, room, &self.budget).await?;
        let (content, now) = (buffered.repeated_content(self, identity), self.clock.now());
        let attempt = self.attempts.admit(exchange, content, route.retries, now)?;
        let delivered = self
            .deliver(exchange, buffered, (route, &origin, identity))
            .await;
        attempt.ended(delivered.as_ref().map(Verified::status));
        Ok(delivered?.into_response())
    }

    /// Signs a request, sends it, and verifies what comes back.
    async fn deliver(
        &self,
        exchange: &mut Exchange,
        request: Buffered,
        (route, origin, identity): (&Route, &Origin, &Arc<Identity>),
    ) -> Result<Verified, Fault> {
        let signed = request.sign(self, identity).await?;
        exchange.signed_as(&identity.client_id);
        let message = signed.to_request(origin, &self.pseudonym)?;
        let answer = self
            .upstream
            .send(exchange, message, route.limits())
            .await?;
        Verified::judge(self, exchange, route, &signed, answer)
    }

    fn start(&self, request: &Request<Incoming>) -> Exchange {
        let (method, headers) = (request.method(), request.headers());
        let path = match request.uri().authority() {
            // The target of CONNECT is no path. User info may hold a password.
            Some(to) if method == Method::CONNECT && !to.as_str().contains('@') => to.as_str(),
            _ => request.uri().path(),
        };
        Exchange::start(
            Direction::Egress,
            &self.metrics,
            &self.ids,
            method,
            path,
            headers,
        )
    }
}

impl Rules {
    fn room(&self, route: &Route) -> Room {
        Room {
            limit: route.request_limit,
            within: self.config.request_timeout,
            pace: APPS_PACE,
        }
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

impl Route {
    fn limits(&self) -> Limits {
        Limits {
            timeout: self.timeout,
            response_limit: self.response_limit,
        }
    }
}
