//! What is inside an RSA signature: the padding and the digest the signer computed.
//!
//! Reads leniently, because it explains and does not decide.

use openssl::{
    error::ErrorStack,
    hash::{Hasher, MessageDigest},
    rsa::Padding,
    sign::{RsaPssSaltlen, Verifier},
};

use crate::key::PublicKey;

/// A signature opened with a public key.
pub(super) enum Opened {
    /// A well-formed PKCS#1 v1.5 block with a known digest: this key made it.
    Pkcs1(Digest),
    /// Anything else.
    Other,
}

/// The digest a signer computed.
pub(super) struct Digest {
    kind: &'static Kind,
    value: Vec<u8>,
}

/// A digest algorithm with the `DigestInfo` prefix of RFC 8017, section 9.2.
struct Kind {
    name: &'static str,
    prefix: &'static [u8],
    algorithm: fn() -> MessageDigest,
}

#[rustfmt::skip]
const KINDS: &[Kind] = &[
    Kind {
        name: "SHA-256",
        prefix: b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
        algorithm: MessageDigest::sha256,
    },
    Kind {
        name: "SHA-1",
        prefix: b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14",
        algorithm: MessageDigest::sha1,
    },
    Kind {
        name: "SHA-512",
        prefix: b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40",
        algorithm: MessageDigest::sha512,
    },
    Kind {
        name: "SHA-384",
        prefix: b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30",
        algorithm: MessageDigest::sha384,
    },
    Kind {
        name: "MD5",
        prefix: b"\x30\x20\x30\x0c\x06\x08\x2a\x86\x48\x86\xf7\x0d\x02\x05\x05\x00\x04\x10",
        algorithm: MessageDigest::md5,
    },
];

impl Opened {
    /// Nothing when the signature has another length than this key's.
    pub(super) fn with(key: &PublicKey, signature: &[u8]) -> Option<Self> {
        if signature.len() != key.modulus_length() {
            return None;
        }
        // OpenSSL refuses a number that is not below the modulus: then this key did not make it.
        let block = public_operation(key, signature).unwrap_or_default();
        Some(read(&block).map_or(Self::Other, Self::Pkcs1))
    }
}

impl Digest {
    pub(super) fn name(&self) -> &'static str {
        self.kind.name
    }

    pub(super) fn is_of(&self, pieces: &[&[u8]]) -> bool {
        hash((self.kind.algorithm)(), pieces).is_ok_and(|digest| *digest == *self.value)
    }
}

pub(super) fn verifies_with_pss(key: &PublicKey, pieces: &[&[u8]], signature: &[u8]) -> bool {
    let verify = || {
        let mut verifier = Verifier::new(MessageDigest::sha256(), key.rsa())?;
        verifier.set_rsa_padding(Padding::PKCS1_PSS)?;
        // -2: any salt length.
        verifier.set_rsa_pss_saltlen(RsaPssSaltlen::custom(-2))?;
        pieces.iter().try_for_each(|piece| verifier.update(piece))?;
        verifier.verify(signature)
    };
    verify().unwrap_or(false)
}

fn public_operation(key: &PublicKey, signature: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    let mut block = vec![0; key.modulus_length()];
    let length = key
        .rsa()
        .rsa()?
        .public_decrypt(signature, &mut block, Padding::NONE)?;
    block.truncate(length);
    Ok(block)
}

/// `00 01 ff … ff 00 DigestInfo` (RFC 8017, section 9.2).
fn read(block: &[u8]) -> Option<Digest> {
    let padded = block.strip_prefix(b"\x00\x01")?;
    let zero = padded.iter().position(|byte| *byte != 0xff)?;
    let info = padded.get(zero..)?.strip_prefix(b"\x00")?;
    KINDS.iter().find_map(|kind| {
        let value = info.strip_prefix(kind.prefix)?;
        Some(Digest {
            kind,
            value: value.to_vec(),
        })
    })
}

fn hash(
    algorithm: MessageDigest,
    pieces: &[&[u8]],
) -> Result<impl std::ops::Deref<Target = [u8]>, ErrorStack> {
    let mut hasher = Hasher::new(algorithm)?;
    pieces.iter().try_for_each(|piece| hasher.update(piece))?;
    hasher.finish()
}
