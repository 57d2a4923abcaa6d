//! What the crate promises, each module one subject. The vectors beside it were made with throw-away
//! keys and agree with the official SDKs.
#![cfg(feature = "openssl")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test stops at what it did not expect"
)]
#![allow(clippy::format_collect, reason = "a test may allocate")]

mod content;
mod explain;
mod forms;
mod header;
mod key;
mod message;
mod properties;
mod time;
mod vectors;
mod weak_key;
mod wrong_key;
