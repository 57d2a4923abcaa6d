//! The request on its way: buffered, then signed. Each step is a type, so none can be skipped.
//!
//! Strips first and signs last, so that nothing the app wrote can remove or double our headers.
//! Bytes of path, query and body leave exactly as they came.

use std::sync::Arc;

use ::http::header::{ACCEPT_ENCODING, EXPECT, HOST};
use ::http::request::Parts;
use ::http::{HeaderValue, Method, Request};
use bytes::Bytes;
use countersign_protocol::Content;
use countersign_protocol::message::{CLIENT_ID, Credentials, Kind, signed_uri};
use hyper::body::Incoming;

use super::Egress;
use crate::clock::Stopwatch;
use crate::exchange::{Code, Exchange, Fault};
use crate::http::body::{Budget, Held};
use crate::http::intake::Room;
use crate::http::retries::{ATTEMPT_COUNT, ContentKey, attempt_number};
use crate::http::{headers, intake};
use crate::keys::Identity;
use crate::upstream::Origin;

/// A request whose body arrived whole.
#[derive(Debug)]
pub struct Buffered {
    head: Parts,
    body: Held,
}

impl Buffered {
    /// Reads the body as far as there is `room`.
    pub async fn read(
        exchange: &mut Exchange,
        request: Request<Incoming>,
        room: Room,
        budget: &Budget,
    ) -> Result<Self, Fault> {
        let (head, body) = request.into_parts();
        let body = intake::hold(exchange, body, room, budget).await?;
        Ok(Self { head, body })
    }

    /// Its content, by which it is known when it is repeated, and the number that a proxy gave this attempt.
    pub fn repeated_content(&self, egress: &Egress, identity: &Identity) -> (ContentKey, u32) {
        let uri = signed_uri(&self.head.uri);
        let (method, client) = (self.head.method.as_str(), identity.client_id.as_str());
        let key = egress.attempts.key(method, &uri, client, &self.body.bytes);
        (key, attempt_number(&self.head.headers))
    }

    /// Signs the exact bytes that will be sent, at the time of `egress`'s clock.
    pub async fn sign(self, egress: &Egress, identity: &Arc<Identity>) -> Result<Signed, Fault> {
        let Self { mut head, body } = self;
        let uri = signed_uri(&head.uri).into_owned();
        head.headers.remove(EXPECT);
        intake::set_length(&head.method, &mut head.headers, body.bytes.len());
        let time = identity.stamp(egress.clock.now());
        let content = Content {
            method: head.method.as_str(),
            uri: &uri,
            client_id: &identity.client_id,
            time: &time,
            body: &body.bytes,
        };
        let stopwatch = Stopwatch::start();
        let signature = identity.sign(&content).await.map_err(|error| {
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

    /// The bytes that were signed.
    pub fn body(&self) -> &[u8] {
        &self.body.bytes
    }

    /// The message for the gateway.
    pub fn to_request(&self, origin: &Origin, pseudonym: &str) -> Result<Request<Bytes>, Fault> {
        let mut fields = self.head.headers.clone();
        headers::clean(&mut fields);
        // A gateway behind CGI or WSGI could not tell `Client_Id` from the field that is signed.
        headers::remove_twins(&mut fields, &[CLIENT_ID]);
        headers::add_via(&mut fields, self.head.version, pseudonym);
        // The proxy's attempts are none of the gateway's business.
        fields.remove(ATTEMPT_COUNT);
        // The signature covers the decoded bytes, so let there be nothing to decode.
        fields.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        self.credentials.write(Kind::Request, &mut fields);
        let mut request = Request::new(self.body.bytes.clone());
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = origin.target(&self.uri)?;
        fields.remove(HOST);
        *request.headers_mut() = fields;
        Ok(request)
    }
}
