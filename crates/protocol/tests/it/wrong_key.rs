//! Files that hold no key, or none of the kind that is needed: each is told what it is.

use countersign_protocol::{
    KeyError, PrivateKey, PublicKey,
    key::{
        Algorithm::{Ec, EdDsa, Rsa, RsaPss},
        Found::{self, Private, Public},
        Role,
    },
};
use openssl::{error::ErrorStack, pkey::PKey};

use crate::{
    forms::{self, File, KEY, PASSPHRASE, pem, public_pem},
    vectors::SIGNING,
};

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
