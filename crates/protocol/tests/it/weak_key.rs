//! RSA keys that are understood and yet refused: of another length, protecting nothing, or damaged inside.

use countersign_protocol::{KeyError, PrivateKey, PublicKey};
use openssl::{bn::BigNum, rsa::RsaPrivateKeyBuilder};

use crate::forms::{self, KEY};

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
