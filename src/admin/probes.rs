//! The port for operators of a process that is no sidecar: liveness, readiness and metrics, nothing else.
//!
//! Says ready when there is nothing to wait for and no drain has begun; otherwise, in words, what is waited for.
//! Refuses to change anything: this process is ended by its signals. Used by `app` for the admission webhook.

use ::http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::watch;

use super::{exposition, not_allowed, text};
use crate::exchange::Fault;
use crate::http::Body;
use crate::net::drain::{Drain, Phase};
use crate::net::serve::{Ends, Service};
use crate::telemetry::Metrics;

/// Answers operators and probes.
#[derive(Debug)]
pub struct Probes {
    /// What is shown at `/metrics`.
    pub metrics: Metrics,
    /// What must happen before the process can be of use; nothing when it did.
    pub waiting: watch::Receiver<Option<String>>,
    /// What ends readiness.
    pub drain: Drain,
}

impl Service for Probes {
    type Arrival = Ends;

    async fn answer(&self, request: Request<Incoming>, _ends: &Ends) -> Response<Body> {
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        match (request.uri().path(), get) {
            ("/livez", true) => text(StatusCode::OK, "ok\n"),
            ("/readyz", true) => self.ready(),
            ("/metrics", true) => exposition(&self.metrics),
            ("/livez" | "/readyz" | "/metrics", false) => not_allowed("GET, HEAD"),
            _ => text(StatusCode::NOT_FOUND, "try /livez, /readyz or /metrics\n"),
        }
    }

    fn refuse(&self, fault: &Fault) -> Response<Body> {
        text(fault.status(), &format!("{}\n", fault.text()))
    }
}

impl Probes {
    fn ready(&self) -> Response<Body> {
        let unready = |why: &str| text(StatusCode::SERVICE_UNAVAILABLE, &format!("{why}\n"));
        if self.drain.phase() != Phase::Serving {
            return unready("draining");
        }
        match &*self.waiting.borrow() {
            Some(why) => unready(why),
            None => text(StatusCode::OK, "ready\n"),
        }
    }
}
