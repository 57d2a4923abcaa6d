//! `keys`: what keys a running sidecar has loaded, and since when.
//!
//! Asks its admin port, so it tells of the process that serves and not of the files; with a
//! configuration it tells of these. Shows public halves alone.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::operate::{admin_port, fetch};
use super::run::Source;
use super::{Failure, output::say};
use crate::config;

/// Show the keys that a running sidecar has loaded.
///
/// For each its client id, use, version and fingerprint, where it came from and since when it is in use;
/// and the public key in one line of base64, as the Alipay+ console shows it. The fingerprint is the
/// SHA-256 of the public key in DER: what `openssl pkey -pubin -outform DER | sha256sum` prints.
///
/// With --config it shows the keys that a sidecar with that file would load, and asks none.
#[derive(Args, Debug)]
pub struct Keys {
    /// The sidecar's admin port.
    #[arg(long, value_name = "ADDRESS", default_value = config::ADMIN, value_parser = admin_port, conflicts_with = "config")]
    admin: SocketAddr,
    /// The configuration file whose keys are shown, instead of a running sidecar's.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
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
    /// Asks once, or reads once.
    pub(super) fn execute(self) -> Result<(), Failure> {
        let keys = match self.config {
            Some(file) => in_files(file)?,
            None => in_use(self.admin)?,
        };
        match self.output {
            Output::Json => say(format_args!("{:#}", json!({ "keys": keys }))),
            Output::Text => keys.iter().for_each(show),
        }
        Ok(())
    }
}

/// The keys of the sidecar at that admin port.
fn in_use(admin: SocketAddr) -> Result<Vec<Value>, Failure> {
    let (status, body) = fetch(admin, "GET /keys")
        .ok_or_else(|| Failure::Other(format!("no sidecar answers at {admin}")))?;
    let mut answer = serde_json::from_str::<Value>(&body).unwrap_or_default();
    match answer.get_mut("keys").map(Value::take) {
        Some(Value::Array(keys)) if status == 200 => Ok(keys),
        _ => Err(Failure::Other(format!(
            "{admin} answered {status}, which is no list of keys"
        ))),
    }
}

/// The keys that a configuration names; nobody uses them yet.
fn in_files(file: PathBuf) -> Result<Vec<Value>, Failure> {
    let prepared = Source::of(file).prepare()?;
    let keys = prepared.keys();
    let keys = keys.iter().map(|key| {
        let mut fields = key.fields();
        if let Some(since) = fields.get_mut("since") {
            *since = Value::Null;
        }
        fields
    });
    Ok(keys.collect())
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
    let since = match &key["since"] {
        Value::String(since) => format!(", since {since}"),
        _ => String::new(),
    };
    say(format_args!(
        "{} {does} key version {}{since}",
        text("client_id"),
        text("key_version")
    ));
    say(format_args!(
        "  RSA {} from {}",
        text("bits"),
        text("source")
    ));
    say(format_args!("  SHA-256 {}", text("fingerprint")));
    say(format_args!("  console {}", text("public_key")));
}
