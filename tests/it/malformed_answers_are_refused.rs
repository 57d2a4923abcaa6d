//! What a gateway or an app may not answer is refused, and its connection never used again.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::World;
use crate::support::inbound::{Inbound, NOTIFY};
use crate::support::raw::{RawGateway, UNSIGNED, post, read_message, send};

/// A 200 with these further lines and what comes behind its head.
fn ok(fields: &str, rest: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n{rest}")
}

fn chunked(rest: &str) -> String {
    ok("Transfer-Encoding: chunked\r\n", rest)
}

/// Reason, and the bytes of an answer to a POST.
fn cases() -> Vec<(&'static str, String)> {
    let length = |fields: &str| ok(fields, "{}");
    let mut cases = vec![
        ("status_line", "HTTP/1.1 2000 OK\r\n\r\n".to_owned()),
        ("status_line", "HTTP/1.1  200 OK\r\n\r\n".to_owned()),
        ("status_line", "HTTP/1.1 099 Low\r\n\r\n".to_owned()),
        ("status_line", "HTTP/1.1 2x0 OK\r\n\r\n".to_owned()),
        ("status_line", "\r\nHTTP/1.1 200 OK\r\n\r\n".to_owned()),
        ("version", "<html>old</html>\r\n\r\n".to_owned()),
        ("version", "http/1.1 200 OK\r\n\r\n".to_owned()),
        ("version", "ICY/1.1x 200 OK\r\n\r\n".to_owned()),
        ("version_unsupported", "HTTP/1.2 200 OK\r\n\r\n".to_owned()),
        ("version_unsupported", "HTTP/2.0 200 OK\r\n\r\n".to_owned()),
        (
            "bare_lf",
            "HTTP/1.1 200 OK\nContent-Length: 2\n\n{}".to_owned(),
        ),
        ("bare_lf", length("Content-Length: 2\r\nA: b\n")),
        ("bare_lf", chunked("2\n{}\r\n0\r\n\r\n")),
        ("bare_cr", length("A: b\rc\r\nContent-Length: 2\r\n")),
        (
            "control_character",
            length("A: b\0c\r\nContent-Length: 2\r\n"),
        ),
        ("folded_line", length("A: b\r\n c\r\nContent-Length: 2\r\n")),
        ("field_name", length("A B: c\r\nContent-Length: 2\r\n")),
        ("blank_before_colon", length("Content-Length : 2\r\n")),
        ("field_without_colon", length("Content-Length 2\r\n")),
    ];
    cases.extend(framing());
    cases
}

