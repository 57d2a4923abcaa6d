//! The gateway's answer: judged, and only then something the app may see.
//!
//! A [`Verified`] exists only for an answer that verifies, needs no signature (PROTOCOL: unsigned `F`
//! or `U`, or an error status that does not claim `S`), or that the route lets pass by name. Refuses
//! everything else before a byte of it reaches the app.

use std::sync::Arc;

use ::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE};
use ::http::response::Parts;
use ::http::{HeaderMap, HeaderValue, Response, StatusCode, Version};
use bytes::Bytes;
use countersign_protocol::message::{CLIENT_ID, Credentials, CredentialsError, Kind};
use countersign_protocol::{Content, KeyVersion};

use super::Egress;
use super::request::Signed;
use super::route::Route;
use crate::clock::Stopwatch;
use crate::exchange::{Code, Direction, Exchange, Fault, Policy, Unsigned, Verdict};
use crate::http::body::{Body, BodyError, Held, full};
use crate::http::coding::{Coding, decode};
use crate::http::headers::{self, VERDICT};
use crate::http::result::{Claim, claim};
use crate::keys::Identity;
use crate::upstream::Used;

/// An answer the app may see.
#[derive(Debug)]
pub struct Verified {
    head: Parts,
    body: Bytes,
    verdict: Verdict,
    bodiless: bool,
}

impl Verified {
    /// Judges the answer to a signed request as the route asks for. What fails ends the connection it
    /// came on, also where it is only reported: the next answer there could be as wrong.
    pub fn judge(
        egress: &Egress,
        exchange: &mut Exchange,
        route: &Route,
        request: &Signed,
        mut answer: Response<Held>,
    ) -> Result<Self, Fault> {
        let connection = answer.extensions_mut().remove::<Used>();
        let judged = Self::of(egress, exchange, route, request, answer);
        let failed = match &judged {
            Ok(verified) => verified.verdict == Verdict::Failed,
            Err(_) => true,
        };
        if let Some(connection) = connection.filter(|_| failed) {
            connection.give_up();
        }
        judged
    }

    fn of(
        egress: &Egress,
        exchange: &mut Exchange,
        route: &Route,
        request: &Signed,
        answer: Response<Held>,
    ) -> Result<Self, Fault> {
        let (mut head, held) = answer.into_parts();
        egress.watch_clock(route, &head.headers);
        // Before anything is read from the head: what it nominates was not meant for us.
        headers::clean(&mut head.headers);
        let body = Bytes::from_owner(held);
        if head.status.is_redirection() && head.status != StatusCode::NOT_MODIFIED {
            // Status and Location are not signed; whoever followed would leave the verified path.
            let text = "the gateway answered a signed request with a redirect";
            return Err(refusal(Code::UpstreamMalformed, text));
        }
        let proof = match route.verify {
            Policy::Off => Ok(Proof::plain(Verdict::Unchecked)),
            Policy::Enforce | Policy::Report => {
                let coding = decode(&head.headers, &body, route.response_limit, &egress.budget);
                Judge {
                    egress,
                    route,
                    request,
                    head: &head,
                    body: &body,
                    coding: &coding.map_err(no_room)?,
                }
                .proof()
            }
        };
        let proof = match proof {
            Err(fault) if route.verify == Policy::Report => {
                exchange.reported(&fault);
                Proof::plain(Verdict::Failed)
            }
            proof => proof?,
        };
        exchange.judged(proof.verdict, proof.key_version);
        if let Some(kind) = proof.unsigned {
            exchange.unsigned(kind);
        }
        let bodiless = headers::is_bodiless(request.method(), head.status);
        let body = match proof.decoded {
            Some(decoded) => {
                head.headers.remove(CONTENT_ENCODING);
                decoded
            }
            None => body,
        };
        Ok(Self {
            head,
            body,
            verdict: proof.verdict,
            bodiless,
        })
    }

