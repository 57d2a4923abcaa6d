//! What is not signed passes through: streamed, never buffered, its bytes untouched.
//!
//! For hosts that no route names, and for the calls to signed hosts that must not be signed: Antom's
//! API-key mode and its unsigned metering endpoint. Only hop-by-hop fields and spoofed `countersign-*`
//! fields are removed, and `Via` is added, as RFC 9110 section 7.6 asks of an intermediary.

use std::time::Duration;

use ::http::header::{AUTHORIZATION, CONNECTION, HOST, UPGRADE};
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use countersign_protocol::message::signed_uri;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade;

use super::Egress;
use super::arrival::{Arrival, Next};
use crate::exchange::{Code, Exchange, Fault, Verdict};
use crate::http::Body;
use crate::http::headers::{self, VERDICT};
use crate::http::pace::{Pace, Paced};
use crate::upstream::Origin;

/// How long the head of a forwarded answer may take; long polls of other services stay possible.
const FORWARD_TIMEOUT: Duration = Duration::from_mins(5);

/// How a request is passed on.
#[derive(Clone, Copy, Debug)]
pub struct How {
    verdict: Verdict,
    /// How long the head of the answer may take.
    head_timeout: Duration,
    /// How long nothing may come of a body that is waited for; for ever when absent.
    idle_timeout: Option<Duration>,
}

impl How {
    /// For a host no route names: as patient as with a tunnel.
    pub fn forwarded(idle_timeout: Option<Duration>) -> Self {
        Self {
            verdict: Verdict::Forwarded,
            head_timeout: FORWARD_TIMEOUT,
            idle_timeout,
        }
    }

    /// For a call that the protocol leaves unsigned.
    pub fn unsigned(timeout: Duration) -> Self {
        Self {
            verdict: Verdict::Unsigned,
            head_timeout: timeout,
            idle_timeout: Some(timeout),
        }
    }

    fn paced(&self, body: Incoming) -> Body {
        Paced::new(body, self.idle_timeout.map(Pace::any)).boxed_unsync()
    }
}

/// Passes a request on and its answer back. An upgrade that both sides want is left in `arrival`.
pub async fn pass(
    egress: &Egress,
    exchange: &mut Exchange,
    mut request: Request<Incoming>,
    (origin, arrival): (&Origin, &Arrival),
    how: How,
) -> Result<Response<Body>, Fault> {
    let verdict = how.verdict;
    let wanted = (verdict == Verdict::Forwarded)
        .then(|| upgrade_wanted(&request))
        .flatten();
    let app = wanted.is_some().then(|| upgrade::on(&mut request));
    let offered = wanted.clone();
    // Before anything is sent: later there would be no honest way to refuse.
    let place = wanted.is_some().then(|| egress.place()).transpose()?;
    let (mut head, body) = request.into_parts();
    head.uri = origin.target(&signed_uri(&head.uri))?;
    egress.clean(&mut head.headers, head.version);
    head.headers.remove(HOST);
    if let Some(protocol) = wanted {
        ask_for(&mut head.headers, protocol);
    }
    head.version = Version::HTTP_11;
    let request = Request::from_parts(head, how.paced(body));
    let mut answer = egress
        .upstream
        .relay(exchange, request, how.head_timeout)
        .await?;
    let switched = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    let there = switched.then(|| upgrade::on(&mut answer));
    let (mut head, body) = answer.into_parts();
    exchange.judged(verdict, None);
    let protocol = head.headers.get(UPGRADE).cloned();
    if switched
        && !protocol
            .as_ref()
            .is_some_and(|one| is_offered(one, offered.as_ref()))
    {
        let text = "the server switched to a protocol that was not asked for";
        return Err(Fault::unknown(Code::UpstreamMalformed, text));
    }
    egress.clean(&mut head.headers, head.version);
    head.headers
        .insert(VERDICT, HeaderValue::from_static(verdict.as_str()));
    head.version = Version::HTTP_11;
    if let (Some(app), Some(there), Some(protocol), Some(place)) = (app, there, protocol, place) {
        ask_for(&mut head.headers, protocol);
        arrival.then(Next::Joined {
            app,
            there,
            destination: origin.to_string(),
            place,
        });
    }
    Ok(Response::from_parts(head, how.paced(body)))
}

impl Egress {
    fn clean(&self, fields: &mut HeaderMap, version: Version) {
        headers::clean(fields);
        headers::add_via(fields, version, &self.pseudonym);
    }
}

/// The protocol a request wants to change to (RFC 9110 section 7.8). Not `h2c`, whose settings are for
/// one hop only, and which RFC 9113 section 3.1 has given up.
fn upgrade_wanted<B>(request: &Request<B>) -> Option<HeaderValue> {
    let fields = request.headers();
    let nominated = headers::nominated(fields).contains(&UPGRADE);
    let mut protocols = fields.get_all(UPGRADE).iter();
    let (protocol, more) = (protocols.next()?, protocols.next());
    let mut names = protocol.to_str().ok()?.split(',').map(str::trim);
    let single = more.is_none() && names.all(|name| !name.eq_ignore_ascii_case("h2c"));
    (request.version() == Version::HTTP_11 && nominated && single).then(|| protocol.clone())
}

/// Whether a protocol is among those offered (RFC 9110 section 7.8).
fn is_offered(protocol: &HeaderValue, offered: Option<&HeaderValue>) -> bool {
    let names = |value: &HeaderValue| value.to_str().unwrap_or_default().to_ascii_lowercase();
    let (protocol, offered) = (names(protocol), offered.map(names).unwrap_or_default());
    offered
        .split(',')
        .any(|name| name.trim() == protocol.trim())
}

/// Sets the two fields of an upgrade, which are for the next hop only.
fn ask_for(fields: &mut HeaderMap, protocol: HeaderValue) {
    fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    fields.insert(UPGRADE, protocol);
}

/// Whether a request to a signed host is one of those the protocol leaves unsigned.
pub fn is_unsigned_call<B>(request: &Request<B>) -> bool {
    bears_api_key(request.headers()) || is_metering(request.method(), request.uri())
}

/// Antom's API-key mode: `Authorization: Bearer isak_…` or `irak_…`.
fn bears_api_key(fields: &HeaderMap) -> bool {
    let values = fields
        .get_all(AUTHORIZATION)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut tokens = values.filter_map(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then_some(token.trim_start())
    });
    tokens.any(|token| token.starts_with("isak_") || token.starts_with("irak_"))
}

/// `POST /ams/api/v1/meter/uploadEvent`, unsigned in both directions.
fn is_metering(method: &Method, uri: &Uri) -> bool {
    let paths = [
        "/ams/api/v1/meter/uploadEvent",
        "/ams/sandbox/api/v1/meter/uploadEvent",
    ];
    method == Method::POST && paths.contains(&uri.path())
}
