//! Rotations: key files and a configuration that are replaced under a running sidecar, and the gateway's side of it.

use std::collections::BTreeMap;
use std::fs;

use countersign_protocol::{KeyVersion, PrivateKey};

use super::world::{CLIENT_ID, Files, World};

/// Counts the configurations that were taken over.
pub const CONFIG_OK: &str = "countersign_reloads_total{result=\"ok\",what=\"config\"}";

/// An identity whose key files bear their versions.
pub fn identity(signing: u32, verifying: &[u32]) -> String {
    let keys: Vec<_> = verifying
        .iter()
        .map(|version| format!("{{ file: gateway-{version}.pem, key_version: {version} }}"))
        .collect();
    format!(
        "identities:\n  - client_id: {CLIENT_ID}\n    \
         signing_key: {{ file: partner-{signing}.pem, key_version: {signing} }}\n    \
         verification_keys: [{}]\n",
        keys.join(", ")
    )
}

/// Replaces the identities of a configuration, and nothing else of it.
pub fn rewrite(files: &Files, identities: &str) {
    let text = fs::read_to_string(files.path("config.yaml")).unwrap();
    let rest = &text[text.find("egress:").unwrap()..];
    // Renamed into place, as every careful tool does.
    files.write("config.next", format!("{identities}{rest}").as_bytes());
    fs::rename(files.path("config.next"), files.path("config.yaml")).unwrap();
}

/// The key files of a version that [`identity`] names.
pub fn write_pair(files: &Files, version: u32, partner: &PrivateKey, gateway: &PrivateKey) {
    let (own, theirs) = (partner.to_pkcs8_pem(), gateway.public_key().to_spki_pem());
    files.write(&format!("partner-{version}.pem"), own.as_bytes());
    files.write(&format!("gateway-{version}.pem"), theirs.as_bytes());
}

pub fn key() -> PrivateKey {
    PrivateKey::generate(2048).unwrap()
}

/// Lets the gateway know these versions of the partner's key, and sign with its own of that version.
pub fn rotate(world: &World, partner: &[(u32, &PrivateKey)], own: (u32, &PrivateKey)) {
    let partner: BTreeMap<_, _> = partner
        .iter()
        .map(|(version, key)| (KeyVersion::new(*version), key.public_key()))
        .collect();
    let own = (KeyVersion::new(own.0), own.1.clone());
    world.gateway().rotate(partner, own);
}
