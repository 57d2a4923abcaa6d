//! Keys in every accepted form, and what is said to the others.

use std::sync::LazyLock;

use countersign_protocol::{
    KeyError, PrivateKey, PublicKey,
    key::{
        Algorithm::{Ec, EdDsa, Rsa, RsaPss},
        Found::{self, Private, Public},
        Role,
    },
};
use openssl::{
    bn::BigNum,
    error::ErrorStack,
    pkey::{PKey, Private as PrivateHalf},
    rsa::RsaPrivateKeyBuilder,
};

use crate::{
    forms::{self, File, PASSPHRASE},
    vectors::{SIGNING, decoded, sha256_hex},
};

static KEY: LazyLock<PKey<PrivateHalf>> = LazyLock::new(|| {
    PKey::private_key_from_pem(SIGNING.keys["merchant"].pkcs8_pem.as_bytes()).unwrap()
});

fn pem() -> Vec<u8> {
    SIGNING.keys["merchant"].pkcs8_pem.clone().into_bytes()
}

fn public_pem() -> Vec<u8> {
    SIGNING.keys["merchant"].spki_pem.clone().into_bytes()
}

#[test]
fn reads_every_key_of_the_vectors_in_every_form_given() {
    for (name, pair) in &SIGNING.keys {
        let public = SIGNING.public(name);
        let der = decoded(&pair.pkcs8_der_base64);
        let private: [(&str, &[u8]); 4] = [
            ("pkcs8_pem", pair.pkcs8_pem.as_bytes()),
            ("pkcs1_pem", pair.pkcs1_pem.as_bytes()),
            ("pkcs8_der_base64", pair.pkcs8_der_base64.as_bytes()),
            ("DER", &der),
        ];
        for (form, bytes) in private {
            assert_eq!(
                PrivateKey::parse(bytes, None).expect(form).public_key(),
                public,
                "{name} {form}"
            );
        }
        let again = PublicKey::parse(pair.spki_der_base64.as_bytes()).unwrap();
        assert_eq!(again, public, "{name}");
    }
}

#[test]
fn reads_private_keys_in_every_form() {
    for (label, bytes) in forms::private(&KEY) {
        let key = PrivateKey::parse(&bytes, None);
        assert_eq!(
            key.map(|key| key.public_key()),
            Ok(SIGNING.public("merchant")),
            "{label}"
        );
    }
}

#[test]
fn reads_public_keys_in_every_form() {
    for (label, bytes) in forms::public(&KEY) {
        assert_eq!(
            PublicKey::parse(&bytes),
            Ok(SIGNING.public("merchant")),
            "{label}"
        );
    }
}

#[test]
fn a_modulus_and_an_exponent_are_the_key_a_file_would_hold() {
    let rsa = KEY.rsa().unwrap();
    let (modulus, exponent) = (rsa.n().to_vec(), rsa.e().to_vec());
    let key = PublicKey::from_components(&modulus, &exponent).unwrap();
    let expected = SIGNING.public("merchant");
    assert_eq!(key, expected);
    assert_eq!(key.fingerprint(), expected.fingerprint());
    let padded = |number: &[u8]| [&[0, 0], number].concat();
    let again = PublicKey::from_components(&padded(&modulus), &padded(&exponent));
    assert_eq!(again, Ok(expected));
}

#[test]
fn refuses_components_as_it_refuses_files() {
    let rsa = KEY.rsa().unwrap();
    let (modulus, exponent) = (rsa.n().to_vec(), rsa.e().to_vec());
    let mut even = modulus.clone();
    even[255] &= 0xfe;
    let mut long = vec![0; 2049];
    (long[0], long[2048]) = (1, 1);
    let rows: [(&str, &[u8], &[u8], KeyError); 7] = [
        ("no modulus", &[], &exponent, KeyError::TooShort { bits: 0 }),
        (
            "a short modulus",
            &modulus[1..],
            &exponent,
            KeyError::TooShort { bits: 2040 },
        ),
        (
            "a long modulus",
            &long,
            &exponent,
            KeyError::TooLong { bits: 16_385 },
        ),
        ("an even modulus", &even, &exponent, KeyError::Degenerate),
        ("no exponent", &modulus, &[], KeyError::Degenerate),
        ("exponent 1", &modulus, &[1], KeyError::Degenerate),
        ("an even exponent", &modulus, &[2], KeyError::Degenerate),
    ];
    for (label, modulus, exponent, error) in rows {
        let refused = PublicKey::from_components(modulus, exponent);
        assert_eq!(refused, Err(error), "{label}");
    }
}

