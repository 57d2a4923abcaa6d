//! The admission webhook as the API server calls it: `POST /inject` with a review, and the review's answer.
//!
//! Refuses with a status, in words, what is no review; holds at most 4 MiB of one, and all of them within a
//! budget, as everybody in a cluster can reach the port. Writes one line a review: whose pod, what came of it and
//! why, never what is in the pod. Served by `app`.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{ALLOW, CONTENT_TYPE};
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{info, warn};

use super::request::NoReview;
use super::review::{self, Answer, Verdict};
use super::{Defaults, inject};
use crate::exchange::Fault;
use crate::http::body::{BodyError, Held, full, hold};
use crate::http::pace::{Pace, Paced, Slow};
use crate::http::{Body, Budget};
use crate::net::serve::{Ends, Service};
use crate::task;
use crate::telemetry::Metrics;

/// Where reviews are posted.
pub const PATH: &str = "/inject";
/// The largest review, in bytes; an API server sends at most some 3 MiB.
pub const LARGEST: usize = 4 << 20;
/// How much of reviews and their answers is held at a time.
const HELD: usize = 16 << 20;
/// How many are looked at at a time: as values they take more memory than as text, and a pod's takes less than a
/// millisecond.
const AT_A_TIME: usize = 1;
/// How long a review may take to arrive; an API server waits ten seconds by default for the answer.
const WITHIN: Duration = Duration::from_secs(10);
/// In each stretch so long something of it must come.
const PACE: Duration = Duration::from_secs(2);

/// How much of the reasons a log line holds, in characters.
const LONGEST_WORDS: usize = 1000;

/// Answers reviews.
#[derive(Debug)]
pub struct Webhook {
    defaults: Arc<Defaults>,
    budget: Budget,
    places: Semaphore,
    metrics: Metrics,
}

/// The answer to the bytes of a review, as JSON.
///
/// # Errors
/// The status and the reason for what is no review.
pub fn answer(text: &[u8], defaults: &Defaults) -> Result<Vec<u8>, (StatusCode, String)> {
    let answer = review::answer(text, |pod| inject(pod, defaults));
    let answer = answer.map_err(|NoReview { status, why }| (status, why))?;
    Ok(answer.to_json())
}

impl Webhook {
    /// A webhook that injects with these defaults.
    pub fn new(defaults: Defaults, metrics: &Metrics) -> Self {
        for result in Verdict::ALL {
            // An alert on the first one needs the zero before it.
            let counter = metrics.injections.with_label_values(&[result.as_str()]);
            counter.inc_by(0);
        }
        let held = metrics.buffered.with_label_values::<&str>(&[]);
        Self {
            defaults: Arc::new(defaults),
            budget: Budget::new(HELD, held),
            places: Semaphore::new(AT_A_TIME),
            metrics: metrics.clone(),
        }
    }

    async fn review(&self, request: Request<Incoming>) -> Result<(Answer, Held), NoReview> {
        if request.uri().path() != PATH {
            return Err(no(StatusCode::NOT_FOUND, "reviews are posted to /inject"));
        }
        if request.method() != Method::POST {
            return Err(no(StatusCode::METHOD_NOT_ALLOWED, "reviews are posted"));
        }
        if !is_json(request.headers()) {
            let why = "a review has Content-Type: application/json";
            return Err(no(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
        }
        let body = Paced::new(request.into_body(), Pace::any(PACE));
        let held = match timeout(WITHIN, hold(body, LARGEST, &self.budget)).await {
            Ok(held) => held.map_err(not_held)?,
            Err(_elapsed) => return Err(late()),
        };
        let lost = || no(StatusCode::SERVICE_UNAVAILABLE, "the injector is ending");
        let _place = self.places.acquire().await.map_err(|_closed| lost())?;
        let (defaults, budget) = (Arc::clone(&self.defaults), self.budget.clone());
        // Big ones take long; those who only want to know whether we live must not wait for them.
        let answering = task::aside(move || {
            let answer = review::answer(&held.bytes, |pod| inject(pod, &defaults))?;
            drop(held);
            // Who does not read the answer has it held, too.
            let json = Held::read(answer.to_json().as_slice(), HELD, &budget).map_err(not_held)?;
            Ok((answer, json))
        });
        answering.await.map_err(|_ending| lost())?
    }

    fn count(&self, result: Verdict) {
        let labels = [result.as_str()];
        self.metrics.injections.with_label_values(&labels).inc();
    }
}

impl Service for Webhook {
    type Arrival = Ends;

    async fn answer(&self, request: Request<Incoming>, _ends: &Ends) -> Response<Body> {
        match self.review(request).await {
            Ok((answer, json)) => {
                self.count(answer.result);
                tell(&answer);
                let mut response = Response::new(full(Bytes::from_owner(json)));
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().insert(CONTENT_TYPE, json);
                response
            }
            Err(NoReview { status, why }) => {
                // Everybody in a cluster can post what is no review; that must wake nobody.
                self.count(match status {
                    StatusCode::SERVICE_UNAVAILABLE => Verdict::Failed,
                    _ => Verdict::NoReview,
                });
                warn!(status = status.as_u16(), why, "no review");
                text(status, &why)
            }
        }
    }

    fn refuse(&self, fault: &Fault) -> Response<Body> {
        text(fault.status(), fault.text())
    }
}

/// One line a review.
fn tell(answer: &Answer) {
    let subject = &answer.subject;
    let said = |text: &str| {
        let text: String = text.chars().take(LONGEST_WORDS).collect();
        (!text.is_empty()).then_some(text)
    };
    let (result, why) = (answer.result.as_str(), said(&answer.why));
    let (namespace, name) = (said(&subject.namespace), said(&subject.name));
    let (owner, dry_run) = (said(&subject.owner), subject.dry_run.then_some(true));
    match answer.result {
        Verdict::Injected | Verdict::Unasked => {
            info!(namespace, name, owner, result, why, dry_run, "review");
        }
        Verdict::Refused | Verdict::Failed | Verdict::NoReview => {
            warn!(namespace, name, owner, result, why, dry_run, "review");
        }
    }
}

fn is_json(fields: &HeaderMap) -> bool {
    let value = fields
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next());
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case("application/json"))
}

fn not_held(error: BodyError) -> NoReview {
    match error {
        BodyError::TooLarge(limit) => {
            let why = format!("a review has at most {limit} bytes");
            no(StatusCode::PAYLOAD_TOO_LARGE, why)
        }
        BodyError::OverBudget => {
            let why = "too many reviews at a time; try again";
            no(StatusCode::SERVICE_UNAVAILABLE, why)
        }
        BodyError::Broken(cause) if cause.is::<Slow>() => late(),
        BodyError::Broken(_) => no(StatusCode::BAD_REQUEST, "the review did not arrive whole"),
    }
}

fn late() -> NoReview {
    no(
        StatusCode::REQUEST_TIMEOUT,
        "the review did not arrive in time",
    )
}

fn no(status: StatusCode, why: impl Into<String>) -> NoReview {
    NoReview {
        status,
        why: why.into(),
    }
}

fn text(status: StatusCode, why: &str) -> Response<Body> {
    let mut response = Response::new(full(format!("countersign: {why}\n")));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    fields.insert(CONTENT_TYPE, plain);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        fields.insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}
