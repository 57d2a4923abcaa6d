//! RSA keys: reading them in every form they are handed out in, and writing them back.
//!
//! Private keys are PKCS#8 or PKCS#1, public keys SPKI, PKCS#1 or inside an X.509 certificate; each as
//! PEM, as base64 (one line or wrapped) or as DER; private PEM may be encrypted. What is inside
//! decides, not the label or the file name. Everything else is refused with a [`KeyError`] saying what
//! was found: other algorithms, RSA restricted to PSS, moduli outside 2048 to 16384 bits, exponents
//! that sign nothing, private keys whose halves do not belong together, several keys in one file.
//!
//! No secret is in any `Debug`, and buffers with plain private keys are overwritten after use.

mod error;
mod file;
mod form;

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use openssl::{
    bn::BigNum,
    error::ErrorStack,
    pkey::{HasPublic, Id, PKey, PKeyRef, Private, Public},
    rsa::Rsa,
    sha::sha256,
    x509::X509,
};
use zeroize::Zeroizing;

pub use self::error::{Algorithm, Found, KeyError, Role};
use self::{file::Content, form::Form};
use crate::{sign, verify};

/// The shortest accepted modulus, in bits. The documents ask for 2048.
pub const MIN_BITS: u32 = 2048;
/// The longest accepted modulus, in bits: OpenSSL verifies with nothing longer.
pub const MAX_BITS: u32 = 16_384;

/// An RSA private key. Cloning is cheap and copies no secret.
#[derive(Clone)]
pub struct PrivateKey {
    rsa: PKey<Private>,
    public: PublicKey,
}

/// An RSA public key. Cloning is cheap. Two are equal when their modulus and exponent are.
#[derive(Clone)]
pub struct PublicKey {
    rsa: PKey<Public>,
    bits: u32,
    spki: Arc<[u8]>,
    fingerprint: Fingerprint,
}

/// SHA-256 over a public key's SPKI DER, shown in lower-case hexadecimal.
///
/// `openssl pkey -pubin -in FILE -outform DER | sha256sum` prints the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl PrivateKey {
    /// Reads a private key. The passphrase is used when the key is encrypted and ignored otherwise.
    ///
    /// Nothing is asked on a terminal. Takes some milliseconds: the key signs once and its public half
    /// verifies.
    pub fn parse(bytes: &[u8], passphrase: Option<&[u8]>) -> Result<Self, KeyError> {
        let rsa = match file::open(bytes)? {
            Content::Der(der) => private_from_der(&der, passphrase)?,
            Content::EncryptedPem(text) => decrypt(passphrase, |answer| {
                PKey::private_key_from_pem_callback(text.as_bytes(), answer)
            })?,
            Content::Foreign(found) => {
                return Err(KeyError::Unsuitable {
                    found,
                    needed: Role::Private,
                });
            }
        };
        Self::checked(rsa)
    }

    /// Makes a new key with the exponent 65537.
    pub fn generate(bits: u32) -> Result<Self, KeyError> {
        check_bits(bits)?;
        let rsa = Rsa::generate(bits).and_then(PKey::from_rsa);
        Self::checked(rsa.or(Err(KeyError::NotGenerated))?)
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        self.public.clone()
    }

    /// The length of the modulus.
    pub fn bits(&self) -> u32 {
        self.public.bits
    }

    /// The key as PKCS#8 in PEM, not encrypted.
    pub fn to_pkcs8_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(armour("PRIVATE KEY", &self.to_pkcs8_base64()))
    }

    /// The key as PKCS#8 in one line of base64, not encrypted: the form the Alipay+ console hands out.
    pub fn to_pkcs8_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.to_pkcs8_der()))
    }

    pub(crate) fn rsa(&self) -> &PKeyRef<Private> {
        &self.rsa
    }

    #[expect(
        clippy::expect_used,
        reason = "a key that signed when it was read can be encoded"
    )]
    fn to_pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(
            self.rsa
                .private_key_to_pkcs8()
                .expect("RSA has a PKCS#8 form"),
        )
    }

    fn checked(rsa: PKey<Private>) -> Result<Self, KeyError> {
        check_algorithm(&rsa, Role::Private)?;
        let spki = rsa.public_key_to_der().map_err(damaged)?;
        let public = PublicKey::checked(PKey::public_key_from_der(&spki).map_err(damaged)?)?;
        let key = Self { rsa, public };
        if !key.halves_fit() {
            return Err(KeyError::HalvesDiffer);
        }
        Ok(key)
    }

    fn halves_fit(&self) -> bool {
        let probe: [&[u8]; 1] = [b"countersign"];
        let signed = sign::rsa_sha256(self, &probe);
        signed
            .is_ok_and(|signature| verify::verify_pieces(&self.public, &probe, &signature).is_ok())
    }
}