#[test]
fn opens_encrypted_keys_with_the_passphrase() {
    for (label, bytes) in forms::encrypted(&KEY) {
        let key = PrivateKey::parse(&bytes, Some(PASSPHRASE));
        assert_eq!(
            key.map(|key| key.public_key()),
            Ok(SIGNING.public("merchant")),
            "{label}"
        );
    }
}

#[test]
fn asks_for_a_passphrase_by_an_error_and_never_on_a_terminal() {
    for (label, bytes) in forms::encrypted(&KEY) {
        assert_eq!(
            PrivateKey::parse(&bytes, None).err(),
            Some(KeyError::PassphraseNeeded),
            "{label}"
        );
    }
}

#[test]
fn refuses_a_wrong_passphrase() {
    let long = [b'x'; 5000];
    for (label, bytes) in forms::encrypted(&KEY) {
        for wrong in [&b"wrong"[..], b"", b"with\0nul", b"correct horse\n", &long] {
            let found = PrivateKey::parse(&bytes, Some(wrong)).err();
            assert_eq!(found, Some(KeyError::WrongPassphrase), "{label}");
        }
    }
}

/// One wrong passphrase in some 250 passes the padding check and yields bytes that are no key.
#[test]
fn calls_every_wrong_passphrase_wrong() {
    let rsa = KEY.rsa().unwrap();
    let pem = rsa.private_key_to_pem_passphrase(openssl::symm::Cipher::des_ede3_cbc(), PASSPHRASE);
    let pem = pem.unwrap();
    for number in 0..1500 {
        let wrong = format!("wrong {number}");
        let found = PrivateKey::parse(&pem, Some(wrong.as_bytes())).err();
        assert_eq!(found, Some(KeyError::WrongPassphrase), "{wrong}");
    }
}

#[test]
fn ignores_a_passphrase_that_is_not_needed() {
    assert!(PrivateKey::parse(&pem(), Some(b"unused")).is_ok());
}

fn unsuitable(found: Found, needed: Role) -> KeyError {
    KeyError::Unsuitable { found, needed }
}

/// Bytes that are a key neither as private nor as public one, for the same reason.
fn unreadable() -> Vec<(&'static str, Vec<u8>, KeyError)> {
    let pem = pem();
    let text = String::from_utf8(pem.clone()).unwrap();
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let der = KEY.private_key_to_pkcs8().unwrap();
    let line = &SIGNING.keys["merchant"].pkcs8_der_base64;
    vec![
        ("no byte", b"".to_vec(), KeyError::Empty),
        ("blanks", b" \r\n\t".to_vec(), KeyError::Empty),
        (
            "a byte order mark alone",
            b"\xef\xbb\xbf".to_vec(),
            KeyError::Empty,
        ),
        (
            "UTF-16",
            [b"\xff\xfe", &utf16[..]].concat(),
            KeyError::Utf16,
        ),
        ("prose", b"put the key here".to_vec(), KeyError::NotAKey),
        (
            "a page",
            b"<html><body>404</body></html>".to_vec(),
            KeyError::NotAKey,
        ),
        (
            "binary",
            b"\xfe\xed\xfe\xed\0\0\0\x02".to_vec(),
            KeyError::NotAKey,
        ),
        (
            "base64 of prose",
            b"cHV0IHRoZSBrZXkgaGVyZQ==".to_vec(),
            KeyError::NotAKey,
        ),
        (
            "base64url",
            line.replace(['+', '/'], "_").into_bytes(),
            KeyError::NotAKey,
        ),
        (
            "quoted",
            format!("\"{line}\"").into_bytes(),
            KeyError::NotAKey,
        ),
        (
            "an empty sequence",
            b"\x30\x00\xff".to_vec(),
            KeyError::TrailingBytes,
        ),
        (
            "base64 cut short",
            line.as_bytes()[..1000].to_vec(),
            KeyError::CutShort,
        ),
        (
            "base64 cut inside a quartet",
            line.as_bytes()[..1001].to_vec(),
            KeyError::CutShort,
        ),
        ("DER cut short", der[..1000].to_vec(), KeyError::CutShort),
        (
            "DER with more behind",
            [&der[..], b"x"].concat(),
            KeyError::TrailingBytes,
        ),
        (
            "base64 with more behind",
            format!("{line}\n{line}").into_bytes(),
            KeyError::NotAKey,
        ),
        ("PEM cut short", pem[..1000].to_vec(), KeyError::BrokenPem),
        (
            "PEM with foreign characters",
            text.replace('M', "*").into_bytes(),
            KeyError::BrokenPem,
        ),
        (
            "PEM with another end",
            text.replace("END PRIVATE", "END PUBLIC").into_bytes(),
            KeyError::BrokenPem,
        ),
        (
            "PEM with a line missing",
            without_line(&text),
            KeyError::CutShort,
        ),
        (
            "the curve alone",
            forms::armour("EC PARAMETERS", b"\x06\x00"),
            KeyError::NotAKey,
        ),
        ("two keys", [&pem[..], &pem].concat(), KeyError::SeveralKeys),
        (
            "a pair",
            [&pem[..], &public_pem()].concat(),
            KeyError::SeveralKeys,
        ),
    ]
}

