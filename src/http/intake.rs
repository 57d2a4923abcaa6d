//! A request on its way in: what is refused before anything else is done, and its body, held whole.
//!
//! The same for both directions. Refuses by a [`Fault`] that says nothing was sent.

use std::time::Duration;

use ::http::header::{CONTENT_LENGTH, MAX_FORWARDS};
use ::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::body::{self, BodyError, Budget, Held};
use super::pace::{Pace, Paced, Slow};
use super::wire::{self, BadRequest};
use super::{framing, headers};
use crate::exchange::{Code, Exchange, Fault};

const TOO_SLOW: &str = "the request's body did not arrive in time";

/// Refuses what two readers could understand differently, and what goes in circles.
///
/// # Errors
/// [`Code::RequestMalformed`] or [`Code::LoopDetected`].
pub fn refuse_unservable(uri: &Uri, fields: &HeaderMap, pseudonym: &str) -> Result<(), Fault> {
    // HTTP/1 targets were held to this before; those of HTTP/2 come from a parser that takes more.
    if let Some(target) = uri.path_and_query() {
        let form = wire::origin_form(target.as_str().as_bytes());
        form.map_err(|reason| {
            let text = "the request's target is malformed";
            Fault::not_sent(Code::RequestMalformed, text).because(BadRequest(reason))
        })?;
    }
    if !framing::is_unambiguous(fields) {
        let text = "the request says in two ways where it ends";
        return Err(Fault::not_sent(Code::RequestMalformed, text));
    }
    if headers::has_passed(fields, pseudonym) {
        let text = "the request already went through this sidecar";
        return Err(Fault::not_sent(Code::LoopDetected, text));
    }
    Ok(())
}

/// What a body may take.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// How many bytes.
    pub limit: usize,
    /// How long, all in all.
    pub within: Duration,
    /// How much of it must come while it is waited for.
    pub pace: Pace,
}

/// Counts this hop where a request says how many it may take (RFC 9110 section 7.6.2).
///
/// # Errors
/// [`Code::RequestMalformed`] with 501, as its last recipient: this one serves neither method itself.
pub fn count_hop(method: &Method, fields: &mut HeaderMap) -> Result<(), Fault> {
    let counts = matches!(*method, Method::OPTIONS | Method::TRACE);
    let Some(value) = fields.get(MAX_FORWARDS).filter(|_| counts) else {
        return Ok(());
    };
    let number = value
        .to_str()
        .ok()
        .and_then(|text| text.parse::<u32>().ok());
    let Some(left) = number.and_then(|number| number.checked_sub(1)) else {
        let text = "Max-Forwards lets the request go no further, and it is not for this sidecar";
        let fault = Fault::not_sent(Code::RequestMalformed, text);
        return Err(fault.told_as(StatusCode::NOT_IMPLEMENTED));
    };
    fields.insert(MAX_FORWARDS, HeaderValue::from(left));
    Ok(())
}

/// Reads a body to its end.
///
/// # Errors
/// [`Code::RequestTooLarge`], [`Code::RequestTimeout`], [`Code::Overloaded`] when the budget is used
/// up, and [`Code::RequestMalformed`] when it does not arrive whole.
pub async fn hold(
    exchange: &mut Exchange,
    body: Incoming,
    room: Room,
    budget: &Budget,
) -> Result<Held, Fault> {
    let body = Paced::new(body, room.pace);
    let arriving = timeout(room.within, body::hold(body, room.limit, budget));
    let held = match exchange.away(arriving).await {
        Ok(held) => held.map_err(fault)?,
        Err(_elapsed) => {
            return Err(Fault::not_sent(Code::RequestTimeout, TOO_SLOW));
        }
    };
    exchange.received(held.bytes.len());
    Ok(held)
}

/// Says the length of a body that is known now: always where there is one or where the method
/// means one (RFC 9110 section 8.6), and where the sender said so itself.
pub fn set_length(method: &Method, fields: &mut HeaderMap, length: usize) {
    let means_body = [Method::POST, Method::PUT, Method::PATCH].contains(method);
    if length > 0 || means_body || fields.contains_key(CONTENT_LENGTH) {
        fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

fn fault(error: BodyError) -> Fault {
    match error {
        BodyError::TooLarge(limit) => Fault::not_sent(
            Code::RequestTooLarge,
            format!("the request's body is over the limit of {limit} bytes"),
        ),
        BodyError::OverBudget => {
            Fault::not_sent(Code::Overloaded, "no memory left to hold the request")
        }
        BodyError::Broken(cause) if cause.is::<Slow>() => {
            Fault::not_sent(Code::RequestTimeout, TOO_SLOW).because(cause)
        }
        BodyError::Broken(cause) => {
            if let Some(reason) = wire::told::<BadRequest>(cause.as_ref()) {
                return reason.fault().because(cause);
            }
            let text = "the request's body did not arrive whole";
            Fault::not_sent(Code::RequestMalformed, text).because(cause)
        }
    }
}
