//! Known mistakes are named.

use std::sync::LazyLock;

use countersign_protocol::{
    ClientId, Content, Explanation, PublicKey, Question, Timestamp, explain,
    explain::{Mistake, Signer},
    sign,
};
use openssl::{
    hash::MessageDigest,
    pkey::{PKey, Private},
    rsa::Padding,
    sign::Signer as RsaSigner,
};

use crate::vectors::SIGNING;

static KEY: LazyLock<PKey<Private>> = LazyLock::new(|| {
    PKey::private_key_from_pem(SIGNING.keys["alipay"].pkcs8_pem.as_bytes()).unwrap()
});

const URI: &str = "/ams/api/v1//pay?a=%2f";
const CLIENT: &str = "Sandbox_1";
const TIME: &str = "2026-11-22T18:44:53+08:00";

struct Wire {
    uri: &'static str,
    body: &'static [u8],
}

const WIRE: Wire = Wire {
    uri: URI,
    body: b"{\"a\": \"x/\xc3\xa9\",\r\n \"b\":1}\r\n",
};

impl Wire {
    fn explain(&self, signature: &[u8]) -> Explanation {
        self.explain_with(signature, None, &[])
    }

    fn explain_with(
        &self,
        signature: &[u8],
        own_key: Option<&PublicKey>,
        candidates: &[PublicKey],
    ) -> Explanation {
        let key = SIGNING.public("alipay");
        let client_id = ClientId::parse(CLIENT).unwrap();
        let time = Timestamp::parse(TIME).unwrap();
        let content = Content {
            method: "POST",
            uri: self.uri,
            client_id: &client_id,
            time: &time,
            body: self.body,
        };
        explain(&Question {
            own_key,
            candidates,
            host: Some("open.example"),
            ..Question::new(&key, &content, signature)
        })
    }
}

fn signed(bytes: &[u8], digest: MessageDigest, padding: Padding) -> Vec<u8> {
    let mut signer = RsaSigner::new(digest, &KEY).unwrap();
    signer.set_rsa_padding(padding).unwrap();
    signer.sign_oneshot_to_vec(bytes).unwrap()
}

fn plainly_signed(bytes: &[u8]) -> Vec<u8> {
    signed(bytes, MessageDigest::sha256(), Padding::PKCS1)
}

fn content(method: &str, uri: &str, client_id: &str, time: &str, body: &[u8]) -> Vec<u8> {
    [
        format!("{method} {uri}\n{client_id}.{time}.").as_bytes(),
        body,
    ]
    .concat()
}

fn right() -> Vec<u8> {
    content("POST", WIRE.uri, CLIENT, TIME, WIRE.body)
}

#[test]
fn says_when_there_is_nothing_to_explain() {
    assert_eq!(WIRE.explain(&plainly_signed(&right())), Explanation::Valid);
}

fn names(rows: &[(&str, Mistake, Vec<u8>)]) {
    for (label, mistake, bytes) in rows {
        let found = WIRE.explain(&plainly_signed(bytes));
        assert_eq!(
            found,
            Explanation::Mistaken(Signer::Expected, *mistake),
            "{label}"
        );
    }
}

#[test]
fn names_mistakes_in_the_head() {
    use Mistake::*;
    let uri = |uri: &str| content("POST", uri, CLIENT, TIME, WIRE.body);
    let time = |time: &str| content("POST", URI, CLIENT, time, WIRE.body);
    let dos = String::from_utf8(right())
        .unwrap()
        .replacen('\n', "\r\n", 1)
        .into_bytes();
    names(&[
        (
            "another method",
            Method("GET"),
            content("GET", URI, CLIENT, TIME, WIRE.body),
        ),
        (
            "a lower-case method",
            MethodCase,
            content("post", URI, CLIENT, TIME, WIRE.body),
        ),
        ("no query", NoQuery, uri("/ams/api/v1//pay")),
        ("a slash more", UriEnd, uri("/ams/api/v1//pay/?a=%2f")),
        ("decoded", UriDecoded, uri("/ams/api/v1//pay?a=/")),
        (
            "with host",
            UriAbsolute,
            uri("https://open.example/ams/api/v1//pay?a=%2f"),
        ),
        (
            "sandbox",
            SandboxPath,
            uri("/ams/sandbox/api/v1//pay?a=%2f"),
        ),
        (
            "single slashes",
            SlashesMerged,
            uri("/ams/api/v1/pay?a=%2f"),
        ),
        (
            "upper-case client",
            ClientIdCase,
            content("POST", URI, "SANDBOX_1", TIME, WIRE.body),
        ),
        (
            "a blank for T",
            TimeShape,
            time("2026-11-22 18:44:53+08:00"),
        ),
        ("UTC", TimeShape, time("2026-11-22T10:44:53Z")),
        (
            "UTC as an offset",
            TimeShape,
            time("2026-11-22T10:44:53+00:00"),
        ),
        ("no colon", TimeShape, time("2026-11-22T18:44:53+0800")),
        (
            "milliseconds",
            TimeShape,
            time("2026-11-22T18:44:53.000+0800"),
        ),
        ("epoch milliseconds", TimeShape, time("1795344293000")),
        ("no time", NoTime, time("")),
        ("CR LF in the first line", FirstLineDos, dos),
    ]);
}

