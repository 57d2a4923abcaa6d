//! Every limit is reached, told under its code and counted; memory stays within its bounds, and
//! authentic traffic goes on.
//!
//! Where a limit is a time, that time is short or held, so nobody waits for it.

use std::io::Write;
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::World;
use crate::support::inbound::{Inbound, NOTIFY, SUCCESS};
use crate::support::process::PATIENCE;
use crate::support::raw::{Answer, RawGateway, UNSIGNED, post, read_message, send};
use crate::support::world::{PAY, pay_request, payment};

const GOOD: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 31\r\n\r\n{\"result\":{\"resultStatus\":\"S\"}}";
const BUFFERED: &str = "countersign_buffered_bytes";

/// Sends bytes and leaves the connection open.
async fn begin(to: std::net::SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Everything that comes before the connection ends.
async fn rest_of(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "it does not end");
    rest
}

/// The answer on a connection.
async fn answer_on(stream: TcpStream) -> Answer {
    let answer = timeout(PATIENCE, Answer::read(stream)).await;
    answer.expect("there is no answer")
}

/// Waits until something holds that is about to.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::task::yield_now().await;
    }
}

fn faults(direction: &str, route: &str, code: &str, delivery: &str) -> String {
    format!(
        "countersign_faults_total{{code=\"{code}\",delivery=\"{delivery}\",direction=\"{direction}\",route=\"{route}\"}}"
    )
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_limit_wait_and_are_served_when_others_end() {
    let world = World::with("", "limits: { connections: 1 }").await;
    let request = pay_request(world.egress, "R1");
    let kept = String::from_utf8(request.clone()).unwrap();
    let kept = kept.replace("Connection: close\r\n", "");
    let mut first = begin(world.egress, kept.as_bytes()).await;
    assert!(read_message(&mut first).await.is_some());
    let second = begin(world.egress, &request).await;
    for served in 2..20 {
        first.write_all(kept.as_bytes()).await.unwrap();
        assert!(read_message(&mut first).await.is_some());
        assert_eq!(
            world.gateway().deliveries(),
            served,
            "the second does not wait"
        );
        assert_eq!(
            world.metric("countersign_connections{listener=\"egress\"}"),
            1.0
        );
    }
    drop(first);
    assert_eq!(answer_on(second).await.outcome(), "verdict verified");
    let full = "countersign_connections_full_total{listener=\"egress\"}";
    assert!(world.metric(full) >= 1.0);
}

#[tokio::test]
async fn strangers_who_send_no_body_hold_their_places_for_two_seconds() {
    let mut world = Inbound::with("      timeout: 1h", "limits: { exchanges: 2 }").await;
    let message = world.message(NOTIFY, br#"{"a":"a body that is not sent"}"#);
    let held = message.bytes();
    let mut strangers = Vec::new();
    for _ in 0..2 {
        strangers.push(begin(world.ingress, &held[..held.len() - 8]).await);
    }
    let full = "countersign_in_flight{direction=\"ingress\"}";
    until("both are in", || world.metric(full) == 2.0).await;
    let refused = send(world.ingress, message.bytes()).await;
    assert_eq!(refused.outcome(), "overloaded not-sent 503");
    let begun = Instant::now();
    for stranger in strangers {
        let answer = answer_on(stranger).await;
        assert_eq!(answer.outcome(), "request_timeout not-sent 408");
    }
    // Nor for as long as the route gives the app.
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    assert_eq!(
        world.metric(&faults("ingress", "/", "request_timeout", "not-sent")),
        2.0
    );
    assert_eq!(world.metric(BUFFERED), 0.0);
    let (answer, _) = world.exchange(message.bytes(), GOOD.as_bytes()).await;
    assert_eq!((answer.status, world.flaw(&message, &answer)), (200, None));
}

#[tokio::test(start_paused = true)]
async fn a_body_of_an_app_that_stands_still_is_given_up_after_ten_seconds() {
    let world = World::with("  request_timeout: 1h", "").await;
    let request = pay_request(world.egress, "R1");
    let begun = tokio::time::Instant::now();
    let answer = Answer::read(begin(world.egress, &request[..request.len() - 1]).await).await;
    assert_eq!(answer.outcome(), "request_timeout not-sent 408");
    assert_eq!(begun.elapsed().as_secs(), 10);
    assert_eq!(world.gateway().deliveries(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_ends_its_connection() {
    let world = World::new().await;
    let inbound = Inbound::new().await;
    let admin = world.running.admin.unwrap();
    for (to, seconds) in [(world.egress, 75), (inbound.ingress, 30), (admin, 5)] {
        for head in ["", "POST / HT", "POST / HTTP/1.1\r\nHost: x\r\n"] {
            let begun = tokio::time::Instant::now();
            let mut stream = begin(to, head.as_bytes()).await;
            let mut rest = Vec::new();
            let _reset = stream.read_to_end(&mut rest).await;
            assert_eq!(begun.elapsed().as_secs(), seconds, "{head:?}");
        }
    }
    let unfinished = |name| format!("countersign_unfinished_heads_total{{listener=\"{name}\"}}");
    world.until(&unfinished("egress"), 2.0).await;
    until("counted", || inbound.metric(&unfinished("ingress")) == 2.0).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_kept_without_a_request_ends() {
    let mut gateway = RawGateway::by_hand().await;
    let world = World::before(&format!("http://{}", gateway.address), "", "").await;
    let request = String::from_utf8(pay_request(world.egress, "R1")).unwrap();
    let kept = request.replace("Connection: close\r\n", "");
    let mut app = begin(world.egress, kept.as_bytes()).await;
    let (_, mut stream) = gateway.next().await;
    stream.write_all(UNSIGNED.as_bytes()).await.unwrap();
    assert!(read_message(&mut app).await.is_some());
    let begun = tokio::time::Instant::now();
    // First the unused connection to the gateway ends, which is looked at every 30 s.
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    assert!((30..=60).contains(&begun.elapsed().as_secs()));
    assert_eq!(app.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(begun.elapsed().as_secs(), 75);
    // A connection that is no longer used is nothing to worry about.
    world
        .until("countersign_connections{listener=\"egress\"}", 0.0)
        .await;
    let unfinished = "countersign_unfinished_heads_total{listener=\"egress\"}";
    assert_eq!(world.metric(unfinished), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_passed_on_ends_when_it_stands_still() {
    let mut other = RawGateway::by_hand().await;
    let world = World::with("  tunnel: { idle_timeout: 300ms }", "").await;
    let target = format!("http://{}/x", other.address);
    // The answer stands still: what has begun can only be cut.
    let get = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let app = begin(world.egress, get.as_bytes()).await;
    let (_, mut stream) = other.next().await;
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    stream.write_all(half).await.unwrap();
    let seen = rest_of(app).await;
    assert!(
        seen.ends_with(b"half"),
        "{}",
        String::from_utf8_lossy(&seen)
    );
    let line = faults("egress", "unmatched", "upstream_timeout", "unknown");
    world.until(&line, 1.0).await;
    // The request stands still: it can still be told.
    let request = post(&target, "x", "", b"12345");
    let app = begin(world.egress, &request[..request.len() - 1]).await;
    let answer = answer_on(app).await;
    assert_eq!(answer.outcome(), "request_timeout unknown 408");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_call_whose_answer_stands_still_ends_with_the_routes_time() {
    let mut gateway = RawGateway::by_hand().await;
    let upstream = format!("http://{}", gateway.address);
    let world = World::before(&upstream, "      timeout: 300ms", "").await;
    let extra = "Authorization: Bearer isak_1\r\n";
    let request = post(PAY, &world.egress.to_string(), extra, b"{}");
    let app = begin(world.egress, &request).await;
    let (_, mut stream) = gateway.next().await;
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    stream.write_all(half).await.unwrap();
    let seen = rest_of(app).await;
    assert!(
        seen.ends_with(b"half"),
        "{}",
        String::from_utf8_lossy(&seen)
    );
    let line = faults("egress", "gateway", "upstream_timeout", "unknown");
    world.until(&line, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stay_within_their_memory_and_those_that_fit_go_on() {
    let world = World::with("", "limits: { buffered: 1MiB }").await;
    let request = |id: &str| {
        let mut body = payment(id).into_bytes();
        body.resize(300 << 10, b' ');
        post(PAY, &world.egress.to_string(), "", &body)
    };
    let mut waiting = Vec::new();
    for id in ["R1", "R2", "R3"] {
        let request = request(id);
        waiting.push(begin(world.egress, &request[..request.len() - 1]).await);
    }
    let held = f64::from(3 * ((300 << 10) - 1));
    world.until(BUFFERED, held).await;
    let refused = send(world.egress, request("R4")).await;
    assert_eq!(refused.outcome(), "overloaded not-sent 503");
    world.until(BUFFERED, held).await;
    assert_eq!(world.pay("").await.outcome(), "verdict verified");
    for mut stream in waiting {
        stream.write_all(b" ").await.unwrap();
        assert_eq!(answer_on(stream).await.outcome(), "verdict verified");
    }
    world.until(BUFFERED, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_unpacks_to_more_than_there_is_memory_is_unknown() {
    let mut gateway = RawGateway::by_hand().await;
    let upstream = format!("http://{}", gateway.address);
    let world = World::before(&upstream, "", "limits: { buffered: 64KiB }").await;
    let plain = format!(
        "{{\"result\":{{\"resultStatus\":\"S\"}},\"x\":\"{}\"}}",
        "0".repeat(100_000)
    );
    let packed = gzip(plain.as_bytes());
    let answer = world.signed_answer_of(plain.as_bytes(), "Content-Encoding: gzip\r\n", &packed);
    let good = world.signed_answer("{\"result\":{\"resultStatus\":\"S\"}}", "");
    for (answer, expected) in [
        (&answer, "overloaded unknown 503"),
        (&good, "verdict verified"),
    ] {
        let (got, ()) = tokio::join!(world.pay(""), async {
            let (_, mut stream) = gateway.next().await;
            stream.write_all(answer).await.unwrap();
        });
        assert_eq!(got.outcome(), expected);
        world.until(BUFFERED, 0.0).await;
    }
    assert_eq!(
        world.metric(&faults("egress", "gateway", "overloaded", "unknown")),
        1.0
    );
}

#[tokio::test]
async fn an_apps_answer_that_unpacks_to_more_than_there_is_memory_is_told_signed() {
    let mut world = Inbound::with("", "limits: { buffered: 64KiB }").await;
    let message = world.message(NOTIFY, b"{}");
    let packed_answer = |packed: &[u8]| {
        let length = packed.len();
        let head = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n";
        let head = format!("{head}Content-Length: {length}\r\n\r\n");
        [head.as_bytes(), packed].concat()
    };
    let answer = packed_answer(&gzip(&vec![b'0'; 100_000]));
    let (got, _) = world.exchange(message.bytes(), &answer).await;
    assert_eq!(got.outcome(), "overloaded unknown 503");
    assert_eq!(world.flaw(&message, &got), None);
    assert_eq!(
        world.metric(&faults("ingress", "/", "overloaded", "unknown")),
        1.0
    );
    let answer = packed_answer(&gzip(SUCCESS.as_bytes()));
    let (got, _) = world.exchange(message.bytes(), &answer).await;
    assert_eq!((got.status, got.text().as_str()), (200, SUCCESS));
}

#[tokio::test]
async fn a_call_that_finds_no_memory_is_told_and_a_smaller_one_is_served() {
    let mut world = Inbound::with("", "limits: { buffered: 1KiB }").await;
    let large = world.message(NOTIFY, &[b' '; 2048]);
    let refused = send(world.ingress, large.bytes()).await;
    assert_eq!(refused.outcome(), "overloaded not-sent 503");
    assert_eq!(refused.json()["result"]["resultStatus"], "U");
    assert_eq!(
        world.metric(&faults("ingress", "/", "overloaded", "not-sent")),
        1.0
    );
    let small = world.message(NOTIFY, b"{}");
    let (answer, _) = world.exchange(small.bytes(), GOOD.as_bytes()).await;
    assert_eq!((answer.status, world.flaw(&small, &answer)), (200, None));
}

/// The first status line that comes for a head whose sender waits to be asked for the body.
async fn asked_for(to: std::net::SocketAddr, head: &str) -> String {
    let head = format!("{head}Expect: 100-continue\r\nConnection: close\r\n\r\n");
    let mut stream = begin(to, head.as_bytes()).await;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(line).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_not_asked_for_when_the_head_shows_that_it_will_not_be_taken() {
    let world = World::with("      request_limit: 1000B\n  unmatched: refuse", "").await;
    let inbound = Inbound::with("      request_limit: 1000B", "").await;
    let (to, host) = (world.egress, world.egress.to_string());
    let head = |target: &str, host: &str, extra: &str, length: &str| {
        format!("POST {target} HTTP/1.1\r\nHost: {host}\r\n{extra}Content-Length: {length}\r\n")
    };
    let extreme = "9223372036854775807";
    let signed = inbound.message(NOTIFY, b"{}");
    let headers = signed.headers();
    let late = headers.replace("Request-Time: 2027", "Request-Time: 2026");
    let stranger = headers.replace("SANDBOX_5X", "SANDBOX_9X");
    let version = headers.replace("keyVersion=1", "keyVersion=9");
    for (to, head, expected) in [
        (to, head(PAY, &host, "", "10"), "100"),
        (to, head(PAY, &host, "", "1001"), "413"),
        (to, head(PAY, &host, "", extreme), "413"),
        (to, head("http://other.example/", "x", "", "10"), "403"),
        (to, head(PAY, "a b", "", "10"), "400"),
        (inbound.ingress, head(NOTIFY, "p", &headers, "2"), "100"),
        (inbound.ingress, head(NOTIFY, "p", &headers, "1001"), "413"),
        (inbound.ingress, head(NOTIFY, "p", &headers, extreme), "413"),
        (inbound.ingress, head(NOTIFY, "p", "", "2"), "401"),
        (inbound.ingress, head(NOTIFY, "p", &late, "2"), "401"),
        (inbound.ingress, head(NOTIFY, "p", &stranger, "2"), "401"),
        (inbound.ingress, head(NOTIFY, "p", &version, "2"), "401"),
    ] {
        let line = asked_for(to, &head).await;
        assert_eq!(line.split(' ').nth(1), Some(expected), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_when_there_is_no_place() {
    let mut gateway = RawGateway::by_hand().await;
    let upstream = format!("http://{}", gateway.address);
    let world = World::before(&upstream, "", "limits: { exchanges: 1 }").await;
    let (first, ()) = tokio::join!(world.pay(""), async {
        let (_, mut stream) = gateway.next().await;
        let host = world.egress;
        let head = format!("POST {PAY} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n");
        let line = asked_for(world.egress, &head).await;
        assert_eq!(line.split(' ').nth(1), Some("503"));
        stream.write_all(UNSIGNED.as_bytes()).await.unwrap();
    });
    assert_eq!(first.outcome(), "verdict unsigned");
}
