//! What can be wrong with a key file, said so that its owner can mend it.
//!
//! The texts name what was found and what would be right, never a byte of the key. They begin without
//! the file's name: the caller knows it.

use std::{error::Error, fmt};

use openssl::pkey::Id;

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// There is nothing but blanks.
    Empty,
    /// Text in UTF-16, as some editors save it.
    Utf16,
    /// Neither PEM nor base64 nor DER.
    NotAKey,
    /// A PEM block that does not end, or whose inside is no base64.
    BrokenPem,
    /// More than one PEM block.
    SeveralKeys,
    /// More than one certificate.
    CertificateChain,
    /// The end is missing.
    CutShort,
    /// Something follows the end of the key.
    TrailingBytes,
    /// Something well-formed that does not belong here.
    Unsuitable {
        /// What it is.
        found: Found,
        /// What belongs here.
        needed: Role,
    },
    /// It begins like a key, but its inside cannot be read.
    Damaged,
    /// The modulus has under 2048 bits.
    TooShort {
        /// Bits of the modulus.
        bits: u32,
    },
    /// The modulus has over 16384 bits.
    TooLong {
        /// Bits of the modulus.
        bits: u32,
    },
    /// A modulus or public exponent that protects nothing.
    Degenerate,
    /// What the private half signs, the public half does not verify.
    HalvesDiffer,
    /// The key is encrypted and there is no passphrase.
    PassphraseNeeded,
    /// The passphrase does not open the key.
    WrongPassphrase,
    /// The key is encrypted in a way this build cannot undo.
    UnsupportedEncryption,
    /// OpenSSL could not make a key.
    NotGenerated,
}

/// Which half of a pair is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The private key, which signs.
    Private,
    /// The public key, which verifies.
    Public,
}

/// What a file turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// A private key.
    Private(Algorithm),
    /// A public key.
    Public(Algorithm),
    /// A private key that is still encrypted.
    EncryptedPrivate,
    /// An X.509 certificate.
    Certificate,
    /// A PKCS#10 certificate request.
    CertificateRequest,
    /// A PKCS#12 (.p12, .pfx) container.
    Pkcs12,
    /// A key in OpenSSH's own form.
    OpenSsh,
    /// A JSON Web Key.
    Jwk,
}

/// The algorithm a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// RSA for any use.
    Rsa,
    /// RSA that may only be used with PSS padding.
    RsaPss,
    /// Elliptic curves.
    Ec,
    /// Ed25519 or Ed448.
    EdDsa,
    /// DSA.
    Dsa,
    /// Something else.
    Other,
}

impl Algorithm {
    pub(super) fn of(id: Id) -> Self {
        match id {
            Id::RSA => Self::Rsa,
            Id::RSA_PSS => Self::RsaPss,
            Id::EC => Self::Ec,
            Id::ED25519 | Id::ED448 => Self::EdDsa,
            Id::DSA => Self::Dsa,
            _ => Self::Other,
        }
    }

    /// With its article, to stand before "private key".
    fn phrase(self) -> &'static str {
        match self {
            Self::Rsa => "an RSA",
            Self::RsaPss => "an RSA-PSS",
            Self::Ec => "an EC",
            Self::EdDsa => "an EdDSA",
            Self::Dsa => "a DSA",
            Self::Other => "another algorithm's",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Private => "an RSA private key",
            Self::Public => "an RSA public key",
        })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private(algorithm) => write!(f, "{} private key", algorithm.phrase()),
            Self::Public(algorithm) => write!(f, "{} public key", algorithm.phrase()),
            Self::EncryptedPrivate => f.write_str("an encrypted private key"),
            Self::Certificate => f.write_str("a certificate"),
            Self::CertificateRequest => f.write_str("a certificate request"),
            Self::Pkcs12 => f.write_str("a PKCS#12 container"),
            Self::OpenSsh => f.write_str("a key in OpenSSH's own form"),
            Self::Jwk => f.write_str("a JSON web key"),
        }
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsuitable { found, needed } => {
                write!(f, "{found} was found; {needed} is needed")
            }
            Self::TooShort { bits } => {
                write!(f, "the key has {bits} bits; at least 2048 are needed")
            }
            Self::TooLong { bits } => {
                write!(f, "the key has {bits} bits; at most 16384 are possible")
            }
            plain => f.write_str(plain.text()),
        }
    }
}

impl KeyError {
    fn text(self) -> &'static str {
        match self {
            Self::Empty => "there is nothing in it; a key in PEM, base64 or DER is needed",
            Self::Utf16 => "the text is UTF-16; it must be saved as UTF-8 or ASCII",
            Self::NotAKey => "no key was found: this is neither PEM nor base64 nor DER",
            Self::BrokenPem => {
                "the PEM block is damaged: no END line to its BEGIN, or no base64 inside"
            }
            Self::SeveralKeys => "more than one PEM block was found; exactly one key is needed",
            Self::CertificateChain => {
                "several certificates were found; only the one with the key is needed"
            }
            Self::CutShort => "the key is cut short; its end is missing",
            Self::TrailingBytes => {
                "more bytes follow the end of the key; exactly one key is needed"
            }
            Self::Damaged => "the key is damaged: it begins well, but cannot be read",
            Self::Degenerate => {
                "the key protects nothing: its modulus is even or its exponent unusable"
            }
            Self::HalvesDiffer => {
                "the private key is inconsistent: what it signs, its public half does not verify"
            }
            Self::PassphraseNeeded => "the key is encrypted; a passphrase is needed",
            Self::WrongPassphrase => "the passphrase is wrong",
            Self::UnsupportedEncryption => {
                "the key is encrypted in a way that is not supported; PBES2 with AES is"
            }
            Self::NotGenerated => "no key could be generated",
            Self::Unsuitable { .. } | Self::TooShort { .. } | Self::TooLong { .. } => "",
        }
    }
}

impl Error for KeyError {}
