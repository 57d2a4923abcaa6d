//! The identities the sidecar signs and verifies for, and their keys.
//!
//! A [`Keyring`] is read whole, checked together, and never changes; a reload makes another one, in which
//! keys that stayed the same are the same objects. Looked up by client for signing, by client and key
//! version for verifying. Refuses to hold a key it could not read, and a partner's own public key given
//! as Alipay+'s. Filled by `app` from the configuration; used by the flows.

mod error;
mod facts;
mod identity;
mod source;
pub mod token;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use countersign_protocol::time::Offset;
use countersign_protocol::{ClientId, KeyVersion};

pub use self::error::KeyError;
pub use self::facts::KeyFacts;
pub use self::identity::{Identity, SignError};

use self::source::Reader;
use crate::telemetry::Metrics;

/// What the configuration says of the identities.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// One entry for each client id.
    pub identities: Vec<IdentityConfig>,
    /// How variables of the environment are looked up.
    pub environment: Environment,
}

/// One identity of the configuration.
#[derive(Clone, Debug)]
pub struct IdentityConfig {
    /// The id Alipay+ gave the partner.
    pub client_id: ClientId,
    /// The partner's private key.
    pub signing_key: KeyConfig,
    /// Alipay+'s public keys.
    pub verification_keys: Vec<KeyConfig>,
    /// Whether a signature that names an unknown key version is tried with every key.
    pub try_all_keys: bool,
    /// The offset our times are written in.
    pub time_offset: Offset,
}

/// Where one key is.
#[derive(Clone, Debug)]
pub struct KeyConfig {
    /// What it is read from.
    pub source: Source,
    /// Its version at Alipay+.
    pub key_version: KeyVersion,
    /// A file with the passphrase of an encrypted private key.
    pub passphrase_file: Option<PathBuf>,
    /// Whether a secret in a file that others may read is refused; otherwise it is a warning.
    pub strict_permissions: bool,
    /// Where the configuration names it, for messages.
    pub place: String,
}

/// What a key is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file, read again at every reload.
    File(PathBuf),
    /// A variable of the environment, which a running process does not see change.
    Variable(String),
    /// An open file descriptor, read to its end once, at the start.
    Descriptor(u32),
    /// A PKCS#11 token, which the key never leaves; for signing alone.
    Token(token::Config),
}

/// Looks up a variable of the environment; by default there is none.
#[derive(Clone, Default)]
pub struct Environment(Option<Arc<Lookup>>);

type Lookup = dyn Fn(&str) -> Option<OsString> + Send + Sync;

/// All identities; never changes once built.
#[derive(Debug, Default)]
pub struct Keyring {
    identities: BTreeMap<ClientId, Arc<Identity>>,
    warnings: Vec<String>,
}

impl Keyring {
    /// Reads every key the configuration names. Keys that are the same in `before` are taken from
    /// there, with the time since when they are in use.
    ///
    /// # Errors
    /// All problems, not only the first.
    pub fn load(
        config: &Config,
        before: Option<&Self>,
        now: SystemTime,
    ) -> Result<Self, Vec<KeyError>> {
        let mut reader = Reader::new(&config.environment, now);
        let mut identities = BTreeMap::new();
        for identity in &config.identities {
            let before = before.and_then(|keyring| keyring.identity(&identity.client_id));
            let loaded = Identity::load(identity, before.map(AsRef::as_ref), &mut reader);
            if let Some(loaded) = loaded {
                identities.insert(identity.client_id.clone(), Arc::new(loaded));
            }
        }
        let (warnings, problems) = reader.finish();
        if problems.is_empty() {
            Ok(Self {
                identities,
                warnings,
            })
        } else {
            Err(problems)
        }
    }

    /// The identity of a client id.
    pub fn identity(&self, client_id: &ClientId) -> Option<&Arc<Identity>> {
        self.identities.get(client_id)
    }

    /// What may be shown of all keys, in a stable order.
    pub fn facts(&self) -> Vec<KeyFacts> {
        let identities = self.identities.values();
        identities.flat_map(|one| one.facts()).collect()
    }

