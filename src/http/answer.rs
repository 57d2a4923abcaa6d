//! The answer the sidecar gives in place of the gateway.
//!
//! Always `U` / `UNKNOWN_EXCEPTION`, also when nothing was sent: the app may be retrying a payment
//! whose first attempt went through, so `F` would be a lie that costs money. What is really known
//! stands in `countersign-error` and `countersign-outcome`. Never quotes a message or a secret.

use ::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use ::http::{HeaderValue, Response};
use serde_json::json;

use super::body::{Body, full};
use super::headers;
use crate::exchange::Fault;

/// The longest `resultMessage` the protocol allows.
const LONGEST_MESSAGE: usize = 256;

/// What the app gets for a fault.
pub fn to_app(fault: &Fault) -> Response<Body> {
    let code = fault.code();
    let message: String = format!("countersign: {}", fault.text())
        .chars()
        .take(LONGEST_MESSAGE)
        .collect();
    let result = json!({"result": {
        "resultCode": "UNKNOWN_EXCEPTION",
        "resultStatus": "U",
        "resultMessage": message,
    }});
    let mut response = Response::new(full(result.to_string()));
    *response.status_mut() = code.status();
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
    use http_body_util::BodyExt;

    use super::*;
    use crate::exchange::{Code, Delivery};

    #[tokio::test]
    async fn no_code_ever_answers_failed_or_successful() {
        for code in Code::ALL {
            for delivery in [Delivery::NotSent, Delivery::Unknown] {
                let fault = Fault::not_sent(*code, "it did not work").delivery(delivery);
                let response = to_app(&fault);
                assert_eq!(response.headers()["countersign-error"], code.as_str());
                assert_eq!(response.headers()["countersign-outcome"], delivery.as_str());
                let body = response.into_body().collect().await.unwrap().to_bytes();
                let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(body["result"]["resultStatus"], "U", "{}", code.as_str());
                assert_eq!(body["result"]["resultCode"], "UNKNOWN_EXCEPTION");
            }
        }
    }

    #[tokio::test]
    async fn the_message_keeps_to_the_protocols_256_characters() {
        let fault = Fault::not_sent(Code::RequestMalformed, "ü".repeat(400));
        let body = to_app(&fault)
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes();
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
