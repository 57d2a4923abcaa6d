//! One client id with its keys: the one it signs with, and those it verifies with.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use countersign_protocol::time::Offset;
use countersign_protocol::{
    ClientId, Content, KeyVersion, PrivateKey, PublicKey, Signature, Timestamp, VerifyError, sign,
    verify,
};
use tracing::warn;

use super::facts::KeyFacts;
use super::source::Reader;
use super::token::{TokenError, TokenKey};
use super::{IdentityConfig, KeyConfig, KeyError, Source};
use crate::exchange::Direction;
use crate::telemetry::Metrics;

/// One client id with its keys.
pub struct Identity {
    /// The id.
    pub client_id: ClientId,
    signing: Arc<Held<SigningKey>>,
    verification: BTreeMap<KeyVersion, Arc<Held<PublicKey>>>,
    try_all_keys: bool,
    time_offset: Offset,
}

/// A key with what is known of it.
struct Held<K> {
    key: K,
    key_version: KeyVersion,
    source: Source,
    since: SystemTime,
    /// Whether the log says already that it is used though there is a newer one.
    told: AtomicBool,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// A key in memory could not sign.
    #[error(transparent)]
    Held(#[from] countersign_protocol::SignError),
    /// A token did not sign.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Where the key is that signs.
pub(super) enum SigningKey {
    /// In memory.
    Held(PrivateKey),
    /// In a token.
    Token(TokenKey),
}

impl SigningKey {
    async fn sign(&self, content: &Content<'_>) -> Result<Vec<u8>, SignError> {
        match self {
            // A quarter of a millisecond: to hand it to another thread would cost about as much.
            Self::Held(key) => Ok(sign(key, content)?),
            Self::Token(key) => Ok(key.sign(content).await?),
        }
    }
}

impl Identity {
    /// Reads its keys; those that are the same in `before` are taken from there. None when there was a
    /// problem, which the reader keeps.
    pub(super) fn load(
        config: &IdentityConfig,
        before: Option<&Self>,
        reader: &mut Reader<'_>,
    ) -> Option<Self> {
        let own = before.map(|identity| &identity.signing);
        let signing = Held::read(&config.signing_key, own, reader, Reader::signing_key);
        let mut verification = BTreeMap::new();
        for key in &config.verification_keys {
            let same = before.and_then(|identity| identity.verification.get(&key.key_version));
            let Some(held) = Held::read(key, same, reader, Reader::public_key) else {
                continue;
            };
            if let Some(signing) = &signing
                && signing.key.public_half() == held.key
            {
                reader.problem(KeyError::own_public_key(key));
            }
            verification.insert(key.key_version, held);
        }
        Some(Self {
            client_id: config.client_id.clone(),
            signing: signing?,
            verification,
            try_all_keys: config.try_all_keys,
            time_offset: config.time_offset,
        })
    }

    /// The time to write into a message, in the identity's offset.
    pub fn stamp(&self, now: SystemTime) -> Timestamp {
        Timestamp::at(now, self.time_offset)
    }

    /// Signs a content with the identity's private key.
    ///
    /// A key in a token takes its time, at most some seconds, without blocking the thread.
    ///
    /// # Errors
    /// When the key cannot sign, or its token is away.
    pub async fn sign(&self, content: &Content<'_>) -> Result<Signature, SignError> {
        let Held {
            key, key_version, ..
        } = &*self.signing;
        Ok(Signature {
            key_version: *key_version,
            value: key.sign(content).await?,
        })
    }

    /// Whether a signature that names this key version is tried at all.
    pub fn knows(&self, version: KeyVersion) -> bool {
        self.verification.contains_key(&version) || self.try_all_keys
    }

    /// The version of the key of Alipay+ that verifies a signature: the one it names, or, where
    /// `try_all_keys` says so and there is none of that version, any.
    ///
    /// # Errors
    /// Why the last key that was tried refuses it.
    pub fn verify(
        &self,
        content: &Content<'_>,
        signature: &Signature,
    ) -> Result<KeyVersion, VerifyError> {
        let tried = |held: &Arc<Held<PublicKey>>| {
            verify(&held.key, content, &signature.value).map(|()| held.key_version)
        };
        match self.verification.get(&signature.key_version) {
            Some(named) => tried(named),
            None if self.try_all_keys => {
                // The newest first, as it is the most likely.
                let mut all = self.verification.values().rev();
                let found = all.find_map(|key| tried(key).ok());
                found.ok_or(VerifyError::Mismatch)
            }
            None => Err(VerifyError::Mismatch),
        }
    }

    /// The versions there are keys for, for messages.
    pub fn verification_versions(&self) -> String {
        let versions: Vec<_> = self.verification.keys().map(ToString::to_string).collect();
        versions.join(", ")
    }

    /// A message verified with the key of that version: counts and tells when there is a newer one.
    pub fn verified_with(&self, version: KeyVersion, direction: Direction, metrics: &Metrics) {
        let newest = self
            .verification
            .last_key_value()
            .map(|(newest, _)| *newest);
        let (Some(newest), Some(held)) = (newest, self.verification.get(&version)) else {
            return;
        };
        if version == newest {
            return;
        }
        let (client_id, direction) = (self.client_id.as_str(), direction.as_str());
        metrics
            .older_key_uses
            .with_label_values(&[direction, client_id, &version.to_string()])
            .inc();
        if !held.told.swap(true, Ordering::Relaxed) {
            warn!(
                client_id,
                direction,
                key_version = version.number(),
                newest = newest.number(),
                "the gateway signs with an older key than our newest; keep the older one until it \
                 stops"
            );
        }
    }

    /// How many sessions have the token of its key; nothing when the key is in no token.
    pub(super) fn token_sessions(&self) -> Option<usize> {
        match &self.signing.key {
            SigningKey::Token(key) => Some(key.connected()),
            SigningKey::Held(_) => None,
        }
    }

    pub(super) fn facts(&self) -> Vec<KeyFacts> {
        let signing = &self.signing;
        let mut facts = vec![signing.facts(&self.client_id, "sign", signing.key.public_half())];
        let verifying = self.verification.values();
        facts.extend(verifying.map(|held| held.facts(&self.client_id, "verify", held.key.clone())));
        facts
    }
}

/// A key whose public half tells whether it is the same.
trait Half {
    fn public_half(&self) -> PublicKey;

    /// Whether this one does as well as `read`, which has the same public half.
    fn serves_as(&self, _read: &Self) -> bool {
        true
    }
}

impl Half for SigningKey {
    fn public_half(&self) -> PublicKey {
        match self {
            Self::Held(key) => key.public_key(),
            Self::Token(key) => key.public_key().clone(),
        }
    }

    fn serves_as(&self, read: &Self) -> bool {
        match (self, read) {
            // One with an old PIN would never again be let in by a token that was away.
            (Self::Token(key), Self::Token(read)) => key.has_pin_of(read),
            _ => true,
        }
    }
}

impl Half for PublicKey {
    fn public_half(&self) -> PublicKey {
        self.clone()
    }
}

impl<K: Half> Held<K> {
    /// Reads a key, unless it is `before` or comes from where nothing can have changed.
    fn read<'a>(
        config: &KeyConfig,
        before: Option<&Arc<Self>>,
        reader: &mut Reader<'a>,
        read: impl FnOnce(&mut Reader<'a>, &KeyConfig) -> Option<K>,
    ) -> Option<Arc<Self>> {
        let before = before
            .filter(|held| held.source == config.source && held.key_version == config.key_version);
        if let Some(same) = before.filter(|held| !held.source.can_change()) {
            return Some(Arc::clone(same));
        }
        let key = read(reader, config)?;
        let same = before.filter(|held| held.key.public_half() == key.public_half());
        match same {
            Some(same) if same.key.serves_as(&key) => Some(Arc::clone(same)),
            _ => Some(Arc::new(Self {
                key,
                key_version: config.key_version,
                source: config.source.clone(),
                since: same.map_or(reader.now(), |same| same.since),
                told: AtomicBool::new(false),
            })),
        }
    }

    fn facts(&self, client_id: &ClientId, usage: &'static str, public: PublicKey) -> KeyFacts {
        KeyFacts {
            client_id: client_id.clone(),
            usage,
            key_version: self.key_version,
            public,
            source: self.source.to_string(),
            since: self.since,
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}
