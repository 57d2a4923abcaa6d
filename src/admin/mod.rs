//! The port for operators: liveness, readiness, metrics, a page for a person, and the drain.
//!
//! Shows nothing secret: client ids, key fingerprints and routes only. Says ready when keys are
//! loaded, listeners are bound and no drain has begun, whatever the gateway does. Refuses `POST
//! /drain` from other machines and pods, as probes and Prometheus need the port open to them, and from a
//! web page, so that a browser on the same machine cannot stop the sidecar.

pub mod probes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, ORIGIN,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use ::http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::ca::Authority;
use crate::exchange::Fault;
use crate::http::Body;
use crate::http::body::full;
use crate::keys::{KeyFacts, Keyring};
use crate::live::Live;
use crate::net::drain::{Drain, Phase};
use crate::net::linger::Linger;
use crate::net::listener::Place;
use crate::net::serve::{Ends, Service, Settings};
use crate::telemetry::Metrics;

/// How long a connection may be without a request, and how long it may take no byte of an answer: a kubelet and
/// Prometheus do both at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many connections there may be: few ask, and everybody in a cluster can connect.
const CONNECTIONS: u32 = 256;
/// The largest request head, in bytes.
const HEAD_LIMIT: usize = 16 * 1024;

/// What the configuration says of the admin port.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens.
    pub listen: Place,
}

/// How many connections the port may have where others may have so many.
pub fn connections(others: u32) -> u32 {
    others.min(CONNECTIONS)
}

/// How the port treats its connections: strangers who hold them give way to whoever may have something to ask.
pub fn settings(metrics: &Metrics, others: u32) -> Settings {
    Settings {
        connections: connections(others),
        quiet_give_way: true,
        head_timeout: PATIENCE,
        write_timeout: PATIENCE,
        head_limit: HEAD_LIMIT,
        counted: Some((metrics.clone(), "admin")),
        linger: Linger::unauthenticated(),
        ..Settings::plain(metrics.connections.with_label_values(&["admin"]))
    }
}

/// Answers operators.
#[derive(Debug)]
pub struct Admin {
    /// What is shown at `/metrics`.
    pub metrics: Metrics,
    /// What is in use now.
    pub shown: Live<Shown>,
    /// Whose certificate apps must trust, where their TLS is looked into.
    pub authority: Option<Arc<Authority>>,
    /// What decides readiness, and what `POST /drain` begins.
    pub drain: Drain,
}

/// What a reload changes of what operators see.
#[derive(Debug)]
pub struct Shown {
    /// Whose keys are shown.
    pub keyring: Arc<Keyring>,
    /// Lines about routes and addresses for the page.
    pub summary: Vec<String>,
}

impl Service for Admin {
    type Arrival = Ends;

    async fn answer(&self, request: Request<Incoming>, ends: &Ends) -> Response<Body> {
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        match (request.uri().path(), get) {
            ("/livez", true) => text(StatusCode::OK, "ok\n"),
            ("/readyz", true) => self.ready(),
            ("/metrics", true) => self.metrics(),
            ("/keys", true) => self.keys(),
            ("/ca.pem", true) => self.ca().await,
            ("/", true) => self.page(),
            ("/drain", false) if request.method() == Method::POST => {
                self.drain(&request, ends.peer)
            }
            ("/drain", _) => not_allowed("POST"),
            ("/livez" | "/readyz" | "/metrics" | "/keys" | "/ca.pem" | "/", false) => {
                not_allowed("GET, HEAD")
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "try /, /livez, /readyz, /metrics, /keys, /ca.pem or POST /drain\n",
            ),
        }
    }

    fn refuse(&self, fault: &Fault) -> Response<Body> {
        text(fault.status(), &format!("{}\n", fault.text()))
    }
}

impl Admin {
    fn ready(&self) -> Response<Body> {
        match self.drain.phase() {
            Phase::Serving => text(StatusCode::OK, "ready\n"),
            _ => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        }
    }

    fn metrics(&self) -> Response<Body> {
        self.shown.now().keyring.publish_tokens(&self.metrics);
        if let Some(authority) = &self.authority {
            authority.publish(&self.metrics);
        }
        exposition(&self.metrics)
    }

    async fn ca(&self) -> Response<Body> {
        let Some(authority) = &self.authority else {
            return text(StatusCode::NOT_FOUND, "no TLS of apps is looked into\n");
        };
        match authority.ca_pem().await {
            // RFC 8555 section 9.1.
            Ok(pem) => typed(StatusCode::OK, "application/pem-certificate-chain", pem),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        }
    }

    /// The keys in use, as JSON.
    fn keys(&self) -> Response<Body> {
        let facts = self.shown.now().keyring.facts();
        let keys: Vec<_> = facts.iter().map(KeyFacts::fields).collect();
        let body = serde_json::json!({ "keys": keys });
        typed(StatusCode::OK, "application/json", format!("{body:#}\n"))
    }

    fn drain(&self, request: &Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        if !peer.ip().is_loopback() {
            return text(StatusCode::FORBIDDEN, NOT_FROM_AFAR);
        }
        if request.headers().contains_key(ORIGIN) {
            return text(StatusCode::FORBIDDEN, "not from a web page\n");
        }
        self.drain.enter(Phase::Draining);
        text(StatusCode::ACCEPTED, "draining\n")
    }

    fn page(&self) -> Response<Body> {
        let shown = self.shown.now();
        let state = if self.drain.phase() == Phase::Serving {
            "ready"
        } else {
            "draining"
        };
        let facts = shown.keyring.facts();
        let keys = items(
            facts
                .iter()
                .map(|key| format!("{key}, since {}", key.loaded())),
        );
        let lines = items(shown.summary.iter().cloned());
        let version = env!("CARGO_PKG_VERSION");
        let ca = match &self.authority {
            Some(_) => " · <a href=\"/ca.pem\">ca.pem</a>, the CA that apps must trust",
            None => "",
        };
        let page = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\"><title>Countersign</title>\
             <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;\
             padding:0 1em}}code,li{{overflow-wrap:anywhere}}</style>\
             <h1>Countersign {version}: {state}</h1>\n<h2>Traffic</h2><ul>\n{lines}\n</ul>\n\
             <h2>Keys</h2><ul>\n{keys}\n</ul>\n<p><a href=\"/metrics\">metrics</a> · \
             <a href=\"/keys\">keys</a> · \
             <a href=\"/readyz\">readyz</a> · <a href=\"/livez\">livez</a>{ca}</p></html>\n"
        );
        typed(StatusCode::OK, "text/html; charset=utf-8", page)
    }
}

const NOT_FROM_AFAR: &str =
    "only from loopback: ask 127.0.0.1 or [::1] from within the same pod or machine\n";

/// All metrics, as Prometheus reads them.
fn exposition(metrics: &Metrics) -> Response<Body> {
    match metrics.render() {
        Ok(metrics) => typed(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            metrics,
        ),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

/// On every response: nothing is stored, framed, guessed at or read by another site.
const SECURITY_FIELDS: [(HeaderName, &str); 6] = [
    (CACHE_CONTROL, "no-store"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

fn text(status: StatusCode, body: &str) -> Response<Body> {
    typed(status, "text/plain; charset=utf-8", body.to_owned())
}

fn typed(status: StatusCode, media_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    for (name, value) in SECURITY_FIELDS {
        fields.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn not_allowed(methods: &'static str) -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(methods));
    response
}

/// Items of an HTML list.
fn items(lines: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = lines
        .map(|line| format!("<li>{}</li>", escape(&line)))
        .collect();
    items.join("\n")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}