fn framing() -> Vec<(&'static str, String)> {
    let length = |fields: &str| ok(fields, "{}");
    let two = "2\r\n{}\r\n0\r\n\r\n";
    let many: String = (0..101).map(|number| format!("A{number}: b\r\n")).collect();
    let large = format!("A: {}\r\n", "b".repeat(1000)).repeat(66);
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    vec![
        (
            "length_and_coding",
            ok("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", two),
        ),
        (
            "length_and_coding",
            ok("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", two),
        ),
        (
            "length_repeated",
            length("Content-Length: 2\r\nContent-Length: 2\r\n"),
        ),
        (
            "length_repeated",
            length("Content-Length: 2\r\nContent-Length: 3\r\n"),
        ),
        ("length_invalid", length("Content-Length: 2, 2\r\n")),
        ("length_invalid", length("Content-Length: +2\r\n")),
        ("length_invalid", length("Content-Length: \r\n")),
        (
            "coding_unknown",
            ok("Transfer-Encoding: gzip, chunked\r\n", two),
        ),
        ("coding_invalid", ok("Transfer-Encoding: gzip\r\n", two)),
        (
            "coding_invalid",
            ok("Transfer-Encoding: chunked, identity\r\n", two),
        ),
        (
            "coding_repeated",
            ok(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                two,
            ),
        ),
        (
            "coding_in_http_1_0",
            format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{two}"),
        ),
        ("too_many_fields", length(&many)),
        ("head_too_large", length(&large)),
        ("chunk_size", chunked("x\r\n")),
        ("chunk_end", chunked("2\r\n{}x\r\n0\r\n\r\n")),
        ("chunk_extension", chunked("2;\r\n{}\r\n0\r\n\r\n")),
        (
            "trailer_forbidden",
            chunked("2\r\n{}\r\n0\r\nsignature: forged\r\n\r\n"),
        ),
        (
            "trailer_forbidden",
            chunked("2\r\n{}\r\n0\r\nresponse-time: now\r\n\r\n"),
        ),
        (
            "trailer_forbidden",
            chunked("2\r\n{}\r\n0\r\nclient-id: C\r\n\r\n"),
        ),
        (
            "trailer_forbidden",
            chunked("2\r\n{}\r\n0\r\nContent-Length: 1\r\n\r\n"),
        ),
        (
            "trailers_too_large",
            chunked(&format!("2\r\n{{}}\r\n0\r\n{}\r\n", "A: b\r\n".repeat(65))),
        ),
        (
            "switched_unasked",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
                .to_owned(),
        ),
        ("too_many_interim", interim.repeat(17) + UNSIGNED),
        (
            "body_forbidden",
            "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
        ),
        (
            "body_forbidden",
            "HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\n{}".to_owned() + UNSIGNED,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ambiguous_answer_of_a_gateway_is_refused_as_unknown_and_its_connection_ends() {
    let mut gateway = RawGateway::by_hand().await;
    let world = World::before(&format!("http://{}", gateway.address), "", "").await;
    for (round, (reason, bytes)) in cases().into_iter().enumerate() {
        let (answer, mut stream) = tokio::join!(world.pay(""), async {
            let (_, mut stream) = gateway.next().await;
            stream.write_all(bytes.as_bytes()).await.unwrap();
            stream
        });
        let shown = format!("{reason} {bytes:?}: {}", answer.text());
        assert_eq!(
            answer.outcome(),
            "upstream_malformed unknown 502",
            "{shown}"
        );
        let text = countersign::http::wire::Malformed::ALL.iter();
        let text = text
            .copied()
            .find(|one| one.label() == reason)
            .unwrap()
            .text();
        assert!(answer.text().contains(text), "{shown}");
        assert_eq!(gateway.connections(), round + 1, "{shown}");
        // It was closed; nothing more was asked on it.
        assert!(read_message(&mut stream).await.is_none(), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ambiguous_answer_of_an_app_is_not_signed() {
    let mut world = Inbound::new().await;
    for (reason, bytes) in cases() {
        let message = world.message(NOTIFY, b"{}");
        let (answer, _) = world.exchange(message.bytes(), bytes.as_bytes()).await;
        assert_eq!(
            answer.outcome(),
            "app_malformed unknown 502",
            "{reason} {bytes:?}"
        );
        assert_eq!(answer.json()["result"]["resultStatus"], "U");
        assert_eq!(world.flaw(&message, &answer), None, "our own answer is");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ambiguous_answer_of_another_host_does_not_pass() {
    let world = World::new().await;
    for (reason, bytes) in cases() {
        let other = RawGateway::answering(bytes.clone()).await;
        let answer = send(
            world.egress,
            post(&format!("http://{other}/"), "x", "", b"{}"),
        )
        .await;
        // Its head may have passed already when its body turned out malformed; then it is cut off.
        if answer.status == 502 {
            let outcome = answer.outcome();
            assert_eq!(
                outcome, "upstream_malformed unknown 502",
                "{reason} {bytes:?}"
            );
        } else {
            assert!(bytes.contains("chunked"), "{reason} {bytes:?}");
            assert!(
                !answer.text().contains("\r\n0\r\n"),
                "{reason} {}",
                answer.text()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_unusual_but_clear_pass() {
    let body = r#"{"result":{"resultStatus":"F"}}"#;
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    for bytes in [
        format!("HTTP/1.1 200\r\nContent-Length: 31\r\n\r\n{body}"),
        format!("HTTP/1.1 200 \r\ncontent-length:31\r\n\r\n{body}"),
        format!("HTTP/1.1 200 \u{e4} \t!\r\nContent-Length: 31\r\n\r\n{body}"),
        format!("HTTP/1.0 200 OK\r\nContent-Length: 31\r\n\r\n{body}"),
        format!("HTTP/1.0 200 OK\r\n\r\n{body}"),
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}"),
        format!(
            "HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: Chunked\r\n\r\n1F;a=\"b;\\\"\";c\r\n{body}\r\n000\r\nX: y\r\n\r\n"
        ),
        interim.repeat(16) + UNSIGNED,
        format!("HTTP/1.1 100 Continue\r\n\r\n{UNSIGNED}"),
    ] {
        let gateway = RawGateway::answering(bytes.clone()).await;
        let world = World::before(&format!("http://{gateway}"), "", "").await;
        let answer = world.pay("").await;
        assert_eq!(answer.outcome(), "verdict unsigned", "{bytes:?}");
        assert_eq!(answer.text(), body, "{bytes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_ahead_is_never_taken_for_the_next_one() {
    let mut gateway = RawGateway::by_hand().await;
    let world = World::before(&format!("http://{}", gateway.address), "", "").await;
    let planted = UNSIGNED.replace("200 OK", "418 Planted");
    for round in 0..3 {
        let (answer, mut stream) = tokio::join!(world.pay(""), async {
            let (_, mut stream) = gateway.next().await;
            stream.write_all(UNSIGNED.as_bytes()).await.unwrap();
            stream
        });
        assert_eq!(answer.outcome(), "verdict unsigned", "round {round}");
        stream.write_all(planted.as_bytes()).await.unwrap();
        let port = stream.peer_addr().unwrap().port();
        while is_still_empty(port) {
            tokio::task::yield_now().await;
        }
        // At once: whoever asks only now and then what has come does not know of it.
        let mut paying = std::pin::pin!(world.pay(""));
        let mut fresh = None;
        let answer = loop {
            tokio::select! {
                answer = &mut paying => break answer,
                (_, stream) = gateway.next() => {
                    fresh = Some(answered(stream).await);
                }
                asked = read_message(&mut stream), if fresh.is_none() => {
                    assert!(asked.is_none(), "round {round}");
                    // Closed; a new connection may come.
                    tokio::select! {
                        answer = &mut paying => break answer,
                        (_, stream) = gateway.next() => fresh = Some(answered(stream).await),
                    }
                }
            }
        };
        let outcomes = ["verdict unsigned", "upstream_malformed not-sent 502"];
        assert!(
            outcomes.contains(&answer.outcome().as_str()),
            "{}",
            answer.head
        );
        assert_ne!(answer.status, 418, "round {round}");
    }
}

async fn answered(mut stream: TcpStream) -> TcpStream {
    stream.write_all(UNSIGNED.as_bytes()).await.unwrap();
    stream
}

/// Whether nothing has come that waits to be read on the connection with that local port.
fn is_still_empty(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    let mut open = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words[1].ends_with(&local) && words[3] == "01");
    open.any(|words| words[4].ends_with(":00000000"))
}