    /// The gateway's status.
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The message for the app: the gateway's bytes and fields, and the verdict.
    pub fn into_response(self) -> Response<Body> {
        let Self {
            mut head,
            body,
            verdict,
            bodiless,
        } = self;
        if head.status == StatusCode::NO_CONTENT {
            head.headers.remove(CONTENT_LENGTH);
        } else if !bodiless {
            head.headers
                .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        head.headers
            .insert(VERDICT, HeaderValue::from_static(verdict.as_str()));
        // Names go out in lower case, which two official SDKs insist on; and in our version.
        head.extensions.clear();
        head.version = Version::HTTP_11;
        Response::from_parts(head, full(body))
    }
}

/// What was found out.
struct Proof {
    verdict: Verdict,
    key_version: Option<u32>,
    /// What kind of answer it is, when it needed no signature and has none.
    unsigned: Option<Unsigned>,
    /// The body without its content coding, when it is these bytes that were signed.
    decoded: Option<Bytes>,
}

impl Proof {
    fn plain(verdict: Verdict) -> Self {
        Self {
            verdict,
            key_version: None,
            unsigned: None,
            decoded: None,
        }
    }
}

/// Everything a verdict depends on.
struct Judge<'a> {
    egress: &'a Egress,
    route: &'a Route,
    request: &'a Signed,
    head: &'a Parts,
    body: &'a Bytes,
    coding: &'a Coding,
}

impl Judge<'_> {
    fn proof(&self) -> Result<Proof, Fault> {
        let proof = match Credentials::read(Kind::Response, &self.head.headers) {
            Ok(credentials) => self.signed(&credentials),
            Err(CredentialsError::Absent) => self.unsigned(),
            Err(error) => Err(unreadable(error)),
        }?;
        self.bind()?;
        Ok(proof)
    }

    /// The signature does not cover what was asked, so the answer's own words are held against it: as
    /// they came, too, since neither does it cover the coding, and some clients ignore that.
    fn bind(&self) -> Result<(), Fault> {
        let (asked, bind) = (self.request.body(), &self.route.bind);
        if let Coding::Decoded(decoded) = self.coding {
            bind.check(asked, decoded)?;
        }
        bind.check(asked, self.body)
    }

    fn signed(&self, credentials: &Credentials) -> Result<Proof, Fault> {
        if credentials.client_id != self.request.identity.client_id {
            return Err(refusal(
                Code::ResponseClientMismatch,
                "the answer is for another client",
            ));
        }
        let identity = self.verifier(credentials.signature.key_version)?;
        let (version, decoded) = self.signed_body(&identity, credentials)?;
        self.check_time(credentials)?;
        identity.verified_with(version, Direction::Egress, &self.egress.metrics);
        Ok(Proof {
            verdict: Verdict::Verified,
            key_version: Some(version.number()),
            unsigned: None,
            decoded,
        })
    }

    /// The version of the key that verifies, and the decoded bytes when they are what was signed,
    /// nothing when the raw ones are.
    fn signed_body(
        &self,
        identity: &Identity,
        credentials: &Credentials,
    ) -> Result<(KeyVersion, Option<Bytes>), Fault> {
        let stopwatch = Stopwatch::start();
        let decoded = match self.coding {
            Coding::Decoded(decoded) => self
                .verified_by(identity, credentials, decoded)
                .map(|version| (version, Some(decoded.clone()))),
            Coding::Identity | Coding::Opaque => None,
        };
        let raw = || Some((self.verified_by(identity, credentials, self.body)?, None));
        let found = decoded.or_else(raw);
        self.egress.metrics.verified(stopwatch.elapsed());
        found.ok_or_else(|| {
            let text = "the answer's signature does not verify";
            refusal(Code::ResponseSignatureInvalid, text)
        })
    }

    /// Whose keys verify: as the exchange began, or as it is now when a reload brought the key of that
    /// version while the gateway worked.
    fn verifier(&self, named: KeyVersion) -> Result<Arc<Identity>, Fault> {
        let began = &self.request.identity;
        if began.knows(named) {
            return Ok(Arc::clone(began));
        }
        let rules = self.egress.rules.now();
        let now = rules.keyring.identity(&began.client_id);
        let knowing = now.filter(|now| now.knows(named));
        knowing.map(Arc::clone).ok_or_else(|| {
            let known = now.unwrap_or(began).verification_versions();
            let text = format!("the answer is signed with key version {named}; known: {known}");
            Fault::unknown(Code::ResponseKeyUnknown, text)
        })
    }

    /// The version of the key that verifies the answer with that body.
    fn verified_by(
        &self,
        identity: &Identity,
        credentials: &Credentials,
        body: &[u8],
    ) -> Option<KeyVersion> {
        let content = Content {
            method: self.request.method().as_str(),
            uri: self.request.uri(),
            client_id: &credentials.client_id,
            time: &credentials.time,
            body,
        };
        identity.verify(&content, &credentials.signature).ok()
    }

    fn check_time(&self, credentials: &Credentials) -> Result<(), Fault> {
        let skew = credentials.time.skew(self.egress.clock.now());
        match self.route.max_skew {
            Some(most) if skew > most => {
                let text = format!(
                    "the answer's time is {} s away from ours; allowed are {} s",
                    skew.as_secs(),
                    most.as_secs()
                );
                Err(Fault::unknown(Code::ResponseTimeUnacceptable, text))
            }
            _ => Ok(()),
        }
    }

    /// The rule for answers without a signature: they may only say that something went wrong.
    fn unsigned(&self) -> Result<Proof, Fault> {
        let claim = match self.coding {
            // What is read here as ASCII could be something else to the app.
            _ if !is_utf8(&self.head.headers) => Claim::MaybeSuccessful,
            Coding::Identity => claim(self.body),
            Coding::Decoded(decoded) => claim(decoded),
            Coding::Opaque => Claim::MaybeSuccessful,
        };
        let status = self.head.status;
        let needs_none = match claim {
            Claim::Failed | Claim::Unknown => true,
            Claim::None => !status.is_success(),
            Claim::MaybeSuccessful => false,
        };
        if !needs_none {
            let text = "the answer is not signed";
            return Err(refusal(Code::ResponseSignatureMissing, text));
        }
        Ok(Proof {
            unsigned: Some(Unsigned::of(status, claim == Claim::Failed)),
            ..Proof::plain(Verdict::Unsigned)
        })
    }
}

