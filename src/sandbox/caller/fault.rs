//! What is wrong with a call when it is asked to be: the mirror of the faults in the sandbox's answers.
//!
//! Each shows a partner that its own check refuses what it must. Called by the caller only.

use std::time::Duration;

use ::http::{HeaderMap, HeaderName};
use bytes::Bytes;
use clap::ValueEnum;
use countersign_protocol::message::{CLIENT_ID, REQUEST_TIME, SIGNATURE};
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
    /// `client_id` and `request_time` with underscores in place of the real headers, for which
    /// CGI-like servers take them.
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
            Self::UnderscoreTwin => underscore(headers),
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

/// `Signature` is one word and stays.
fn underscore(headers: &mut HeaderMap) {
    for (name, twin) in [
        (CLIENT_ID, HeaderName::from_static("client_id")),
        (REQUEST_TIME, HeaderName::from_static("request_time")),
    ] {
        if let Some(value) = headers.remove(name) {
            headers.insert(twin, value);
        }
    }
}
