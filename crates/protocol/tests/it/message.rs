//! The three headers and the signed URI.

use std::collections::BTreeSet;

use countersign_protocol::{
    CLIENT_ID, ClientId, ClientIdError, Credentials,
    CredentialsError::{self, Absent, Missing, NotText, Repeated},
    KeyVersion, Kind, REQUEST_TIME, RESPONSE_TIME, SIGNATURE, Signature, SignatureHeaderError,
    TimeError, Timestamp, signed_uri,
};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

const CLIENT: (&str, &str) = ("client-id", "A");
const TIME: (&str, &str) = ("response-time", "2026-01-02T03:04:05Z");
const SIGNED: (&str, &str) = ("signature", "algorithm=RSA256,keyVersion=2,signature=AAAA");

type Fields<'a> = &'a [(&'a str, &'a str)];

fn headers(fields: Fields<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn credentials() -> Credentials {
    Credentials {
        client_id: ClientId::parse("A").unwrap(),
        time: Timestamp::parse("2026-01-02T03:04:05Z").unwrap(),
        signature: Signature {
            key_version: KeyVersion::new(2),
            value: vec![0; 3],
        },
    }
}

#[test]
fn reads_the_headers_of_each_kind() {
    let rows = [
        (Kind::Request, "request-time"),
        (Kind::Response, "response-time"),
    ];
    for (kind, name) in rows {
        let headers = headers(&[CLIENT, (name, TIME.1), SIGNED]);
        assert_eq!(
            Credentials::read(kind, &headers),
            Ok(credentials()),
            "{name}"
        );
    }
}

#[test]
fn names_the_header_that_is_wrong() {
    let rows: [(&str, Fields<'_>, CredentialsError); 16] = [
        ("nothing", &[], Absent),
        ("a client id alone", &[CLIENT], Absent),
        (
            "the other kind's time",
            &[CLIENT, ("request-time", TIME.1)],
            Absent,
        ),
        ("only a signature", &[SIGNED], Missing(CLIENT_ID)),
        ("only a time", &[TIME], Missing(CLIENT_ID)),
        ("no client id", &[TIME, SIGNED], Missing(CLIENT_ID)),
        ("no time", &[CLIENT, SIGNED], Missing(RESPONSE_TIME)),
        ("no signature", &[CLIENT, TIME], Missing(SIGNATURE)),
        (
            "a client id twice",
            &[CLIENT, CLIENT, TIME, SIGNED],
            Repeated(CLIENT_ID),
        ),
        (
            "a time twice",
            &[CLIENT, TIME, TIME, SIGNED],
            Repeated(RESPONSE_TIME),
        ),
        (
            "a signature twice",
            &[CLIENT, TIME, SIGNED, SIGNED],
            Repeated(SIGNATURE),
        ),
        (
            "no text",
            &[CLIENT, TIME, ("signature", "\u{e9}")],
            NotText(SIGNATURE),
        ),
        (
            "two client ids in one",
            &[("client-id", "A, A"), TIME, SIGNED],
            CredentialsError::ClientId(ClientIdError::ForbiddenCharacter),
        ),
        (
            "an empty client id",
            &[("client-id", ""), TIME, SIGNED],
            CredentialsError::ClientId(ClientIdError::Empty),
        ),
        (
            "no time of ours",
            &[CLIENT, ("response-time", "yesterday"), SIGNED],
            CredentialsError::Time(TimeError::Shape),
        ),
        (
            "no signature in it",
            &[CLIENT, TIME, ("signature", "keyVersion=1")],
            CredentialsError::Signature(SignatureHeaderError::MissingSignature),
        ),
    ];
    for (label, fields, expected) in rows {
        assert_eq!(
            Credentials::read(Kind::Response, &headers(fields)),
            Err(expected),
            "{label}"
        );
    }
}

#[test]
fn tells_missing_from_unusable() {
    assert!(Absent.is_missing() && Missing(SIGNATURE).is_missing());
    assert!(!Repeated(SIGNATURE).is_missing() && !NotText(SIGNATURE).is_missing());
    assert!(!CredentialsError::Time(TimeError::Shape).is_missing());
}

#[test]
fn writes_over_whatever_was_there() {
    let mut headers = headers(&[
        ("client-id", "B"),
        ("client-id", "C"),
        SIGNED,
        SIGNED,
        ("request-time", "0"),
    ]);
    credentials().write(Kind::Request, &mut headers);
    assert_eq!(headers.len(), 3);
    assert_eq!(
        Credentials::read(Kind::Request, &headers),
        Ok(credentials())
    );
}

#[test]
fn removes_the_three_headers_and_no_other() {
    let mut headers = headers(&[
        CLIENT,
        CLIENT,
        TIME,
        SIGNED,
        ("request-time", "0"),
        ("agent-token", "t"),
    ]);
    Credentials::remove(Kind::Response, &mut headers);
    let left: BTreeSet<_> = headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(left, BTreeSet::from(["agent-token", REQUEST_TIME.as_str()]));
}

#[test]
fn signs_the_uri_of_the_request_line_byte_for_byte() {
    let rows = [
        (
            "origin form",
            "/aps/api/v1/payments/pay",
            "/aps/api/v1/payments/pay",
        ),
        ("query", "/pay?a=1&b=%2f", "/pay?a=1&b=%2f"),
        ("a bare question mark", "/pay?", "/pay?"),
        ("two question marks", "/pay??", "/pay??"),
        ("double slashes", "//aps//pay/", "//aps//pay/"),
        ("dot segments", "/a/./b/../c", "/a/./b/../c"),
        ("escapes in both cases", "/%2f%2F%41", "/%2f%2F%41"),
        (
            "absolute form",
            "https://h.example:8443/pay?a=1",
            "/pay?a=1",
        ),
        (
            "absolute form, double slash",
            "https://h.example//pay",
            "//pay",
        ),
        ("absolute form without path", "https://h.example", "/"),
        (
            "absolute form with a query alone",
            "https://h.example?a=1",
            "/?a=1",
        ),
        ("asterisk form", "*", "*"),
        ("authority form", "h.example:443", "/"),
    ];
    for (label, uri, expected) in rows {
        assert_eq!(
            signed_uri(&uri.parse::<Uri>().unwrap()),
            expected,
            "{label}"
        );
    }
}
