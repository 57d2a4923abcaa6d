//! What is known of a key and may be shown to anybody: on the admin port, in the log, in metrics.
//!
//! Refuses to hold anything of a private half.

use std::fmt;
use std::time::SystemTime;

use countersign_protocol::{ClientId, KeyVersion, PublicKey};
use serde_json::{Value, json};

use crate::clock::written;

/// What is known of a loaded key and may be shown to anybody.
#[derive(Clone, Debug)]
pub struct KeyFacts {
    /// The identity it belongs to.
    pub client_id: ClientId,
    /// `sign` or `verify`.
    pub usage: &'static str,
    /// Its version.
    pub key_version: KeyVersion,
    /// Its public half.
    pub public: PublicKey,
    /// Where it was read from, in words.
    pub source: String,
    /// Since when it is in use.
    pub since: SystemTime,
}

impl KeyFacts {
    /// Its labels in the metrics: client id, use, version, fingerprint.
    pub(super) fn labels(&self) -> [String; 4] {
        [
            self.client_id.to_string(),
            self.usage.to_owned(),
            self.key_version.to_string(),
            self.public.fingerprint().to_string(),
        ]
    }

    /// The same as JSON; the public key as the Alipay+ console shows it, one line of base64.
    pub fn fields(&self) -> Value {
        json!({
            "client_id": self.client_id.as_str(),
            "use": self.usage,
            "key_version": self.key_version.number(),
            "bits": self.public.bits(),
            "fingerprint": self.public.fingerprint().to_string(),
            "public_key": self.public.to_spki_base64(),
            "source": self.source,
            "since": self.loaded(),
        })
    }

    /// When it came into use, as RFC 3339 in whole seconds.
    pub fn loaded(&self) -> String {
        written(self.since)
    }
}

impl fmt::Display for KeyFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            client_id,
            usage,
            key_version,
            public,
            source,
            since: _,
        } = self;
        write!(
            f,
            "{client_id} {usage} version {key_version}, RSA {}, SHA-256 {}, from {source}",
            public.bits(),
            public.fingerprint()
        )
    }
}
