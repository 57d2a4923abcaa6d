//! The simulated gateway calls a partner, as Alipay+ does, and tells all that is wrong with the answer.
//!
//! It signs over the path and query it posts to, waits no longer than Alipay+ waits, and takes an
//! answer only as strictly as the protocol allows. It never repeats a call by itself and follows no
//! redirect. Called by `sandbox --call`, by [`notify`](super::notify), by `demo` and the tests.

pub mod fault;
mod judge;
pub mod operation;
pub mod report;

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use ::http::header::CONTENT_TYPE;
use ::http::uri::{PathAndQuery, Scheme};
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use bytes::Bytes;
use countersign_protocol::message::{Credentials, Kind, signed_uri};
use countersign_protocol::{Content, KeyError, Offset, SignError, Signature, Timestamp, sign};

pub use fault::CallFault;
pub use operation::{Operation, Payment};
pub use report::{Received, Report, Verdict};

use self::fault::Signing;
use super::Config;
use crate::clock::Stopwatch;
use crate::exchange::{Direction, Exchange, Fault, Ids};
use crate::http::body::{Budget, Held};
use crate::net::tls::{self, TlsError};
use crate::telemetry::Metrics;
use crate::upstream::{Connector, Limits, OwnAddresses, Resolver, Upstream, origin, resolve};

/// The largest answer, in bytes.
const ANSWER_LIMIT: usize = 1 << 20;
/// What all answers under way may take together, in bytes.
const BUDGET: usize = 64 << 20;

/// Calls partners in the name of the gateway; clones share the connections.
#[derive(Clone, Debug)]
pub struct Caller {
    config: Config,
    upstream: Upstream,
    metrics: Metrics,
    /// The offset of the times it writes.
    pub offset: Offset,
}

/// Why there is no caller.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// The CA file is of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The resolver could not be set up.
    #[error("names cannot be resolved: {0}")]
    Resolver(#[from] std::io::Error),
    /// The metrics could not be made.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// Why a call could not even be made.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The stranger's key could not be made.
    #[error("cannot make a key: {0}")]
    Key(#[from] KeyError),
    /// It could not be signed.
    #[error("cannot sign the call: {0}")]
    Sign(#[from] SignError),
}

/// Where a partner is called: an absolute URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target(Uri);

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Where to.
    pub target: Target,
    /// What for.
    pub operation: Operation,
    /// The exact body.
    pub body: Bytes,
    /// What is wrong with it.
    pub fault: Option<CallFault>,
}

/// A call as it was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Where to.
    pub target: Target,
    /// Its headers, without those of the connection.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Caller {
    /// One with the gateway's keys that trusts the system's certificates and those of `extra_ca`.
    ///
    /// # Errors
    /// [`CallerError`].
    pub fn new(config: &Config, extra_ca: Option<&Path>) -> Result<Self, CallerError> {
        let metrics = Metrics::new()?;
        let settings = tls::client(tls::roots(extra_ca)?)?;
        let resolver = Resolver::new(&resolve::Config::default())?;
        let own = OwnAddresses::default();
        let connector = Connector::new(settings, resolver, None, own, metrics.clone());
        let gauge = metrics.buffered.with_label_values::<&str>(&[]);
        Ok(Self {
            config: config.clone(),
            upstream: Upstream::new(connector, Budget::new(BUDGET, gauge)),
            metrics,
            offset: Offset::UTC,
        })
    }

    /// A call with the body Alipay+ would send.
    pub fn about(&self, target: Target, operation: Operation, payment: &Payment) -> Call {
        Call {
            target,
            operation,
            body: operation.body(payment, &self.time()).into(),
            fault: None,
        }
    }

    /// Calls, and looks hard at the answer.
    ///
    /// # Errors
    /// When the call could not even be made; all that goes wrong from then on is in the report.
    pub async fn call(&self, call: &Call) -> Result<Report, CallError> {
        let sent = self.sign(call)?;
        if call.fault != Some(CallFault::Replay) {
            return Ok(self.deliver(call, sent).await);
        }
        let first = self.deliver(&call.faultless(), sent.clone()).await;
        let second = self.deliver(call, sent).await;
        Ok(second.after(first))
    }

    /// Sends it and waits.
    async fn deliver(&self, call: &Call, sent: Sent) -> Report {
        let started = Stopwatch::start();
        let answer = self.exchange(&sent, call.operation.patience()).await;
        let took = started.elapsed();
        let answer = answer.map(Received::from);
        judge::judge(&self.config, call, sent, took, answer)
    }

    async fn exchange(&self, sent: &Sent, patience: Duration) -> Result<Response<Held>, Fault> {
        let (method, ids) = (Method::POST, Ids::new());
        let path = sent.target.signed();
        let mut exchange = Exchange::start(
            Direction::Egress,
            &self.metrics,
            &ids,
            &method,
            path.split('?').next().unwrap_or_default(),
            &sent.headers,
        );
        exchange.on_route("sandbox");
        let mut request = Request::new(sent.body.clone());
        *request.method_mut() = method;
        *request.uri_mut() = sent.target.0.clone();
        *request.headers_mut() = sent.headers.clone();
        let limits = Limits {
            timeout: patience,
            response_limit: ANSWER_LIMIT,
        };
        let answer = self.upstream.send(&mut exchange, request, limits).await;
        match &answer {
            Ok(answer) => exchange.answered(answer.status()),
            Err(fault) => exchange.failed(fault),
        }
        answer
    }

    /// The call as it goes out, right or wrong as asked.
    fn sign(&self, call: &Call) -> Result<Sent, CallError> {
        let mut signing = Signing {
            key: self.config.key.clone(),
            key_version: self.config.key_version,
            time: self.time(),
        };
        if let Some(fault) = call.fault {
            fault.before(&mut signing)?;
        }
        let content = Content {
            method: Method::POST.as_str(),
            uri: &call.target.signed(),
            client_id: &self.config.client_id,
            time: &signing.time,
            body: &call.body,
        };
        let signature = Signature {
            key_version: signing.key_version,
            value: sign(&signing.key, &content)?,
        };
        let credentials = Credentials {
            client_id: self.config.client_id.clone(),
            time: signing.time,
            signature,
        };
        let mut headers = HeaderMap::new();
        let json = HeaderValue::from_static("application/json; charset=UTF-8");
        headers.insert(CONTENT_TYPE, json);
        credentials.write(Kind::Request, &mut headers);
        let mut sent = Sent {
            target: call.target.clone(),
            headers,
            body: call.body.clone(),
        };
        if let Some(fault) = call.fault {
            fault.after(&mut sent);
        }
        Ok(sent)
    }

    fn time(&self) -> Timestamp {
        Timestamp::at(self.config.clock.now(), self.offset)
    }
}