/// Shows the public half only.
impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey")
            .field("bits", &self.public.bits)
            .field("fingerprint", &self.public.fingerprint)
            .finish_non_exhaustive()
    }
}

impl PublicKey {
    /// Reads a public key or the one in a certificate. A certificate's dates and issuer are not looked
    /// at: it is a container for the key.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyError> {
        let found = match file::open(bytes)? {
            Content::Der(der) => return Self::checked(public_from_der(&der)?),
            Content::EncryptedPem(_) => Found::EncryptedPrivate,
            Content::Foreign(found) => found,
        };
        Err(KeyError::Unsuitable {
            found,
            needed: Role::Public,
        })
    }

    /// The key of a modulus and a public exponent, big endian, as tokens show them.
    pub fn from_components(modulus: &[u8], exponent: &[u8]) -> Result<Self, KeyError> {
        let modulus = BigNum::from_slice(modulus).map_err(damaged)?;
        let exponent = BigNum::from_slice(exponent).map_err(damaged)?;
        let rsa = Rsa::from_public_components(modulus, exponent).and_then(PKey::from_rsa);
        Self::checked(rsa.map_err(damaged)?)
    }

    /// The length of the modulus.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// SHA-256 over the SPKI DER.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The key as SPKI in PEM.
    pub fn to_spki_pem(&self) -> String {
        armour("PUBLIC KEY", &self.to_spki_base64())
    }

    /// The key as SPKI in one line of base64: the form the Alipay+ console takes.
    pub fn to_spki_base64(&self) -> String {
        STANDARD.encode(&self.spki)
    }

    /// The length of the modulus in bytes, which is the length of every signature.
    pub fn modulus_length(&self) -> usize {
        self.rsa.size()
    }

    pub(crate) fn rsa(&self) -> &PKeyRef<Public> {
        &self.rsa
    }

    fn checked(rsa: PKey<Public>) -> Result<Self, KeyError> {
        check_algorithm(&rsa, Role::Public)?;
        check_bits(rsa.bits())?;
        check_exponent(&rsa)?;
        let spki = rsa.public_key_to_der().map_err(damaged)?;
        let fingerprint = Fingerprint(sha256(&spki));
        Ok(Self {
            bits: rsa.bits(),
            rsa,
            spki: spki.into(),
            fingerprint,
        })
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKey")
            .field("bits", &self.bits)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl Fingerprint {
    /// The digest itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn private_from_der(der: &[u8], passphrase: Option<&[u8]>) -> Result<PKey<Private>, KeyError> {
    match form::of(der)? {
        Form::Private => PKey::private_key_from_der(der).map_err(damaged),
        Form::EncryptedPrivate => decrypt(passphrase, |answer| {
            PKey::private_key_from_pkcs8_callback(der, answer)
        }),
        other => Err(KeyError::Unsuitable {
            found: other.found(der),
            needed: Role::Private,
        }),
    }
}

fn public_from_der(der: &[u8]) -> Result<PKey<Public>, KeyError> {
    match form::of(der)? {
        Form::Public => PKey::public_key_from_der(der).map_err(damaged),
        Form::RsaPublic => Rsa::public_key_from_der_pkcs1(der)
            .and_then(PKey::from_rsa)
            .map_err(damaged),
        Form::Certificate => X509::from_der(der)
            .and_then(|certificate| certificate.public_key())
            .map_err(damaged),
        other => Err(KeyError::Unsuitable {
            found: other.found(der),
            needed: Role::Public,
        }),
    }
}

/// Runs an OpenSSL reader that asks for the passphrase through a callback. There always is one:
/// without it OpenSSL would ask on the terminal.
fn decrypt<F>(passphrase: Option<&[u8]>, read: F) -> Result<PKey<Private>, KeyError>
where
    F: FnOnce(
        &mut dyn FnMut(&mut [u8]) -> Result<usize, ErrorStack>,
    ) -> Result<PKey<Private>, ErrorStack>,
{
    let passphrase = passphrase.ok_or(KeyError::PassphraseNeeded)?;
    let mut answer = |buffer: &mut [u8]| {
        let room = buffer
            .get_mut(..passphrase.len())
            .ok_or_else(ErrorStack::get)?;
        room.copy_from_slice(passphrase);
        Ok(passphrase.len())
    };
    read(&mut answer).map_err(|errors| not_decrypted(&errors))
}

/// A wrong passphrase ends in a bad padding or, once in some hundred times, in bytes that are no key. A
/// cipher that is not built in fails before that, while it is looked up.
fn not_decrypted(errors: &ErrorStack) -> KeyError {
    let cipher_is_missing = |error: &openssl::error::Error| {
        let looking_up = matches!(
            error.library(),
            Some("digital envelope routines" | "PEM routines")
        );
        looking_up
            && error
                .reason()
                .is_some_and(|reason| reason.starts_with("unsupported"))
    };
    if errors.errors().iter().any(cipher_is_missing) {
        return KeyError::UnsupportedEncryption;
    }
    KeyError::WrongPassphrase
}

fn check_algorithm<T: HasPublic>(key: &PKeyRef<T>, needed: Role) -> Result<(), KeyError> {
    if key.id() == Id::RSA {
        return Ok(());
    }
    let algorithm = Algorithm::of(key.id());
    let found = match needed {
        Role::Private => Found::Private(algorithm),
        Role::Public => Found::Public(algorithm),
    };
    Err(KeyError::Unsuitable { found, needed })
}

fn check_bits(bits: u32) -> Result<(), KeyError> {
    match bits {
        ..MIN_BITS => Err(KeyError::TooShort { bits }),
        MIN_BITS..=MAX_BITS => Ok(()),
        _ => Err(KeyError::TooLong { bits }),
    }
}

/// With an exponent of 1 everybody can sign, an even one is no RSA, and OpenSSL takes none over 64
/// bits for longer moduli.
fn check_exponent(key: &PKeyRef<Public>) -> Result<(), KeyError> {
    let rsa = key.rsa().map_err(damaged)?;
    let one = BigNum::from_u32(1).map_err(damaged)?;
    let usable = rsa.e() > &*one && rsa.e().is_bit_set(0) && rsa.e().num_bits() <= 64;
    if usable && rsa.n().is_bit_set(0) {
        Ok(())
    } else {
        Err(KeyError::Degenerate)
    }
}

fn damaged(_: ErrorStack) -> KeyError {
    KeyError::Damaged
}

/// PEM with 64 columns (RFC 7468). Allocates once, so that no copy of a secret stays behind.
fn armour(label: &str, base64: &str) -> String {
    let mut pem = String::with_capacity(base64.len() + base64.len() / 64 + 2 * label.len() + 40);
    pem.extend(["-----BEGIN ", label, "-----\n"]);
    for (index, character) in base64.chars().enumerate() {
        if index > 0 && index % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.extend(["\n-----END ", label, "-----\n"]);
    pem
}
