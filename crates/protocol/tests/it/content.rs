//! Contents that cannot be told apart are never signed and never verified.

use countersign_protocol::{
    ClientId,
    ClientIdError::{Empty, ForbiddenCharacter, TooLong},
    Content, ContentError, SignError, Timestamp, VerifyError, digest_info, sign, verify,
};

use crate::vectors::SIGNING;

fn content<'a>(
    method: &'a str,
    uri: &'a str,
    client_id: &'a ClientId,
    time: &'a Timestamp,
) -> Content<'a> {
    Content {
        method,
        uri,
        client_id,
        time,
        body: b"{}",
    }
}

#[test]
fn refuses_client_ids_that_would_be_ambiguous() {
    let long = "A".repeat(129);
    let rows = [
        ("empty", "", Empty),
        ("a dot", "A.B", ForbiddenCharacter),
        ("a comma", "A,B", ForbiddenCharacter),
        ("a blank", "A B", ForbiddenCharacter),
        ("a blank before", " A", ForbiddenCharacter),
        ("a line feed", "A\n", ForbiddenCharacter),
        ("a NUL", "A\0", ForbiddenCharacter),
        ("DEL", "A\x7f", ForbiddenCharacter),
        ("beyond ASCII", "\u{c4}", ForbiddenCharacter),
        ("129 characters", &long, TooLong),
    ];
    for (label, text, expected) in rows {
        assert_eq!(ClientId::parse(text), Err(expected), "{label}");
    }
}

#[test]
fn accepts_client_ids_of_visible_ascii() {
    let long = "A".repeat(128);
    let digits = "2171020067475894";
    for text in [
        "A",
        "SANDBOX_5X00000000000000",
        digits,
        "!\"#$%&'()*+-/:;<=>?@[\\]^_`{|}~",
        &long,
    ] {
        assert_eq!(ClientId::parse(text).unwrap().as_str(), text);
    }
}

#[test]
fn refuses_to_sign_what_could_be_read_in_two_ways() {
    let key = SIGNING.private("merchant");
    let client_id = ClientId::parse("A").unwrap();
    let time = Timestamp::parse("2026-01-02T03:04:05Z").unwrap();
    let rows = [
        ("no method", "", "/", ContentError::Method),
        (
            "a blank in the method",
            "POST x",
            "/y",
            ContentError::Method,
        ),
        (
            "a line feed in the method",
            "POST\n",
            "/",
            ContentError::Method,
        ),
        ("no URI", "POST", "", ContentError::Uri),
        ("a blank in the URI", "POST", "/x y", ContentError::Uri),
        (
            "a line feed in the URI",
            "POST",
            "/x\nA.2026-01-02T03:04:05Z.",
            ContentError::Uri,
        ),
        (
            "a carriage return in the URI",
            "POST",
            "/x\r",
            ContentError::Uri,
        ),
        ("DEL in the URI", "POST", "/\x7f", ContentError::Uri),
    ];
    for (label, method, uri, expected) in rows {
        let content = content(method, uri, &client_id, &time);
        assert_eq!(
            sign(&key, &content),
            Err(SignError::Content(expected)),
            "{label}"
        );
        assert_eq!(digest_info(&content), Err(expected), "{label}");
        let verdict = verify(&key.public_key(), &content, &[0; 256]);
        assert_eq!(verdict, Err(VerifyError::Content(expected)), "{label}");
    }
}

#[test]
fn signs_any_method_and_uri_that_stand_on_a_request_line() {
    let key = SIGNING.private("merchant");
    let client_id = ClientId::parse("A").unwrap();
    let time = Timestamp::parse("2026-01-02T03:04:05.09Z").unwrap();
    for (method, uri) in [
        ("post", "//a/../b//?"),
        ("M-SEARCH", "*"),
        ("POST", "/%2f?q={\"\u{e9}\"}"),
    ] {
        let content = content(method, uri, &client_id, &time);
        let signature = sign(&key, &content).unwrap();
        assert_eq!(
            verify(&key.public_key(), &content, &signature),
            Ok(()),
            "{method} {uri}"
        );
    }
}

#[test]
fn keeps_bodies_and_query_strings_out_of_debug() {
    let client_id = ClientId::parse("A").unwrap();
    let time = Timestamp::parse("2026-01-02T03:04:05Z").unwrap();
    let content = Content {
        method: "POST",
        uri: "/x?token=1",
        client_id: &client_id,
        time: &time,
        body: b"4111",
    };
    let shown = format!("{content:?}");
    assert!(
        !shown.contains("token") && !shown.contains("4111") && !shown.contains("52"),
        "{shown}"
    );
}
