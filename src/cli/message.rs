//! `sign` and `verify`: one message from the command line.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use countersign_protocol::{
    ClientId, Content, KeyVersion, Offset, PrivateKey, PublicKey, Question, Signature, Timestamp,
    explain, sign, verify,
};
use zeroize::Zeroizing;

use super::Failure;
use super::output::say;
use crate::clock::Clock;
use crate::keys::named;

/// The message that is signed.
#[derive(Args, Debug)]
struct Message {
    /// The client id of the message.
    #[arg(long)]
    client_id: ClientId,
    /// Path and query, exactly as on the request line.
    #[arg(long)]
    uri: String,
    /// The method of the request.
    #[arg(long, default_value = "POST")]
    method: String,
    /// The body; stdin without it.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
}

impl Message {
    fn read_body(&self) -> Result<Vec<u8>, Failure> {
        let Some(file) = &self.body else {
            let mut body = Vec::new();
            let read = io::stdin().lock().read_to_end(&mut body);
            return read
                .map(|_| body)
                .map_err(|error| Failure::other(format!("stdin: {error}")));
        };
        read_file(file)
    }

    fn content<'a>(&'a self, time: &'a Timestamp, body: &'a [u8]) -> Content<'a> {
        let Self {
            client_id,
            uri,
            method,
            ..
        } = self;
        Content {
            method,
            uri,
            client_id,
            time,
            body,
        }
    }
}

/// Print the Signature header's value for a message.
#[derive(Args, Debug)]
pub struct Sign {
    #[command(flatten)]
    message: Message,
    /// The signer's private key.
    #[arg(long, value_name = "FILE")]
    private_key: PathBuf,
    /// A file with the passphrase of an encrypted key.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// The Request-Time or Response-Time [default: now]
    #[arg(long)]
    time: Option<String>,
    /// The version of the key.
    #[arg(long, default_value = "1")]
    key_version: KeyVersion,
}

impl Sign {
    /// Signs.
    pub(super) fn execute(self) -> Result<(), Failure> {
        let passphrase = self.passphrase_file.as_deref().map(read_file).transpose()?;
        let passphrase = passphrase.map(Zeroizing::new);
        let bytes = Zeroizing::new(read_file(&self.private_key)?);
        let secret = passphrase.as_ref().map(|bytes| bytes.trim_ascii_end());
        let key =
            PrivateKey::parse(&bytes, secret).map_err(|error| in_file(&self.private_key, error))?;
        let time = match &self.time {
            Some(text) => {
                Timestamp::parse(text).map_err(|e| Failure::usage(format!("--time: {e}")))?
            }
            None => Timestamp::at(Clock::system().now(), Offset::UTC),
        };
        let body = self.message.read_body()?;
        let value = sign(&key, &self.message.content(&time, &body)).map_err(Failure::other)?;
        say(Signature {
            key_version: self.key_version,
            value,
        });
        Ok(())
    }
}

/// Verify a message's signature, and explain it when it fails.
///
/// Exit 0 when it verifies, 1 when not.
#[derive(Args, Debug)]
pub struct Verify {
    #[command(flatten)]
    message: Message,
    /// The signer's public key.
    #[arg(long, value_name = "FILE")]
    public_key: PathBuf,
    /// The Request-Time or Response-Time, exactly as in the header.
    #[arg(long)]
    time: String,
    /// The Signature header's value.
    #[arg(long)]
    signature: String,
}

impl Verify {
    /// Verifies.
    pub(super) fn execute(self) -> Result<(), Failure> {
        let bytes = read_file(&self.public_key)?;
        let key = PublicKey::parse(&bytes).map_err(|error| in_file(&self.public_key, error))?;
        let time = Timestamp::parse(&self.time)
            .map_err(|error| Failure::other(format!("does not verify: --time: {error}")))?;
        let signature = Signature::parse(&self.signature)
            .map_err(|error| Failure::other(format!("does not verify: --signature: {error}")))?;
        let body = self.message.read_body()?;
        let content = self.message.content(&time, &body);
        if verify(&key, &content, &signature.value).is_ok() {
            say("verified");
            return Ok(());
        }
        let question = Question::new(&key, &content, &signature.value);
        Err(Failure::Other(format!(
            "does not verify: {}",
            explain(&question)
        )))
    }
}

fn read_file(file: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Failure::usage(format!("{}: no such file", named(file))),
        _ => Failure::usage(format!("{}: cannot be read: {error}", named(file))),
    })
}

fn in_file(file: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("{}: {error}", named(file)))
}
