//! The identities the sidecar signs and verifies for, and their keys.
//!
//! Keys are read once, checked together, and then only looked up: by client for signing, by client
//! and key version for verifying. Refuses to hold a key it could not read, and a partner's own
//! public key given as Alipay+'s. Filled by `app` from the configuration; used by the flows.

pub mod source;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use countersign_protocol::time::Offset;
use countersign_protocol::{
    ClientId, Content, Fingerprint, KeyVersion, PrivateKey, PublicKey, SignError, Signature,
    Timestamp, sign,
};

pub use source::KeyError;

use crate::clock::Clock;
use crate::telemetry::Metrics;

/// What the configuration says of the identities.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// One entry for each client id.
    pub identities: Vec<IdentityConfig>,
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
    /// The offset our times are written in.
    pub time_offset: Offset,
}

/// Where one key is.
#[derive(Clone, Debug)]
pub struct KeyConfig {
    /// The key file.
    pub file: PathBuf,
    /// Its version at Alipay+.
    pub key_version: KeyVersion,
    /// A file with the passphrase of an encrypted private key.
    pub passphrase_file: Option<PathBuf>,
    /// Where the configuration names it, for messages.
    pub place: String,
}

/// All identities; never changes once built.
#[derive(Debug, Default)]
pub struct Keyring {
    identities: HashMap<ClientId, Arc<Identity>>,
}

/// One client id with its keys.
pub struct Identity {
    /// The id.
    pub client_id: ClientId,
    signing: (KeyVersion, PrivateKey),
    verification: BTreeMap<KeyVersion, PublicKey>,
    time_offset: Offset,
}

/// What is known of a loaded key and may be shown to anybody.
#[derive(Clone, Debug)]
pub struct KeyFacts {
    /// The identity it belongs to.
    pub client_id: ClientId,
    /// `sign` or `verify`.
    pub usage: &'static str,
    /// Its version.
    pub key_version: KeyVersion,
    /// SHA-256 of its public half.
    pub fingerprint: Fingerprint,
    /// Modulus length.
    pub bits: u32,
}

impl Keyring {
    /// Reads every key the configuration names.
    ///
    /// # Errors
    /// All problems, not only the first.
    pub fn load(config: &Config) -> Result<Self, Vec<KeyError>> {
        let mut identities = HashMap::new();
        let mut problems = Vec::new();
        for identity in &config.identities {
            match Identity::load(identity) {
                Ok(loaded) => {
                    identities.insert(identity.client_id.clone(), Arc::new(loaded));
                }
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() {
            Ok(Self { identities })
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
        let mut facts: Vec<_> = self
            .identities
            .values()
            .flat_map(|one| one.facts())
            .collect();
        facts.sort_by(|a, b| {
            (&a.client_id, a.usage, a.key_version).cmp(&(&b.client_id, b.usage, b.key_version))
        });
        facts
    }

    /// Shows the keys in the metrics.
    pub fn publish(&self, metrics: &Metrics, clock: &Clock) {
        let since = clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for key in self.facts() {
            let (version, fingerprint) = (key.key_version.to_string(), key.fingerprint.to_string());
            let labels = [key.client_id.as_str(), key.usage, &version, &fingerprint];
            metrics.key_info.with_label_values(&labels).set(1);
            metrics
                .key_loaded
                .with_label_values(&labels)
                .set(since.as_secs_f64());
        }
    }
}

impl Identity {
    fn load(config: &IdentityConfig) -> Result<Self, Vec<KeyError>> {
        let mut problems = Vec::new();
        let signing = source::private_key(&config.signing_key)
            .map_err(|problem| problems.push(problem))
            .ok();
        let mut verification = BTreeMap::new();
        for key in &config.verification_keys {
            match source::public_key(key) {
                Ok(public) if signing.as_ref().is_some_and(|own| is_own(own, &public)) => {
                    problems.push(KeyError::own_public_key(key));
                }
                Ok(public) => {
                    verification.insert(key.key_version, public);
                }
                Err(problem) => problems.push(problem),
            }
        }
        match signing {
            Some(key) if problems.is_empty() => Ok(Self {
                client_id: config.client_id.clone(),
                signing: (config.signing_key.key_version, key),
                verification,
                time_offset: config.time_offset,
            }),
            _ => Err(problems),
        }
    }

    /// The time to write into a message, in the identity's offset.
    pub fn stamp(&self, now: SystemTime) -> Timestamp {
        Timestamp::at(now, self.time_offset)
    }

    /// Signs a content with the identity's private key.
    ///
    /// # Errors
    /// When OpenSSL cannot sign.
    pub fn sign(&self, content: &Content<'_>) -> Result<Signature, SignError> {
        let (key_version, key) = &self.signing;
        Ok(Signature {
            key_version: *key_version,
            value: sign(key, content)?,
        })
    }

    /// Alipay+'s public key of that version.
    pub fn verification_key(&self, version: KeyVersion) -> Option<&PublicKey> {
        self.verification.get(&version)
    }

    /// The versions there are keys for, for messages.
    pub fn verification_versions(&self) -> String {
        let versions: Vec<_> = self.verification.keys().map(ToString::to_string).collect();
        versions.join(", ")
    }

    fn facts(&self) -> Vec<KeyFacts> {
        let (version, key) = &self.signing;
        let fact = |usage, key_version: &KeyVersion, public: &PublicKey| KeyFacts {
            client_id: self.client_id.clone(),
            usage,
            key_version: *key_version,
            fingerprint: public.fingerprint(),
            bits: public.bits(),
        };
        let mut facts = vec![fact("sign", version, &key.public_key())];
        facts.extend(
            self.verification
                .iter()
                .map(|(version, key)| fact("verify", version, key)),
        );
        facts
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

fn is_own(own: &PrivateKey, public: &PublicKey) -> bool {
    own.public_key().fingerprint() == public.fingerprint()
}

impl fmt::Display for KeyFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client_id,
            usage,
            key_version,
            fingerprint,
            bits,
        } = self;
        write!(
            f,
            "{client_id} {usage} version {key_version}, RSA {bits}, SHA-256 {fingerprint}"
        )
    }
}
