//! The simulated Alipay+ gateway: real TLS, strict verification, signed answers, faults on request.
//!
//! Good enough to develop a partner's app against: it checks a request as strictly as the real
//! gateway, remembers payments and is idempotent by request id, and answers unsigned where the real
//! one does. Refuses to be more than that: state is lost when it stops. Used by `sandbox`, `demo` and
//! the tests.

pub mod caller;
pub mod certificate;
pub mod fault;
pub mod notify;
pub mod payments;
pub mod server;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderValue, Method, Request, Response};
use bytes::Bytes;
use countersign_protocol::message::{Credentials, CredentialsError, Kind, signed_uri};
use countersign_protocol::{
    ClientId, Content, KeyVersion, Offset, PrivateKey, PublicKey, Signature, Timestamp, sign,
    verify,
};
use hyper::body::Incoming;
use prometheus::IntGauge;
use serde_json::Value;
use tokio::sync::mpsc::Sender;
use tracing::warn;

pub use caller::{Call, CallFault, Caller, Operation, Payment, Report, Target};
pub use fault::Fault;
pub use server::{StartError, Started, start};

use self::payments::{Ledger, refused};
use crate::clock::Clock;
use crate::http::body::{self, Body, Budget, full};
use crate::live::Live;
use crate::net::serve::{Ends, Service};

/// How far a request's time may be from ours.
const MAX_SKEW: Duration = Duration::from_mins(5);
/// The largest request, in bytes.
const REQUEST_LIMIT: usize = 4 << 20;

/// Who the sandbox is and whom it knows.
#[derive(Clone, Debug)]
pub struct Config {
    /// The one partner it knows.
    pub client_id: ClientId,
    /// The partner's public key to begin with.
    pub partner_key: PublicKey,
    /// Its own private key to begin with.
    pub key: PrivateKey,
    /// The version of both keys.
    pub key_version: KeyVersion,
    /// Whether it speaks HTTP/2 with clients that offer it.
    pub http2: bool,
    /// What it does wrong to every request that asks for nothing itself.
    pub fault: Option<Fault>,
    /// What time it is there.
    pub clock: Clock,
}

/// A request as it arrived, for demo and tests.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The method.
    pub method: Method,
    /// Path and query, byte for byte.
    pub uri: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Whether it came over HTTP/2.
    pub http2: bool,
    /// Whether its signature verified.
    pub authentic: bool,
}

/// The gateway; clones are the same one.
#[derive(Clone, Debug)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

/// The keys of the moment.
#[derive(Debug)]
struct Keys {
    partner: BTreeMap<KeyVersion, PublicKey>,
    own: (KeyVersion, PrivateKey),
}

#[derive(Debug)]
struct Inner {
    config: Config,
    keys: Live<Keys>,
    stranger: PrivateKey,
    ledger: Mutex<Ledger>,
    seen: Mutex<Vec<Seen>>,
    deliveries: AtomicU64,
    budget: Budget,
    paid: OnceLock<Sender<Payment>>,
}

