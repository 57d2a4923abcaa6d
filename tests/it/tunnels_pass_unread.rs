//! CONNECT to hosts no route names, and upgraded connections: bytes pass untouched, ends and breaks are
//! passed on, and every tunnel is counted.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::daemon::closed_port;
use crate::support::raw::{RawGateway, connect, post, send, unreadable_greeting};
use crate::support::world::PAY;
use crate::support::{Answer, World};

/// A server that hands its connections to the test.
async fn server() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Both ends of a tunnel, and the answer to its CONNECT.
async fn tunnel(world: &World, rest: &[u8]) -> (TcpStream, TcpStream) {
    let (listener, address) = server().await;
    let target = address.to_string();
    let (app, there) = tokio::join!(connect(world.egress, &target, rest), listener.accept());
    let (app, answer) = app;
    assert_eq!(answer.status, 200, "{}", answer.head);
    (app, there.unwrap().0)
}

/// Waits until a tunnel ended with that result.
async fn ended(world: &World, result: &str) {
    let line = format!("countersign_tunnels_total{{result=\"{result}\"}}");
    world.until(&line, 1.0).await;
    assert_eq!(world.metric("countersign_tunnels_open"), 0.0);
}

async fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn any_bytes_pass_both_ways_and_a_half_close_leaves_the_other_half_open() {
    let world = World::new().await;
    let (mut app, mut there) = tunnel(&world, b"").await;
    let all: Vec<u8> = (0..=255).collect();
    app.write_all(&all).await.unwrap();
    assert_eq!(read(&mut there, 256).await, all);
    app.shutdown().await.unwrap();
    let mut rest = Vec::new();
    there.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    there.write_all(&all).await.unwrap();
    drop(there);
    app.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, all);
    ended(&world, "closed").await;
    for direction in ["sent", "received"] {
        let line = format!("countersign_tunnel_bytes_total{{direction=\"{direction}\"}}");
        assert_eq!(world.metric(&line), 256.0, "{direction}");
    }
    let line = "countersign_exchanges_total{direction=\"egress\",outcome=\"connected\",\
                route=\"unmatched\"}";
    assert_eq!(world.metric(line), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn megabytes_pass_whole_in_both_directions_at_once() {
    let world = World::new().await;
    let (app, there) = tunnel(&world, b"").await;
    let data: Vec<u8> = (0..5_000_000_u32)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    let through = |stream: TcpStream, data: Vec<u8>| async move {
        let (mut read, mut write) = stream.into_split();
        let mut back = Vec::new();
        let writing = async {
            write.write_all(&data).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let ((), read) = tokio::join!(writing, read.read_to_end(&mut back));
        read.unwrap();
        back
    };
    let (one, other) = tokio::join!(through(app, data.clone()), through(there, data.clone()));
    assert!(one == data && other == data);
    ended(&world, "closed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_right_behind_connect_is_not_lost() {
    let world = World::new().await;
    let (_app, mut there) = tunnel(&world, b"\x16\x03\x01early").await;
    assert_eq!(read(&mut there, 8).await, b"\x16\x03\x01early");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_first_is_heard() {
    let world = World::new().await;
    let (mut app, mut there) = tunnel(&world, b"").await;
    there
        .write_all(b"220 mail.example ESMTP\r\n")
        .await
        .unwrap();
    assert_eq!(read(&mut app, 24).await, b"220 mail.example ESMTP\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_breaks_off_is_passed_on_as_a_reset_and_not_as_an_end() {
    let world = World::new().await;
    let (mut app, mut there) = tunnel(&world, b"").await;
    there.write_all(b"half").await.unwrap();
    assert_eq!(read(&mut app, 4).await, b"half");
    socket2::SockRef::from(&there)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(there);
    let error = app.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    ended(&world, "broke_off").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_in_which_nothing_moves_ends_after_the_idle_timeout() {
    let world = World::with("  tunnel: { idle_timeout: 50ms }", "").await;
    let (mut app, _there) = tunnel(&world, b"").await;
    assert!(app.read(&mut [0; 1]).await.is_err(), "ended by a reset");
    ended(&world, "idle_timeout").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_to_where_they_may_not_go_are_refused_in_http() {
    let world = World::with("  tunnel: { ports: [443, 8443] }", "").await;
    let (egress, elsewhere) = (world.egress, "127.0.0.1:9");
    for (target, outcome) in [
        (elsewhere.to_owned(), "host_not_allowed not-sent 403"),
        (
            "open-sea-global.alipayplus.com:8443".to_owned(),
            "host_not_allowed not-sent 403",
        ),
        ("example.com".to_owned(), "request_malformed not-sent 400"),
        (
            "user@example.com:443".to_owned(),
            "request_malformed not-sent 400",
        ),
    ] {
        let (_, answer) = connect(egress, &target, b"").await;
        assert_eq!(answer.outcome(), outcome, "{target}");
    }
    let world = World::with("  unmatched: refuse", "").await;
    let (_, answer) = connect(world.egress, elsewhere, b"").await;
    assert_eq!(answer.outcome(), "host_not_allowed not-sent 403");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_to_the_sidecar_itself_is_a_loop() {
    let world = World::new().await;
    for port in [world.egress.port(), world.running.admin.unwrap().port()] {
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
            let (_, answer) = connect(world.egress, &format!("{host}:{port}"), b"").await;
            assert_eq!(answer.outcome(), "loop_detected not-sent 508", "{host}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_cannot_be_reached_is_told_before_the_tunnel_is_granted() {
    let world = World::new().await;
    let nobody = closed_port();
    let (_, answer) = connect(world.egress, &nobody.address.to_string(), b"").await;
    assert_eq!(answer.outcome(), "upstream_unreachable not-sent 502");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_tunnel_does_not_hold_up_the_drain() {
    let world = World::with("", "drain: { grace: 0s, deadline: 60s }").await;
    let (mut app, mut there) = tunnel(&world, b"hi").await;
    assert_eq!(read(&mut there, 2).await, b"hi");
    world
        .running
        .drain
        .enter(countersign::net::drain::Phase::Draining);
    assert!(world.running.finish().await, "long before the deadline");
    assert!(app.read(&mut [0; 1]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn http_inside_a_connect_to_a_signed_host_is_signed_and_verified() {
    let world = World::new().await;
    let host = "open-sea-global.alipayplus.com";
    let (mut app, answer) = connect(world.egress, &format!("{host}:80"), b"").await;
    assert_eq!(answer.status, 200);
    let body = crate::support::world::payment("R1");
    app.write_all(&post(PAY, host, "", body.as_bytes()))
        .await
        .unwrap();
    let answer = Answer::read(app).await;
    assert_eq!(answer.outcome(), "verdict verified");
    assert!(world.gateway().last_seen().unwrap().authentic);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_for_one_signed_host_takes_no_requests_for_another() {
    let world = World::new().await;
    let host = "open-sea-global.alipayplus.com:80";
    for target in [
        post(PAY, "open-na-global.alipayplus.com", "", b"{}"),
        post("http://elsewhere.example/", "x", "", b"{}"),
        post(PAY, &world.egress.to_string(), "", b"{}"),
    ] {
        let (mut app, _) = connect(world.egress, host, b"").await;
        app.write_all(&target).await.unwrap();
        let answer = Answer::read(app).await;
        assert_eq!(answer.outcome(), "misdirected_request not-sent 421");
    }
    let (mut app, _) = connect(world.egress, host, b"").await;
    let inner = "CONNECT a.example:443 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    app.write_all(inner.as_bytes()).await.unwrap();
    let answer = Answer::read(app).await;
    assert_eq!(answer.outcome(), "request_malformed not-sent 400");
    assert_eq!(world.gateway().deliveries(), 0);
}

const UPGRADE: &str = "Connection: Upgrade, X-Hop\r\nX-Hop: 1\r\nUpgrade: websocket\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_to_an_unsigned_host_passes() {
    let world = World::new().await;
    let mut other = RawGateway::by_hand().await;
    let mut app = TcpStream::connect(world.egress).await.unwrap();
    let request = format!(
        "GET http://{}/chat HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n",
        other.address
    );
    app.write_all(request.as_bytes()).await.unwrap();
    let (seen, mut there) = other.next().await;
    let seen = String::from_utf8(seen).unwrap().to_ascii_lowercase();
    assert!(
        seen.contains("upgrade: websocket\r\n") && seen.contains("connection: upgrade\r\n"),
        "{seen}"
    );
    assert!(!seen.contains("x-hop"), "{seen}");
    let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                    Upgrade: websocket\r\n\r\nhello";
    there.write_all(switched.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"hello") {
        assert_ne!(app.read_buf(&mut head).await.unwrap(), 0);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(
        head.contains("upgrade: websocket") && head.contains("connection: upgrade"),
        "{head}"
    );
    app.write_all(b"ping").await.unwrap();
    assert_eq!(read(&mut there, 4).await, b"ping");
    drop((app, there));
    ended(&world, "closed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_never_reaches_a_signed_host_and_h2c_nobody() {
    let world = World::new().await;
    let answer = world.pay(UPGRADE).await;
    assert_eq!(answer.outcome(), "verdict verified");
    let mut other = RawGateway::by_hand().await;
    let target = format!("http://{}/", other.address);
    let h2c =
        "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n";
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{h2c}\r\n");
    let (answer, ()) = tokio::join!(send(world.egress, request), async {
        let (seen, mut there) = other.next().await;
        let seen = String::from_utf8(seen).unwrap().to_ascii_lowercase();
        assert!(!seen.contains("upgrade"), "{seen}");
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        there.write_all(ok.as_bytes()).await.unwrap();
    });
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_never_take_the_last_connections() {
    let world = World::with("", "limits: { connections: 8 }").await;
    let mut open = Vec::new();
    for _ in 0..6 {
        open.push(tunnel(&world, b"").await);
    }
    let (listener, address) = server().await;
    let (_, answer) = connect(world.egress, &address.to_string(), b"").await;
    assert_eq!(answer.outcome(), "overloaded not-sent 503");
    assert_eq!(world.pay("").await.outcome(), "verdict verified");
    // Nor does an upgrade reach anybody when there is no place for what it would become.
    let mut other = RawGateway::by_hand().await;
    let request = format!(
        "GET http://{}/ HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n",
        other.address
    );
    let mut app = TcpStream::connect(world.egress).await.unwrap();
    app.write_all(request.as_bytes()).await.unwrap();
    app.shutdown().await.unwrap();
    let answer = Answer::read(app).await;
    assert_eq!(answer.outcome(), "overloaded not-sent 503");
    assert!(other.arrived().is_none());
    drop(open);
    world.until("countersign_tunnels_open", 0.0).await;
    let (_, answer) = connect(world.egress, &address.to_string(), b"").await;
    assert_eq!(answer.status, 200);
    drop(listener);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_host_is_noticed_behind_an_address() {
    let world = World::new().await;
    let host = "open-sea-global.alipayplus.com";
    // HTTP: signed like any other.
    let (listener, address) = server().await;
    let body = crate::support::world::payment("R1");
    let request = post(PAY, host, "", body.as_bytes());
    let (app, answer) = connect(world.egress, &address.to_string(), &request).await;
    assert_eq!(answer.status, 200);
    assert_eq!(Answer::read(app).await.outcome(), "verdict verified");
    // TLS that cannot be understood, and names it all the same: refused, not carried.
    let greeting = unreadable_greeting(host);
    let (mut app, _) = connect(world.egress, &address.to_string(), &greeting).await;
    let mut alert = Vec::new();
    app.read_to_end(&mut alert).await.unwrap();
    assert_eq!(alert, [21, 3, 3, 0, 2, 2, 40]);
    // What names nobody of ours is carried, TLS or not.
    let greeting = b"\x16old elsewhere.example";
    let (_app, _) = connect(world.egress, &address.to_string(), greeting).await;
    let carried = async {
        loop {
            let (mut there, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            // What was written in one piece may come in several.
            while seen.len() < greeting.len() && there.read_buf(&mut seen).await.unwrap() > 0 {}
            if !seen.is_empty() {
                return seen;
            }
        }
    };
    assert_eq!(carried.await, greeting);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_with_a_body_is_refused() {
    let world = World::new().await;
    let request = "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nContent-Length: 2\r\n\
                   Connection: close\r\n\r\n{}";
    let answer = send(world.egress, request).await;
    assert_eq!(answer.outcome(), "request_malformed not-sent 400");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_to_a_protocol_nobody_asked_for_is_refused() {
    let world = World::new().await;
    let switched =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ssh\r\n\r\n";
    let other = RawGateway::answering(switched).await;
    let request = format!("GET http://{other}/ HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n");
    let mut app = TcpStream::connect(world.egress).await.unwrap();
    app.write_all(request.as_bytes()).await.unwrap();
    app.shutdown().await.unwrap();
    assert_eq!(
        Answer::read(app).await.outcome(),
        "upstream_malformed unknown 502"
    );
}
