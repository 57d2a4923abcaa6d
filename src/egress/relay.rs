//! What is not signed passes through: streamed, never buffered, its bytes untouched.
//!
//! For hosts that no route names, and for the calls to signed hosts that must not be signed: Antom's
//! API-key mode and its unsigned metering endpoint. Only hop-by-hop fields and spoofed `countersign-*`
//! fields are removed, and `Via` is added, as RFC 9110 section 7.6 asks of an intermediary.

use std::time::Duration;

use ::http::header::{AUTHORIZATION, HOST};
use ::http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version};
use countersign_protocol::message::signed_uri;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::Egress;
use super::request::at_origin;
use crate::exchange::{Exchange, Fault, Verdict};
use crate::http::Body;
use crate::http::headers::{self, VERDICT};
use crate::upstream::Origin;

/// How long the head of a forwarded answer may take; long polls of other services stay possible.
pub const FORWARD_TIMEOUT: Duration = Duration::from_mins(5);

/// Passes a request on and its answer back.
pub async fn pass(
    egress: &Egress,
    exchange: &mut Exchange,
    request: Request<Incoming>,
    origin: &Origin,
    (verdict, head_timeout): (Verdict, Duration),
) -> Result<Response<Body>, Fault> {
    let (mut head, body) = request.into_parts();
    head.uri = at_origin(&signed_uri(&head.uri), origin)?;
    headers::clean(&mut head.headers);
    headers::add_via(&mut head.headers, head.version, &egress.pseudonym);
    head.headers.remove(HOST);
    head.version = Version::HTTP_11;
    let request = Request::from_parts(head, body.map_err(Into::into).boxed_unsync());
    let (mut head, body) = egress
        .upstream
        .relay(exchange, request, head_timeout)
        .await?
        .into_parts();
    exchange.judged(verdict, None);
    headers::clean(&mut head.headers);
    headers::add_via(&mut head.headers, head.version, &egress.pseudonym);
    head.headers
        .insert(VERDICT, HeaderValue::from_static(verdict.as_str()));
    head.version = Version::HTTP_11;
    Ok(Response::from_parts(
        head,
        body.map_err(Into::into).boxed_unsync(),
    ))
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
