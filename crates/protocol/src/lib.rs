//! The message signature of Alipay+ and Antom: the signed bytes, the header, times, keys, sign, verify.
//!
//! Everything here is computation: bytes and times go in, bytes and verdicts come out. The crate
//! opens no file and no socket, asks no clock and logs nothing. It never repairs a message either:
//! what is not one of the documented forms is an error that names the part.
//!
//! A request is signed in three steps: say what is signed ([`Content`]), sign it (`sign`), and
//! write the three headers ([`Credentials`]). The other side reads the headers and verifies.
//!
#![cfg_attr(feature = "openssl", doc = "```")]
#![cfg_attr(not(feature = "openssl"), doc = "```ignore")]
//! use std::time::{Duration, SystemTime};
//!
//! use countersign_protocol::{
//!     ClientId, Content, Credentials, KeyVersion, Kind, Offset, PrivateKey, Signature, Timestamp,
//!     sign, verify,
//! };
//!
//! let key = PrivateKey::generate(2048)?;
//! let client_id = ClientId::parse("SANDBOX_5X00000000000000")?;
//! let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_344_293);
//! let time = Timestamp::at(now, Offset::default());
//! assert_eq!(time.as_str(), "2026-11-22T10:44:53Z");
//!
//! let uri = http::Uri::from_static("https://gateway.example/aps/api/v1/payments/pay");
//! let content = Content {
//!     method: "POST",
//!     uri: &countersign_protocol::signed_uri(&uri),
//!     client_id: &client_id,
//!     time: &time,
//!     body: br#"{"paymentRequestId":"1"}"#,
//! };
//! let value = sign(&key, &content)?;
//! verify(&key.public_key(), &content, &value)?;
//!
//! let mut headers = http::HeaderMap::new();
//! let signature = Signature { key_version: KeyVersion::default(), value };
//! Credentials { client_id: client_id.clone(), time: time.clone(), signature }
//!     .write(Kind::Request, &mut headers);
//! assert_eq!(Credentials::read(Kind::Request, &headers)?.client_id, client_id);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! `openssl` (default) brings the modules `key`, `sign`, `verify` and `explain`: RSA through a
//! vendored OpenSSL. No type of the `openssl` crate is in a public signature.

pub mod content;
#[cfg(feature = "openssl")]
pub mod explain;
pub mod header;
#[cfg(feature = "openssl")]
pub mod key;
pub mod message;
#[cfg(feature = "openssl")]
pub mod sign;
pub mod time;
#[cfg(feature = "openssl")]
pub mod verify;

pub use crate::{
    content::{ClientId, ClientIdError, Content, ContentError},
    header::{KeyVersion, KeyVersionError, Signature, SignatureHeaderError},
    message::{
        CLIENT_ID, Credentials, CredentialsError, Kind, REQUEST_TIME, RESPONSE_TIME, SIGNATURE,
        signed_uri,
    },
    time::{Offset, OffsetError, TimeError, Timestamp},
};
#[cfg(feature = "openssl")]
pub use crate::{
    explain::{Explanation, Question, explain},
    key::{Fingerprint, KeyError, PrivateKey, PublicKey},
    sign::{SignError, digest_info, sign},
    verify::{VerifyError, verify},
};
