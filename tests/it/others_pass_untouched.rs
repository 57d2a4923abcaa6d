//! What is not for a signed host passes through as it is, or is refused; and so do the calls to
//! signed hosts that the protocol leaves unsigned.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::World;
use crate::support::raw::{RawGateway, post, send};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_another_host_is_forwarded_without_a_signature() {
    let mut other = RawGateway::by_hand().await;
    let world = World::new().await;
    let target = format!("http://localhost:{}/x?y=%2f", other.address.port());
    let request = post(
        &target,
        "ignored.example",
        "X-Case: Kept\r\nClient-Id: mine\r\n",
        b"body",
    );
    let (answer, seen) = tokio::join!(send(world.egress, request), async {
        let (seen, mut stream) = other.next().await;
        stream
            .write_all(b"HTTP/1.1 201 Made\r\nX-Odd: \xe4\r\nContent-Length: 2\r\n\r\nok")
            .await
            .unwrap();
        String::from_utf8(seen).unwrap()
    });
    assert!(seen.starts_with("POST /x?y=%2f HTTP/1.1\r\n"), "{seen}");
    let lower = seen.to_ascii_lowercase();
    assert!(
        lower.contains(&format!("\r\nhost: localhost:{}\r\n", other.address.port())),
        "{seen}"
    );
    assert!(
        lower.contains("\r\nclient-id: mine\r\n"),
        "the app's own header stays: {seen}"
    );
    assert!(!lower.contains("\r\nsignature:"), "{seen}");
    assert_eq!(
        (answer.status, answer.outcome().as_str()),
        (201, "verdict forwarded")
    );
    assert_eq!(answer.body, b"ok");
    assert_eq!(world.gateway().deliveries(), 0);
}

