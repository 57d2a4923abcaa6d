//! Every way an exchange can fail: code, status, blame, and whether the request may have arrived.
//!
//! A [`Fault`] is what every `?` of a flow becomes. It refuses to claim a payment failed: the text a
//! caller sees is made in `http::answer`, always as an unknown result. `Code` is the one table of
//! codes; metrics, logs, headers and documents take their names from it.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use ::http::StatusCode;

use super::Exchange;

/// A cause, for the log.
pub type Cause = Box<dyn Error + Send + Sync>;

/// Who made an exchange fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The one who called us.
    Caller,
    /// The one we called.
    Peer,
    /// This sidecar, its limits or its configuration.
    Us,
}

/// Whether a failed request may have reached the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Certainly not: no byte of it was handed to a connection.
    NotSent,
    /// It may have arrived and may have been carried out.
    Unknown,
}

impl Delivery {
    /// The value of `countersign-outcome`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotSent => "not-sent",
            Self::Unknown => "unknown",
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:ident, $blame:ident;)*) => {
        /// The stable name of a failure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];

            /// The name in headers, metrics and logs.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The status the caller gets.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// Who made it fail.
            pub fn blame(self) -> Blame {
                match self { $(Self::$name => Blame::$blame,)* }
            }
        }
    };
}

codes! {
    /// The request's body is over the limit.
    RequestTooLarge = "request_too_large", PAYLOAD_TOO_LARGE, Caller;
    /// The request is not a message we can pass on unambiguously.
    RequestMalformed = "request_malformed", BAD_REQUEST, Caller;
    /// The request did not arrive whole in time.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, Caller;
    /// The configuration does not let a request go to that host.
    HostNotAllowed = "host_not_allowed", FORBIDDEN, Caller;
    /// The request is for another host than the connection it came on.
    MisdirectedRequest = "misdirected_request", MISDIRECTED_REQUEST, Caller;
    /// The request would come back to this sidecar.
    LoopDetected = "loop_detected", LOOP_DETECTED, Us;
    /// A limit on connections, exchanges or memory is reached.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, Us;
    /// The sidecar is stopping.
    ShuttingDown = "shutting_down", SERVICE_UNAVAILABLE, Us;
    /// The request's `Client-Id` is none of our identities, or nothing says whose key should sign.
    IdentityUnknown = "identity_unknown", BAD_REQUEST, Caller;
    /// A proxy repeats a request that may have been delivered.
    RetriedByProxy = "retried_by_proxy", BAD_GATEWAY, Caller;
    /// The request could not be signed.
    SigningFailed = "signing_failed", INTERNAL_SERVER_ERROR, Us;
    /// No route is for that path and host.
    NoRoute = "no_route", NOT_FOUND, Caller;
    /// The request carries no signature, or only half of one.
    RequestSignatureMissing = "request_signature_missing", UNAUTHORIZED, Caller;
    /// The request's signature headers cannot be read, or are there twice.
    RequestSignatureMalformed = "request_signature_malformed", UNAUTHORIZED, Caller;
    /// The request's signature does not verify.
    RequestSignatureInvalid = "request_signature_invalid", UNAUTHORIZED, Caller;
    /// The request names a key version that is not configured.
    RequestKeyUnknown = "request_key_unknown", UNAUTHORIZED, Caller;
    /// The request is for a client that is not configured.
    RequestClientUnknown = "request_client_unknown", UNAUTHORIZED, Caller;
    /// `Request-Time` is unreadable or too far from our clock.
    RequestTimeUnacceptable = "request_time_unacceptable", UNAUTHORIZED, Caller;
    /// The very same request was here before.
    RequestReplayed = "request_replayed", UNAUTHORIZED, Caller;
    /// No connection to the app.
    AppUnreachable = "app_unreachable", BAD_GATEWAY, Us;
    /// The app's connection ended before its answer was complete.
    AppBrokeOff = "app_broke_off", BAD_GATEWAY, Us;
    /// The app's answer is not valid HTTP, or cannot be signed as it is.
    AppMalformed = "app_malformed", BAD_GATEWAY, Us;
    /// No complete answer from the app in time.
    AppTimeout = "app_timeout", GATEWAY_TIMEOUT, Us;
    /// No connection to the other side.
    UpstreamUnreachable = "upstream_unreachable", BAD_GATEWAY, Peer;
    /// A connection, but no trusted TLS on it.
    UpstreamTlsFailed = "upstream_tls_failed", BAD_GATEWAY, Peer;
    /// The connection ended before the answer was complete.
    UpstreamBrokeOff = "upstream_broke_off", BAD_GATEWAY, Peer;
    /// The answer is not valid HTTP, or not unambiguous.
    UpstreamMalformed = "upstream_malformed", BAD_GATEWAY, Peer;
    /// No complete answer in time.
    UpstreamTimeout = "upstream_timeout", GATEWAY_TIMEOUT, Peer;
    /// The answer's body is over the limit.
    ResponseTooLarge = "response_too_large", BAD_GATEWAY, Peer;
    /// The answer carries no signature though it should, or only half of one.
    ResponseSignatureMissing = "response_signature_missing", BAD_GATEWAY, Peer;
    /// The answer's signature headers cannot be read.
    ResponseSignatureMalformed = "response_signature_malformed", BAD_GATEWAY, Peer;
    /// The answer's signature does not verify.
    ResponseSignatureInvalid = "response_signature_invalid", BAD_GATEWAY, Peer;
    /// The answer names a key version that is not configured.
    ResponseKeyUnknown = "response_key_unknown", BAD_GATEWAY, Peer;
    /// The answer is for another client.
    ResponseClientMismatch = "response_client_mismatch", BAD_GATEWAY, Peer;
    /// The answer's time is no time, or too far from ours.
    ResponseTimeUnacceptable = "response_time_unacceptable", BAD_GATEWAY, Peer;
    /// The answer is about another payment than the request.
    ResponseMismatch = "response_mismatch", BAD_GATEWAY, Peer;
}