fn without_line(text: &str) -> Vec<u8> {
    let lines = text.lines().enumerate().filter(|(index, _)| *index != 5);
    lines
        .map(|(_, line)| format!("{line}\n"))
        .collect::<String>()
        .into_bytes()
}

#[test]
fn says_what_is_wrong_with_a_file_that_is_no_key() {
    for (label, bytes, expected) in unreadable() {
        assert_eq!(
            PrivateKey::parse(&bytes, None).err(),
            Some(expected),
            "{label}"
        );
        assert_eq!(PublicKey::parse(&bytes), Err(expected), "{label}");
    }
}

#[test]
fn refuses_what_is_no_rsa_private_key() {
    let certificate = forms::certificate(&KEY).to_pem().unwrap();
    let parameters = forms::armour("EC PARAMETERS", b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07");
    let sec1 = forms::ec().ec_key().unwrap().private_key_to_pem().unwrap();
    let ed25519 = PKey::generate_ed25519().unwrap();
    let rows: Vec<(&str, Vec<u8>, Found)> = vec![
        (
            "EC",
            forms::ec().private_key_to_pem_pkcs8().unwrap(),
            Private(Ec),
        ),
        (
            "EC as openssl writes it",
            [parameters, sec1].concat(),
            Private(Ec),
        ),
        (
            "Ed25519",
            ed25519.private_key_to_pem_pkcs8().unwrap(),
            Private(EdDsa),
        ),
        (
            "Ed25519 DER",
            ed25519.private_key_to_pkcs8().unwrap(),
            Private(EdDsa),
        ),
        ("RSA-PSS", forms::pss_private(&KEY), Private(RsaPss)),
        ("public SPKI", public_pem(), Public(Rsa)),
        (
            "public PKCS#1",
            KEY.rsa().unwrap().public_key_to_der_pkcs1().unwrap(),
            Public(Rsa),
        ),
        (
            "public EC",
            forms::ec().public_key_to_pem().unwrap(),
            Public(Ec),
        ),
        ("certificate", certificate, Found::Certificate),
        (
            "certificate request",
            forms::certificate_request(&KEY),
            Found::CertificateRequest,
        ),
        ("PKCS#12", forms::pkcs12(&KEY), Found::Pkcs12),
        (
            "OpenSSH private",
            forms::armour("OPENSSH PRIVATE KEY", b"openssh-key-v1"),
            Found::OpenSsh,
        ),
        (
            "OpenSSH public",
            b"ssh-rsa AAAAB3NzaC1yc2E= me@host".to_vec(),
            Found::OpenSsh,
        ),
        (
            "JSON web key",
            br#"{"kty":"RSA","n":"AA","e":"AQAB"}"#.to_vec(),
            Found::Jwk,
        ),
    ];
    for (label, bytes, found) in rows {
        let expected = unsuitable(found, Role::Private);
        assert_eq!(
            PrivateKey::parse(&bytes, None).err(),
            Some(expected),
            "{label}"
        );
    }
}

#[test]
fn refuses_an_encrypted_key_of_another_algorithm() {
    let cipher = openssl::symm::Cipher::aes_256_cbc();
    let pem = forms::ec()
        .private_key_to_pem_pkcs8_passphrase(cipher, PASSPHRASE)
        .unwrap();
    let expected = unsuitable(Private(Ec), Role::Private);
    assert_eq!(
        PrivateKey::parse(&pem, Some(PASSPHRASE)).err(),
        Some(expected)
    );
}

#[test]
fn refuses_what_is_no_rsa_public_key() {
    let mut rows: Vec<(String, Vec<u8>, Found)> = vec![
        (
            "EC".into(),
            forms::ec().public_key_to_pem().unwrap(),
            Public(Ec),
        ),
        (
            "EC certificate".into(),
            forms::certificate(&forms::ec()).to_pem().unwrap(),
            Public(Ec),
        ),
        ("RSA-PSS".into(), forms::pss_public(&KEY), Public(RsaPss)),
        (
            "certificate request".into(),
            forms::certificate_request(&KEY),
            Found::CertificateRequest,
        ),
        ("PKCS#12".into(), forms::pkcs12(&KEY), Found::Pkcs12),
    ];
    let with = |found: Found| move |(label, bytes): File| (label, bytes, found);
    rows.extend(forms::private(&KEY).into_iter().map(with(Private(Rsa))));
    rows.extend(
        forms::encrypted(&KEY)
            .into_iter()
            .map(with(Found::EncryptedPrivate)),
    );
    for (label, bytes, found) in rows {
        assert_eq!(
            PublicKey::parse(&bytes),
            Err(unsuitable(found, Role::Public)),
            "{label}"
        );
    }
}

#[test]
fn refuses_a_chain_of_certificates() {
    let certificate = forms::certificate(&KEY).to_pem().unwrap();
    let chain = [&certificate[..], &certificate].concat();
    assert_eq!(PublicKey::parse(&chain), Err(KeyError::CertificateChain));
}

#[test]
fn refuses_keys_of_other_lengths() {
    let short = forms::rsa(2040);
    let (public, private) = (
        short.public_key_to_der().unwrap(),
        short.private_key_to_pkcs8().unwrap(),
    );
    let too_short = KeyError::TooShort { bits: 2040 };
    assert_eq!(PublicKey::parse(&public), Err(too_short));
    assert_eq!(PrivateKey::parse(&private, None).err(), Some(too_short));
    let mut long = BigNum::new().unwrap();
    long.set_bit(16_384).unwrap();
    long.set_bit(0).unwrap();
    let long = forms::spki(long, 65_537);
    assert_eq!(
        PublicKey::parse(&long),
        Err(KeyError::TooLong { bits: 16_385 })
    );
}

#[test]
fn refuses_to_generate_keys_of_other_lengths() {
    assert_eq!(
        PrivateKey::generate(1024).err(),
        Some(KeyError::TooShort { bits: 1024 })
    );
    assert_eq!(
        PrivateKey::generate(16_392).err(),
        Some(KeyError::TooLong { bits: 16_392 })
    );
}

#[test]
fn refuses_keys_that_protect_nothing() {
    let modulus = || KEY.rsa().unwrap().n().to_owned().unwrap();
    let mut even = modulus();
    even.clear_bit(0).unwrap();
    let rows = [
        ("exponent 0", forms::spki(modulus(), 0)),
        ("exponent 1", forms::spki(modulus(), 1)),
        ("an even exponent", forms::spki(modulus(), 65_536)),
        ("an even modulus", forms::spki(even, 65_537)),
    ];
    for (label, bytes) in rows {
        assert_eq!(
            PublicKey::parse(&bytes),
            Err(KeyError::Degenerate),
            "{label}"
        );
    }
}

#[test]
fn refuses_a_private_key_whose_halves_differ() {
    let (own, other) = (KEY.rsa().unwrap(), forms::rsa(2048).rsa().unwrap());
    let copy = |number: &openssl::bn::BigNumRef| number.to_owned().unwrap();
    let builder = RsaPrivateKeyBuilder::new(copy(own.n()), copy(own.e()), copy(other.d())).unwrap();
    let builder = builder
        .set_factors(copy(other.p().unwrap()), copy(other.q().unwrap()))
        .unwrap();
    let builder = builder
        .set_crt_params(
            copy(other.dmp1().unwrap()),
            copy(other.dmq1().unwrap()),
            copy(other.iqmp().unwrap()),
        )
        .unwrap();
    let der = builder.build().private_key_to_der().unwrap();
    assert_eq!(
        PrivateKey::parse(&der, None).err(),
        Some(KeyError::HalvesDiffer)
    );
}

#[test]
fn refuses_a_key_with_a_damaged_inside() {
    let mut der = KEY.private_key_to_pkcs8().unwrap();
    // The tag of the modulus inside PKCS#1.
    der[33] ^= 0x10;
    assert_eq!(PrivateKey::parse(&der, None).err(), Some(KeyError::Damaged));
}

#[test]
fn says_that_an_encryption_is_not_supported() {
    let cipher = openssl::symm::Cipher::aes_128_cbc();
    let pem = KEY
        .rsa()
        .unwrap()
        .private_key_to_pem_passphrase(cipher, PASSPHRASE)
        .unwrap();
    let pem = String::from_utf8(pem)
        .unwrap()
        .replace("AES-128-CBC", "ROT-13-CBC");
    let found = PrivateKey::parse(pem.as_bytes(), Some(PASSPHRASE)).err();
    assert_eq!(found, Some(KeyError::UnsupportedEncryption));
}

#[test]
fn leaves_nothing_in_the_error_queue() {
    let mut files: Vec<Vec<u8>> = unreadable()
        .into_iter()
        .map(|(_, bytes, _)| bytes)
        .collect();
    files.extend(forms::encrypted(&KEY).into_iter().map(|(_, bytes)| bytes));
    files.extend([forms::pss_private(&KEY), forms::certificate_request(&KEY)]);
    files.extend(forms::public(&KEY).into_iter().map(|(_, bytes)| bytes));
    for bytes in files {
        let _ = PrivateKey::parse(&bytes, Some(b"wrong"));
        let _ = PublicKey::parse(&bytes);
        assert!(ErrorStack::get().errors().is_empty());
    }
}

#[test]
fn says_in_words_what_was_found_and_what_is_needed() {
    let rows = [
        (
            PrivateKey::parse(&forms::ec().private_key_to_pkcs8().unwrap(), None).err(),
            "an EC private key was found; an RSA private key is needed",
        ),
        (
            PrivateKey::parse(&public_pem(), None).err(),
            "an RSA public key was found; an RSA private key is needed",
        ),
        (
            PublicKey::parse(&pem()).err(),
            "an RSA private key was found; an RSA public key is needed",
        ),
        (
            PrivateKey::generate(1024).err(),
            "the key has 1024 bits; at least 2048 are needed",
        ),
        (
            PrivateKey::parse(b"", None).err(),
            "there is nothing in it; a key in PEM, base64 or DER is needed",
        ),
    ];
    for (error, expected) in rows {
        assert_eq!(error.unwrap().to_string(), expected);
    }
}

#[test]
fn writes_keys_that_read_as_themselves() {
    let key = SIGNING.private("merchant");
    let pair = &SIGNING.keys["merchant"];
    assert_eq!(*key.to_pkcs8_pem(), pair.pkcs8_pem);
    assert_eq!(*key.to_pkcs8_base64(), pair.pkcs8_der_base64);
    assert_eq!(key.public_key().to_spki_pem(), pair.spki_pem);
    assert_eq!(key.public_key().to_spki_base64(), pair.spki_der_base64);
}

#[test]
fn generates_keys_of_the_length_asked_for() {
    let key = PrivateKey::generate(2048).unwrap();
    assert_eq!((key.bits(), key.public_key().bits()), (2048, 2048));
    let again = PrivateKey::parse(key.to_pkcs8_pem().as_bytes(), None).unwrap();
    assert_eq!(again.public_key(), key.public_key());
}

#[test]
fn shows_the_fingerprint_in_lower_case_hexadecimal() {
    let public = SIGNING.public("merchant");
    let expected = sha256_hex(&decoded(&public.to_spki_base64()));
    assert_eq!(public.fingerprint().to_string(), expected);
}

#[test]
fn keeps_private_keys_out_of_debug() {
    let key = SIGNING.private("merchant");
    let expected = format!(
        "PrivateKey {{ bits: 2048, fingerprint: {}, .. }}",
        key.public_key().fingerprint()
    );
    assert_eq!(format!("{key:?}"), expected);
}

#[test]
fn can_be_shared_between_threads() {
    fn shared<T: Send + Sync + Clone + 'static>() {}
    shared::<PrivateKey>();
    shared::<PublicKey>();
}
