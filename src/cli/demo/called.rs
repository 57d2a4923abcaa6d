//! The second half of the story: Alipay+ calls, and an app that knows nothing of signing answers.
//!
//! The app is a plain HTTP server behind the sidecar's ingress. What Alipay+ sends, what the app
//! sees and what goes back is shown; then calls that are forged, which the app must never see.
//! Told by `demo` after the first half.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderValue, Method, Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Collected};
use hyper::body::Incoming;
use prometheus::IntGauge;

use super::super::Failure;
use super::super::output::say;
use super::show::{expect, fields, indent};
use crate::http::body::{Body, full};
use crate::net::drain::{Drain, Phase};
use crate::net::listener::bind;
use crate::net::serve::{Ends, Server, Service, Settings};
use crate::sandbox::{CallFault, Caller, Operation, Payment, Report};
use crate::task;

const PATH: &str = "/aps/api/v1/payments/notifyPayment";
const ACKNOWLEDGEMENT: &str =
    r#"{"result":{"resultStatus":"S","resultCode":"SUCCESS","resultMessage":"success"}}"#;

/// The app of a partner that never heard of signatures; it serves until it is dropped.
pub(super) struct App {
    pub(super) address: SocketAddr,
    legacy: Arc<Legacy>,
    drain: Drain,
}

impl App {
    pub(super) async fn start() -> Result<Self, Failure> {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = bind("app", anywhere).await.map_err(Failure::other)?;
        let address = listener.local_addr().map_err(Failure::other)?;
        // Shown nowhere: the app has no metrics.
        let open = IntGauge::new("app_connections", "Open connections.");
        let settings = Settings::plain(open.map_err(Failure::other)?);
        let (legacy, drain) = (Arc::new(Legacy::default()), Drain::new());
        let server = Server::new(listener, settings);
        task::spawn(server.run(Arc::clone(&legacy), drain.clone()));
        Ok(Self {
            address,
            legacy,
            drain,
        })
    }

    fn seen(&self) -> Vec<Seen> {
        let seen = self.legacy.seen.lock();
        seen.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.drain.enter(Phase::Closing);
    }
}

/// A request as the app got it.
#[derive(Clone)]
struct Seen {
    method: Method,
    uri: String,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Default)]
struct Legacy {
    seen: Mutex<Vec<Seen>>,
}

impl Service for Legacy {
    type Arrival = Ends;

    async fn answer(&self, request: Request<Incoming>, _ends: &Ends) -> Response<Body> {
        let (head, body) = request.into_parts();
        // Half a body is for the sidecar to refuse; here it would show as an empty one.
        let body = body.collect().await;
        let seen = Seen {
            method: head.method,
            uri: head.uri.to_string(),
            headers: head.headers,
            body: body.map(Collected::to_bytes).unwrap_or_default(),
        };
        let mut all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(seen);
        drop(all);
        let mut response = Response::new(full(ACKNOWLEDGEMENT));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }
}

/// What the scene needs: who calls, where the sidecar is called, and the app behind it.
pub(super) struct Scene<'a> {
    pub(super) caller: &'a Caller,
    pub(super) ingress: SocketAddr,
    pub(super) app: &'a App,
}

impl Scene<'_> {
    /// Tells the second half.
    pub(super) async fn tell(&self) -> Result<(), Failure> {
        say(format_args!(
            "  Alipay+  ──signed──▶  sidecar {}  ──http──▶  app {}\n",
            self.ingress, self.app.address
        ));
        self.a_notification().await?;
        for (fault, what) in [
            (CallFault::AlteredBody, "changes one digit of the body"),
            (CallFault::WrongKey, "signs with another key"),
            (CallFault::StaleTime, "repeats a call of an hour ago"),
            (CallFault::Unsigned, "does not sign at all"),
            (CallFault::UnderscoreTwin, "adds a client_id of his own"),
        ] {
            self.a_forgery(fault, what).await?;
        }
        say("   every step held\n");
        Ok(())
    }

    async fn a_notification(&self) -> Result<(), Failure> {
        say("5. Alipay+ notifies a payment. The app answers as it always did, unsigned.\n");
        let report = self.call(None).await?;
        let sent = format!("POST {}\n", report.sent.target.signed());
        let sent = sent + &fields(&report.sent.headers);
        say(indent("Alipay+ sent", &with_body(&sent, &report.sent.body)));
        let seen = self.app.seen();
        let [seen] = seen.as_slice() else {
            return Err(Failure::other("the app did not see exactly one call"));
        };
        let head = format!("{} {}\n{}", seen.method, seen.uri, fields(&seen.headers));
        say(indent("the app saw", &with_body(&head, &seen.body)));
        if let Some(answer) = &report.answer {
            let head = format!("{}\n{}", answer.status, fields(&answer.headers));
            say(indent("Alipay+ got", &with_body(&head, &answer.body)));
        }
        say(format_args!("   Alipay+: signature {}\n", report.verdict));
        holds(&report)?;
        let verdict = seen.headers.get("countersign-verdict");
        expect(
            verdict.is_some_and(|verdict| verdict == "verified"),
            "the app is told that the call is verified",
        )?;
        expect(
            seen.body == report.sent.body,
            "the app gets the body byte for byte",
        )
    }

    async fn a_forgery(&self, fault: CallFault, what: &str) -> Result<(), Failure> {
        let before = self.app.seen().len();
        let report = self.call(Some(fault)).await?;
        let status = report.answer.as_ref().map(|answer| answer.status.as_u16());
        say(format_args!(
            "6. Somebody else {what}: gets {}, and the app sees nothing",
            status.unwrap_or_default()
        ));
        holds(&report)?;
        expect(
            self.app.seen().len() == before,
            "a forged call never reaches the app",
        )
    }

    async fn call(&self, fault: Option<CallFault>) -> Result<Report, Failure> {
        let target = format!("http://{}{PATH}", self.ingress);
        let target = target.parse().map_err(Failure::other)?;
        let payment = Payment::sample("R1");
        let mut call = self
            .caller
            .about(target, Operation::NotifyPayment, &payment);
        call.fault = fault;
        self.caller.call(&call).await.map_err(Failure::other)
    }

    /// A line to try.
    pub(super) fn invite(&self, folder: &Path) {
        say(format_args!(
            "  countersign sandbox --folder {} --call http://{}{PATH}\n",
            folder.display(),
            self.ingress
        ));
    }
}

fn holds(report: &Report) -> Result<(), Failure> {
    expect(report.is_good(), &report.problems.join("; "))
}

fn with_body(head: &str, body: &[u8]) -> String {
    let mut message = head.to_owned();
    let _infallible = write!(message, "\n{}", String::from_utf8_lossy(body));
    message
}
