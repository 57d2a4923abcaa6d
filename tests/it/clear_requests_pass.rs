//! What can be read in one way only passes byte for byte, however it is cut into pieces; and what follows
//! a request is left to whom it belongs.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::entrances::{Entrances, SEA, Stream, Way};
use crate::support::inbound::Inbound;
use crate::support::raw::{RawGateway, UNSIGNED, connect, post, read_message, send};
use crate::support::{Answer, World};

/// The status of the next answer, which has a Content-Length; not of an interim one.
async fn next_status(stream: &mut (impl Stream + ?Sized), rest: &mut Vec<u8>) -> u16 {
    loop {
        let text = String::from_utf8_lossy(rest).to_ascii_lowercase();
        if let Some(end) = text.find("\r\n\r\n") {
            let length = text[..end]
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if rest.len() >= end + 4 + length {
                let status = text.split(' ').nth(1).unwrap().parse().unwrap();
                rest.drain(..end + 4 + length);
                if status != 100 {
                    return status;
                }
                continue;
            }
        }
        assert_ne!(stream.read_buf(rest).await.unwrap(), 0, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_piece_of_a_request_may_come_by_itself() {
    let world = World::new().await;
    let body = r#"{"paymentRequestId":"R1"}"#;
    let chunks = format!(
        "5;a=b\r\n{}\r\n14\r\n{}\r\n0\r\nX: y\r\n\r\n",
        &body[..5],
        &body[5..]
    );
    let head = format!(
        "POST /aps/api/v1/payments/pay HTTP/1.1\r\nHost: {}\r\n",
        world.egress
    );
    let chunked = format!("\r\n{head}Transfer-Encoding: chunked\r\n\r\n{chunks}");
    let plain = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let both = plain + &chunked;
    // Two requests each time, cut at every offset; and once in single bytes.
    let mut pieces: Vec<Vec<&[u8]>> = (1..both.len())
        .map(|at| vec![&both.as_bytes()[..at], &both.as_bytes()[at..]])
        .collect();
    pieces.push(both.as_bytes().chunks(1).collect());
    let mut stream = TcpStream::connect(world.egress).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut rest = Vec::new();
    for (round, pieces) in pieces.iter().enumerate() {
        for piece in pieces {
            stream.write_all(piece).await.unwrap();
            // Lets the sidecar read this piece alone, most times.
            tokio::task::yield_now().await;
        }
        for _ in 0..2 {
            assert_eq!(
                next_status(&mut stream, &mut rest).await,
                200,
                "round {round}"
            );
            let seen = world.gateway().last_seen().unwrap();
            assert!(seen.authentic && seen.body == body, "round {round}");
        }
    }
    assert_eq!(world.gateway().deliveries(), 2 * pieces.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unusual_but_clear_passes_at_every_entrance() {
    let entrances = Entrances::new().await;
    for way in [Way::Admin, Way::Sandbox, Way::Ingress, Way::IngressTls] {
        let host = entrances.host(way);
        for request in [
            "\r\nGET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n",
            "\r\n\r\nGET /livez HTTP/1.1\r\nhost:{host}\r\n\r\n",
            "GET /livez HTTP/1.1\r\nHOST: \t{host} \t\r\n\r\n",
            "GET http://{host}/livez HTTP/1.1\r\nHost: other.example\r\n\r\n",
            "GET /livez HTTP/1.0\r\nHost: {host}\r\nConnection: keep-alive\r\n\r\n",
            "GET /livez HTTP/1.1\r\nHost: {host}\r\nX!#$%&'*+-.^_`|~: \"(),/:;<=>?@[\\]{}\t\r\n\r\n",
            "GET /livez HTTP/1.1\r\nHost: {host}\r\nA:\r\nA: \r\nA: \u{e4}\r\n\r\n",
            "GET /livez?a=%00&b={}|^`~ HTTP/1.1\r\nHost: {host}\r\n\r\n",
            "GET /livez HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
            "POST /livez HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n",
            "POST /livez HTTP/1.1\r\nHost: {host}\r\nContent-Length:   2\r\n\r\n{}",
            "POST /livez HTTP/1.1\r\nHost: {host}\r\nTRANSFER-ENCODING:chunked\r\n\r\n\
             2 ; a = b ;c;d=\"e;\\\"\t\"\r\n{}\r\n00\r\nX: y\r\n\r\n",
            "POST /livez HTTP/1.1\r\nHost: {host}\r\nContent-Type: a/b\r\nContent-Type: a/b\r\n\
             Content-Length: 2\r\n\r\n{}",
            "POST /livez HTTP/1.1\r\nHost: {host}\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n{}",
            "OPTIONS * HTTP/1.1\r\nHost: {host}\r\n\r\n",
            "FROBNICATE /livez HTTP/1.1\r\nHost: {host}\r\n\r\n",
        ] {
            let request = request.replace("{host}", &host);
            let mut stream = entrances.open(way).await;
            // Twice: the end of the first one was found where it is.
            let twice = [request.as_bytes(), request.as_bytes()].concat();
            stream.write_all(&twice).await.unwrap();
            let mut rest = Vec::new();
            let status = next_status(&mut *stream, &mut rest).await;
            assert!(
                ![400, 417, 501].contains(&status),
                "{way:?} {status} {request:?}"
            );
            let again = next_status(&mut *stream, &mut rest).await;
            assert_eq!(again, status, "{way:?} {request:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_exactly_the_limits_passes_and_one_byte_more_does_not() {
    let entrances = Entrances::new().await;
    let host = "x";
    let send = async |way, request: String| entrances.send(way, request.as_bytes()).await.status;
    let line = |length: usize| {
        let rest = format!("GET /livez? HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let line = rest.find('\r').unwrap();
        rest.replacen('?', &format!("?{}", "a".repeat(length - line)), 1)
    };
    let head = |length: usize| {
        let start = format!("GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nA: ");
        let pad = length - start.len() - 4;
        format!("{start}{}\r\n\r\n", "a".repeat(pad))
    };
    let way = Way::Sandbox;
    let passes = send(way, head(1000)).await;
    assert_eq!(send(way, line(16 * 1024)).await, passes);
    assert_eq!(send(way, line(16 * 1024 + 1)).await, 414);
    assert_eq!(send(way, head(64 * 1024)).await, passes);
    assert_eq!(send(way, head(64 * 1024 + 1)).await, 431);
    // Few need the admin port, and many reach it.
    let way = Way::Admin;
    assert_eq!(send(way, head(16 * 1024)).await, 200);
    assert_eq!(send(way, head(16 * 1024 + 1)).await, 431);
    let fields = |count: usize| {
        let more: String = (2..count)
            .map(|number| format!("A{number}: b\r\n"))
            .collect();
        format!("GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n")
    };
    assert_eq!(send(way, fields(100)).await, 200);
    assert_eq!(send(way, fields(101)).await, 431);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_to_requests_before_a_malformed_one_come_first_and_in_order() {
    let mut gateway = RawGateway::by_hand().await;
    let world = World::before(&format!("http://{}", gateway.address), "", "").await;
    let one = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: {SEA}\r\nContent-Length: 2\r\n\r\n{{}}")
    };
    let malformed = one("/three").replace("Host", "Host ");
    let mut app = TcpStream::connect(world.egress).await.unwrap();
    let all = format!("{}{}{malformed}{}", one("/one"), one("/two"), one("/four"));
    app.write_all(all.as_bytes()).await.unwrap();
    let mut connection = None;
    for path in ["/one", "/two"] {
        // On the connection of the one before, or on a new one.
        let (seen, mut stream) = match connection.take() {
            None => gateway.next().await,
            Some(mut stream) => tokio::select! {
                next = gateway.next() => next,
                seen = read_message(&mut stream) => (seen.unwrap(), stream),
            },
        };
        assert!(seen.starts_with(format!("POST {path} ").as_bytes()));
        let answer = UNSIGNED.replace("\r\n\r\n", &format!("\r\nPath: {path}\r\n\r\n"));
        stream.write_all(answer.as_bytes()).await.unwrap();
        connection = Some(stream);
    }
    let mut seen = String::new();
    app.read_to_string(&mut seen).await.unwrap();
    let order =
        ["path: /one", "path: /two", "HTTP/1.1 400 Bad Request"].map(|part| seen.find(part));
    assert!(
        order.is_sorted() && order.iter().all(Option::is_some),
        "{seen}"
    );
    assert_eq!(seen.matches("HTTP/1.1 ").count(), 3, "{seen}");
    assert!(gateway.arrived().is_none() && gateway.connections() <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_right_behind_a_connect_belong_to_the_tunnel() {
    let world = World::new().await;
    let there = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = there.local_addr().unwrap().to_string();
    // What no request could look like, and what one does.
    for early in [
        b"\x01\x02\n\n\r \0\r\n\r\n".as_slice(),
        b"GET  / HTTP/1.1\n\n",
        b"\xff",
    ] {
        let ((mut app, answer), accepted) =
            tokio::join!(connect(world.egress, &target, early), there.accept());
        assert_eq!(answer.status, 200);
        let mut far = accepted.unwrap().0;
        let mut seen = vec![0; early.len()];
        far.read_exact(&mut seen).await.unwrap();
        assert_eq!(seen, early);
        app.write_all(b"\n\r\n\n").await.unwrap();
        let mut seen = [0; 4];
        far.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"\n\r\n\n");
    }
    let line = "countersign_malformed_requests_total{listener=\"egress\",reason=\"bare_lf\"}";
    assert_eq!(world.metric(line), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_right_behind_an_upgrade_belong_to_its_protocol() {
    let world = World::new().await;
    let mut other = RawGateway::by_hand().await;
    let early = b"\x81\x05\n\nhi\0";
    let head = format!(
        "GET http://{}/chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        other.address
    );
    let mut app = TcpStream::connect(world.egress).await.unwrap();
    app.write_all(&[head.as_bytes(), early].concat())
        .await
        .unwrap();
    let (_, mut there) = other.next().await;
    let switched =
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    there.write_all(switched.as_bytes()).await.unwrap();
    let mut seen = [0; 7];
    there.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, early);
    app.write_all(b"\n\r\n\n").await.unwrap();
    let mut seen = [0; 4];
    there.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"\n\r\n\n");
    there.write_all(b"\n\n\0").await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\n\n\0") {
        assert_ne!(app.read_buf(&mut bytes).await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_behind_a_refused_connect_or_upgrade_are_guarded() {
    let world = World::with("  unmatched: refuse", "").await;
    let refused = "CONNECT a.example:443 HTTP/1.1\r\nHost: a\r\n\r\n";
    for behind in [
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "\x16\x03\x01",
    ] {
        let mut app = TcpStream::connect(world.egress).await.unwrap();
        app.write_all(format!("{refused}{behind}").as_bytes())
            .await
            .unwrap();
        let mut rest = Vec::new();
        assert_eq!(next_status(&mut app, &mut rest).await, 403);
        app.read_to_end(&mut rest).await.unwrap();
        let answer = Answer::read(&rest[..]).await;
        assert_eq!(
            answer.outcome(),
            "request_malformed not-sent 400",
            "{behind:?}"
        );
    }
    // An upgrade that the other side declines is a request like any other.
    let (world, mut other) = (World::new().await, RawGateway::by_hand().await);
    let head = format!(
        "GET http://{}/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        other.address
    );
    let mut app = TcpStream::connect(world.egress).await.unwrap();
    let behind = "GET / HTTP/1.1\r\nHost : a\r\n\r\n";
    app.write_all(format!("{head}{behind}").as_bytes())
        .await
        .unwrap();
    let (_, mut there) = other.next().await;
    there.write_all(UNSIGNED.as_bytes()).await.unwrap();
    let mut rest = Vec::new();
    assert_eq!(next_status(&mut app, &mut rest).await, 200);
    app.read_to_end(&mut rest).await.unwrap();
    let answer = Answer::read(&rest[..]).await;
    assert_eq!(answer.outcome(), "request_malformed not-sent 400");
    assert!(other.arrived().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn options_and_trace_go_as_many_hops_as_they_say() {
    let mut gateway = RawGateway::by_hand().await;
    let world = World::before(&format!("http://{}", gateway.address), "", "").await;
    let other = gateway.address;
    for method in ["OPTIONS", "TRACE", "GET"] {
        // To a signed host, and to another one.
        for target in [format!("http://{SEA}/p"), format!("http://{other}/p")] {
            for (hops, passed) in [("3", Some("2")), ("1", Some("0")), ("0", None), ("x", None)] {
                let request = format!(
                    "{method} {target} HTTP/1.1\r\nHost: x\r\nMax-Forwards: {hops}\r\n\
                     Connection: close\r\n\r\n"
                );
                // Only these two methods are counted.
                let passed = if method == "GET" { Some(hops) } else { passed };
                let sending = send(world.egress, request);
                let Some(passed) = passed else {
                    let outcome = sending.await.outcome();
                    assert_eq!(outcome, "request_malformed not-sent 501", "{method} {hops}");
                    continue;
                };
                let (answer, seen) = tokio::join!(sending, async {
                    let (seen, mut stream) = gateway.next().await;
                    let last = UNSIGNED.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
                    stream.write_all(last.as_bytes()).await.unwrap();
                    String::from_utf8(seen).unwrap()
                });
                assert_eq!(answer.status, 200);
                let line = format!("\r\nmax-forwards: {passed}\r\n");
                assert!(seen.contains(&line), "{method} {hops}: {seen}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_keeps_no_connection_of_http_1_0() {
    let entrances = Entrances::new().await;
    for (way, kept) in [(Way::Proxy, false), (Way::Admin, true)] {
        let host = entrances.host(way);
        let request = format!(
            "GET http://127.0.0.1:9/livez HTTP/1.0\r\nHost: {host}\r\nConnection: keep-alive\r\n\r\n"
        );
        let mut stream = entrances.open(way).await;
        stream
            .write_all(&[request.as_bytes(), request.as_bytes()].concat())
            .await
            .unwrap();
        let mut rest = Vec::new();
        next_status(&mut *stream, &mut rest).await;
        if kept {
            assert_eq!(next_status(&mut *stream, &mut rest).await, 200);
        } else {
            stream.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"", "{way:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_target_wins_over_host_and_replaces_it() {
    let mut gateway = RawGateway::by_hand().await;
    let world = World::before(&format!("http://{}", gateway.address), "", "").await;
    let other = gateway.address;
    for target in [format!("http://{SEA}/p"), format!("http://{other}/p")] {
        for host in [
            "evil.example",
            "open-na-global.alipayplus.com",
            "127.0.0.1:1",
        ] {
            let request = post(&target, host, "", b"{}");
            let ((), (seen, _)) = tokio::join!(
                async {
                    let mut app = TcpStream::connect(world.egress).await.unwrap();
                    app.write_all(&request).await.unwrap();
                },
                gateway.next()
            );
            let seen = String::from_utf8(seen).unwrap().to_ascii_lowercase();
            assert!(seen.contains(&format!("\r\nhost: {other}\r\n")), "{seen}");
            assert_eq!(seen.matches("\nhost:").count(), 1, "{seen}");
            assert_eq!(
                seen.contains("\nsignature:"),
                target.contains(SEA),
                "{seen}"
            );
        }
    }
    // The app behind ingress is told the host that was routed by.
    let mut inbound = Inbound::new().await;
    let message = inbound.message("http://pay.partner.example/p", b"{}");
    let signed = inbound.message("/p", b"{}").headers();
    let request = String::from_utf8(message.with(&signed)).unwrap();
    let request = request.replace("Host: pay.partner.example", "Host: evil.example");
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let (got, seen) = inbound
        .exchange(request.into_bytes(), answer.as_bytes())
        .await;
    assert_eq!(got.status, 200, "{}", got.text());
    assert!(seen.contains("\r\nhost: pay.partner.example\r\n"), "{seen}");
}