#[test]
fn names_mistakes_in_the_body() {
    use Mistake::*;
    let body = |body: &str| content("POST", URI, CLIENT, TIME, body.as_bytes());
    names(&[
        ("none", NoBody, body("")),
        (
            "no line end",
            BodyTrimmed,
            body("{\"a\": \"x/\u{e9}\",\r\n \"b\":1}"),
        ),
        (
            "a line end more",
            NewlineAdded,
            body("{\"a\": \"x/\u{e9}\",\r\n \"b\":1}\r\n\n"),
        ),
        (
            "LF",
            LineEndsUnix,
            body("{\"a\": \"x/\u{e9}\",\n \"b\":1}\n"),
        ),
        (
            "compact",
            JsonCompacted,
            body("{\"a\":\"x/\u{e9}\",\"b\":1}"),
        ),
        (
            "as Python writes",
            JsonSpaced,
            body("{\"a\": \"x/\u{e9}\", \"b\": 1}"),
        ),
        (
            "as PHP writes",
            JsonSlashes,
            body("{\"a\":\"x\\/\u{e9}\",\"b\":1}"),
        ),
        ("ASCII", JsonAscii, body("{\"a\":\"x/\\u00e9\",\"b\":1}")),
        (
            "as Python writes, ASCII",
            JsonAscii,
            body("{\"a\": \"x/\\u00e9\", \"b\": 1}"),
        ),
    ]);
}

#[test]
fn names_mistakes_that_need_another_message() {
    let rows: [(&str, Wire, &[u8], Mistake); 4] = [
        (
            "CR LF",
            Wire {
                uri: "/",
                body: b"a\nb",
            },
            b"a\r\nb",
            Mistake::LineEndsDos,
        ),
        (
            "mark",
            Wire {
                uri: "/",
                body: b"\xef\xbb\xbf{}",
            },
            b"{}",
            Mistake::NoByteOrderMark,
        ),
        (
            "question mark",
            Wire {
                uri: "/?",
                body: b"",
            },
            b"",
            Mistake::NoQuery,
        ),
        (
            "escaped quotes",
            Wire {
                uri: "/",
                body: br#"{"a" : "\" b"}"#,
            },
            br#"{"a":"\" b"}"#,
            Mistake::JsonCompacted,
        ),
    ];
    for (label, wire, body, mistake) in rows {
        let signature = plainly_signed(&content("POST", "/", CLIENT, TIME, body));
        let found = wire.explain(&signature);
        assert_eq!(
            found,
            Explanation::Mistaken(Signer::Expected, mistake),
            "{label}"
        );
    }
}

#[test]
fn names_a_missing_last_dot() {
    let wire = Wire {
        uri: "/",
        body: b"",
    };
    let signature = plainly_signed(format!("POST /\n{CLIENT}.{TIME}").as_bytes());
    let expected = Explanation::Mistaken(Signer::Expected, Mistake::NoLastDot);
    assert_eq!(wire.explain(&signature), expected);
}

#[test]
fn names_another_digest() {
    let rows = [
        ("SHA-1", MessageDigest::sha1()),
        ("SHA-512", MessageDigest::sha512()),
    ];
    for (name, digest) in rows {
        let found = WIRE.explain(&signed(&right(), digest, Padding::PKCS1));
        assert_eq!(found, Explanation::OtherDigest(Signer::Expected, name));
    }
}

#[test]
fn names_pss_padding() {
    let signature = signed(&right(), MessageDigest::sha256(), Padding::PKCS1_PSS);
    assert_eq!(WIRE.explain(&signature), Explanation::Pss(Signer::Expected));
}

fn signed_by(name: &str) -> Vec<u8> {
    let client_id = ClientId::parse(CLIENT).unwrap();
    let time = Timestamp::parse(TIME).unwrap();
    let content = Content {
        method: "POST",
        uri: URI,
        client_id: &client_id,
        time: &time,
        body: WIRE.body,
    };
    sign(&SIGNING.private(name), &content).unwrap()
}

#[test]
fn recognises_the_own_key() {
    let own = SIGNING.public("merchant");
    let found = WIRE.explain_with(&signed_by("merchant"), Some(&own), &[]);
    assert_eq!(found, Explanation::OtherKey(Signer::Own));
}

#[test]
fn recognises_another_known_key() {
    let candidates: Vec<PublicKey> = ["merchant", "other"]
        .map(|name| SIGNING.public(name))
        .into();
    let found = WIRE.explain_with(&signed_by("other"), None, &candidates);
    assert_eq!(found, Explanation::OtherKey(Signer::Candidate(1)));
}

#[test]
fn tells_other_content_from_another_key() {
    let found = WIRE.explain(&plainly_signed(b"something else"));
    assert_eq!(found, Explanation::OtherContent(Signer::Expected));
    assert_eq!(WIRE.explain(&signed_by("other")), Explanation::Unrecognised);
}

#[test]
fn tells_a_cut_signature_from_a_wrong_one() {
    let expected = Explanation::WrongLength {
        expected: 256,
        found: 255,
    };
    assert_eq!(WIRE.explain(&plainly_signed(&right())[..255]), expected);
}

#[test]
fn explains_in_one_line() {
    let no_query = plainly_signed(&content(
        "POST",
        "/ams/api/v1//pay",
        CLIENT,
        TIME,
        WIRE.body,
    ));
    let rows = [
        (
            no_query,
            "the signature is valid for the URI without its query string",
        ),
        (
            signed(&right(), MessageDigest::sha1(), Padding::PKCS1),
            "the content is right, but was signed through SHA-1 instead of SHA-256",
        ),
        (
            signed_by("other"),
            "the signature was made with another key, or was damaged on the way",
        ),
    ];
    for (signature, expected) in rows {
        assert_eq!(WIRE.explain(&signature).to_string(), expected);
    }
}
