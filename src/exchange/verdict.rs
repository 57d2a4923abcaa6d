//! What was found out about a peer's message, and what the route asks for.
//!
//! Only names; the judging is done by the flows with the protocol crate.

use std::fmt;

use ::http::StatusCode;

/// What the sidecar can say of the message it hands over (`countersign-verdict`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The signature verifies.
    Verified,
    /// No signature, and none was needed.
    Unsigned,
    /// The verification failed and the route only reports that.
    Failed,
    /// The route switches verification off; nothing was looked at.
    Unchecked,
    /// Not a signed host: passed on untouched.
    Forwarded,
    /// CONNECT was granted; what comes inside counts for itself.
    Connected,
}

impl Verdict {
    /// The name in the header, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Unsigned => "unsigned",
            Self::Failed => "failed",
            Self::Unchecked => "unchecked",
            Self::Forwarded => "forwarded",
            Self::Connected => "connected",
        }
    }
}

/// What was done with a request that repeats an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// It was refused.
    Refused,
    /// It passed: no earlier attempt was delivered.
    NotDelivered,
    /// It passed with a warning: a proxy numbered it as a further attempt.
    Numbered,
    /// It passed with a warning: an earlier one with the same content may have been delivered.
    SameContent,
}

impl Repetition {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Refused,
        Self::NotDelivered,
        Self::Numbered,
        Self::SameContent,
    ];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::NotDelivered => "not_delivered",
            Self::Numbered => "attempt_count",
            Self::SameContent => "same_content",
        }
    }
}

/// What kind of answer needed no signature and had none: the gateway's way to refuse a request, or the
/// status of one that says nothing so plain, be it the gateway's or somebody's before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsigned {
    /// It says `F`, and its status blames no server.
    Refusal,
    /// Status 2xx with `U`.
    Success,
    /// Status 3xx.
    Redirection,
    /// Status 4xx.
    ClientError,
    /// Status 5xx, whatever the body says, or one out of the classes (RFC 9110 section 15).
    ServerError,
}

impl Unsigned {
    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::Refusal,
        Self::Success,
        Self::Redirection,
        Self::ClientError,
        Self::ServerError,
    ];

    /// The kind of an answer with that status, whose body says `F` or not.
    pub fn of(status: StatusCode, says_f: bool) -> Self {
        match status.as_u16() {
            200..500 if says_f => Self::Refusal,
            200..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::ClientError,
            _ => Self::ServerError,
        }
    }

    /// The label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refusal => "refusal",
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
        }
    }
}

/// What a route does with a message that does not verify.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Refuse it.
    #[default]
    Enforce,
    /// Pass it on, marked `failed`, counted and logged.
    Report,
    /// Do not look.
    Off,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enforce => "enforce",
            Self::Report => "report",
            Self::Off => "off",
        })
    }
}
