//! Keys in every accepted form, read and written. What is said to the others is in `wrong_key` and `weak_key`.

use countersign_protocol::{KeyError, PrivateKey, PublicKey};

use crate::{
    forms::{self, KEY, PASSPHRASE, pem},
    vectors::{SIGNING, decoded, sha256_hex},
};

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
