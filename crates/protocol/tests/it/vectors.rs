//! The vectors: 40 signed messages and the keys that signed them, also the keys of other tests.

use std::{collections::BTreeMap, sync::LazyLock};

use base64::{Engine, engine::general_purpose::STANDARD};
use countersign_protocol::{
    ClientId, ClientIdError, Content, KeyVersion, PrivateKey, PublicKey, Signature, TimeError,
    Timestamp, digest_info, sign, verify,
};
use openssl::{pkey::PKey, rsa::Padding, sha::sha256};
use serde::Deserialize;

#[derive(Deserialize)]
pub(crate) struct Signing {
    pub(crate) keys: BTreeMap<String, KeyPair>,
    pub(crate) vectors: Vec<Vector>,
}

#[derive(Deserialize)]
pub(crate) struct KeyPair {
    pub(crate) pkcs8_pem: String,
    pub(crate) pkcs1_pem: String,
    pub(crate) pkcs8_der_base64: String,
    pub(crate) spki_pem: String,
    pub(crate) spki_der_base64: String,
}

#[derive(Deserialize)]
pub(crate) struct Vector {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) method: String,
    pub(crate) uri: String,
    pub(crate) client_id: String,
    pub(crate) time: String,
    body_base64: Option<String>,
    body_length: usize,
    body_sha256: String,
    content_to_be_signed_base64: Option<String>,
    content_sha256: String,
    signature_base64: String,
    signature_header: String,
}

pub(crate) static SIGNING: LazyLock<Signing> =
    LazyLock::new(|| serde_json::from_str(include_str!("../vectors/signing.json")).unwrap());

impl Signing {
    pub(crate) fn private(&self, name: &str) -> PrivateKey {
        PrivateKey::parse(self.keys[name].pkcs8_pem.as_bytes(), None).unwrap()
    }

    pub(crate) fn public(&self, name: &str) -> PublicKey {
        PublicKey::parse(self.keys[name].spki_pem.as_bytes()).unwrap()
    }
}

impl Vector {
    fn body(&self) -> Vec<u8> {
        let body = match &self.body_base64 {
            Some(base64) => decoded(base64),
            // The one body too long for the file.
            None => format!(r#"{{"pad":"{}"}}"#, "A".repeat(self.body_length - 10)).into_bytes(),
        };
        assert_eq!(
            (body.len(), sha256_hex(&body)),
            (self.body_length, self.body_sha256.clone())
        );
        body
    }
}

/// What the types refuse, so that it can neither be signed nor verified.
const REFUSED: [(&str, Refusal); 4] = [
    ("req-time-epoch-seconds", Refusal::Time(TimeError::Shape)),
    ("req-time-empty", Refusal::Time(TimeError::Shape)),
    ("collision-a", Refusal::Time(TimeError::Shape)),
    (
        "collision-b",
        Refusal::ClientId(ClientIdError::ForbiddenCharacter),
    ),
];

#[derive(Debug, PartialEq)]
enum Refusal {
    ClientId(ClientIdError),
    Time(TimeError),
}

fn typed(vector: &Vector) -> Result<(ClientId, Timestamp), Refusal> {
    let client_id = ClientId::parse(&vector.client_id).map_err(Refusal::ClientId)?;
    let time = Timestamp::parse(&vector.time).map_err(Refusal::Time)?;
    Ok((client_id, time))
}

/// Runs a check over all vectors the types accept; there are 36.
fn each(check: impl Fn(&Vector, &Content<'_>)) {
    let mut count = 0;
    for vector in &SIGNING.vectors {
        let Ok((client_id, time)) = typed(vector) else {
            continue;
        };
        let body = vector.body();
        let content = Content {
            method: &vector.method,
            uri: &vector.uri,
            client_id: &client_id,
            time: &time,
            body: &body,
        };
        check(vector, &content);
        count += 1;
    }
    assert_eq!(count, 36);
}

#[test]
fn refuses_the_ambiguous_and_undocumented_vectors_by_type() {
    assert_eq!(SIGNING.vectors.len(), 40);
    let refused: Vec<_> = SIGNING
        .vectors
        .iter()
        .filter_map(|vector| {
            typed(vector)
                .err()
                .map(|refusal| (vector.id.as_str(), refusal))
        })
        .collect();
    assert_eq!(refused, REFUSED);
}

#[test]
fn builds_the_signed_bytes_of_every_vector() {
    each(|vector, content| {
        let bytes = content.to_bytes();
        assert_eq!(sha256_hex(&bytes), vector.content_sha256, "{}", vector.id);
        if let Some(expected) = &vector.content_to_be_signed_base64 {
            assert_eq!(bytes, decoded(expected), "{}", vector.id);
        }
    });
}

#[test]
fn signs_every_vector_to_the_same_bytes() {
    each(|vector, content| {
        let signature = sign(&SIGNING.private(&vector.key), content).unwrap();
        assert_eq!(
            STANDARD.encode(signature),
            vector.signature_base64,
            "{}",
            vector.id
        );
    });
}

/// As a token does it, which sees no more than 51 bytes.
#[test]
fn a_raw_operation_over_the_digest_info_gives_the_same_signature() {
    each(|vector, content| {
        let pem = SIGNING.keys[&vector.key].pkcs8_pem.as_bytes();
        let rsa = PKey::private_key_from_pem(pem).unwrap().rsa().unwrap();
        let mut signature = vec![0; rsa.size() as usize];
        let info = digest_info(content).unwrap();
        rsa.private_encrypt(&info, &mut signature, Padding::PKCS1)
            .unwrap();
        assert_eq!(
            STANDARD.encode(signature),
            vector.signature_base64,
            "{}",
            vector.id
        );
    });
}

#[test]
fn writes_the_header_of_every_vector() {
    for vector in &SIGNING.vectors {
        let value = decoded(&vector.signature_base64);
        let signature = Signature {
            key_version: KeyVersion::new(1),
            value,
        };
        assert_eq!(
            signature.to_string(),
            vector.signature_header,
            "{}",
            vector.id
        );
    }
}

#[test]
fn verifies_every_vector_from_its_header() {
    each(|vector, content| {
        let signature = Signature::parse(&vector.signature_header).unwrap();
        let verdict = verify(&SIGNING.public(&vector.key), content, &signature.value);
        assert_eq!(verdict, Ok(()), "{}", vector.id);
    });
}

#[test]
fn refuses_every_vector_under_another_key() {
    each(|vector, content| {
        let signature = Signature::parse(&vector.signature_header).unwrap();
        assert!(
            verify(&SIGNING.public("other"), content, &signature.value).is_err(),
            "{}",
            vector.id
        );
    });
}

pub(crate) fn decoded(base64: &str) -> Vec<u8> {
    STANDARD.decode(base64).unwrap()
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    sha256(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
