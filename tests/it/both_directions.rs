//! One process serves both directions at once: counted apart, ended one after the other, and neither is
//! starved by strangers.

use std::net::SocketAddr;

use countersign::net::drain::Phase;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::World;
use crate::support::inbound::{Message, NOTIFY, SUCCESS};
use crate::support::process::{Sidecar, text};
use crate::support::raw::{Answer, RawGateway, UNSIGNED, post, send};
use crate::support::world::{CLIENT_ID, Files, PAY};

fn ok() -> Vec<u8> {
    let length = SUCCESS.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{SUCCESS}").into_bytes()
}

fn ingress(app: SocketAddr) -> String {
    format!("ingress: {{ listen: \"127.0.0.1:0\", routes: [{{ app: \"http://{app}\" }}] }}\n")
}

/// What Alipay+ would send at that world's time.
fn message(files: &Files, now: std::time::SystemTime) -> Message {
    Message {
        method: "POST".to_owned(),
        uri: NOTIFY.to_owned(),
        client_id: CLIENT_ID.to_owned(),
        time: countersign_protocol::Timestamp::at(now, countersign_protocol::Offset::default())
            .to_string(),
        key: files.gateway.clone(),
        key_version: 1,
        body: b"{}".to_vec(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_directions_are_served_at_once_and_counted_apart() {
    let app = RawGateway::answering(ok()).await;
    let world = World::with("", &ingress(app)).await;
    let inbound = message(&world.files, world.clock.now());
    let (out, into) = tokio::join!(
        world.pay(""),
        send(world.running.ingress[0], inbound.bytes())
    );
    assert_eq!(out.outcome(), "verdict verified");
    assert_eq!(into.status, 200);
    assert!(into.field("signature").is_some());
    for direction in ["egress", "ingress"] {
        let line = format!(
            "countersign_verifications_total{{direction=\"{direction}\",result=\"verified\"}}"
        );
        assert_eq!(world.metric(&line), 1.0, "{direction}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ingress_ends_first_because_its_app_may_have_to_call_out() {
    let mut app = RawGateway::by_hand().await;
    let rest = format!(
        "{}drain: {{ grace: 0s, deadline: 60s }}\n",
        ingress(app.address)
    );
    let world = World::with("", &rest).await;
    let inbound = message(&world.files, world.clock.now()).bytes();
    let (egress, ingress) = (world.egress, world.running.ingress[0]);
    let called = tokio::spawn(send(ingress, inbound));
    let (_, mut answering) = app.next().await;
    world.running.drain.enter(Phase::Draining);
    let finishing = tokio::spawn(world.running.finish());
    // No new requests come in,
    while TcpStream::connect(ingress).await.is_ok() {
        tokio::task::yield_now().await;
    }
    // but the app, asked before, can still pay.
    let request = post(
        PAY,
        &egress.to_string(),
        "",
        b"{\"paymentRequestId\":\"R1\"}",
    );
    let paid = send(egress, request).await;
    assert!(paid.field("countersign-verdict").is_some(), "{}", paid.head);
    answering.write_all(&ok()).await.unwrap();
    assert_eq!(called.await.unwrap().status, 200);
    assert!(finishing.await.unwrap(), "in time");
    assert!(TcpStream::connect(egress).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_in_is_answered_signed_at_the_drains_deadline() {
    let mut app = RawGateway::by_hand().await;
    let rest = format!(
        "{}drain: {{ grace: 0s, deadline: 2s }}\n",
        ingress(app.address)
    );
    let world = World::with("", &rest).await;
    let inbound = message(&world.files, world.clock.now());
    let called = tokio::spawn(send(world.running.ingress[0], inbound.bytes()));
    let _never_answers = app.next().await;
    world.running.drain.enter(Phase::Draining);
    assert!(!world.running.finish().await);
    let answer = called.await.unwrap();
    assert_eq!(answer.outcome(), "shutting_down unknown 503");
    assert!(answer.field("signature").is_some());
}

/// Sends forged requests on one connection, each of which must be refused.
async fn forge(to: SocketAddr, request: Vec<u8>, count: usize) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..count {
        stream.write_all(&request).await.unwrap();
        seen.clear();
        // The body of a refusal ends in two braces, and nothing else in it does.
        while !seen.ends_with(b"}}") {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "hung up");
        }
        assert!(seen.starts_with(b"HTTP/1.1 401 "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_forged_requests_leaves_authentic_ones_served_and_memory_flat() {
    let files = Files::new();
    let app = RawGateway::answering(ok()).await;
    let gateway = RawGateway::answering(UNSIGNED).await;
    let file = files.config(&format!("http://{gateway}"), "", &ingress(app));
    let sidecar = Sidecar::run(&["run", "--config", text(&file)]);
    let ingress = sidecar.ingress;
    let good = message(&files, std::time::SystemTime::now());
    // As costly as a stranger can make it: all is right but the signature.
    let mut forged = good.clone();
    forged.body = vec![b'x'; 4000];
    let forged = String::from_utf8(forged.with(&good.headers())).unwrap();
    let forged = forged.replace("Connection: close\r\n", "").into_bytes();
    let flood = |each: usize| {
        let floods = (0..20).map(|_| tokio::spawn(forge(ingress, forged.clone(), each)));
        floods.collect::<Vec<_>>()
    };
    for warming in flood(50) {
        warming.await.unwrap();
    }
    let before = sidecar.resident();
    let flooding = flood(500);
    let mut served = 0;
    while !flooding.iter().all(tokio::task::JoinHandle::is_finished) || served < 50 {
        let answer: Answer = send(ingress, good.bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert!(answer.field("signature").is_some());
        served += 1;
    }
    for flood in flooding {
        flood.await.unwrap();
    }
    let grown = sidecar.resident().saturating_sub(before);
    assert!(grown < 8 << 20, "grown by {grown} bytes");
    let metrics = send(
        sidecar.admin,
        "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await
    .text();
    let line = "countersign_verifications_total{direction=\"ingress\",result=\"request_signature_invalid\"} 11000";
    assert!(metrics.contains(line), "{metrics}");
}
