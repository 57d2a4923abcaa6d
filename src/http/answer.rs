//! The answers the sidecar gives itself, in place of the gateway or of the app.
//!
//! In place of an answer it is always `U` / `UNKNOWN_EXCEPTION`, also when nothing was sent: the caller
//! may be retrying a payment whose first attempt went through, so `F` would be a lie that costs money.
//! Only a caller that could not prove who it is gets `F`. What is really known stands in
//! `countersign-error` and `countersign-outcome`. Never quotes a message or a secret.

use ::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use ::http::{HeaderValue, Response};
use bytes::Bytes;
use serde_json::json;

use super::body::{Body, Reported, full};
use super::headers;
use crate::exchange::{Code, Exchange, Fault};

/// The longest `resultMessage` the protocol allows.
const LONGEST_MESSAGE: usize = 256;

/// What stands for the answer of a peer that has not answered.
pub fn unknown(fault: &Fault) -> Response<Bytes> {
    result(fault, "U", "UNKNOWN_EXCEPTION")
}

/// What a caller gets who could not prove to be the gateway: nothing was done, and nothing signed.
pub fn refusal(fault: &Fault) -> Response<Bytes> {
    let code = match fault.code() {
        // The first of the two may have gone through; and who was slow may ask again.
        Code::RequestReplayed | Code::RequestTimeout => return unknown(fault),
        Code::RequestClientUnknown => "INVALID_CLIENT",
        Code::RequestKeyUnknown => "KEY_NOT_FOUND",
        code if code.status().as_u16() == 401 => "INVALID_SIGNATURE",
        code if code.status().is_client_error() => "PARAM_ILLEGAL",
        // Ours to mend: it is worth asking again.
        _ => return unknown(fault),
    };
    result(fault, "F", code)
}

/// Answers a request that could not be read: nothing of it is known, and it is over at once.
pub fn unread(mut exchange: Exchange, fault: &Fault, answer: Response<Bytes>) -> Response<Body> {
    exchange.failed(fault);
    finish(exchange, answer.map(full))
}

/// Ends an exchange with its answer; it is over with the answer's last byte.
pub fn finish(mut exchange: Exchange, mut response: Response<Body>) -> Response<Body> {
    if let Ok(id) = HeaderValue::try_from(exchange.id()) {
        response.headers_mut().insert(headers::ID, id);
    }
    exchange.answered(response.status());
    response.map(|body| Reported::tie(body, exchange))
}

fn result(fault: &Fault, status: &str, result_code: &str) -> Response<Bytes> {
    let code = fault.code();
    let message: String = format!("countersign: {}", fault.text())
        .chars()
        .take(LONGEST_MESSAGE)
        .collect();
    let result = json!({"result": {
        "resultCode": result_code,
        "resultStatus": status,
        "resultMessage": message,
    }});
    let mut response = Response::new(Bytes::from(result.to_string()));
    *response.status_mut() = fault.status();
    let fields = response.headers_mut();
    fields.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=UTF-8"),
    );
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(headers::ERROR, HeaderValue::from_static(code.as_str()));
    fields.insert(
        headers::OUTCOME,
        HeaderValue::from_static(fault.delivered().as_str()),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Delivery;

    #[test]
    fn no_code_ever_answers_failed_or_successful() {
        for code in Code::ALL {
            for delivery in [Delivery::NotSent, Delivery::Unknown] {
                let fault = Fault::not_sent(*code, "it did not work").delivery(delivery);
                let response = unknown(&fault);
                assert_eq!(response.headers()["countersign-error"], code.as_str());
                assert_eq!(response.headers()["countersign-outcome"], delivery.as_str());
                let body = response.into_body();
                let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(body["result"]["resultStatus"], "U", "{}", code.as_str());
                assert_eq!(body["result"]["resultCode"], "UNKNOWN_EXCEPTION");
            }
        }
    }

    #[test]
    fn the_message_keeps_to_the_protocols_256_characters() {
        let fault = Fault::not_sent(Code::RequestMalformed, "ü".repeat(400));
        let body = unknown(&fault).into_body();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body["result"]["resultMessage"]
                .as_str()
                .unwrap()
                .chars()
                .count(),
            256
        );
    }
}
