//! Every connection the sidecar opens is known as its own while it is open; connections may be opened
//! for tunnels, and change their protocol when asked to.

use std::net::SocketAddr;
use std::time::Instant;

use countersign::exchange::{Code, Delivery};
use countersign::upstream::{Host, OwnAddresses};
use http::{StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::World;
use crate::support::process::PATIENCE;
use crate::support::raw::{RawGateway, UNSIGNED};
use crate::support::upstream::WayOut;

const WEBSOCKET: [(&str, &str); 2] = [("connection", "upgrade"), ("upgrade", "websocket")];
const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
    Upgrade: websocket\r\n\r\nhello";

fn host(text: &str) -> Host {
    text.parse().unwrap()
}

async fn forgotten(own: &OwnAddresses, from: SocketAddr, to: SocketAddr) {
    let start = Instant::now();
    while own.dialled_by_us(from, to) {
        assert!(start.elapsed() < PATIENCE, "{from} is still known");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_tunnel_is_known_as_ours_until_it_is_closed() {
    let way = WayOut::trusting(None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let mut dialled = way
        .upstream
        .dial(&host("localhost"), to.port())
        .await
        .unwrap();
    let (mut accepted, from) = listener.accept().await.unwrap();
    assert!(way.own.dialled_by_us(from, to));
    dialled.write_all(b"ping").await.unwrap();
    let mut four = [0; 4];
    accepted.read_exact(&mut four).await.unwrap();
    accepted.write_all(&four).await.unwrap();
    dialled.read_exact(&mut four).await.unwrap();
    assert_eq!(&four, b"ping");
    drop(dialled);
    assert!(!way.own.dialled_by_us(from, to));
    assert_eq!(way.connects("ok"), 1);
}

#[tokio::test]
async fn a_pooled_connection_is_known_from_its_first_byte_until_it_is_closed() {
    let way = WayOut::trusting(None);
    let mut server = RawGateway::by_hand().await;
    let uri = format!("http://{}/", server.address);
    let (answer, (mut stream, from)) = tokio::join!(way.relay(&uri, &[]), async {
        let (_, mut stream) = server.next().await;
        let from = stream.peer_addr().unwrap();
        assert!(way.own.dialled_by_us(from, server.address));
        stream.write_all(UNSIGNED.as_bytes()).await.unwrap();
        (stream, from)
    });
    drop(answer.unwrap());
    assert!(way.own.dialled_by_us(from, server.address));
    stream.shutdown().await.unwrap();
    forgotten(&way.own, from, server.address).await;
}

#[tokio::test]
async fn a_tunnel_into_ourselves_or_to_nobody_is_not_opened() {
    let way = WayOut::trusting(None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    way.own.set(vec![SocketAddr::from(([0, 0, 0, 0], port))]);
    let fault = way
        .upstream
        .dial(&host("localhost"), port)
        .await
        .unwrap_err();
    assert_eq!(
        (fault.code(), fault.delivered()),
        (Code::LoopDetected, Delivery::NotSent)
    );
    let chain = fault.chain();
    assert!(chain.contains("localhost resolves to "), "{chain}");
    assert!(
        chain.contains("resolve.nameservers or resolve.hosts"),
        "{chain}"
    );
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let fault = way
        .upstream
        .dial(&host("127.0.0.1"), port)
        .await
        .unwrap_err();
    assert_eq!(
        (fault.code(), fault.delivered()),
        (Code::UpstreamUnreachable, Delivery::NotSent)
    );
    assert_eq!(
        (way.connects("loop"), way.connects("connect_failed")),
        (1, 1)
    );
}

#[tokio::test]
async fn a_request_that_asks_may_switch_protocols() {
    let way = WayOut::trusting(None);
    let mut server = RawGateway::by_hand().await;
    let uri = format!("http://{}/", server.address);
    let (answer, mut stream) = tokio::join!(way.relay(&uri, &WEBSOCKET), async {
        let (request, mut stream) = server.next().await;
        let request = String::from_utf8(request).unwrap().to_ascii_lowercase();
        assert!(request.contains("\r\nupgrade: websocket\r\n"), "{request}");
        stream.write_all(SWITCHED).await.unwrap();
        stream
    });
    let answer = answer.unwrap();
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut upgraded = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    let (mut hello, mut moin) = ([0; 5], [0; 4]);
    upgraded.read_exact(&mut hello).await.unwrap();
    upgraded.write_all(b"moin").await.unwrap();
    stream.read_exact(&mut moin).await.unwrap();
    assert_eq!((&hello, &moin), (b"hello", b"moin"));
    let from = stream.peer_addr().unwrap();
    assert!(way.own.dialled_by_us(from, server.address));
    drop(upgraded);
    forgotten(&way.own, from, server.address).await;
}

#[tokio::test]
async fn a_switch_nobody_asked_for_is_a_fault() {
    let way = WayOut::trusting(None);
    let server = RawGateway::answering(SWITCHED).await;
    let fault = way
        .relay(&format!("http://{server}/"), &[])
        .await
        .unwrap_err();
    assert_eq!(fault.code(), Code::UpstreamMalformed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_asks_for_another_protocol_leaves_over_http_1() {
    let world = World::speaking(true, "", "").await;
    let gateway = world.gateway.as_ref().unwrap().address.port();
    let way = WayOut::trusting(Some(&world.files.path("ca.pem")));
    let uri = format!("https://localhost:{gateway}/");
    for (fields, version) in [
        (&[] as &[_], Version::HTTP_2),
        (&WEBSOCKET, Version::HTTP_11),
    ] {
        let answer = way.relay(&uri, fields).await.unwrap();
        assert_eq!(answer.version(), version, "{fields:?}");
    }
}
