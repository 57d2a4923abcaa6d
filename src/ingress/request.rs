//! The request on its way in: claimed, then proved, then passed on. Each step is a type, so none can be
//! skipped.
//!
//! What is cheap is looked at before the body is read: a caller who can prove nothing costs at the most
//! one body within its limit and one verification. Bytes of query and body reach the app as they
//! came.

use std::sync::Arc;
use std::time::SystemTime;

use ::http::header::{ACCEPT_ENCODING, EXPECT, HOST};
use ::http::request::Parts;
use ::http::{HeaderValue, Method, Request};
use bytes::Bytes;
use countersign_protocol::Content;
use countersign_protocol::message::{
    CLIENT_ID, Credentials, CredentialsError, Kind, REQUEST_TIME, SIGNATURE, signed_uri,
};

use super::Ingress;
use super::route::{Replay, Route};
use crate::clock::Stopwatch;
use crate::exchange::{Code, Direction, Exchange, Fault, Policy, Verdict};
use crate::http::body::Held;
use crate::http::headers::{self, VERDICT};
use crate::http::intake;
use crate::http::retries::{AttemptMemory, ContentKey, Policies, attempt_number};
use crate::keys::{Identity, Keyring};
use crate::upstream::Limits;

/// The headers that say who the caller is.
const NAMES: [::http::HeaderName; 3] = [CLIENT_ID, REQUEST_TIME, SIGNATURE];

/// What a request says of its caller.
#[derive(Debug)]
pub enum Claim<'a> {
    /// Nobody asks.
    Ignored,
    /// All but the signature itself was looked at and is right.
    Credible(&'a Arc<Identity>, Credentials),
    /// It is wrong, and the route only reports that.
    Reported(Fault),
}

impl<'a> Claim<'a> {
    /// Reads the claim as the route asks for.
    pub fn read(
        keyring: &'a Keyring,
        route: &Route,
        head: &Parts,
        now: SystemTime,
    ) -> Result<Self, Fault> {
        let credible = || Self::credible(keyring, route, head, now);
        match route.verify {
            Policy::Off => Ok(Self::Ignored),
            Policy::Enforce => credible(),
            Policy::Report => Ok(credible().unwrap_or_else(Self::Reported)),
        }
    }

    fn credible(
        keyring: &'a Keyring,
        route: &Route,
        head: &Parts,
        now: SystemTime,
    ) -> Result<Self, Fault> {
        if headers::has_twin(&head.headers, &NAMES) {
            let text = "a signature header is there under a name with an underscore";
            return Err(refused(Code::RequestSignatureMalformed, text));
        }
        let credentials = Credentials::read(Kind::Request, &head.headers).map_err(unreadable)?;
        let client_id = &credentials.client_id;
        let expected = route.identity.as_ref().is_none_or(|one| one == client_id);
        let identity = keyring
            .identity(client_id)
            .filter(|_| expected)
            .ok_or_else(|| refused(Code::RequestClientUnknown, "no such client here"))?;
        let version = credentials.signature.key_version;
        if !identity.knows(version) {
            let known = identity.verification_versions();
            let cause = format!("it names key version {version}; known: {known}");
            return Err(refused(Code::RequestKeyUnknown, "no key of that version").because(cause));
        }
        let skew = credentials.time.skew(now);
        match route.max_skew {
            Some(most) if skew > most => {
                let text = format!(
                    "Request-Time is {} s away from our time; allowed are {} s",
                    skew.as_secs(),
                    most.as_secs()
                );
                Err(Fault::not_sent(Code::RequestTimeUnacceptable, text))
            }
            _ => Ok(Self::Credible(identity, credentials)),
        }
    }

    /// Proves the claim by the body, as the route asks for.
    pub fn prove(
        self,
        ingress: &Ingress,
        exchange: &mut Exchange,
        (route, head): (&Route, &Parts),
        body: &Held,
    ) -> Result<Proof, Fault> {
        let (identity, credentials) = match self {
            Self::Ignored => return Ok(Proof::none(exchange, Verdict::Unchecked)),
            Self::Reported(fault) => return Ok(Proof::failed(exchange, &fault)),
            Self::Credible(identity, credentials) => (identity, credentials),
        };
        let uri = signed_uri(&head.uri);
        let content = Content {
            method: head.method.as_str(),
            uri: &uri,
            client_id: &credentials.client_id,
            time: &credentials.time,
            body: &body.bytes,
        };
        let stopwatch = Stopwatch::start();
        let verified = identity.verify(&content, &credentials.signature);
        ingress.metrics.verified(stopwatch.elapsed());
        let version = match verified {
            Ok(version) => version,
            Err(error) => {
                let text = "the request's signature does not verify";
                let fault = refused(Code::RequestSignatureInvalid, text).because(error);
                return match route.verify {
                    Policy::Report => Ok(Proof::failed(exchange, &fault)),
                    Policy::Enforce | Policy::Off => Err(fault),
                };
            }
        };
        ingress.refuse_replay(exchange, route, &credentials)?;
        identity.verified_with(version, Direction::Ingress, &ingress.metrics);
        exchange.judged(Verdict::Verified, Some(version.number()));
        Ok(Proof {
            verdict: Verdict::Verified,
            caller: Some(Arc::clone(identity)),
        })
    }
}

