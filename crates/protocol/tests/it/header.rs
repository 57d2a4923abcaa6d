//! What a `Signature` header may look like, and what is wrong with the others.

use std::collections::BTreeSet;

use countersign_protocol::{
    ClientId, Content, KeyVersion, Signature,
    SignatureHeaderError::{
        self, BadKeyVersion, BadPercentEscape, MissingSignature, NotAPair, NotBase64,
        RepeatedAlgorithm, RepeatedKeyVersion, RepeatedSignature, RepeatedUnknown,
        UnknownAlgorithm,
    },
    Timestamp, VerifyError, verify,
};
use serde::Deserialize;

use crate::vectors::{SIGNING, decoded};

#[derive(Deserialize)]
struct Encodings {
    vectors: Vec<Encoding>,
}

#[derive(Deserialize)]
struct Encoding {
    id: String,
    method: String,
    uri: String,
    client_id: String,
    time: String,
    body_base64: String,
    key: String,
    signature_as_sent: String,
}

#[derive(Deserialize)]
struct Headers {
    vectors: Vec<Header>,
}

#[derive(Deserialize)]
struct Header {
    id: String,
    header_value: String,
}

/// The two ways in which a value can fail: reading and verifying.
#[derive(Debug, PartialEq)]
enum Refusal {
    Header(SignatureHeaderError),
    Verify(VerifyError),
}

const TRUNCATED: VerifyError = VerifyError::WrongLength {
    expected: 256,
    found: 252,
};

#[rustfmt::skip]
const ENCODINGS: &[(&str, Result<(), Refusal>)] = &[
    ("urlencoded-uppercase-hex",             Ok(())),
    ("raw-base64-with-plus",                 Ok(())),
    ("raw-base64-slash-no-plus",             Ok(())),
    ("raw-base64-no-plus-no-slash",          Ok(())),
    ("raw-base64-plus-only-equals-encoded",  Ok(())),
    ("urlencoded-trailing-space",            Ok(())),
    ("base64url-alphabet-padded",            Err(Refusal::Header(NotBase64))),
    ("base64url-alphabet-unpadded",          Err(Refusal::Header(NotBase64))),
    ("base64url-alphabet-padded-urlencoded", Err(Refusal::Header(NotBase64))),
    ("standard-unpadded-urlencoded",         Err(Refusal::Header(NotBase64))),
    ("urlencoded-trailing-crlf",             Err(Refusal::Header(NotBase64))),
    ("urlencoded-mime-wrapped-76",           Err(Refusal::Header(NotBase64))),
    ("urlencoded-embedded-garbage-char",     Err(Refusal::Header(NotBase64))),
    ("quoted",                               Err(Refusal::Header(NotBase64))),
    ("percent-sign-malformed",               Err(Refusal::Header(BadPercentEscape))),
    ("empty",                                Err(Refusal::Header(MissingSignature))),
    ("truncated",                            Err(Refusal::Verify(TRUNCATED))),
];

#[rustfmt::skip]
const HEADERS: &[(&str, Result<u32, SignatureHeaderError>)] = &[
    ("as-signed-no-spaces",     Ok(1)),
    ("spaces-after-commas",     Ok(1)),
    ("keyversion-0",            Ok(0)),
    ("keyversion-2",            Ok(2)),
    ("algorithm-lowercase",     Ok(1)),
    ("algorithm-SHA256withRSA", Ok(1)),
    ("no-algorithm",            Ok(1)),
    ("signature-only",          Ok(1)),
    ("order-signature-first",   Ok(1)),
    ("extra-key-last",          Ok(1)),
    ("extra-key-before",        Ok(1)),
    ("key-uppercase",           Ok(1)),
    ("key-capitalised",         Ok(1)),
    ("raw-base64-value",        Ok(1)),
    ("leading-space",           Ok(1)),
    ("trailing-space",          Ok(1)),
    ("algorithm-other",         Err(UnknownAlgorithm)),
    ("value-quoted",            Err(UnknownAlgorithm)),
    ("semicolons",              Err(UnknownAlgorithm)),
    ("bare-value",              Err(NotAPair)),
    ("empty",                   Err(MissingSignature)),
];