/// Why an exchange failed.
#[derive(Debug)]
pub struct Fault {
    code: Code,
    delivery: Delivery,
    status: StatusCode,
    text: Cow<'static, str>,
    cause: Option<Cause>,
}

impl Fault {
    /// A failure before anything was handed to a connection. `text` is public: it names what was
    /// wrong and never quotes a body, a key, a signature or a query.
    pub fn not_sent(code: Code, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            delivery: Delivery::NotSent,
            status: code.status(),
            text: text.into(),
            cause: None,
        }
    }

    /// A failure after the request may have reached the other side.
    pub fn unknown(code: Code, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            delivery: Delivery::Unknown,
            status: code.status(),
            text: text.into(),
            cause: None,
        }
    }

    /// The exchange outlived the drain's deadline.
    pub fn shutting_down(exchange: &Exchange) -> Self {
        Self::not_sent(Code::ShuttingDown, "the sidecar is stopping").delivery(exchange.delivery())
    }

    /// The same failure under another code.
    #[must_use]
    pub fn under(mut self, code: Code, text: impl Into<Cow<'static, str>>) -> Self {
        let was = std::mem::replace(&mut self.text, text.into());
        self.code = code;
        self.status = code.status();
        if self.cause.is_none() {
            self.cause = Some(was.into_owned().into());
        }
        self
    }

    /// The same failure with what is known of the delivery.
    #[must_use]
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// The same failure told with another status than its code's, for clients that act on it.
    #[must_use]
    pub fn told_as(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The same failure with its cause, which only the log sees.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Cause>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Its stable name.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The status the caller gets.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether the request may have arrived.
    pub fn delivered(&self) -> Delivery {
        self.delivery
    }

    /// The public text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text with all causes, for the log.
    pub fn chain(&self) -> String {
        let mut chain = self.text.to_string();
        let mut next = self.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !chain.ends_with(&text) {
                chain.push_str(": ");
                chain.push_str(&text);
            }
            next = cause.source();
        }
        chain
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.text)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause
            .as_deref()
            .map(|cause| cause as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_codes_share_a_name() {
        let names: HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn the_chain_names_every_cause_once() {
        let cause = std::io::Error::other("connection reset");
        let fault = Fault::unknown(Code::UpstreamBrokeOff, "the gateway broke off").because(cause);
        assert_eq!(fault.chain(), "the gateway broke off: connection reset");
    }
}