/// Whether the body is UTF-8 or ASCII by its media type, or the type says nothing.
fn is_utf8(fields: &HeaderMap) -> bool {
    let types = fields.get_all(CONTENT_TYPE).iter();
    types
        .map(|value| value.to_str().unwrap_or("charset=?").to_ascii_lowercase())
        .all(|value| {
            let charsets = value.split("charset").skip(1);
            charsets
                .map(|rest| rest.trim_start_matches([' ', '=', '"', '\'']))
                .all(|charset| {
                    ["utf-8", "utf8", "us-ascii"]
                        .iter()
                        .any(|name| charset.starts_with(name))
                })
        })
}

fn unreadable(error: CredentialsError) -> Fault {
    let (code, text) = match &error {
        CredentialsError::Missing(name) if *name == CLIENT_ID => (
            Code::ResponseClientMismatch,
            "the answer is signed but names no client",
        ),
        CredentialsError::ClientId(_) => (
            Code::ResponseClientMismatch,
            "the answer names an impossible client",
        ),
        CredentialsError::Time(_) => (
            Code::ResponseTimeUnacceptable,
            "the answer's Response-Time is no time",
        ),
        error if error.is_missing() => (
            Code::ResponseSignatureMissing,
            "the answer carries only half of a signature",
        ),
        _ => (
            Code::ResponseSignatureMalformed,
            "the answer's signature cannot be read",
        ),
    };
    refusal(code, text).because(error)
}

fn no_room(error: BodyError) -> Fault {
    Fault::unknown(Code::Overloaded, "no memory left to unpack the answer").because(error)
}

fn refusal(code: Code, text: &'static str) -> Fault {
    Fault::unknown(code, text)
}

impl Egress {
    /// Shows how far the gateway's clock is from ours.
    fn watch_clock(&self, route: &Route, fields: &HeaderMap) {
        let date = fields.get(DATE).and_then(|value| value.to_str().ok());
        let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
            return;
        };
        let now = self.clock.now();
        let skew = match date.duration_since(now) {
            Ok(ahead) => ahead.as_secs_f64(),
            Err(behind) => -behind.duration().as_secs_f64(),
        };
        self.metrics
            .clock_skew
            .with_label_values(&[&route.name])
            .set(skew);
    }
}
