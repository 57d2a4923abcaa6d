//! One object per exchange: it knows the times, the verdict and the delivery, and reports once.
//!
//! Started by `egress::handle` and `ingress::handle` with the request's head; whatever then happens
//! (an answer, a [`Fault`], a caller that is gone) is recorded exactly once, when the object is
//! dropped. Flows therefore hold no counter and no log call.

pub mod expected;
pub mod fault;
mod ids;
pub mod tunnel;
pub mod verdict;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use ::http::{HeaderMap, Method, StatusCode};
use countersign_protocol::ClientId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use fault::{Blame, Code, Delivery, Fault};
pub use ids::Ids;
pub use tunnel::{Tunnel, Way};
pub use verdict::{Policy, Repetition, Unsigned, Verdict};

use self::ids::trace_id;
use crate::clock::Stopwatch;
use crate::telemetry::{Line, Metrics};

/// Which way the request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the app to the gateway.
    Egress,
    /// From the gateway to the app.
    Ingress,
}

impl Direction {
    /// The label in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }
}

/// What stands for a route that was not found, or not looked for.
const NO_ROUTE: &str = "none";
/// What stands for the route of requests to hosts that no route names.
pub const UNMATCHED: &str = "unmatched";
/// How much of a path the log shows, in characters: strangers choose it.
const LONGEST_PATH: usize = 512;

/// An exchange under way.
pub struct Exchange {
    line: Line,
    metrics: Metrics,
    started: Stopwatch,
    delivery: Delivery,
    away_since: Option<Stopwatch>,
    slot: Option<OwnedSemaphorePermit>,
}

