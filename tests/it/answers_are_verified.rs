//! No byte of an answer reaches the app unless it verifies or the rule for unsigned answers lets it.

use std::io::Write;

use countersign_protocol::message::{Credentials, Kind};
use countersign_protocol::{ClientId, Content, KeyVersion, Offset, Signature, Timestamp, sign};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::support::raw::{RawGateway, send};
use crate::support::world::PAY;
use crate::support::{CLIENT_ID, World};

/// What every fault of the gateway must become.
const FAULTS: &[(&str, &str)] = &[
    ("altered-body", "response_signature_invalid"),
    ("altered-signature", "response_signature_invalid"),
    ("unsigned-success", "response_signature_missing"),
    ("half-signed", "response_signature_missing"),
    ("wrong-key", "response_signature_invalid"),
    ("wrong-client", "response_client_mismatch"),
    ("unknown-key-version", "response_key_unknown"),
    ("stale-time", "response_time_unacceptable"),
    ("malformed-time", "response_time_unacceptable"),
    ("malformed-signature", "response_signature_malformed"),
    ("repeated-signature", "response_signature_malformed"),
    ("html", "response_signature_missing"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_answer_passes_byte_for_byte_with_its_headers_in_lower_case() {
    let world = World::new().await;
    let answer = world.pay("").await;
    assert_eq!(
        (answer.status, answer.outcome().as_str()),
        (200, "verdict verified")
    );
    assert_eq!(answer.json()["paymentId"], "sandbox-pay-00000001");
    for name in ["signature", "response-time", "client-id"] {
        assert!(answer.field(name).is_some(), "{name}: {}", answer.head);
    }
    assert_eq!(world.verifications("verified"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_forged_or_unsigned_answer_is_refused_as_unknown_and_counted_under_its_code() {
    refuses_every_fault(&World::speaking(false, "", "").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn and_so_it_is_over_http_2() {
    let world = World::speaking(true, "", "").await;
    assert_eq!(world.pay("").await.outcome(), "verdict verified");
    let seen = world.gateway().last_seen().unwrap();
    assert!(seen.http2 && seen.authentic && seen.uri == PAY, "{seen:?}");
    refuses_every_fault(&world).await;
    let last = world.gateway().last_seen().unwrap();
    assert!(last.http2, "{last:?}");
}

async fn refuses_every_fault(world: &World) {
    for (fault, code) in FAULTS {
        let before = world.verifications(code);
        let answer = world.pay(&format!("sandbox-fault: {fault}\r\n")).await;
        assert_eq!(answer.outcome(), format!("{code} unknown 502"), "{fault}");
        let result = &answer.json()["result"];
        assert_eq!(result["resultStatus"], "U", "{fault}");
        assert_eq!(result["resultCode"], "UNKNOWN_EXCEPTION", "{fault}");
        assert!(
            !answer.text().contains("paymentId"),
            "{fault}: {}",
            answer.text()
        );
        assert_eq!(world.verifications(code), before + 1.0, "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn report_passes_what_fails_marked_and_counted_and_off_does_not_look() {
    let report = World::with("      verify: report", "").await;
    let answer = report.pay("sandbox-fault: wrong-key\r\n").await;
    assert_eq!(
        (answer.status, answer.outcome().as_str()),
        (200, "verdict failed")
    );
    assert_eq!(report.verifications("response_signature_invalid"), 1.0);
    let off = World::with("      verify: \"off\"", "").await;
    let answer = off.pay("sandbox-fault: wrong-key\r\n").await;
    assert_eq!(
        (answer.status, answer.outcome().as_str()),
        (200, "verdict unchecked")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unsigned_answers_pass_only_when_they_cannot_be_taken_for_success() {
    let result = |status: &str| format!(r#"{{"result":{{"resultStatus":"{status}"}}}}"#);
    for (status, body, expected) in [
        ("200 OK", result("F"), "verdict unsigned"),
        ("200 OK", result("U"), "verdict unsigned"),
        (
            "200 OK",
            result("S"),
            "response_signature_missing unknown 502",
        ),
        (
            "200 OK",
            "{}".to_owned(),
            "response_signature_missing unknown 502",
        ),
        (
            "200 OK",
            String::new(),
            "response_signature_missing unknown 502",
        ),
        (
            "200 OK",
            "<html/>".to_owned(),
            "response_signature_missing unknown 502",
        ),
        ("502 Bad Gateway", "<html/>".to_owned(), "verdict unsigned"),
        ("503 Unavailable", result("F"), "verdict unsigned"),
        (
            "400 Bad Request",
            result("S"),
            "response_signature_missing unknown 502",
        ),
        (
            "400 Bad Request",
            format!("x{}", result("S")),
            "response_signature_missing unknown 502",
        ),
    ] {
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let gateway = RawGateway::answering(format!("{head}{body}")).await;
        let world = World::before(&format!("http://{gateway}"), "", "").await;
        let answer = world.pay("").await;
        assert_eq!(answer.outcome(), expected, "{status} {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unsigned_answers_are_counted_as_refusals_or_by_the_class_of_their_status() {
    let result = |status: &str| format!(r#"{{"result":{{"resultStatus":"{status}"}}}}"#);
    for (status, body, expected) in [
        ("200 OK", result("F"), Some("refusal")),
        ("401 Unauthorized", result("F"), Some("refusal")),
        ("200 OK", result("U"), Some("2xx")),
        ("304 Not Modified", String::new(), Some("3xx")),
        ("403 Forbidden", "<html/>".to_owned(), Some("4xx")),
        ("400 Bad Request", result("U"), Some("4xx")),
        ("502 Bad Gateway", "<html/>".to_owned(), Some("5xx")),
        ("503 Service Unavailable", result("F"), Some("5xx")),
        ("777 Lucky", String::new(), Some("5xx")),
        // What is refused for its missing signature is counted as that.
        ("200 OK", result("S"), None),
        ("500 Oops", result("S"), None),
    ] {
        let length = match body.len() {
            0 if status.starts_with("304") => String::new(),
            length => format!("Content-Length: {length}\r\n"),
        };
        let answer = format!("HTTP/1.1 {status}\r\n{length}\r\n{body}");
        let gateway = RawGateway::answering(answer).await;
        let world = World::before(&format!("http://{gateway}"), "", "").await;
        world.pay("").await;
        for kind in ["refusal", "2xx", "3xx", "4xx", "5xx"] {
            let line =
                format!("countersign_unsigned_answers_total{{kind=\"{kind}\",route=\"gateway\"}}");
            let count = f64::from(u8::from(expected == Some(kind)));
            assert_eq!(world.metric(&line), count, "{status} {body}: {kind}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_answer_about_another_payment_is_counted_as_that_alone() {
    let body = r#"{"result":{"resultStatus":"F"},"paymentRequestId":"another"}"#;
    let length = body.len();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
    let gateway = RawGateway::answering(answer).await;
    let world = World::before(&format!("http://{gateway}"), "", "").await;
    let outcome = world.pay("").await.outcome();
    assert_eq!(outcome, "response_mismatch unknown 502");
    let line = "countersign_unsigned_answers_total{kind=\"refusal\",route=\"gateway\"}";
    assert_eq!(world.metric(line), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_failure_in_another_charset_is_not_believed() {
    for (media_type, expected) in [
        (
            "application/json; charset=utf-7",
            "response_signature_missing unknown 502",
        ),
        (
            "application/json; Charset = \"UTF-16\"",
            "response_signature_missing unknown 502",
        ),
        ("application/json; charset=\"UTF-8\"", "verdict unsigned"),
        ("application/json", "verdict unsigned"),
    ] {
        let body = r#"{"result":{"resultStatus":"F","+AHI-esultStatus":"S"}}"#;
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let gateway = RawGateway::answering(format!("{head}{body}")).await;
        let world = World::before(&format!("http://{gateway}"), "", "").await;
        assert_eq!(world.pay("").await.outcome(), expected, "{media_type}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_from_outside_is_never_believed() {
    let body = r#"{"result":{"resultStatus":"F"}}"#;
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncountersign-verdict: verified\r\nCountersign-Other: x\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let gateway = RawGateway::answering(answer).await;
    let world = World::before(&format!("http://{gateway}"), "", "").await;
    let answer = world.pay("").await;
    assert_eq!(answer.outcome(), "verdict unsigned");
    assert!(
        !answer
            .head
            .to_ascii_lowercase()
            .contains("countersign-other"),
        "{}",
        answer.head
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_coding_is_undone_when_the_signature_covers_the_decoded_bytes() {
    let world = World::new().await;
    let answer = world
        .pay("sandbox-fault: gzip\r\nAccept-Encoding: gzip\r\n")
        .await;
    assert_eq!(answer.outcome(), "verdict verified");
    assert_eq!(answer.field("content-encoding"), None);
    assert_eq!(answer.json()["result"]["resultStatus"], "S");
    let sent = world.gateway().last_seen().unwrap();
    assert_eq!(sent.headers["accept-encoding"], "identity");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_coding_stays_when_the_signature_covers_the_coded_bytes() {
    let world = World::new().await;
    let answer = world.pay("sandbox-fault: gzip-raw\r\n").await;
    assert_eq!(answer.outcome(), "verdict verified");
    assert_eq!(answer.field("content-encoding"), Some("gzip"));
    assert_eq!(
        answer.field("content-length"),
        Some(answer.body.len().to_string().as_str())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_success_hidden_behind_a_coding_is_no_unsigned_failure() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder
        .write_all(br#"{"result":{"resultStatus":"S"}}"#)
        .unwrap();
    let body = encoder.finish().unwrap();
    let head = format!(
        "HTTP/1.1 500 Oops\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let gateway = RawGateway::answering([head.as_bytes(), &body].concat()).await;
    let world = World::before(&format!("http://{gateway}"), "", "").await;
    assert_eq!(
        world.pay("").await.outcome(),
        "response_signature_missing unknown 502"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn any_altered_byte_of_a_signed_body_is_refused() {
    let body = br#"{"result":{"resultStatus":"S"},"n":0}"#;
    let mut gateway = RawGateway::by_hand().await;
    let world = World::before(&format!("http://{}", gateway.address), "", "").await;
    let (client_id, time) = (
        ClientId::parse(CLIENT_ID).unwrap(),
        Timestamp::at(world.clock.now(), Offset::default()),
    );
    let content = Content {
        method: "POST",
        uri: PAY,
        client_id: &client_id,
        time: &time,
        body,
    };
    let value = sign(&world.files.gateway, &content).unwrap();
    let signature = Signature {
        key_version: KeyVersion::default(),
        value,
    };
    let mut fields = http::HeaderMap::new();
    Credentials {
        client_id,
        time: time.clone(),
        signature,
    }
    .write(Kind::Response, &mut fields);
    let fields: String = fields
        .iter()
        .map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()))
        .collect();
    for altered in (0..body.len()).map(Some).chain([None]) {
        let mut sent = body.to_vec();
        if let Some(at) = altered {
            sent[at] ^= 1;
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n",
            sent.len()
        );
        let (answer, ()) = tokio::join!(world.pay(""), async {
            let (_, mut stream) = gateway.next().await;
            let message = [head.as_bytes(), &sent].concat();
            tokio::io::AsyncWriteExt::write_all(&mut stream, &message)
                .await
                .unwrap();
        });
        let expected = match altered {
            Some(_) => "response_signature_invalid unknown 502",
            None => "verdict verified",
        };
        assert_eq!(answer.outcome(), expected, "byte {altered:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_over_the_limit_is_refused_whether_announced_or_streamed() {
    let body = "x".repeat(2_000);
    let announced = format!("HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n{body}");
    let chunked =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n{body}\r\n0\r\n\r\n");
    let extreme = "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n".to_owned();
    for message in [announced, chunked, extreme] {
        let gateway = RawGateway::answering(message).await;
        let route = "      response_limit: 1000B";
        let world = World::before(&format!("http://{gateway}"), route, "").await;
        assert_eq!(
            world.pay("").await.outcome(),
            "response_too_large unknown 502"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_or_half_an_answer_is_refused() {
    for (message, expected) in [
        ("no http at all\r\n\r\n", "upstream_malformed unknown 502"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            "upstream_broke_off unknown 502",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-",
            "upstream_broke_off unknown 502",
        ),
        ("", "upstream_broke_off unknown 502"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            "upstream_malformed unknown 502",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
            "upstream_malformed unknown 502",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n{}",
            "upstream_malformed unknown 502",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            "upstream_malformed unknown 502",
        ),
        (
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://evil.example/\r\nContent-Length: 0\r\n\r\n",
            "upstream_malformed unknown 502",
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            "upstream_malformed unknown 502",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nsignature: x\r\n\r\n",
            "upstream_malformed unknown 502",
        ),
    ] {
        let gateway = RawGateway::answering(message).await;
        let world = World::before(&format!("http://{gateway}"), "", "").await;
        assert_eq!(world.pay("").await.outcome(), expected, "{message:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_head_never_has_a_body() {
    let body = r#"{"result":{"resultStatus":"F"}}"#;
    let message = format!(
        "HTTP/1.1 404 Not Found\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let gateway = RawGateway::answering(message).await;
    let world = World::before(&format!("http://{gateway}"), "", "").await;
    let host = world.egress;
    let request = format!("HEAD {PAY} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = send(world.egress, request).await;
    assert_eq!(
        (answer.status, answer.outcome().as_str()),
        (404, "verdict unsigned")
    );
    assert_eq!(
        answer.field("content-length"),
        Some("31"),
        "it describes what GET would bring"
    );
    assert!(answer.body.is_empty());
}
