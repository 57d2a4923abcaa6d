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
use crate::keys::token::{self, TokenKey};

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
    #[arg(long, value_name = "FILE", required_unless_present = "pkcs11_module")]
    private_key: Option<PathBuf>,
    /// A file with the passphrase of an encrypted key.
    #[arg(long, value_name = "FILE", requires = "private_key")]
    passphrase_file: Option<PathBuf>,
    #[command(flatten)]
    token: InToken,
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
        let time = match &self.time {
            Some(text) => {
                Timestamp::parse(text).map_err(|e| Failure::usage(format!("--time: {e}")))?
            }
            None => Timestamp::at(Clock::system().now(), Offset::UTC),
        };
        let body = self.message.read_body()?;
        let value = self.signature(&self.message.content(&time, &body))?;
        say(Signature {
            key_version: self.key_version,
            value,
        });
        Ok(())
    }

    fn signature(&self, content: &Content<'_>) -> Result<Vec<u8>, Failure> {
        let Some(file) = &self.private_key else {
            return self.token.signature(content);
        };
        let passphrase = self.passphrase_file.as_deref().map(read_file).transpose()?;
        let passphrase = passphrase.map(Zeroizing::new);
        let bytes = Zeroizing::new(read_file(file)?);
        let secret = passphrase.as_ref().map(|bytes| bytes.trim_ascii_end());
        let key = PrivateKey::parse(&bytes, secret).map_err(|error| in_file(file, error))?;
        sign(&key, content).map_err(Failure::other)
    }
}

/// A private key in a PKCS#11 token, in place of a file.
#[derive(Args, Debug)]
struct InToken {
    /// The PKCS#11 module of the token the private key is in.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "private_key",
        requires_all = ["token_label", "key_label"]
    )]
    pkcs11_module: Option<PathBuf>,
    /// The token's label.
    #[arg(long, value_name = "LABEL", requires = "pkcs11_module")]
    token_label: Option<String>,
    /// The key's label.
    #[arg(long, value_name = "LABEL", requires = "pkcs11_module")]
    key_label: Option<String>,
    /// A file with the PIN; without it nobody is logged in.
    #[arg(long, value_name = "FILE", requires = "pkcs11_module")]
    pin_file: Option<PathBuf>,
}

impl InToken {
    fn signature(&self, content: &Content<'_>) -> Result<Vec<u8>, Failure> {
        let key = TokenKey::open(&token::Config {
            module: self.pkcs11_module.clone().unwrap_or_default(),
            token_label: self.token_label.clone().unwrap_or_default(),
            key_label: self.key_label.clone().unwrap_or_default(),
            pin_file: self.pin_file.clone(),
            sessions: 1,
        });
        let key = key.map_err(Failure::usage)?;
        super::runtime()?
            .block_on(key.sign(content))
            .map_err(Failure::other)
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