impl Sandbox {
    /// A gateway that knows no payment yet. `stranger` signs what is to be signed wrongly.
    ///
    /// # Errors
    /// When its gauge cannot be made, which would be a defect.
    pub fn new(config: Config, stranger: PrivateKey) -> Result<Self, prometheus::Error> {
        // Shown nowhere: the sandbox has no metrics.
        let gauge = IntGauge::new("sandbox_buffered_bytes", "Bytes of bodies held.")?;
        let keys = Keys {
            partner: BTreeMap::from([(config.key_version, config.partner_key.clone())]),
            own: (config.key_version, config.key.clone()),
        };
        let inner = Inner {
            config,
            keys: Live::new(keys),
            stranger,
            ledger: Mutex::default(),
            seen: Mutex::default(),
            deliveries: AtomicU64::new(0),
            budget: Budget::new(64 << 20, gauge),
            paid: OnceLock::new(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Knows these keys of the partner from now on, and signs with the own one, each with its version.
    pub fn rotate(&self, partner: BTreeMap<KeyVersion, PublicKey>, own: (KeyVersion, PrivateKey)) {
        self.inner.keys.replace(Keys { partner, own });
    }

    /// How many requests have arrived whole.
    pub fn deliveries(&self) -> u64 {
        self.inner.deliveries.load(Ordering::SeqCst)
    }

    /// The last request that arrived.
    pub fn last_seen(&self) -> Option<Seen> {
        self.seen().last().cloned()
    }

    /// The last thousand requests that arrived, the latest at the end.
    pub fn seen(&self) -> Vec<Seen> {
        let seen = &self.inner.seen;
        seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn exchange(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let uri = signed_uri(&head.uri).into_owned();
        let Ok(held) = body::hold(body, REQUEST_LIMIT, &self.inner.budget).await else {
            return unsigned(&refused("PARAM_ILLEGAL", "the body did not arrive whole"));
        };
        let body = Bytes::from_owner(held);
        let checked = self.check(&head.method, &uri, &head.headers, &body);
        self.remember(Seen {
            method: head.method.clone(),
            uri: uri.clone(),
            headers: head.headers.clone(),
            body: body.clone(),
            http2: head.version == ::http::Version::HTTP_2,
            authentic: checked.is_ok(),
        });
        if let Err(refusal) = checked {
            // The real gateway, too, leaves these unsigned.
            return unsigned(&refusal);
        }
        let fault = Fault::asked(&head.headers).or(self.inner.config.fault);
        if fault == Some(Fault::Stall) {
            std::future::pending::<()>().await;
        }
        let operation = uri
            .split('?')
            .next()
            .and_then(|path| path.rsplit('/').next());
        let answer = self
            .inner
            .ledger
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .carry_out(operation.unwrap_or_default(), &body);
        if operation == Some("pay") {
            self.tell_of(&answer);
        }
        self.answer_with(&head.method, &uri, &answer, fault)
    }

    /// Hands every successful payment to `paid` from now on; only the first caller of this gets them.
    fn tell(&self, paid: Sender<Payment>) {
        let _first_stays = self.inner.paid.set(paid);
    }

    /// Told also when the answer goes wrong on purpose: then the partner learns of it only so.
    fn tell_of(&self, answer: &Value) {
        let (Some(paid), Some(payment)) = (self.inner.paid.get(), Payment::made(answer)) else {
            return;
        };
        if let Err(error) = paid.try_send(payment) {
            warn!(%error, "a payment is not notified");
        }
    }

    /// Checks a request as strictly as the real gateway.
    fn check(
        &self,
        method: &Method,
        uri: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(), Value> {
        let config = &self.inner.config;
        let credentials =
            Credentials::read(Kind::Request, headers).map_err(|error| match error {
                CredentialsError::ClientId(_) => refused("INVALID_CLIENT", "no such client"),
                error => refused("INVALID_SIGNATURE", &error.to_string()),
            })?;
        if credentials.client_id != config.client_id {
            return Err(refused("INVALID_CLIENT", "no such client"));
        }
        let keys = self.inner.keys.now();
        let Some(key) = keys.partner.get(&credentials.signature.key_version) else {
            return Err(refused("KEY_NOT_FOUND", "no key of that version"));
        };
        if credentials.time.skew(config.clock.now()) > MAX_SKEW {
            return Err(refused(
                "INVALID_SIGNATURE",
                "Request-Time is too far from now",
            ));
        }
        let content = Content {
            method: method.as_str(),
            uri,
            client_id: &credentials.client_id,
            time: &credentials.time,
            body,
        };
        verify(key, &content, &credentials.signature.value)
            .map_err(|error| refused("INVALID_SIGNATURE", &error.to_string()))
    }

    /// Signs an answer, or does with it what the fault says.
    fn answer_with(
        &self,
        method: &Method,
        uri: &str,
        answer: &Value,
        fault: Option<Fault>,
    ) -> Response<Body> {
        let plain = Bytes::from(if fault == Some(Fault::OtherPayment) {
            fault::of_another(answer).to_string()
        } else {
            answer.to_string()
        });
        let body = if fault == Some(Fault::GzipRaw) {
            fault::gzip(&plain)
        } else {
            plain
        };
        let keys = self.inner.keys.now();
        let (key_version, key) = &keys.own;
        let mut signing = Signing {
            method,
            uri,
            client_id: self.inner.config.client_id.clone(),
            time: Timestamp::at(self.inner.config.clock.now(), Offset::UTC),
            key,
            key_version: *key_version,
        };
        if let Some(fault) = fault {
            fault.before(&mut signing, &self.inner.stranger);
        }
        let Some(response) = signing.sign(&body) else {
            return unsigned(&refused("PROCESS_FAIL", "the sandbox could not sign"));
        };
        match fault {
            Some(fault) => fault.after(response, &body),
            None => response.map(full),
        }
    }

    fn remember(&self, request: Seen) {
        const REMEMBERED: usize = 1_000;
        self.inner.deliveries.fetch_add(1, Ordering::SeqCst);
        let mut seen = self
            .inner
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if seen.len() == REMEMBERED {
            seen.remove(0);
        }
        seen.push(request);
    }
}

impl Service for Sandbox {
    type Arrival = Ends;

    async fn answer(&self, request: Request<Incoming>, _ends: &Ends) -> Response<Body> {
        self.exchange(request).await
    }
}

/// What an answer is signed with.
struct Signing<'a> {
    method: &'a Method,
    uri: &'a str,
    client_id: ClientId,
    time: Timestamp,
    key: &'a PrivateKey,
    key_version: KeyVersion,
}

impl Signing<'_> {
    fn sign(self, body: &Bytes) -> Option<Response<Bytes>> {
        let content = Content {
            method: self.method.as_str(),
            uri: self.uri,
            client_id: &self.client_id,
            time: &self.time,
            body,
        };
        let value = sign(self.key, &content).ok()?;
        let signature = Signature {
            key_version: self.key_version,
            value,
        };
        let mut response = Response::new(body.clone());
        let json = HeaderValue::from_static("application/json; charset=UTF-8");
        response.headers_mut().insert(CONTENT_TYPE, json);
        let credentials = Credentials {
            client_id: self.client_id,
            time: self.time,
            signature,
        };
        credentials.write(Kind::Response, response.headers_mut());
        Some(response)
    }
}

fn unsigned(answer: &Value) -> Response<Body> {
    let mut response = Response::new(full(answer.to_string()));
    let json = HeaderValue::from_static("application/json; charset=UTF-8");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