fn encodings() -> Vec<Encoding> {
    let text = include_str!("../vectors/signature-encodings.json");
    serde_json::from_str::<Encodings>(text).unwrap().vectors
}

fn headers() -> Vec<Header> {
    let text = include_str!("../vectors/signature-headers.json");
    serde_json::from_str::<Headers>(text).unwrap().vectors
}

fn judge(vector: &Encoding) -> Result<(), Refusal> {
    let header = format!(
        "algorithm=RSA256,keyVersion=1,signature={}",
        vector.signature_as_sent
    );
    let signature = Signature::parse(&header).map_err(Refusal::Header)?;
    let content = Content {
        method: &vector.method,
        uri: &vector.uri,
        client_id: &ClientId::parse(&vector.client_id).unwrap(),
        time: &Timestamp::parse(&vector.time).unwrap(),
        body: &decoded(&vector.body_base64),
    };
    verify(&SIGNING.public(&vector.key), &content, &signature.value).map_err(Refusal::Verify)
}

#[test]
fn judges_every_vector_of_encodings_by_the_table() {
    let vectors = encodings();
    for (id, expected) in ENCODINGS {
        let vector = vectors.iter().find(|vector| vector.id == *id).expect(id);
        assert_eq!(&judge(vector), expected, "{id}");
    }
}

#[test]
fn judges_every_vector_of_headers_by_the_table() {
    let vectors = headers();
    let whole = Signature::parse(&vectors[0].header_value).unwrap();
    for (id, expected) in HEADERS {
        let vector = vectors.iter().find(|vector| vector.id == *id).expect(id);
        let found = Signature::parse(&vector.header_value);
        let expected = expected
            .as_ref()
            .copied()
            .map_err(|error| *error)
            .map(KeyVersion::new);
        assert_eq!(
            found
                .as_ref()
                .map(|found| found.key_version)
                .map_err(|e| *e),
            expected,
            "{id}"
        );
        assert!(
            found.is_err() || found.is_ok_and(|found| found.value == whole.value),
            "{id}"
        );
    }
}

#[test]
fn leaves_no_vector_out_of_the_tables() {
    let encodings: BTreeSet<_> = encodings().into_iter().map(|vector| vector.id).collect();
    assert_eq!(
        encodings,
        ENCODINGS.iter().map(|(id, _)| (*id).to_owned()).collect()
    );
    let headers: BTreeSet<_> = headers().into_iter().map(|vector| vector.id).collect();
    assert_eq!(
        headers,
        HEADERS.iter().map(|(id, _)| (*id).to_owned()).collect()
    );
}

fn refuses(rows: &[(&str, &str, SignatureHeaderError)]) {
    for (label, header, expected) in rows {
        assert_eq!(Signature::parse(header), Err(*expected), "{label}");
    }
}

#[test]
fn refuses_a_key_given_twice() {
    refuses(&[
        (
            "algorithm",
            "algorithm=RSA256,signature=AAAA,algorithm=RSA256",
            RepeatedAlgorithm,
        ),
        (
            "version",
            "keyVersion=1,keyVersion=1,signature=AAAA",
            RepeatedKeyVersion,
        ),
        (
            "version in another case",
            "keyVersion=1,KEYVERSION=2,signature=AAAA",
            RepeatedKeyVersion,
        ),
        (
            "signature",
            "signature=AAAA,signature=AAAA",
            RepeatedSignature,
        ),
        (
            "an unknown one in another case",
            "foo=1,FOO=1,signature=AAAA",
            RepeatedUnknown,
        ),
        (
            "an empty one first",
            "signature=,signature=AAAA",
            RepeatedSignature,
        ),
    ]);
}

