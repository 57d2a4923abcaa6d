//! The one log line an exchange leaves behind.
//!
//! Refuses everything that is not listed: there is no field for a body, a signature, a query string
//! or an `Authorization` value, so none can slip into the log. Written by `exchange` alone.

use std::time::Duration;

use tracing::{info, warn};

/// What is known of an exchange when it ends.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// Unique in this process; also sent to the app as `countersign-id`.
    pub id: String,
    /// `egress` or `ingress`.
    pub direction: &'static str,
    /// The route's name, or `unmatched`.
    pub route: String,
    /// The client id the sidecar signed as; absent when it signed nothing.
    pub client_id: Option<String>,
    /// The request method.
    pub method: String,
    /// The request path without its query.
    pub path: String,
    /// Status sent back to the caller; absent when the caller was gone.
    pub status: Option<u16>,
    /// The verdict, or the error code.
    pub outcome: &'static str,
    /// Whether a request that failed may have reached the other side.
    pub delivery: Option<&'static str>,
    /// The error code, when there was one.
    pub error: Option<&'static str>,
    /// Why, for a person: the chain of causes.
    pub reason: Option<String>,
    /// Version of the key the peer signed with.
    pub key_version: Option<u32>,
    /// Whether the very same request was here before.
    pub replayed: Option<bool>,
    /// From the first byte of the request head to the end of the answer.
    pub duration: Duration,
    /// The part of it spent waiting for peers.
    pub waited: Duration,
    /// Body bytes received from the caller.
    pub request_bytes: u64,
    /// Body bytes sent back to the caller.
    pub response_bytes: u64,
    /// From the caller's `traceparent` header.
    pub trace_id: Option<String>,
}

impl Line {
    /// Writes the line: at `warn` when there was an error, at `info` otherwise.
    pub fn write(&self) {
        macro_rules! line {
            ($level:ident) => {
                $level!(
                    id = self.id,
                    direction = self.direction,
                    route = self.route,
                    client_id = self.client_id,
                    method = self.method,
                    path = self.path,
                    status = self.status,
                    outcome = self.outcome,
                    delivery = self.delivery,
                    error = self.error,
                    reason = self.reason,
                    key_version = self.key_version,
                    replayed = self.replayed,
                    duration_ms = milliseconds(self.duration),
                    waited_ms = milliseconds(self.waited),
                    request_bytes = self.request_bytes,
                    response_bytes = self.response_bytes,
                    trace_id = self.trace_id,
                    "exchange"
                )
            };
        }
        if self.error.is_some() {
            line!(warn);
        } else {
            line!(info);
        }
    }
}

/// Milliseconds with three decimals, which a person can read and a machine can sum.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}
