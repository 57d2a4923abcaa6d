//! Why a signature does not verify: tries the well-known mistakes and names the one that explains it.
//!
//! An RSA signature can be opened with the public key: what comes out is the digest the signer meant.
//! So each key costs one RSA operation, and each suspected mistake only a hash over the content it
//! would have produced. Bodies are hashed some forty times; this is for a person at a terminal or one
//! report, not for every message. A result is a hint: only [`verify()`](crate::verify()) decides.

mod json;
mod mistake;
mod opened;

use std::fmt;

pub use self::mistake::Mistake;
use self::opened::{Digest, Opened};
use crate::{content::Content, key::PublicKey, verify};

/// Everything that is known about a signature that does not verify.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The key it should verify with.
    pub key: &'a PublicKey,
    /// The content it should cover.
    pub content: &'a Content<'a>,
    /// The signature.
    pub signature: &'a [u8],
    /// The asker's own public key, often configured in place of the peer's.
    pub own_key: Option<&'a PublicKey>,
    /// Further keys that may have made it: of other key versions, clients or environments.
    pub candidates: &'a [PublicKey],
    /// The host the message was sent to, to recognise a signed absolute URL.
    pub host: Option<&'a str>,
}

/// What is the matter with a signature, in one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Explanation {
    /// Nothing: it verifies.
    Valid,
    /// The right content, another key.
    OtherKey(Signer),
    /// A content that differs by a known mistake.
    Mistaken(Signer, Mistake),
    /// The right content, but not through SHA-256.
    OtherDigest(Signer, &'static str),
    /// The right content, but with PSS padding.
    Pss(Signer),
    /// Made with this key over something else.
    OtherContent(Signer),
    /// Not as long as any key's modulus.
    WrongLength {
        /// Bytes of the expected key's modulus.
        expected: usize,
        /// Bytes of the signature.
        found: usize,
    },
    /// Made with none of the known keys, or damaged on the way.
    Unrecognised,
}

/// Whose key opened a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The key it was checked with.
    Expected,
    /// The asker's own.
    Own,
    /// One of [`Question::candidates`], by its index.
    Candidate(usize),
}

/// Looks for the reason why a signature does not verify.
pub fn explain(question: &Question<'_>) -> Explanation {
    if verify::verify(question.key, question.content, question.signature).is_ok() {
        return Explanation::Valid;
    }
    let found = question
        .keys()
        .find_map(|(signer, key)| question.with_key(signer, key));
    found.unwrap_or_else(|| question.unrecognised())
}

impl<'a> Question<'a> {
    /// A question with no more than what verifying takes.
    pub fn new(key: &'a PublicKey, content: &'a Content<'a>, signature: &'a [u8]) -> Self {
        Self {
            key,
            content,
            signature,
            own_key: None,
            candidates: &[],
            host: None,
        }
    }

    fn keys(&self) -> impl Iterator<Item = (Signer, &'a PublicKey)> {
        let candidates = self.candidates.iter().enumerate();
        std::iter::once((Signer::Expected, self.key))
            .chain(self.own_key.map(|key| (Signer::Own, key)))
            .chain(candidates.map(|(index, key)| (Signer::Candidate(index), key)))
    }

    fn with_key(&self, signer: Signer, key: &PublicKey) -> Option<Explanation> {
        match Opened::with(key, self.signature)? {
            Opened::Pkcs1(digest) => Some(self.with_digest(signer, &digest)),
            Opened::Other => {
                let pieces = self.content.pieces();
                let pss = opened::verifies_with_pss(key, &pieces, self.signature);
                pss.then_some(Explanation::Pss(signer))
            }
        }
    }

    fn with_digest(&self, signer: Signer, digest: &Digest) -> Explanation {
        let parts = self.content.parts();
        if digest.is_of(&parts.pieces()) {
            return match digest.name() {
                // The digest is right and the signature was still refused: the wrapping is not strict.
                "SHA-256" if signer == Signer::Expected => Explanation::Unrecognised,
                "SHA-256" => Explanation::OtherKey(signer),
                name => Explanation::OtherDigest(signer, name),
            };
        }
        let mistake = mistake::find(&parts, self.host, |pieces| digest.is_of(pieces));
        mistake.map_or(Explanation::OtherContent(signer), |mistake| {
            Explanation::Mistaken(signer, mistake)
        })
    }

    fn unrecognised(&self) -> Explanation {
        let found = self.signature.len();
        if self.keys().any(|(_, key)| key.modulus_length() == found) {
            return Explanation::Unrecognised;
        }
        Explanation::WrongLength {
            expected: self.key.modulus_length(),
            found,
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid => f.write_str("the signature is valid"),
            Self::OtherKey(signer) => {
                write!(f, "the signature is valid, but was made with {signer}")
            }
            Self::Mistaken(Signer::Expected, mistake) => {
                write!(f, "the signature is valid for {mistake}")
            }
            Self::Mistaken(signer, mistake) => {
                write!(
                    f,
                    "the signature is valid for {mistake} and was made with {signer}"
                )
            }
            Self::OtherDigest(signer, digest) => {
                write!(
                    f,
                    "the content is right, but was signed through {digest} instead of SHA-256{}",
                    With(*signer)
                )
            }
            Self::Pss(signer) => write!(
                f,
                "the content is right, but was signed with PSS padding instead of PKCS#1 v1.5{}",
                With(*signer)
            ),
            Self::OtherContent(signer) => {
                write!(
                    f,
                    "the signature was made with {signer}, but over some other content"
                )
            }
            Self::WrongLength { expected, found } => write!(
                f,
                "the signature has {found} bytes and the key needs {expected}: \
                 it is cut short, or made with a key of another length"
            ),
            Self::Unrecognised => {
                f.write_str("the signature was made with another key, or was damaged on the way")
            }
        }
    }
}

/// The end of a sentence, when the key is not the expected one.
struct With(Signer);

impl fmt::Display for With {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Signer::Expected => Ok(()),
            signer => write!(f, ", and with {signer}"),
        }
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expected => f.write_str("the expected key"),
            Self::Own => f.write_str("your own key; the peer's belongs here"),
            Self::Candidate(index) => write!(f, "another known key (number {})", index + 1),
        }
    }
}