impl Call {
    /// The same without its fault.
    fn faultless(&self) -> Self {
        Self {
            fault: None,
            ..self.clone()
        }
    }
}

impl Target {
    /// The operation its path names.
    pub fn operation(&self) -> Option<Operation> {
        Operation::of_path(self.0.path())
    }

    /// Path and query, as they are sent and signed.
    pub fn signed(&self) -> String {
        signed_uri(&self.0).into_owned()
    }

    /// Host and port as written.
    pub fn authority(&self) -> &str {
        self.0
            .authority()
            .map_or("", |authority| authority.as_str())
    }

    /// Scheme, host and port.
    fn origin(&self) -> String {
        format!(
            "{}://{}",
            self.0.scheme_str().unwrap_or_default(),
            self.authority()
        )
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{what}; an absolute http or https URL is needed");
        let uri: Uri = text.parse().map_err(|error| wrong(&format!("{error}")))?;
        let known = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme());
        let authority = uri.authority().filter(|_| known);
        let authority = authority.ok_or_else(|| wrong("no scheme that is known"))?;
        origin::split(authority).map_err(|error| wrong(&error.to_string()))?;
        if text.contains('#') {
            // It would be dropped in silence, and the partner's path be another than the one meant.
            return Err(wrong("a fragment is never sent"));
        }
        if uri.path_and_query().is_none_or(is_absolute) {
            return Ok(Self(uri));
        }
        Err(wrong("the path does not begin with /"))
    }
}

fn is_absolute(path: &PathAndQuery) -> bool {
    path.as_str().starts_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_signed_byte_for_byte_as_written() {
        for (url, signed) in [
            ("http://app.test", "/"),
            (
                "http://app.test:81/a//b%2f/../c/?x=1%20&",
                "/a//b%2f/../c/?x=1%20&",
            ),
            ("https://[::1]:8443/notify?", "/notify?"),
        ] {
            assert_eq!(url.parse::<Target>().unwrap().signed(), signed, "{url}");
        }
    }

    #[test]
    fn a_target_that_is_no_absolute_http_url_is_refused() {
        for url in [
            "/aps/api/v1/payments/notifyPayment",
            "ftp://app.test/",
            "http://user:secret@app.test/",
            "http://app.test/a#b",
            "http://app.test?x",
            "app.test:80",
        ] {
            assert!(url.parse::<Target>().is_err(), "{url}");
        }
    }
}
