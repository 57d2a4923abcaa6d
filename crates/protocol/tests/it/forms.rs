//! Key files as they come: the accepted forms, made from one key, and the ones that are not keys.

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use openssl::{
    asn1::Asn1Time,
    bn::BigNum,
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    nid::Nid,
    pkcs12::Pkcs12,
    pkey::{PKey, Private},
    rsa::Rsa,
    symm::Cipher,
    x509::{X509, X509Name, X509Req},
};

use crate::vectors::SIGNING;

pub(crate) const PASSPHRASE: &[u8] = b"correct horse";

/// The key that most of them are made from, one of the vectors.
pub(crate) static KEY: LazyLock<PKey<Private>> = LazyLock::new(|| {
    PKey::private_key_from_pem(SIGNING.keys["merchant"].pkcs8_pem.as_bytes()).unwrap()
});

/// Its file.
pub(crate) fn pem() -> Vec<u8> {
    SIGNING.keys["merchant"].pkcs8_pem.clone().into_bytes()
}

/// The file of its public half.
pub(crate) fn public_pem() -> Vec<u8> {
    SIGNING.keys["merchant"].spki_pem.clone().into_bytes()
}

/// A file with the name a failing test shows.
pub(crate) type File = (String, Vec<u8>);

/// Every accepted way to write a private key without a passphrase.
pub(crate) fn private(key: &PKey<Private>) -> Vec<File> {
    let pkcs1 = key.rsa().unwrap().private_key_to_der().unwrap();
    let pkcs8 = key.private_key_to_pkcs8().unwrap();
    let mut files = encodings("PKCS#8", "PRIVATE KEY", &pkcs8);
    files.extend(encodings("PKCS#1", "RSA PRIVATE KEY", &pkcs1));
    files.push((
        "PKCS#1 with PKCS#8's label".into(),
        armour("PRIVATE KEY", &pkcs1),
    ));
    files
}

/// Every accepted way to write a public key.
pub(crate) fn public(key: &PKey<Private>) -> Vec<File> {
    let pkcs1 = key.rsa().unwrap().public_key_to_der_pkcs1().unwrap();
    let mut files = encodings("SPKI", "PUBLIC KEY", &key.public_key_to_der().unwrap());
    files.extend(encodings("PKCS#1", "RSA PUBLIC KEY", &pkcs1));
    files.extend(encodings(
        "certificate",
        "CERTIFICATE",
        &certificate(key).to_der().unwrap(),
    ));
    files
}

/// Every accepted way to write an encrypted private key.
pub(crate) fn encrypted(key: &PKey<Private>) -> Vec<File> {
    let pkcs8 = |cipher| {
        key.private_key_to_pem_pkcs8_passphrase(cipher, PASSPHRASE)
            .unwrap()
    };
    let traditional = |cipher| {
        key.rsa()
            .unwrap()
            .private_key_to_pem_passphrase(cipher, PASSPHRASE)
            .unwrap()
    };
    let der = key
        .private_key_to_pkcs8_passphrase(Cipher::aes_256_cbc(), PASSPHRASE)
        .unwrap();
    let mut files = vec![
        ("PKCS#8, 3DES".to_owned(), pkcs8(Cipher::des_ede3_cbc())),
        (
            "traditional, AES".to_owned(),
            traditional(Cipher::aes_256_cbc()),
        ),
        (
            "traditional, 3DES".to_owned(),
            traditional(Cipher::des_ede3_cbc()),
        ),
        (
            "traditional, DOS line ends".to_owned(),
            dos(&traditional(Cipher::aes_128_cbc())),
        ),
        (
            "traditional, indented".to_owned(),
            indented(&traditional(Cipher::aes_128_cbc())),
        ),
    ];
    files.extend(encodings("encrypted PKCS#8", "ENCRYPTED PRIVATE KEY", &der));
    files
}

