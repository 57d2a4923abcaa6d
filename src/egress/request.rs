//! The request on its way: buffered, then signed. Each step is a type, so none can be skipped.
//!
//! Strips first and signs last, so that nothing the app wrote can remove or double our headers.
//! Bytes of path, query and body leave exactly as they came.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, EXPECT, HOST};
use ::http::request::Parts;
use ::http::uri::PathAndQuery;
use ::http::{HeaderMap, HeaderValue, Method, Request, Uri};
use countersign_protocol::Content;
use countersign_protocol::message::{Credentials, Kind, signed_uri};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::Egress;
use crate::clock::Stopwatch;
use crate::exchange::{Code, Exchange, Fault};
use crate::http::body::{self, Body, BodyError, Budget, Held, full};
use crate::http::headers;
use crate::keys::Identity;
use crate::upstream::Origin;

/// A request whose body arrived whole.
#[derive(Debug)]
pub struct Buffered {
    head: Parts,
    body: Held,
}

impl Buffered {
    /// Reads the body, at most `limit` bytes within `within`.
    pub async fn read(
        exchange: &mut Exchange,
        request: Request<Incoming>,
        (limit, within): (usize, Duration),
        budget: &Budget,
    ) -> Result<Self, Fault> {
        let (head, body) = request.into_parts();
        let arriving = timeout(within, body::hold(body, limit, budget));
        let body = match exchange.away(arriving).await {
            Ok(held) => held.map_err(body_fault)?,
            Err(_elapsed) => {
                let text = "the request's body did not arrive in time";
                return Err(Fault::not_sent(Code::RequestTimeout, text));
            }
        };
        exchange.received(body.bytes.len());
        Ok(Self { head, body })
    }

    /// Signs the exact bytes that will be sent, at the time of `egress`'s clock.
    pub fn sign(self, egress: &Egress, identity: &Arc<Identity>) -> Result<Signed, Fault> {
        let Self { mut head, body } = self;
        let uri = signed_uri(&head.uri).into_owned();
        head.headers.remove(EXPECT);
        set_length(&head.method, &mut head.headers, body.bytes.len());
        let time = identity.stamp(egress.clock.now());
        let content = Content {
            method: head.method.as_str(),
            uri: &uri,
            client_id: &identity.client_id,
            time: &time,
            body: &body.bytes,
        };
        let stopwatch = Stopwatch::start();
        let signature = identity.sign(&content).map_err(|error| {
            Fault::not_sent(Code::SigningFailed, "the request could not be signed").because(error)
        })?;
        egress.metrics.signed(stopwatch.elapsed());
        let credentials = Credentials {
            client_id: identity.client_id.clone(),
            time,
            signature,
        };
        Ok(Signed {
            head,
            uri,
            body,
            identity: Arc::clone(identity),
            credentials,
        })
    }
}

/// A request with the signature that belongs to it.
#[derive(Debug)]
pub struct Signed {
    head: Parts,
    uri: String,
    body: Held,
    pub(super) identity: Arc<Identity>,
    credentials: Credentials,
}

impl Signed {
    /// The method that was signed.
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// The URI that was signed.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The message for the gateway.
    pub fn to_request(&self, origin: &Origin, pseudonym: &str) -> Result<Request<Body>, Fault> {
        let mut fields = self.head.headers.clone();
        headers::clean(&mut fields);
        headers::add_via(&mut fields, self.head.version, pseudonym);
        // The signature covers the decoded bytes, so let there be nothing to decode.
        fields.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        self.credentials.write(Kind::Request, &mut fields);
        let mut request = Request::new(full(self.body.bytes.clone()));
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = at_origin(&self.uri, origin)?;
        fields.remove(HOST);
        *request.headers_mut() = fields;
        Ok(request)
    }
}

/// A target in absolute form, which tells the client where to connect; `Host` follows from it.
pub fn at_origin(path_and_query: &str, origin: &Origin) -> Result<Uri, Fault> {
    let malformed = |error: ::http::Error| {
        Fault::not_sent(Code::RequestMalformed, "no usable target").because(error)
    };
    let target: PathAndQuery = path_and_query
        .parse()
        .map_err(|e| malformed(::http::Error::from(e)))?;
    Uri::builder()
        .scheme(origin.scheme())
        .authority(
            origin
                .authority()
                .map_err(|error| malformed(error.into()))?,
        )
        .path_and_query(target)
        .build()
        .map_err(malformed)
}

/// Says the length of a body that is known now: always where there is one or where the method
/// means one (RFC 9110 section 8.6), and where the app said so itself.
fn set_length(method: &Method, fields: &mut HeaderMap, length: usize) {
    let means_body = [Method::POST, Method::PUT, Method::PATCH].contains(method);
    if length > 0 || means_body || fields.contains_key(CONTENT_LENGTH) {
        fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

fn body_fault(error: BodyError) -> Fault {
    match error {
        BodyError::TooLarge(limit) => Fault::not_sent(
            Code::RequestTooLarge,
            format!("the request's body is over the limit of {limit} bytes"),
        ),
        BodyError::OverBudget => {
            Fault::not_sent(Code::Overloaded, "no memory left to hold the request")
        }
        BodyError::Broken(cause) => {
            let text = "the request's body did not arrive whole";
            Fault::not_sent(Code::RequestMalformed, text).because(cause)
        }
    }
}