impl Ingress {
    /// Refuses or reports a request that was here before, as the route asks for.
    fn refuse_replay(
        &self,
        exchange: &mut Exchange,
        route: &Route,
        credentials: &Credentials,
    ) -> Result<(), Fault> {
        let value = &credentials.signature.value;
        if route.replay == Replay::Off || !self.guard.was_here(value, self.clock.now()) {
            return Ok(());
        }
        exchange.replayed();
        let replays = self.metrics.replays.with_label_values(&[&route.name]);
        replays.inc();
        if route.replay == Replay::Enforce {
            let text = "the very same request was here before";
            return Err(refused(Code::RequestReplayed, text));
        }
        Ok(())
    }
}

/// What was found out about the caller. Only here does a caller come from, and only to a caller is
/// anything signed.
#[derive(Debug)]
pub struct Proof {
    verdict: Verdict,
    caller: Option<Arc<Identity>>,
}

impl Proof {
    fn none(exchange: &mut Exchange, verdict: Verdict) -> Self {
        exchange.judged(verdict, None);
        Self {
            verdict,
            caller: None,
        }
    }

    fn failed(exchange: &mut Exchange, fault: &Fault) -> Self {
        exchange.reported(fault);
        Self::none(exchange, Verdict::Failed)
    }
}

/// A request that the app may see.
#[derive(Debug)]
pub struct Received<'a> {
    route: &'a Route,
    head: Parts,
    uri: String,
    body: Held,
    proof: Proof,
    since: Stopwatch,
}

impl<'a> Received<'a> {
    /// A request with what was found out about it; it began to arrive at `since`.
    pub fn new(route: &'a Route, head: Parts, body: Held, proof: Proof, since: Stopwatch) -> Self {
        let uri = signed_uri(&head.uri).into_owned();
        Self {
            route,
            head,
            uri,
            body,
            proof,
            since,
        }
    }

    /// The method, which an answer's signature covers.
    pub fn method(&self) -> &Method {
        &self.head.method
    }

    /// Path and query as the caller wrote them, which an answer's signature covers.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Who signs the answer, if the caller proved to be the gateway.
    pub fn caller(&self) -> Option<&Identity> {
        self.proof.caller.as_deref()
    }

    /// Its content, by which it is known when it is repeated, and the number that a proxy gave this attempt.
    pub fn repeated_content(&self, attempts: &AttemptMemory) -> (ContentKey, u32) {
        let client = self.caller().map_or("", |caller| caller.client_id.as_str());
        let key = attempts.key(self.method().as_str(), &self.uri, client, &self.body.bytes);
        (key, attempt_number(&self.head.headers))
    }

    /// What happens to it when a proxy repeats it.
    pub fn retries(&self) -> Policies {
        self.route.retries
    }

    /// What the app's answer may take.
    pub fn limits(&self) -> Limits {
        Limits {
            timeout: self.route.patience(&self.head.uri, self.since.elapsed()),
            response_limit: self.route.response_limit,
        }
    }

    /// The message for the app.
    pub fn to_request(&self, pseudonym: &str) -> Result<Request<Bytes>, Fault> {
        let mut fields = self.head.headers.clone();
        headers::clean(&mut fields);
        headers::remove_twins(&mut fields, &NAMES);
        if !self.route.keeps_overrides {
            headers::remove_overrides(&mut fields);
        }
        headers::add_via(&mut fields, self.head.version, pseudonym);
        // The body is here already, and the signature of the answer covers bytes without a coding.
        fields.remove(EXPECT);
        fields.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        intake::set_length(&self.head.method, &mut fields, self.body.bytes.len());
        let verdict = HeaderValue::from_static(self.proof.verdict.as_str());
        fields.insert(VERDICT, verdict);
        // The app sees the public host, in HTTP/2 as well.
        if let Some(authority) = self.head.uri.authority()
            && let Ok(host) = HeaderValue::try_from(authority.as_str())
        {
            fields.insert(HOST, host);
        }
        let mut request = Request::new(self.body.bytes.clone());
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.route.app.target(&self.route.rewrite(&self.uri))?;
        *request.headers_mut() = fields;
        Ok(request)
    }
}

fn unreadable(error: CredentialsError) -> Fault {
    let (code, text) = match &error {
        error if error.is_missing() => (
            Code::RequestSignatureMissing,
            "the request is not signed, or only half",
        ),
        CredentialsError::ClientId(_) => (
            Code::RequestClientUnknown,
            "the request names an impossible client",
        ),
        CredentialsError::Time(_) => (Code::RequestTimeUnacceptable, "Request-Time is no time"),
        _ => (
            Code::RequestSignatureMalformed,
            "the request's signature cannot be read",
        ),
    };
    refused(code, text).because(error)
}

fn refused(code: Code, text: &'static str) -> Fault {
    Fault::not_sent(code, text)
}
