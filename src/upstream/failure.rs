//! What a failure on the way to a peer is to an exchange: a code, and whether the request may have arrived.
//!
//! Takes a request for not sent only where not a byte of it can have left. Called by [`Upstream`](super::Upstream).

use std::error::Error;
use std::time::Duration;

use hyper_util::client::legacy;

use super::Used;
use super::connect::ConnectError;
use super::guard::Unsent;
use crate::exchange::{Code, Delivery, Fault};
use crate::http::body::BodyError;
use crate::http::pace::Slow;
use crate::http::wire::{self, BadAnswer, BadRequest, Malformed};

pub(super) fn malformed(text: &'static str) -> Fault {
    Fault::unknown(Code::UpstreamMalformed, text)
}

pub(super) fn too_slow(connection: &Used, limit: Duration) -> Fault {
    // Without a connection not a byte can have left.
    let delivery = if connection.is_open() {
        Delivery::Unknown
    } else {
        Delivery::NotSent
    };
    let text = format!("no complete answer within {}", readable(limit));
    Fault::unknown(Code::UpstreamTimeout, text).delivery(delivery)
}

/// What was left of a limit, up to the next millisecond: what was taken from it before is noise.
fn readable(time: Duration) -> humantime::FormattedDuration {
    let milliseconds = time.as_nanos().div_ceil(1_000_000);
    humantime::format_duration(Duration::from_millis(
        u64::try_from(milliseconds).unwrap_or(u64::MAX),
    ))
}

pub(super) fn body_fault(error: BodyError) -> Fault {
    match error {
        BodyError::TooLarge(limit) => Fault::unknown(
            Code::ResponseTooLarge,
            format!("the answer's body is over the limit of {limit} bytes"),
        ),
        BodyError::OverBudget => {
            Fault::unknown(Code::Overloaded, "no memory left to hold the answer")
        }
        BodyError::Broken(cause) => broken(cause),
    }
}

pub(super) fn fault(error: legacy::Error) -> Fault {
    if !error.is_connect() {
        return broken(Box::new(error));
    }
    let fault = match find::<ConnectError>(&error) {
        Some(connect) => unconnected(connect),
        None => Fault::not_sent(Code::UpstreamUnreachable, UNREACHABLE),
    };
    fault.because(error)
}

const UNREACHABLE: &str = "no connection to the destination";

pub(super) fn unconnected(error: &ConnectError) -> Fault {
    let (code, text) = match error {
        ConnectError::Tls { .. } => (
            Code::UpstreamTlsFailed,
            "no trusted TLS connection to the destination",
        ),
        ConnectError::Loop { .. } => (Code::LoopDetected, "the destination is this sidecar itself"),
        _ => (Code::UpstreamUnreachable, UNREACHABLE),
    };
    Fault::not_sent(code, text)
}

/// A connection that failed with the request on it, or just before.
fn broken(cause: Box<dyn Error + Send + Sync>) -> Fault {
    if find::<Slow>(cause.as_ref()).is_some() {
        let text = "the request's body stood still while it was passed on";
        return Fault::unknown(Code::RequestTimeout, text).because(cause);
    }
    let fault = if let Some(BadAnswer(reason)) = wire::told(cause.as_ref()) {
        Fault::unknown(Code::UpstreamMalformed, BadAnswer(*reason).to_string())
    } else if let Some(Unsent(reason)) = wire::told(cause.as_ref()) {
        unsent(*reason)
    } else if let Some(BadRequest(reason)) = wire::told(cause.as_ref()) {
        // A part of it may have gone on before that showed.
        BadRequest(*reason).fault().delivery(Delivery::Unknown)
    } else if is_malformed(cause.as_ref()) {
        malformed("the gateway's answer is not valid HTTP")
    } else {
        let text = "the connection ended before the answer was complete";
        Fault::unknown(Code::UpstreamBrokeOff, text)
    };
    fault.because(cause)
}

/// A connection that failed before a byte of the request was written.
fn unsent(reason: Option<Malformed>) -> Fault {
    let text = "the connection had ended before the request was written";
    reason.map_or_else(
        || Fault::not_sent(Code::UpstreamBrokeOff, text),
        |reason| Fault::not_sent(Code::UpstreamMalformed, BadAnswer(reason).to_string()),
    )
}

fn is_malformed(cause: &(dyn Error + 'static)) -> bool {
    find::<hyper::Error>(cause).is_some_and(|error| {
        error.is_parse() || error.is_parse_too_large() || error.is_parse_status()
    })
}

/// The first error of that type in the chain of causes.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_without_the_noise_of_what_was_taken_from_it() {
        for (nanoseconds, told) in [
            (1_999_999_689, "2s"),
            (4_499_600_000, "4s 500ms"),
            (250_000_000, "250ms"),
            (0, "0s"),
        ] {
            let time = Duration::from_nanos(nanoseconds);
            assert_eq!(readable(time).to_string(), told, "{nanoseconds}");
        }
    }
}
