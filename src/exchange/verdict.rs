//! What was found out about a peer's message, and what the route asks for.
//!
//! Only names; the judging is done by the flows with the protocol crate.

use std::fmt;

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
