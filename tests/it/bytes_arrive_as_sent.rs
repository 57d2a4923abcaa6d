//! Path, query and body reach the gateway byte for byte; only the headers that must change do.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::World;
use crate::support::raw::{RawGateway, post, send};
use crate::support::world::{PAY, payment};

#[tokio::test(flavor = "multi_thread")]
async fn every_target_is_signed_and_sent_exactly_as_the_app_wrote_it() {
    let world = World::new().await;
    for target in [
        "/aps/api/v1/payments/pay",
        "/aps//api///pay",
        "/aps/api%2fv1/%2E%2e/pay",
        "/./aps/../pay",
        "/pay/",
        "/pay?",
        "/pay?a=1&b=%20&c=//..&d=?",
        "/pay;v=1,2/@:!$&'()*+=~",
        "/{pay}?q={a:[1]}|^",
        "/",
        "/p%C3%A4y?%E2%82%AC",
    ] {
        for absolute in [false, true] {
            let (target_on_the_line, host) = if absolute {
                let host = "open-sea-global.alipayplus.com";
                (format!("http://{host}{target}"), host.to_owned())
            } else {
                (target.to_owned(), world.egress.to_string())
            };
            let request = post(&target_on_the_line, &host, "", b"{}");
            let answer = send(world.egress, request).await;
            assert_eq!(answer.outcome(), "verdict verified", "{target_on_the_line}");
            let seen = world.gateway().last_seen().unwrap();
            assert_eq!(seen.uri, target, "{target_on_the_line}");
            assert!(seen.authentic, "{target_on_the_line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_body_is_signed_and_sent_exactly() {
    let world = World::new().await;
    let binary: Vec<u8> = (0..=255).collect();
    let large = vec![b'x'; 1_000_000];
    for body in [
        b"".as_slice(),
        b"\r\n{}\r\n\0",
        &binary,
        "{\"ä\":\"€ \u{301}\"}".as_bytes(),
        &large,
    ] {
        send(world.egress, post(PAY, &world.egress.to_string(), "", body)).await;
        let seen = world.gateway().last_seen().unwrap();
        assert_eq!(seen.body, body);
        assert!(seen.authentic, "{} bytes", body.len());
        assert_eq!(seen.headers["content-length"], body.len().to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_arrives_whole_with_a_length() {
    let world = World::new().await;
    let request = format!(
        "POST {PAY} HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\nTrailer: x-check\r\n\
         Connection: close\r\n\r\n5;x=y\r\n{{\"a\":\r\n2\r\n1}}\r\n0\r\nx-check: 1\r\n\r\n",
        world.egress
    );
    send(world.egress, request).await;
    let seen = world.gateway().last_seen().unwrap();
    assert_eq!(seen.body, "{\"a\":1}");
    assert!(!seen.headers.contains_key("x-check"));
    assert!(seen.authentic && !seen.headers.contains_key("transfer-encoding"));
    assert_eq!(seen.headers["content-length"], "7");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_waits_for_100_continue_gets_it() {
    let world = World::new().await;
    let body = payment("R1");
    let head = format!(
        "POST {PAY} HTTP/1.1\r\nHost: {}\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        world.egress,
        body.len()
    );
    let mut stream = TcpStream::connect(world.egress).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("countersign-verdict: verified"), "{answer}");
    assert!(
        !world
            .gateway()
            .last_seen()
            .unwrap()
            .headers
            .contains_key("expect")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn signature_headers_of_the_app_are_replaced_also_when_connection_nominates_them() {
    let world = World::new().await;
    let extra = "Signature: forged\r\nSIGNATURE: twice\r\nClient-Id: SANDBOX_5X00000000000000\r\n\
                 client_id: SANDBOX_5X00000000000000\r\nRequest-Time: never\r\nConnection: Signature, client-id, X-Hop\r\nX-Hop: 1\r\n\
                 X-Stays: 1\r\nProxy-Authorization: Basic eA==\r\nAgent-Token: t\r\n\
                 Countersign-Verdict: verified\r\n";
    let request = post(
        PAY,
        &world.egress.to_string(),
        extra,
        payment("R1").as_bytes(),
    );
    let answer = send(world.egress, request).await;
    assert_eq!(answer.outcome(), "verdict verified");
    let seen = world.gateway().last_seen().unwrap();
    for (name, count) in [
        ("signature", 1),
        ("client-id", 1),
        ("request-time", 1),
        ("host", 1),
        ("via", 1),
        ("x-stays", 1),
        ("agent-token", 1),
        ("x-hop", 0),
        ("connection", 0),
        ("proxy-authorization", 0),
        ("countersign-verdict", 0),
    ] {
        assert_eq!(
            seen.headers.get_all(name).iter().count(),
            count,
            "{name}: {:?}",
            seen.headers
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn request_time_is_written_in_the_offset_of_the_identity() {
    let world = World::new().await;
    world.pay("").await;
    let seen = world.gateway().last_seen().unwrap();
    assert_eq!(seen.headers["request-time"], "2027-01-15T08:00:00Z");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_the_wire_is_an_origin_form_target_and_the_upstreams_host() {
    let mut gateway = RawGateway::by_hand().await;
    let world = World::before(&format!("http://{}", gateway.address), "", "").await;
    let target = "http://open-sea-global.alipayplus.com/a//b?c=%2f";
    let request = post(target, "open-sea-global.alipayplus.com", "", b"{}");
    let ((), (seen, _)) = tokio::join!(
        async {
            let mut stream = TcpStream::connect(world.egress).await.unwrap();
            stream.write_all(&request).await.unwrap();
        },
        gateway.next()
    );
    let seen = String::from_utf8(seen).unwrap();
    assert!(seen.starts_with("POST /a//b?c=%2f HTTP/1.1\r\n"), "{seen}");
    assert!(
        seen.contains(&format!("\r\nhost: {}\r\n", gateway.address)),
        "{seen}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_carries_many_requests_in_order() {
    let world = World::new().await;
    let mut stream = TcpStream::connect(world.egress).await.unwrap();
    let one = |id: &str| {
        let body = payment(id);
        format!(
            "POST {PAY} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}",
            world.egress,
            body.len()
        )
    };
    // Pipelined: the second is written before the first is answered.
    stream
        .write_all(format!("{}{}", one("R1"), one("R2")).as_bytes())
        .await
        .unwrap();
    for id in ["R1", "R2"] {
        let message = crate::support::raw::read_message(&mut stream)
            .await
            .unwrap();
        let message = String::from_utf8(message).unwrap();
        if message.contains("\"R1\"") && message.contains("\"R2\"") {
            let (first, second) = (
                message.find("\"R1\"").unwrap(),
                message.find("\"R2\"").unwrap(),
            );
            assert!(first < second);
            return;
        }
        assert!(message.contains(id), "{message}");
    }
}
