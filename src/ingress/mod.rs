//! From Alipay+ to the app and back: route, buffer, verify, pass on, buffer, sign, answer.
//!
//! `Ingress::receive` and `Ingress::pass_on` are the whole story, one sentence a line. No request
//! reaches the app unless its signature verified or the route says otherwise by name, and only a
//! caller who proved to be the gateway can make the sidecar sign. Built by `app`; served by `net`.

pub mod answer;
pub mod replay;
pub mod request;
pub mod route;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::sync::Semaphore;

pub use self::replay::Guard;
pub use self::route::{Replay, Route, Routes};

use self::answer::Answer;
use self::request::{Claim, Received};
use crate::clock::{Clock, Stopwatch};
use crate::exchange::{Code, Direction, Exchange, Fault, Ids};
use crate::http::body::{Body, Budget, full};
use crate::http::intake::Room;
use crate::http::pace::Pace;
use crate::http::retries::AttemptMemory;
use crate::http::{answer as fault_answer, intake};
use crate::keys::Keyring;
use crate::live::Live;
use crate::net::certificate;
use crate::net::drain::Drain;
use crate::net::listener::Place;
use crate::net::serve::{Ends, Service};
use crate::telemetry::Metrics;
use crate::upstream::Upstream;

/// How much of a body a caller must send while it is waited for. Nothing is proven before it is there,
/// so whoever knows a client id could hold places and memory with next to no bytes.
const STRANGERS_PACE: Pace = Pace {
    within: Duration::from_secs(2),
    least: 1 << 10,
};

/// What the configuration says of ingress.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where Alipay+ finds us.
    pub listen: Vec<Place>,
    /// The certificate, unless it speaks plain HTTP.
    pub tls: Option<certificate::Config>,
    /// Where requests go.
    pub routes: Routes,
}

/// What a reload replaces as a whole; an exchange goes on with what it began with.
#[derive(Debug)]
pub struct Rules {
    /// Where requests go.
    pub routes: Routes,
    /// Whose keys verify and sign.
    pub keyring: Arc<Keyring>,
}

/// Everything an ingress exchange needs.
pub struct Ingress {
    /// Where requests go, and whose keys verify and sign.
    pub rules: Live<Rules>,
    /// How requests reach the app.
    pub upstream: Upstream,
    /// What time it is.
    pub clock: Clock,
    /// The memory for bodies.
    pub budget: Budget,
    /// How many exchanges may be under way.
    pub slots: Arc<Semaphore>,
    /// What was here before.
    pub guard: Arc<Guard>,
    /// How earlier attempts with the same content ended.
    pub attempts: AttemptMemory,
    /// Who counts.
    pub metrics: Metrics,
    /// Who names exchanges.
    pub ids: Arc<Ids>,
    /// Our name in `Via`.
    pub pseudonym: String,
    /// Whether we are stopping.
    pub drain: Drain,
}

impl Service for Ingress {
    type Arrival = Ends;

    async fn answer(&self, request: Request<Incoming>, _ends: &Ends) -> Response<Body> {
        let (rules, mut exchange) = (self.rules.now(), self.start(&request));
        let received = self.receive(&rules, &mut exchange, request);
        let received = self.drain.unless_expired(received).await;
        let response = match received.unwrap_or_else(|| Err(Fault::shutting_down(&exchange))) {
            Ok(received) => self.reply(&mut exchange, &received).await,
            Err(fault) => {
                exchange.failed(&fault);
                fault_answer::refusal(&fault).map(full)
            }
        };
        fault_answer::finish(exchange, response)
    }

    fn refuse(&self, fault: &Fault) -> Response<Body> {
        let exchange = Exchange::unread(Direction::Ingress, &self.metrics, &self.ids);
        fault_answer::unread(exchange, fault, fault_answer::refusal(fault))
    }
}

impl Ingress {
    /// Takes a request in. What goes wrong here is told unsigned: the caller has proved nothing.
    async fn receive<'a>(
        &self,
        rules: &'a Rules,
        exchange: &mut Exchange,
        request: Request<Incoming>,
    ) -> Result<Received<'a>, Fault> {
        let since = Stopwatch::start();
        exchange.occupy(&self.slots)?;
        intake::refuse_unservable(request.uri(), request.headers(), &self.pseudonym)?;
        if request.method() == Method::CONNECT {
            let text = "CONNECT is for proxies, and this is none";
            return Err(Fault::not_sent(Code::RequestMalformed, text));
        }
        let (mut head, body) = request.into_parts();
        intake::count_hop(&head.method, &mut head.headers)?;
        let route = rules.routes.find(&head.uri, &head.headers)?;
        exchange.on_route(&route.name);
        let claim = Claim::read(&rules.keyring, route, &head, self.clock.now())?;
        let within = route.patience(&head.uri, since.elapsed());
        let room = Room {
            limit: route.request_limit,
            within,
            pace: STRANGERS_PACE,
        };
        let body = intake::hold(exchange, body, room, &self.budget).await?;
        let proof = claim.prove(self, exchange, (route, &head), &body)?;
        Ok(Received::new(route, head, body, proof, since))
    }

    /// Answers a request that was taken in: signed, if its caller proved to be the gateway.
    async fn reply(&self, exchange: &mut Exchange, received: &Received<'_>) -> Response<Body> {
        let passed = self.pass_on(exchange, received);
        let passed = self.drain.unless_expired(passed).await;
        let answer = passed.unwrap_or_else(|| Err(Fault::shutting_down(exchange)));
        let answer = answer.unwrap_or_else(|fault| {
            exchange.failed(&fault);
            Answer::unknown(&fault)
        });
        let response = answer.into_response(self, received).await;
        if response.is_ok()
            && let Some(identity) = received.caller()
        {
            exchange.signed_as(&identity.client_id);
        }
        response.unwrap_or_else(|fault| {
            exchange.failed(&fault);
            fault_answer::unknown(&fault).map(full)
        })
    }

    /// Hands a request to the app and takes its answer. What goes wrong here is told like an answer.
    async fn pass_on(
        &self,
        exchange: &mut Exchange,
        received: &Received<'_>,
    ) -> Result<Answer, Fault> {
        let (content, now) = (received.repeated_content(&self.attempts), self.clock.now());
        let attempt = self
            .attempts
            .admit(exchange, content, received.retries(), now)?;
        let answer = self.deliver(exchange, received).await;
        attempt.ended(answer.as_ref().map(Answer::status));
        answer
    }

    async fn deliver(
        &self,
        exchange: &mut Exchange,
        received: &Received<'_>,
    ) -> Result<Answer, Fault> {
        let message = received.to_request(&self.pseudonym)?;
        let limits = received.limits();
        let answer = self.upstream.send(exchange, message, limits).await;
        Answer::of(
            received,
            answer.map_err(answer::of_app)?,
            self.upstream.budget(),
        )
    }

    fn start(&self, request: &Request<Incoming>) -> Exchange {
        Exchange::start(
            Direction::Ingress,
            &self.metrics,
            &self.ids,
            request.method(),
            request.uri().path(),
            request.headers(),
        )
    }
}

impl fmt::Debug for Ingress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingress")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}