#[test]
fn refuses_a_key_version_that_is_no_decimal_number() {
    refuses(&[
        ("empty", "keyVersion=,signature=AAAA", BadKeyVersion),
        ("signed", "keyVersion=+1,signature=AAAA", BadKeyVersion),
        ("negative", "keyVersion=-1,signature=AAAA", BadKeyVersion),
        (
            "hexadecimal",
            "keyVersion=0x1,signature=AAAA",
            BadKeyVersion,
        ),
        (
            "inner blank",
            "keyVersion=1 2,signature=AAAA",
            BadKeyVersion,
        ),
        (
            "over 32 bits",
            "keyVersion=4294967296,signature=AAAA",
            BadKeyVersion,
        ),
        (
            "other digits",
            "keyVersion=\u{0661},signature=AAAA",
            BadKeyVersion,
        ),
    ]);
}

#[test]
fn refuses_parts_that_are_no_pair() {
    refuses(&[
        ("no equals sign", "algorithm,signature=AAAA", NotAPair),
        ("no key", "=RSA256,signature=AAAA", NotAPair),
        ("a key of blanks", " \t =RSA256,signature=AAAA", NotAPair),
    ]);
}

#[test]
fn refuses_an_algorithm_other_than_rsa256() {
    refuses(&[
        ("empty", "algorithm=,signature=AAAA", UnknownAlgorithm),
        (
            "longer",
            "algorithm=RSA2567,signature=AAAA",
            UnknownAlgorithm,
        ),
        ("none", "algorithm=none,signature=AAAA", UnknownAlgorithm),
    ]);
}

#[test]
fn refuses_a_value_with_a_malformed_percent_escape() {
    refuses(&[
        ("alone", "signature=AAA%", BadPercentEscape),
        ("one digit", "signature=AAA%3", BadPercentEscape),
        ("no hexadecimal digit", "signature=AA%3G", BadPercentEscape),
        (
            "an escape in an escape",
            "signature=AA%%3D",
            BadPercentEscape,
        ),
        ("a sign", "signature=AA%+D", BadPercentEscape),
    ]);
}

#[test]
fn refuses_a_value_that_is_not_strict_base64() {
    refuses(&[
        ("three digits", "signature=AAA", NotBase64),
        ("too much padding", "signature=AAA==", NotBase64),
        ("padding alone", "signature====", NotBase64),
        ("bits behind the last byte", "signature=AB==", NotBase64),
        ("padding inside", "signature=AA==AAAA", NotBase64),
        ("encoded twice", "signature=AA%253D%253D", NotBase64),
        ("an inner blank", "signature=AA AA", NotBase64),
        (
            "an encoded blank at the end",
            "signature=AAAA%20",
            NotBase64,
        ),
        ("beyond ASCII", "signature=AAA\u{e9}", NotBase64),
    ]);
}

#[test]
fn reads_what_is_unambiguous() {
    let rows = [
        ("lower-case escapes", "signature=AA%3d%3D", 1),
        (
            "blanks and tabs around everything",
            "\t signature \t=\t AA== ,\tkeyVersion = 7 ",
            7,
        ),
        ("empty list elements", ",signature=AA==,,", 1),
        (
            "zeros before the version",
            "keyVersion=007,signature=AA==",
            7,
        ),
        (
            "an unknown key with more equals signs",
            "foo=a=b,signature=AA==",
            1,
        ),
        ("every character escaped", "signature=%41%41%3D%3D", 1),
        (
            "the largest version",
            "keyVersion=4294967295,signature=AA==",
            u32::MAX,
        ),
    ];
    for (label, header, version) in rows {
        let expected = Signature {
            key_version: KeyVersion::new(version),
            value: vec![0],
        };
        assert_eq!(Signature::parse(header), Ok(expected), "{label}");
    }
}

#[test]
fn writes_escapes_in_upper_case() {
    let signature = Signature {
        key_version: KeyVersion::default(),
        value: vec![0xfb, 0xff, 0xfe, 0xff],
    };
    assert_eq!(
        signature.to_string(),
        "algorithm=RSA256,keyVersion=1,signature=%2B%2F%2F%2B%2Fw%3D%3D"
    );
}

#[test]
fn keeps_signatures_out_of_debug() {
    let signature = Signature {
        key_version: KeyVersion::default(),
        value: b"secret".to_vec(),
    };
    assert_eq!(
        format!("{signature:?}"),
        "Signature { key_version: 1, length: 6 }"
    );
}