    /// What is not wrong but should not stay so, one line each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Shows the keys in the metrics, and those of `before` that are gone no longer.
    pub fn publish(&self, metrics: &Metrics, before: Option<&Self>) {
        let labels = |keyring: &Self| -> BTreeSet<[String; 4]> {
            keyring.facts().iter().map(KeyFacts::labels).collect()
        };
        let now = labels(self);
        for gone in before.map(labels).unwrap_or_default().difference(&now) {
            // It was there, or somebody else has removed it.
            let _was_shown = metrics.key_info.remove_label_values(&gone.each_ref());
            let _was_shown = metrics.key_loaded.remove_label_values(&gone.each_ref());
        }
        for key in self.facts() {
            let labels = key.labels();
            let since = key.since.duration_since(UNIX_EPOCH).unwrap_or_default();
            metrics.key_info.with_label_values(&labels).set(1);
            let loaded = metrics.key_loaded.with_label_values(&labels);
            loaded.set(since.as_secs_f64());
        }
    }
}

impl Keyring {
    /// Shows which tokens are there at this moment.
    pub fn publish_tokens(&self, metrics: &Metrics) {
        metrics.token_sessions.reset();
        for identity in self.identities.values() {
            if let Some(sessions) = identity.token_sessions() {
                let client_id = identity.client_id.as_str();
                let shown = metrics.token_sessions.with_label_values(&[client_id]);
                shown.set(i64::try_from(sessions).unwrap_or(i64::MAX));
            }
        }
    }
}

impl Config {
    /// The files whose change matters: those with keys, passphrases and PINs.
    pub fn files(&self) -> Vec<PathBuf> {
        let identities = self.identities.iter();
        let keys =
            identities.flat_map(|one| one.verification_keys.iter().chain([&one.signing_key]));
        let files = keys.flat_map(|key| [key.source.file(), key.passphrase_file.as_deref()]);
        files.flatten().map(Path::to_owned).collect()
    }

    /// Whether any key is in a token.
    pub fn has_token(&self) -> bool {
        let mut keys = self.identities.iter().map(|one| &one.signing_key);
        keys.any(|key| matches!(key.source, Source::Token(_)))
    }
}

impl Source {
    /// The file it is in, or the one with the PIN that opens it.
    fn file(&self) -> Option<&Path> {
        match self {
            Self::File(file) => Some(file),
            Self::Token(token) => token.pin_file.as_deref(),
            Self::Variable(_) | Self::Descriptor(_) => None,
        }
    }

    /// Whether it can be something else at the next reload.
    fn can_change(&self) -> bool {
        match self {
            Self::File(_) | Self::Token(_) => true,
            Self::Variable(_) | Self::Descriptor(_) => false,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => named(file).fmt(f),
            Self::Variable(name) => {
                write!(f, "environment variable {}", named(Path::new(name)))
            }
            Self::Descriptor(number) => write!(f, "file descriptor {number}"),
            Self::Token(token) => {
                write!(f, "token {}, key {}", token.token_label, token.key_label)
            }
        }
    }
}

impl Environment {
    /// Looks variables up by this function.
    pub fn new(lookup: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(lookup)))
    }

    fn variable(&self, name: &str) -> Option<OsString> {
        self.0.as_ref()?(name)
    }
}

/// The name of a file for people, unless somebody pasted a key where the name belongs.
pub fn named(file: &Path) -> Cow<'_, str> {
    const BEGINNING: &str = "MII";
    let text = file.to_string_lossy();
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    let is_key = text.match_indices(BEGINNING).any(|(start, _)| {
        let behind = text.bytes().skip(start);
        behind.take_while(|byte| is_base64(*byte)).count() > 200
    });
    if is_key || text.contains("-----BEGIN") {
        return Cow::Borrowed("(a key itself; write the name of a file that holds it)");
    }
    text
}

/// Says nothing of what the variables hold.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}