/// A forwarded answer whose first bytes have reached the app though the rest was not sent yet: the
/// app's end, what it has seen, and the other server's end.
async fn half_forwarded(
    world: &World,
    length: usize,
    first: &str,
) -> (TcpStream, Vec<u8>, TcpStream) {
    let mut other = RawGateway::by_hand().await;
    let target = format!("http://{}/big", other.address);
    let mut app = TcpStream::connect(world.egress).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    app.write_all(request.as_bytes()).await.unwrap();
    let (_, mut stream) = other.next().await;
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{first}");
    stream.write_all(answer.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(first.as_bytes()) {
        assert_ne!(app.read_buf(&mut seen).await.unwrap(), 0);
    }
    (app, seen, stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarded_body_is_streamed_and_never_held() {
    // A budget far below what passes: holding it would be refused.
    let world = World::with("", "limits: { buffered: 1KiB }").await;
    let (mut app, mut seen, mut stream) = half_forwarded(&world, 8_000_005, "first").await;
    let rest = vec![b'z'; 8_000_000];
    let (written, read) = tokio::join!(stream.write_all(&rest), app.read_to_end(&mut seen));
    written.unwrap();
    read.unwrap();
    assert!(seen.ends_with(&rest[..1000]) && seen.len() > 8_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_body_keeps_its_place_among_the_exchanges_until_its_end() {
    let world = World::with("", "limits: { exchanges: 1 }").await;
    let (mut app, mut seen, mut stream) = half_forwarded(&world, 6, "one").await;
    assert_eq!(world.pay("").await.outcome(), "overloaded not-sent 503");
    stream.write_all(b"two").await.unwrap();
    app.read_to_end(&mut seen).await.unwrap();
    assert_eq!(world.pay("").await.outcome(), "verdict verified");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_answer_that_breaks_off_is_counted_as_such() {
    let other = RawGateway::answering("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    let world = World::new().await;
    let target = format!("http://{other}/");
    let answer = send(world.egress, post(&target, "x", "", b"")).await;
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (200, b"half".as_slice())
    );
    let line = "countersign_exchanges_total{direction=\"egress\",\
                outcome=\"upstream_broke_off\",route=\"unmatched\"}";
    assert_eq!(world.metric(line), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn refuse_lets_nothing_pass_that_no_route_names() {
    let other = RawGateway::by_hand().await;
    let world = World::with("  unmatched: refuse", "").await;
    for host in [
        other.address.to_string(),
        "open-sea-global.alipayplus.com.evil.example".to_owned(),
    ] {
        let answer = send(
            world.egress,
            post(&format!("http://{host}/"), &host, "", b""),
        )
        .await;
        assert_eq!(answer.outcome(), "host_not_allowed not-sent 403", "{host}");
    }
    assert_eq!(other.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn api_key_calls_and_metering_events_are_never_signed() {
    for (path, extra) in [
        (
            "/ams/api/v1/payments/pay",
            "Authorization: Bearer isak_123\r\n",
        ),
        (
            "/ams/api/v1/payments/pay",
            "authorization: bearer irak_123\r\n",
        ),
        ("/ams/api/v1/meter/uploadEvent", ""),
    ] {
        let mut gateway = RawGateway::by_hand().await;
        let world = World::before(&format!("http://{}", gateway.address), "", "").await;
        let request = post(path, &world.egress.to_string(), extra, b"{}");
        let (answer, seen) = tokio::join!(send(world.egress, request), async {
            let (seen, mut stream) = gateway.next().await;
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(seen).unwrap()
        });
        let lower = seen.to_ascii_lowercase();
        assert!(
            !lower.contains("\r\nsignature:") && !lower.contains("\r\nclient-id:"),
            "{seen}"
        );
        assert!(
            extra.is_empty() || lower.contains("\r\nauthorization: bearer i"),
            "{seen}"
        );
        assert_eq!(
            (answer.status, answer.outcome().as_str()),
            (200, "verdict unsigned")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relayed_call_whose_answer_never_comes_gives_its_place_back() {
    let mut gateway = RawGateway::by_hand().await;
    let upstream = format!("http://{}", gateway.address);
    let rest = "limits: { exchanges: 1 }";
    let world = World::before(&upstream, "      timeout: 1s", rest).await;
    let key = "Authorization: Bearer isak_1\r\n";
    let (answer, _stream) = tokio::join!(world.pay(key), gateway.next());
    assert_eq!(answer.outcome(), "upstream_timeout unknown 504");
    assert_eq!(
        world.metric("countersign_in_flight{direction=\"egress\"}"),
        0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_ports_are_recognised_in_every_spelling_of_the_address() {
    let world = World::new().await;
    let admin = world.running.admin.unwrap().port();
    for host in [
        "127.0.0.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
    ] {
        let target = format!("http://{host}:{admin}/drain");
        let answer = send(world.egress, post(&target, "x", "", b"")).await;
        assert_eq!(answer.outcome(), "loop_detected not-sent 508", "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_before_a_host_is_never_repeated() {
    let world = World::new().await;
    let request = post(
        "http://user:s3cret@open-sea-global.alipayplus.com/x",
        "x",
        "",
        b"",
    );
    let answer = send(world.egress, request).await;
    assert_eq!(answer.outcome(), "request_malformed not-sent 400");
    assert!(!answer.text().contains("s3cret"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_bearer_token_is_signed_as_usual() {
    let world = World::new().await;
    let answer = world.pay("Authorization: Bearer something\r\n").await;
    assert_eq!(answer.outcome(), "verdict verified");
}

#[tokio::test(flavor = "multi_thread")]
async fn unclear_destinations_are_refused() {
    let world = World::new().await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (
            "GET http://user@localhost/ HTTP/1.1\r\nHost: x\r\n\r\n",
            400,
        ),
    ] {
        let request = request.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
        let answer = send(world.egress, request.as_bytes()).await;
        assert_eq!(answer.status, status, "{request:?}: {}", answer.head);
    }
    assert_eq!(world.gateway().deliveries(), 0);
}
