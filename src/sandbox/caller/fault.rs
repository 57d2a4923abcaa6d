//! What is wrong with a call when it is asked to be: the mirror of the faults in the sandbox's answers.
//!
//! Each shows a partner that its own check refuses what it must. Called by the caller only.

use std::time::Duration;

use ::http::{HeaderName, HeaderValue};
use bytes::Bytes;
use clap::ValueEnum;
use countersign_protocol::message::{REQUEST_TIME, SIGNATURE};
use countersign_protocol::{KeyError, KeyVersion, Offset, PrivateKey, Timestamp};

use super::Sent;
use crate::sandbox::fault::{flip_last_digit, swap_signature};

/// A way to call wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CallFault {
    /// One byte of the body differs from what was signed.
    AlteredBody,
    /// One byte of the signature is flipped.
    AlteredSignature,
    /// Signed by a key nobody knows.
    WrongKey,
    /// Signed with a key version nobody knows.
    UnknownKeyVersion,
    /// Signed an hour ago.
    StaleTime,
    /// A signature, but no Request-Time.
    MissingTime,
    /// Neither Signature nor Request-Time.
    Unsigned,
    /// Two Signature headers.
    RepeatedSignature,
    /// Beside Client-Id a `client_id` with another value, which CGI-like servers take for the same.
    UnderscoreTwin,
    /// The same bytes twice; the second may be refused, or answered like the first.
    Replay,
}

/// What a call is signed with.
#[derive(Clone, Debug)]
pub(super) struct Signing {
    pub(super) key: PrivateKey,
    pub(super) key_version: KeyVersion,
    pub(super) time: Timestamp,
}

impl CallFault {
    /// What a refusal of it may say.
    pub(super) fn refusals(self) -> &'static [&'static str] {
        match self {
            // Both are documented, and both are true.
            Self::UnknownKeyVersion => &["F/KEY_NOT_FOUND", "F/INVALID_SIGNATURE"],
            // The first of the two may have been carried out, so F need not be true.
            Self::Replay => &["U/UNKNOWN_EXCEPTION", "F/INVALID_SIGNATURE"],
            _ => &["F/INVALID_SIGNATURE"],
        }
    }

    /// What is wrong already when the call is signed.
    pub(super) fn before(self, signing: &mut Signing) -> Result<(), KeyError> {
        match self {
            Self::WrongKey => signing.key = PrivateKey::generate(2048)?,
            Self::UnknownKeyVersion => signing.key_version = KeyVersion::new(99),
            Self::StaleTime => {
                let hour = Duration::from_hours(1);
                signing.time = Timestamp::at(signing.time.instant() - hour, Offset::UTC);
            }
            _ => {}
        }
        Ok(())
    }

    /// What goes wrong after it was signed.
    pub(super) fn after(self, sent: &mut Sent) {
        let headers = &mut sent.headers;
        match self {
            Self::AlteredBody => sent.body = Bytes::from(altered(&sent.body)),
            Self::AlteredSignature => swap_signature(headers),
            Self::MissingTime => {
                headers.remove(REQUEST_TIME);
            }
            Self::Unsigned => {
                headers.remove(REQUEST_TIME);
                headers.remove(SIGNATURE);
            }
            Self::RepeatedSignature => {
                if let Some(signature) = headers.get(SIGNATURE).cloned() {
                    headers.append(SIGNATURE, signature);
                }
            }
            Self::UnderscoreTwin => {
                let other = HeaderValue::from_static("SANDBOX_SOMEBODYELSE");
                headers.insert(HeaderName::from_static("client_id"), other);
            }
            Self::WrongKey | Self::UnknownKeyVersion | Self::StaleTime | Self::Replay => {}
        }
    }
}

/// Another digit, or one byte more where there is none.
fn altered(body: &[u8]) -> Vec<u8> {
    let mut altered = flip_last_digit(body);
    if altered == body {
        altered.push(b' ');
    }
    altered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_altered_body_always_differs() {
        for body in ["", "{}", "{\"value\":\"100\"}", "9"] {
            assert_ne!(altered(body.as_bytes()), body.as_bytes(), "{body}");
        }
    }
}