impl Exchange {
    /// Starts an exchange with the head of its request.
    pub fn start(
        direction: Direction,
        metrics: &Metrics,
        ids: &Ids,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Self {
        let line = Line {
            method: method.to_string(),
            path: path.chars().take(LONGEST_PATH).collect(),
            trace_id: trace_id(headers),
            ..Line::default()
        };
        Self::begin(direction, metrics, ids, line)
    }

    /// Starts one whose request could not be read.
    pub fn unread(direction: Direction, metrics: &Metrics, ids: &Ids) -> Self {
        Self::begin(direction, metrics, ids, Line::default())
    }

    fn begin(direction: Direction, metrics: &Metrics, ids: &Ids, line: Line) -> Self {
        let direction = direction.as_str();
        metrics.in_flight.with_label_values(&[direction]).inc();
        let line = Line {
            id: ids.next(),
            direction,
            route: NO_ROUTE.to_owned(),
            outcome: "aborted",
            ..line
        };
        Self {
            line,
            metrics: metrics.clone(),
            started: Stopwatch::start(),
            delivery: Delivery::NotSent,
            away_since: None,
            slot: None,
        }
    }

    /// Its name in the log and in `countersign-id`.
    pub fn id(&self) -> &str {
        &self.line.id
    }

    /// The metrics it reports to.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The route was found.
    pub fn on_route(&mut self, route: &str) {
        route.clone_into(&mut self.line.route);
    }

    /// The request's body arrived.
    pub fn received(&mut self, bytes: usize) {
        self.line.request_bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    }

    /// Waits for a peer; that time is not counted as ours.
    pub async fn away<F: Future>(&mut self, wait: F) -> F::Output {
        self.away_since = Some(Stopwatch::start());
        let output = wait.await;
        self.back();
        output
    }

    /// Ends a wait, also one that was cut short.
    fn back(&mut self) {
        if let Some(since) = self.away_since.take() {
            self.line.waited += since.elapsed();
        }
    }

    /// Takes a place among the exchanges allowed at a time until this one ends.
    ///
    /// # Errors
    /// [`Code::Overloaded`] when there is none.
    pub fn occupy(&mut self, slots: &Arc<Semaphore>) -> Result<(), Fault> {
        let slot = Arc::clone(slots).try_acquire_owned().map_err(|_full| {
            let text = "too many exchanges under way; see limits.exchanges";
            Fault::not_sent(Code::Overloaded, text)
        })?;
        self.slot = Some(slot);
        Ok(())
    }

    /// From now on the request may reach the other side.
    pub fn handing_over(&mut self) {
        self.delivery = Delivery::Unknown;
    }

    /// Whether the request may have reached the other side.
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// The peer's message was looked at: counts it and keeps the verdict.
    pub fn judged(&mut self, verdict: Verdict, key_version: Option<u32>) {
        self.line.outcome = verdict.as_str();
        self.line.key_version = key_version;
        if matches!(verdict, Verdict::Verified | Verdict::Unsigned) {
            self.count_verification(verdict.as_str());
        }
    }

    /// The gateway's answer needed no signature and had none.
    pub fn unsigned(&mut self, kind: Unsigned) {
        self.metrics
            .unsigned_answers
            .with_label_values(&[&self.line.route, kind.as_str()])
            .inc();
    }

    /// The peer's message failed verification though the route lets it pass: counted by its code.
    pub fn reported(&mut self, fault: &Fault) {
        self.count_verification(fault.code().as_str());
        self.line.error = Some(fault.code().as_str());
        self.line.reason = Some(fault.chain());
    }

    /// The sidecar signed as this client: the request on egress, the response on ingress.
    pub fn signed_as(&mut self, client_id: &ClientId) {
        self.line.client_id = Some(client_id.to_string());
    }

    /// The very same request was here before.
    pub fn replayed(&mut self) {
        self.line.replayed = Some(true);
    }

    /// The request repeats an earlier one.
    pub fn repeated(&mut self, repetition: Repetition) {
        let labels = [self.line.direction, &self.line.route, repetition.as_str()];
        self.metrics
            .repeated_requests
            .with_label_values(&labels)
            .inc();
    }

    /// Something is wrong that the route lets pass: logged as a warning, counted by the caller.
    pub fn warn_of(&mut self, fault: &Fault) {
        self.line.error = Some(fault.code().as_str());
        self.line.reason = Some(fault.chain());
    }

    /// The exchange ends with an answer of ours in place of the peer's.
    pub fn failed(&mut self, fault: &Fault) {
        let code = fault.code().as_str();
        let delivery = fault.delivered().as_str();
        if is_verification(fault.code()) {
            self.count_verification(code);
        }
        self.metrics
            .faults
            .with_label_values(&[self.line.direction, &self.line.route, code, delivery])
            .inc();
        self.line.outcome = code;
        self.line.error = Some(code);
        self.line.delivery = Some(delivery);
        self.line.reason = Some(fault.chain());
    }

    /// What the caller gets.
    pub fn answered(&mut self, status: StatusCode) {
        self.line.status = Some(status.as_u16());
    }

    /// Body bytes went back to the caller.
    pub fn sent_back(&mut self, bytes: usize) {
        self.line.response_bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
    }

    fn count_verification(&self, result: &str) {
        self.metrics
            .verifications
            .with_label_values(&[self.line.direction, result])
            .inc();
    }

    fn report(&mut self) {
        self.back();
        if self.line.status.is_none() && self.line.error.is_none() {
            self.line.outcome = "aborted";
            self.line.error = Some("aborted");
            self.line.delivery = Some(self.delivery.as_str());
            self.line.reason = Some("cut off before there was an answer".to_owned());
        }
        let (direction, route) = (self.line.direction, self.line.route.as_str());
        self.line.duration = self.started.elapsed();
        let total = self.line.duration.as_secs_f64();
        let own = self
            .line
            .duration
            .saturating_sub(self.line.waited)
            .as_secs_f64();
        self.metrics.in_flight.with_label_values(&[direction]).dec();
        self.metrics
            .exchanges
            .with_label_values(&[direction, route, self.line.outcome])
            .inc();
        self.metrics
            .exchange_duration
            .with_label_values(&[direction, route])
            .observe(total);
        self.metrics
            .overhead
            .with_label_values(&[direction])
            .observe(own);
        self.line.write();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.report();
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

/// Codes that come from looking at a message: at its signature, and at what it is about.
fn is_verification(code: Code) -> bool {
    matches!(
        code,
        Code::ResponseSignatureMissing
            | Code::ResponseSignatureMalformed
            | Code::ResponseSignatureInvalid
            | Code::ResponseKeyUnknown
            | Code::ResponseClientMismatch
            | Code::ResponseTimeUnacceptable
            | Code::ResponseMismatch
            | Code::RequestSignatureMissing
            | Code::RequestSignatureMalformed
            | Code::RequestSignatureInvalid
            | Code::RequestKeyUnknown
            | Code::RequestClientUnknown
            | Code::RequestTimeUnacceptable
            | Code::RequestReplayed
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(metrics: &Metrics) -> Exchange {
        let (ids, headers) = (Ids::new(), HeaderMap::new());
        Exchange::start(
            Direction::Egress,
            metrics,
            &ids,
            &Method::POST,
            "/pay",
            &headers,
        )
    }

    fn count(metrics: &Metrics, outcome: &str) -> u64 {
        metrics
            .exchanges
            .with_label_values(&["egress", "none", outcome])
            .get()
    }

    #[test]
    fn an_exchange_that_is_dropped_counts_once_as_aborted() {
        let metrics = Metrics::new().unwrap();
        drop(exchange(&metrics));
        assert_eq!(count(&metrics, "aborted"), 1);
        assert_eq!(metrics.in_flight.with_label_values(&["egress"]).get(), 0);
    }

    #[test]
    fn a_failed_verification_counts_under_its_code_in_both_metrics() {
        let metrics = Metrics::new().unwrap();
        let mut exchange = exchange(&metrics);
        exchange.failed(&Fault::unknown(Code::ResponseKeyUnknown, "no such key"));
        drop(exchange);
        assert_eq!(count(&metrics, "response_key_unknown"), 1);
        let results = &metrics.verifications;
        assert_eq!(
            results
                .with_label_values(&["egress", "response_key_unknown"])
                .get(),
            1
        );
    }
}
