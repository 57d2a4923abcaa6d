//! Whatever the app does, an authentic caller gets an answer signed by the partner.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::support::clients::ask_sdk;
use crate::support::daemon::closed_port;
use crate::support::inbound::{Inbound, NOTIFY, SUCCESS};
use crate::support::raw::send;

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_answer_is_signed_as_it_is_sent() {
    let mut world = Inbound::new().await;
    let zipped = gzip(SUCCESS);
    let coded = [
        format!(
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            zipped.len()
        )
        .as_bytes(),
        &zipped,
    ]
    .concat();
    let length = SUCCESS.len();
    let rows: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        (
            "plain",
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{SUCCESS}").into(),
            200,
            SUCCESS,
        ),
        (
            "chunked",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{SUCCESS}\r\n0\r\nSignature: x\r\n\r\n")
                .into(),
            502,
            "",
        ),
        (
            "chunked without trailers",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{SUCCESS}\r\n0\r\n\r\n")
                .into(),
            200,
            SUCCESS,
        ),
        ("until the end", format!("HTTP/1.0 200 OK\r\n\r\n{SUCCESS}").into(), 200, SUCCESS),
        ("gzip", coded, 200, SUCCESS),
        ("no content", b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), 204, ""),
        ("empty", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(), 200, ""),
        (
            "a coding of nothing",
            b"HTTP/1.1 204 No Content\r\nContent-Encoding: gzip\r\n\r\n".to_vec(),
            204,
            "",
        ),
        (
            "a coding of an empty body",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 0\r\n\r\n".to_vec(),
            200,
            "",
        ),
        (
            "its own error",
            b"HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\n<h1>!".to_vec(),
            500,
            "<h1>!",
        ),
        (
            "a redirect",
            b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n".to_vec(),
            302,
            "",
        ),
        (
            "signature headers of its own",
            b"HTTP/1.1 200 OK\r\nSignature: mine\r\nClient-Id: me\r\nResponse-Time: now\r\n\
              Signature: again\r\ncountersign-verdict: verified\r\nContent-Length: 2\r\n\r\n{}"
                .to_vec(),
            200,
            "{}",
        ),
    ];
    for (label, answer, status, body) in rows {
        let message = world.message(NOTIFY, b"{}");
        let (got, _) = world.exchange(message.bytes(), &answer).await;
        assert_eq!(got.status, status, "{label}: {}", got.head);
        assert_eq!(world.flaw(&message, &got), None, "{label}: {}", got.head);
        if status != 502 {
            assert_eq!(got.text(), body, "{label}");
            assert_eq!(got.field("countersign-verdict"), None, "{label}");
        }
        assert_eq!(got.field("content-encoding"), None, "{label}");
        assert_eq!(
            got.head
                .to_ascii_lowercase()
                .matches("\nsignature:")
                .count(),
            1,
            "{label}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_gives_no_answer_is_answered_for_signed_and_unknown() {
    let route = "      timeout: 600ms\n      response_limit: 100";
    let mut world = Inbound::with(route, "").await;
    for (label, answer, code) in [
        ("hangs up", &b""[..], "app_broke_off unknown 502"),
        (
            "half a body",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
            "app_broke_off unknown 502",
        ),
        (
            "half chunks",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
            "app_broke_off unknown 502",
        ),
        ("no HTTP", b"hello\r\n\r\n", "app_malformed unknown 502"),
        (
            "two lengths",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "app_malformed unknown 502",
        ),
        (
            "another protocol",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "app_malformed unknown 502",
        ),
        (
            "a coding nobody asked for",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n{}",
            "app_malformed unknown 502",
        ),
        (
            "too much",
            b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n",
            "response_too_large unknown 502",
        ),
    ] {
        let message = world.message(NOTIFY, b"{}");
        let (got, _) = world.exchange(message.bytes(), answer).await;
        assert_eq!(got.outcome(), code, "{label}");
        assert_eq!(world.flaw(&message, &got), None, "{label}: {}", got.head);
        let result = &got.json()["result"];
        assert_eq!(
            (&result["resultStatus"], &result["resultCode"]),
            (&json!("U"), &json!("UNKNOWN_EXCEPTION")),
            "{label}"
        );
    }
    // Slow: the caller is answered before it gives up, and the app's late answer is nobody's.
    let message = world.message(NOTIFY, b"{}");
    let (got, _stuck) = tokio::join!(send(world.ingress, message.bytes()), world.app.next());
    assert_eq!(got.outcome(), "app_timeout unknown 504");
    assert_eq!(world.flaw(&message, &got), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_down_is_answered_for() {
    let closed = closed_port();
    let route = format!(
        "      path_prefix: /up\n    - app: http://{}",
        closed.address
    );
    let world = Inbound::with(&route, "").await;
    let message = world.message(NOTIFY, b"{}");
    let got = send(world.ingress, message.bytes()).await;
    assert_eq!(got.outcome(), "app_unreachable not-sent 502");
    assert_eq!(world.flaw(&message, &got), None);
    let line = "countersign_exchanges_total{direction=\"ingress\",outcome=\"app_unreachable\",route=\"/\"}";
    assert_eq!(world.metric(line), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_head_is_signed_over_its_empty_body() {
    let mut world = Inbound::new().await;
    let mut message = world.message(NOTIFY, b"");
    message.method = "HEAD".to_owned();
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n";
    let (got, _) = world.exchange(message.bytes(), answer).await;
    assert_eq!((got.status, got.field("content-length")), (200, Some("99")));
    assert_eq!(world.flaw(&message, &got), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_sdk_verifies_what_is_signed_for_an_app() {
    let mut world = Inbound::new().await;
    let key = world.files.partner.public_key().to_spki_base64();
    let app = |body: &str| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        head + body
    };
    let mut questions = Vec::new();
    for (uri, answer) in [
        (NOTIFY, app(SUCCESS)),
        ("/a//b%2f?x=%7E", app("{\"ä\": 1}\n")),
        (NOTIFY, app("")),
        // Nothing from the app: the sidecar's own answer.
        (NOTIFY, String::new()),
    ] {
        let message = world.message(uri, b"{}");
        let (got, _) = world.exchange(message.bytes(), answer.as_bytes()).await;
        let header = got.field("signature").unwrap();
        questions.push(json!({
            "op": "verify", "method": "POST", "uri": uri, "key": key,
            "client_id": got.field("client-id"), "time": got.field("response-time"),
            "body_base64": STANDARD.encode(&got.body),
            "signature": header.rsplit_once("signature=").unwrap().1,
        }));
    }
    let mut altered = questions[0].clone();
    altered["uri"] = json!("/other");
    questions.push(altered);
    let answers = ask_sdk(&questions);
    let verified: Vec<_> = answers.iter().map(|one| &one["verified"]).collect();
    assert_eq!(verified, [true, true, true, true, false]);
}
