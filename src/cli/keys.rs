//! `keys`: what keys a running sidecar has loaded, and since when.
//!
//! Asks its admin port, so it tells of the process that serves and not of the files. Shows public halves
//! alone.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::operate::fetch;
use super::{Failure, output::say};
use crate::config;

/// Show the keys that a running sidecar has loaded.
///
/// For each its client id, use, version and fingerprint, where it came from and since when it is in use;
/// and the public key in one line of base64, as the Alipay+ console shows it. The fingerprint is the
/// SHA-256 of the public key in DER: what `openssl pkey -pubin -outform DER | sha256sum` prints.
///
/// To see what the files hold that a sidecar would load, run `countersign check`.
#[derive(Args, Debug)]
pub struct Keys {
    /// The sidecar's admin port.
    #[arg(long, value_name = "ADDRESS", default_value = config::ADMIN)]
    admin: SocketAddr,
    /// How it is shown.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// How keys are shown.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs: what the admin port answers at /keys.
    Json,
}

impl Keys {
    /// Asks once.
    pub(super) fn execute(self) -> Result<(), Failure> {
        let admin = self.admin;
        let (status, body) = fetch(admin, "GET /keys")
            .ok_or_else(|| Failure::Other(format!("no sidecar answers at {admin}")))?;
        let answer = serde_json::from_str::<Value>(&body).ok();
        let keys = answer.as_ref().and_then(|answer| answer["keys"].as_array());
        let Some(keys) = keys.filter(|_| status == 200) else {
            let text = format!("{admin} answered {status}, which is no list of keys");
            return Err(Failure::Other(text));
        };
        match self.output {
            Output::Json => say(body.trim_end()),
            Output::Text => keys.iter().for_each(show),
        }
        Ok(())
    }
}

fn show(key: &Value) {
    let text = |name: &str| match &key[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let does = match text("use").as_str() {
        "sign" => "signs with".to_owned(),
        "verify" => "verifies with".to_owned(),
        other => other.to_owned(),
    };
    say(format_args!(
        "{} {does} key version {}, since {}",
        text("client_id"),
        text("key_version"),
        text("since")
    ));
    say(format_args!(
        "  RSA {} from {}",
        text("bits"),
        text("source")
    ));
    say(format_args!("  SHA-256 {}", text("fingerprint")));
    say(format_args!("  console {}", text("public_key")));
}
