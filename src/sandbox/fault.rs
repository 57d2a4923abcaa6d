//! What the sandbox does wrong when it is asked to.
//!
//! A request asks by the header `sandbox-fault: NAME`, which the sidecar passes on, or the sandbox is
//! started with `--fault NAME`. The names are those of the command's help.

use std::io::Write;

use ::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use ::http::{HeaderValue, Response, StatusCode};
use bytes::Bytes;
use clap::ValueEnum;
use countersign_protocol::message::{CLIENT_ID, RESPONSE_TIME, SIGNATURE};
use countersign_protocol::{ClientId, KeyVersion, Offset, PrivateKey, Timestamp};
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::Value;

use super::Signing;
use crate::http::body::{Body, full};

/// The header by which a request asks for a fault.
const ASK: &str = "sandbox-fault";

/// A way to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// One byte of the body differs from what was signed.
    AlteredBody,
    /// One byte of the signature is flipped.
    AlteredSignature,
    /// A result S without any signature.
    UnsignedSuccess,
    /// A result F without any signature, as the real gateway sends some errors.
    UnsignedFailure,
    /// A signature, but no Response-Time.
    HalfSigned,
    /// Signed by a key nobody knows.
    WrongKey,
    /// Signed for another client.
    WrongClient,
    /// Signed with a key version nobody knows.
    UnknownKeyVersion,
    /// Signed an hour ago.
    StaleTime,
    /// A Response-Time that is no time.
    MalformedTime,
    /// A Signature header that cannot be read.
    MalformedSignature,
    /// Two Signature headers.
    RepeatedSignature,
    /// The body is gzip-coded though nobody asked; the signature covers the decoded bytes.
    Gzip,
    /// The body is gzip-coded; the signature covers the coded bytes.
    GzipRaw,
    /// The answer to another payment or refund, rightly signed: as when two answers are exchanged.
    OtherPayment,
    /// A middlebox's HTML page with status 200.
    Html,
    /// A middlebox's HTML page with status 502.
    BadGateway,
    /// The connection ends in the middle of the body.
    Truncated,
    /// No answer at all.
    Stall,
}

impl Fault {
    /// The fault a request asks for.
    pub(super) fn asked(headers: &HeaderMap) -> Option<Self> {
        let name = headers.get(ASK)?.to_str().ok()?;
        Self::from_str(name, false).ok()
    }

    /// What is wrong already when the answer is signed.
    pub(super) fn before<'a>(self, signing: &mut Signing<'a>, stranger: &'a PrivateKey) {
        match self {
            Self::WrongKey => signing.key = stranger,
            Self::WrongClient => {
                let other = ClientId::parse("SANDBOX_SOMEBODYELSE");
                signing.client_id = other.unwrap_or_else(|_| signing.client_id.clone());
            }
            Self::UnknownKeyVersion => signing.key_version = KeyVersion::new(99),
            Self::StaleTime => {
                let hour = std::time::Duration::from_hours(1);
                signing.time = Timestamp::at(signing.time.instant() - hour, Offset::UTC);
            }
            _ => {}
        }
    }

    /// What goes wrong after it was signed.
    pub(super) fn after(self, mut response: Response<Bytes>, body: &Bytes) -> Response<Body> {
        let headers = response.headers_mut();
        match self {
            Self::AlteredBody => return response.map(|body| full(flip_last_digit(&body))),
            Self::AlteredSignature => swap_signature(headers),
            Self::UnsignedSuccess => strip(headers),
            Self::UnsignedFailure => {
                strip(headers);
                let refusal = super::refused("INVALID_SIGNATURE", "as the real gateway answers");
                return response.map(|_| full(refusal.to_string()));
            }
            Self::HalfSigned => {
                headers.remove(RESPONSE_TIME);
            }
            Self::MalformedTime => {
                headers.insert(RESPONSE_TIME, HeaderValue::from_static("yesterday"));
            }
            Self::MalformedSignature => {
                headers.insert(
                    SIGNATURE,
                    HeaderValue::from_static("algorithm=RSA256,signature=%"),
                );
            }
            Self::RepeatedSignature => {
                if let Some(signature) = headers.get(SIGNATURE).cloned() {
                    headers.append(SIGNATURE, signature);
                }
            }
            Self::Gzip => {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                return response.map(|body| full(gzip(&body)));
            }
            Self::GzipRaw => {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            Self::Html => return page(StatusCode::OK),
            Self::BadGateway => return page(StatusCode::BAD_GATEWAY),
            Self::Truncated => return truncated(response, body),
            Self::WrongKey
            | Self::WrongClient
            | Self::UnknownKeyVersion
            | Self::StaleTime
            | Self::OtherPayment
            | Self::Stall => {}
        }
        response.map(full)
    }
}

/// The same answer about another payment or refund.
pub(super) fn of_another(answer: &Value) -> Value {
    let mut other = answer.clone();
    for name in ["paymentRequestId", "refundRequestId"] {
        if let Some(id) = other.get_mut(name) {
            *id = Value::from("sandbox-somebody-elses");
        }
    }
    other
}

/// The body as it is signed in [`Fault::GzipRaw`].
pub(super) fn gzip(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory cannot fail.
    let _infallible = encoder.write_all(body);
    encoder.finish().unwrap_or_default().into()
}

/// The same JSON with another last digit: what an attacker would do to an amount.
pub(super) fn flip_last_digit(body: &[u8]) -> Vec<u8> {
    let mut altered = body.to_vec();
    if let Some(digit) = altered.iter_mut().rev().find(|byte| byte.is_ascii_digit()) {
        *digit = if *digit == b'9' { b'8' } else { *digit + 1 };
    }
    altered
}

/// Flips a bit of the signature by exchanging one base64 digit.
pub(super) fn swap_signature(headers: &mut HeaderMap) {
    let Some(text) = headers.get(SIGNATURE).and_then(|value| value.to_str().ok()) else {
        return;
    };
    let Some((names, value)) = text.rsplit_once('=') else {
        return;
    };
    let other = if value.starts_with('A') { 'B' } else { 'A' };
    let altered = format!("{names}={other}{}", value.get(1..).unwrap_or_default());
    if let Ok(altered) = HeaderValue::try_from(altered) {
        headers.insert(SIGNATURE, altered);
    }
}

fn strip(headers: &mut HeaderMap) {
    headers.remove(CLIENT_ID);
    headers.remove(RESPONSE_TIME);
    headers.remove(SIGNATURE);
}

fn page(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full("<html><h1>Your proxy says hello</h1></html>"));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}

/// Announces the whole body, sends half of it and breaks the connection.
fn truncated(response: Response<Bytes>, body: &Bytes) -> Response<Body> {
    let length = HeaderValue::from(body.len());
    let half = body.slice(..body.len() / 2);
    let frames = [
        Ok(Frame::data(half)),
        Err("the sandbox breaks off as asked".into()),
    ];
    let mut response = response.map(|_| StreamBody::new(Frames(frames.into_iter())).boxed_unsync());
    response
        .headers_mut()
        .insert(::http::header::CONTENT_LENGTH, length);
    response
}

/// Frames that are known already, as a stream.
struct Frames<I>(I);

impl<I: Iterator + Unpin> futures_core::Stream for Frames<I> {
    type Item = I::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<I::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}
