//! The app's answer, whole, and signed for the caller.
//!
//! Signs the exact bytes that are sent, under the public path. Refuses to sign for anybody who has not
//! proved to be the gateway, and answers that cannot be signed as they are.

use ::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use ::http::response::Parts;
use ::http::{HeaderValue, Response, StatusCode, Version};
use bytes::Bytes;
use countersign_protocol::Content;
use countersign_protocol::message::{Credentials, Kind};

use super::Ingress;
use super::request::Received;
use crate::clock::Stopwatch;
use crate::exchange::{Code, Fault};
use crate::http::answer as fault_answer;
use crate::http::body::{Body, Budget, Held, full};
use crate::http::coding::{Coding, decode};
use crate::http::headers;

/// An answer whose bytes are known.
#[derive(Debug)]
pub struct Answer {
    head: Parts,
    body: Bytes,
}

impl Answer {
    /// The app's answer, without what is not for the caller.
    pub fn of(
        received: &Received<'_>,
        answer: Response<Held>,
        budget: &Budget,
    ) -> Result<Self, Fault> {
        let (mut head, held) = answer.into_parts();
        let limit = received.limits().response_limit;
        let body = Bytes::from_owner(held);
        let coding = decode(&head.headers, &body, limit, budget).map_err(|error| {
            let text = "no memory left to unpack the app's answer";
            Fault::unknown(Code::Overloaded, text).because(error)
        })?;
        let body = match coding {
            Coding::Identity => body,
            Coding::Decoded(decoded) => decoded,
            Coding::Opaque => {
                let text = "the app's answer has a content coding that cannot be undone";
                return Err(Fault::unknown(Code::AppMalformed, text));
            }
        };
        headers::clean(&mut head.headers);
        if !headers::is_bodiless(received.method(), head.status) {
            head.headers.remove(CONTENT_ENCODING);
        }
        if head.status == StatusCode::NO_CONTENT {
            head.headers.remove(CONTENT_LENGTH);
        } else if !headers::is_bodiless(received.method(), head.status) {
            head.headers
                .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        head.extensions.clear();
        head.version = Version::HTTP_11;
        Ok(Self { head, body })
    }

    /// What stands for the answer of an app that gave none.
    pub fn unknown(fault: &Fault) -> Self {
        let (head, body) = fault_answer::unknown(fault).into_parts();
        Self { head, body }
    }

    /// The app's status.
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The message for the caller.
    pub async fn into_response(
        mut self,
        ingress: &Ingress,
        received: &Received<'_>,
    ) -> Result<Response<Body>, Fault> {
        if let Some(identity) = received.caller() {
            let time = identity.stamp(ingress.clock.now());
            let content = Content {
                method: received.method().as_str(),
                uri: received.uri(),
                client_id: &identity.client_id,
                time: &time,
                body: &self.body,
            };
            let stopwatch = Stopwatch::start();
            let signature = identity.sign(&content).await.map_err(|error| {
                let text = "the answer could not be signed";
                Fault::unknown(Code::SigningFailed, text).because(error)
            })?;
            ingress.metrics.signed(stopwatch.elapsed());
            let credentials = Credentials {
                client_id: identity.client_id.clone(),
                time,
                signature,
            };
            credentials.write(Kind::Response, &mut self.head.headers);
        }
        Ok(Response::from_parts(self.head, full(self.body)))
    }
}

/// The same failure, told of the app instead of the gateway.
pub fn of_app(fault: Fault) -> Fault {
    let (code, text) = match fault.code() {
        Code::UpstreamUnreachable | Code::UpstreamTlsFailed => {
            (Code::AppUnreachable, "no connection to the app")
        }
        Code::UpstreamBrokeOff => (
            Code::AppBrokeOff,
            "the connection to the app ended before its answer was complete",
        ),
        Code::UpstreamMalformed => (Code::AppMalformed, "the app's answer is not valid HTTP"),
        Code::UpstreamTimeout => (Code::AppTimeout, "no complete answer from the app in time"),
        _ => return fault,
    };
    fault.under(code, text)
}