fn encodings(name: &str, label: &str, der: &[u8]) -> Vec<File> {
    let pem = armour(label, der);
    let line = STANDARD.encode(der);
    let bare = line.trim_end_matches('=');
    let wrapped = wrap(&line, 76);
    let one_line = format!("-----BEGIN {label}-----{line}-----END {label}-----");
    [
        ("PEM", pem.clone()),
        ("PEM, DOS line ends", dos(&pem)),
        ("PEM, byte order mark", [b"\xef\xbb\xbf", &pem[..]].concat()),
        (
            "PEM, comments around",
            [b"Bag Attributes\n  name: \xc3\xa9\n", &pem[..], b"\nend\n"].concat(),
        ),
        (
            "PEM, blanks around",
            [b" \r\n\t", &pem[..], b"\n\n "].concat(),
        ),
        ("PEM, indented", indented(&pem)),
        ("PEM in one line", one_line.into_bytes()),
        ("base64", line.clone().into_bytes()),
        ("base64, line end", format!("{line}\n").into_bytes()),
        ("base64, unpadded", bare.as_bytes().to_vec()),
        (
            "base64, byte order mark",
            format!("\u{feff}{line}\r\n").into_bytes(),
        ),
        ("base64, wrapped", wrapped.clone().into_bytes()),
        ("base64, wrapped, DOS line ends", dos(wrapped.as_bytes())),
        (
            "base64, blanks around",
            format!(" \t{line} \n\n").into_bytes(),
        ),
        ("DER", der.to_vec()),
        ("DER, line end", [der, b"\n"].concat()),
    ]
    .map(|(form, bytes)| (format!("{name} {form}"), bytes))
    .into()
}

pub(crate) fn armour(label: &str, der: &[u8]) -> Vec<u8> {
    let text = wrap(&STANDARD.encode(der), 64);
    format!("-----BEGIN {label}-----\n{text}-----END {label}-----\n").into_bytes()
}

fn wrap(base64: &str, columns: usize) -> String {
    let lines = base64.as_bytes().chunks(columns);
    lines
        .map(|line| format!("{}\n", std::str::from_utf8(line).unwrap()))
        .collect()
}

fn dos(text: &[u8]) -> Vec<u8> {
    String::from_utf8(text.to_vec())
        .unwrap()
        .replace('\n', "\r\n")
        .into_bytes()
}

fn indented(text: &[u8]) -> Vec<u8> {
    String::from_utf8(text.to_vec())
        .unwrap()
        .lines()
        .map(|line| format!("    {line} \n"))
        .collect::<String>()
        .into()
}

pub(crate) fn rsa(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap()
}

pub(crate) fn ec() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

pub(crate) fn name() -> X509Name {
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_text("CN", "gateway.example").unwrap();
    name.build()
}

pub(crate) fn certificate(key: &PKey<Private>) -> X509 {
    let mut certificate = X509::builder().unwrap();
    certificate.set_version(2).unwrap();
    certificate.set_subject_name(&name()).unwrap();
    certificate.set_issuer_name(&name()).unwrap();
    certificate
        .set_not_before(&Asn1Time::from_unix(0).unwrap())
        .unwrap();
    certificate
        .set_not_after(&Asn1Time::from_unix(1).unwrap())
        .unwrap();
    certificate.set_pubkey(key).unwrap();
    certificate.sign(key, MessageDigest::sha256()).unwrap();
    certificate.build()
}

pub(crate) fn certificate_request(key: &PKey<Private>) -> Vec<u8> {
    let mut request = X509Req::builder().unwrap();
    request.set_subject_name(&name()).unwrap();
    request.set_pubkey(key).unwrap();
    request.sign(key, MessageDigest::sha256()).unwrap();
    request.build().to_pem().unwrap()
}

pub(crate) fn pkcs12(key: &PKey<Private>) -> Vec<u8> {
    let certificate = certificate(key);
    let container = Pkcs12::builder()
        .name("key")
        .pkey(key)
        .cert(&certificate)
        .build2("x");
    container.unwrap().to_der().unwrap()
}

/// SPKI of a modulus and exponent that need not make sense.
pub(crate) fn spki(modulus: BigNum, exponent: u32) -> Vec<u8> {
    let exponent = BigNum::from_u32(exponent).unwrap();
    let rsa = Rsa::from_public_components(modulus, exponent).unwrap();
    PKey::from_rsa(rsa).unwrap().public_key_to_der().unwrap()
}

const PSS: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a";

pub(crate) fn pss_private(key: &PKey<Private>) -> Vec<u8> {
    let pkcs1 = key.rsa().unwrap().private_key_to_der().unwrap();
    sequence(&[
        b"\x02\x01\x00".to_vec(),
        sequence(&[PSS.to_vec()]),
        element(0x04, &pkcs1),
    ])
}

pub(crate) fn pss_public(key: &PKey<Private>) -> Vec<u8> {
    let pkcs1 = key.rsa().unwrap().public_key_to_der_pkcs1().unwrap();
    sequence(&[
        sequence(&[PSS.to_vec()]),
        element(0x03, &[b"\0", &pkcs1[..]].concat()),
    ])
}

fn sequence(elements: &[Vec<u8>]) -> Vec<u8> {
    element(0x30, &elements.concat())
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let length = match content.len() {
        short @ 0..128 => vec![u8::try_from(short).unwrap()],
        _ => [&[0x82], &length[..]].concat(),
    };
    [&[tag], &length[..], content].concat()
}
