//! No request reaches the app unless its caller proved to be Alipay+, or the route says otherwise by
//! name; and a caller who proves nothing gets nothing signed.

use std::time::Duration;

use countersign_protocol::{Offset, PrivateKey, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::Answer;
use crate::support::inbound::{Inbound, Message, NOTIFY, SUCCESS};
use crate::support::pki::Pki;
use crate::support::raw::send;

fn ok(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A refusal: its code, unsigned, and nothing the app saw.
async fn refused(world: &mut Inbound, request: Vec<u8>) -> String {
    let answer = send(world.ingress, request).await;
    for name in ["signature", "response-time", "client-id"] {
        assert_eq!(answer.field(name), None, "a refusal is not signed");
    }
    assert!(
        world.app.arrived().is_none(),
        "the app saw a refused request"
    );
    let result = &answer.json()["result"];
    assert_ne!(result["resultStatus"], "S");
    format!(
        "{} {} {}",
        answer.status,
        answer.field("countersign-error").unwrap_or("-"),
        result["resultCode"].as_str().unwrap()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authentic_request_reaches_the_app_byte_for_byte() {
    let mut world = Inbound::new().await;
    let body = "{\"a\":  \"ä\\u00e4\"}\n".as_bytes();
    let message = world.message("/alipayplus//notify%2fPayment?x=%7E&y", body);
    let headers = format!(
        "{}countersign-verdict: verified\r\nCountersign_Verdict: verified\r\nX-Other: 1\r\n\
         Connection: X-Hop, host, signature, client-id\r\nX-Hop: 1\r\nCountersign.Verdict: verified\r\nAccept-Encoding: gzip, br\r\n",
        message.headers()
    );
    let (answer, seen) = world.exchange(message.with(&headers), &ok(SUCCESS)).await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert!(
        seen.starts_with("POST /alipayplus//notify%2fPayment?x=%7E&y HTTP/1.1\r\n"),
        "{seen}"
    );
    assert!(seen.ends_with("{\"a\":  \"ä\\u00e4\"}\n"), "{seen}");
    let lower = seen.to_ascii_lowercase();
    for line in [
        "\r\nhost: pay.partner.example\r\n",
        "\r\nx-other: 1\r\n",
        "\r\nsignature: algorithm=rsa256,",
        "\r\nrequest-time: ",
        "\r\nclient-id: ",
    ] {
        assert!(lower.contains(line), "{line:?}: {seen}");
    }
    assert_eq!(lower.matches("verdict").count(), 1, "{seen}");
    assert!(lower.contains("\r\ncountersign-verdict: verified\r\n"));
    assert!(!lower.contains("x-hop"), "{seen}");
    // What is signed must be what is sent, so let there be nothing to decode.
    assert!(
        lower.contains("\r\naccept-encoding: identity\r\n"),
        "{seen}"
    );
    assert_eq!(world.verifications("verified"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "one table of all flaws")]
async fn every_flaw_has_its_own_code_and_none_reaches_the_app() {
    let mut world = Inbound::new().await;
    let good = world.message(NOTIFY, b"{}");
    let headers = good.headers();
    let without = |name: &str| {
        let lines = headers.split_inclusive("\r\n");
        lines
            .filter(|line| !line.starts_with(name))
            .collect::<String>()
    };
    let changed = |change: &dyn Fn(&mut Message)| {
        let mut message = good.clone();
        change(&mut message);
        message
    };
    let hour = Duration::from_secs(3600);
    let at = |instant| Timestamp::at(instant, Offset::default()).to_string();
    let stale = changed(&|one| one.time = at(world.clock.now() - hour));
    let early = changed(&|one| one.time = at(world.clock.now() + hour));
    let stranger = changed(&|one| one.client_id = "SOMEBODY_ELSE".to_owned());
    let version = changed(&|one| one.key_version = 7);
    let forger = changed(&|one| one.key = PrivateKey::generate(2048).unwrap());
    let invalid = "401 request_signature_invalid INVALID_SIGNATURE";
    let malformed = "401 request_signature_malformed INVALID_SIGNATURE";
    let missing = "401 request_signature_missing INVALID_SIGNATURE";
    let time = "401 request_time_unacceptable INVALID_SIGNATURE";
    for (label, request, expected) in [
        ("nothing", good.with(""), missing),
        ("no Signature", good.with(&without("Signature")), missing),
        (
            "no Request-Time",
            good.with(&without("Request-Time")),
            missing,
        ),
        ("no Client-Id", good.with(&without("Client-Id")), missing),
        (
            "two Signatures",
            good.with(&format!("{headers}Signature: x\r\n")),
            malformed,
        ),
        (
            "two Request-Times",
            good.with(&format!("{headers}Request-Time: x\r\n")),
            malformed,
        ),
        (
            "two Client-Ids",
            good.with(&format!("{headers}Client-Id: x\r\n")),
            malformed,
        ),
        (
            "twin of Client-Id",
            good.with(&format!("{headers}Client_Id: x\r\n")),
            malformed,
        ),
        (
            "dotted twin of Client-Id",
            good.with(&format!("{headers}Client.Id: x\r\n")),
            malformed,
        ),
        (
            "twin of Request-Time",
            good.with(&format!("{headers}request_time: x\r\n")),
            malformed,
        ),
        (
            "unreadable",
            good.with(&headers.replace("signature=", "signature=%")),
            malformed,
        ),
        (
            "unreadable time",
            good.with(&headers.replace("Request-Time: ", "Request-Time: x")),
            time,
        ),
        ("stale", stale.bytes(), time),
        ("early", early.bytes(), time),
        (
            "another client",
            stranger.bytes(),
            "401 request_client_unknown INVALID_CLIENT",
        ),
        (
            "another key version",
            version.bytes(),
            "401 request_key_unknown KEY_NOT_FOUND",
        ),
        ("another key", forger.bytes(), invalid),
        (
            "another body",
            changed(&|one| one.body = b"[]".to_vec()).with(&headers),
            invalid,
        ),
        (
            "another path",
            changed(&|one| one.uri = "/other".to_owned()).with(&headers),
            invalid,
        ),
        (
            "another query",
            changed(&|one| one.uri += "?a").with(&headers),
            invalid,
        ),
        (
            "another method",
            changed(&|one| one.method = "PUT".to_owned()).with(&headers),
            invalid,
        ),
    ] {
        assert_eq!(refused(&mut world, request).await, expected, "{label}");
    }
    assert_eq!(world.app.connections(), 0);
    assert_eq!(world.metric("countersign_sign_duration_seconds_count"), 0.0);
    // What shows before the signature is never verified: five were, once each.
    assert_eq!(
        world.metric("countersign_verify_duration_seconds_count"),
        5.0
    );
    assert_eq!(world.verifications("request_signature_invalid"), 5.0);
    assert_eq!(world.verifications("request_key_unknown"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn report_and_off_let_pass_by_name_and_sign_nothing_for_strangers() {
    for (verify, verdict) in [("report", "failed"), ("off", "unchecked")] {
        let mut world = Inbound::with(&format!("      verify: {verify}"), "").await;
        let good = world.message(NOTIFY, b"{}");
        let headers = format!("{}Client_Id: x\r\n", good.headers());
        for request in [good.with(""), good.with(&headers)] {
            let (answer, seen) = world.exchange(request, &ok(SUCCESS)).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.field("signature"), None, "{verify}");
            let seen = seen.to_ascii_lowercase();
            assert!(
                seen.contains(&format!("countersign-verdict: {verdict}")),
                "{seen}"
            );
            assert!(!seen.contains("client_id"), "{seen}");
        }
        let (answer, _) = world.exchange(good.bytes(), &ok(SUCCESS)).await;
        assert_eq!(answer.field("signature").is_some(), verify == "report");
    }
    let mut world = Inbound::with("      verify: report", "").await;
    let good = world.message(NOTIFY, b"{}");
    world.exchange(good.with(""), &ok(SUCCESS)).await;
    assert_eq!(world.verifications("request_signature_missing"), 1.0);
    assert_eq!(world.verifications("verified"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_path_is_verified_and_the_app_sees_its_own() {
    let route = "      path_prefix: /alipayplus\n      prefix_rewrite: /internal/hooks";
    let mut world = Inbound::with(route, "").await;
    let good = world.message(&format!("{NOTIFY}?a=%2F"), b"{}");
    let (answer, seen) = world.exchange(good.bytes(), &ok(SUCCESS)).await;
    assert!(
        seen.starts_with("POST /internal/hooks/notifyPayment?a=%2F HTTP/1.1"),
        "{seen}"
    );
    assert_eq!(world.flaw(&good, &answer), None);
    let other = world.message("/other", b"{}");
    assert_eq!(
        refused(&mut world, other.bytes()).await,
        "404 no_route PARAM_ILLEGAL"
    );
    // Signed for the path the app sees: not what Alipay+ posted to.
    let inner = world.message("/internal/hooks/notifyPayment", b"{}");
    let request = Message {
        uri: NOTIFY.to_owned(),
        ..inner.clone()
    };
    let refusal = refused(&mut world, request.with(&inner.headers())).await;
    assert_eq!(refusal, "401 request_signature_invalid INVALID_SIGNATURE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_for_one_client_takes_no_other() {
    let mut world = Inbound::with("      identity: OTHER", "").await;
    let good = world.message(NOTIFY, b"{}");
    let refusal = refused(&mut world, good.bytes()).await;
    assert_eq!(refusal, "401 request_client_unknown INVALID_CLIENT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_here_before_is_reported_or_refused_as_the_route_says() {
    for (replay, second) in [("off", 200), ("report", 200), ("enforce", 401)] {
        let mut world = Inbound::with(&format!("      replay: {replay}"), "").await;
        let good = world.message(NOTIFY, b"{}");
        let (answer, _) = world.exchange(good.bytes(), &ok(SUCCESS)).await;
        assert_eq!(answer.status, 200);
        if second == 200 {
            let (answer, _) = world.exchange(good.bytes(), &ok(SUCCESS)).await;
            assert_eq!(answer.status, second, "{replay}");
        } else {
            let refusal = refused(&mut world, good.bytes()).await;
            assert_eq!(refusal, "401 request_replayed UNKNOWN_EXCEPTION");
        }
        // A forged one that repeats the signature is no replay.
        let forged = Message {
            body: b"[]".to_vec(),
            ..good.clone()
        };
        refused(&mut world, forged.with(&good.headers())).await;
        let count = world.metric("countersign_replays_total{route=\"/\"}");
        assert_eq!(count, if replay == "off" { 0.0 } else { 1.0 }, "{replay}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_bounded_in_bytes_and_time() {
    let mut world = Inbound::with("      request_limit: 10\n      timeout: 500ms", "").await;
    let large = world.message(NOTIFY, b"0123456789a");
    let refusal = refused(&mut world, large.bytes()).await;
    assert_eq!(refusal, "413 request_too_large PARAM_ILLEGAL");
    let good = world.message(NOTIFY, b"{}");
    let mut slow = TcpStream::connect(world.ingress).await.unwrap();
    let bytes = good.bytes();
    slow.write_all(&bytes[..bytes.len() - 1]).await.unwrap();
    let answer = Answer::read(slow).await;
    assert_eq!(answer.field("countersign-error"), Some("request_timeout"));
    // Who cannot be anybody is not waited for at all.
    let mut nobody = TcpStream::connect(world.ingress).await.unwrap();
    let head = format!("POST {NOTIFY} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n");
    nobody.write_all(head.as_bytes()).await.unwrap();
    let answer = Answer::read(nobody).await;
    assert_eq!(answer.status, 401);
    assert!(world.app.arrived().is_none());
}

/// What comes back on a connection of its own, if anything.
async fn raw(to: std::net::SocketAddr, request: Vec<u8>) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // A refused connection may be reset while it is still written to.
    let _refused = stream.write_all(&request).await;
    let _gone = stream.shutdown().await;
    let mut bytes = Vec::new();
    let _reset = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_change_of_a_byte_reaches_the_app_where_the_signature_covers_it() {
    let mut world = Inbound::new().await;
    let good = world.message(&format!("{NOTIFY}?a=1"), b"{\"id\":1}");
    let bytes = good.bytes();
    // A fixed generator: a failure can be repeated.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let (mut passed, mut refused) = (0, 0);
    for round in 0..600 {
        let mut changed = bytes.clone();
        let at = next(changed.len());
        match round % 3 {
            0 => changed[at] ^= 1 << next(8),
            1 => drop(changed.remove(at)),
            _ => changed.insert(at, b" \r\n\t%,=;:x"[next(10)]),
        }
        let sending = raw(world.ingress, changed.clone());
        let mut sending = std::pin::pin!(sending);
        let got = tokio::select! {
            got = &mut sending => got,
            (seen, mut stream) = world.app.next() => {
                let seen = String::from_utf8_lossy(&seen).into_owned();
                let line = format!("POST {NOTIFY}?a=1 HTTP/1.1\r\n");
                assert!(seen.starts_with(&line), "{seen}");
                assert!(seen.ends_with("\r\n\r\n{\"id\":1}"), "{seen}");
                assert!(seen.contains("countersign-verdict: verified"), "{seen}");
                stream.write_all(&ok(SUCCESS)).await.unwrap();
                drop(stream);
                passed += 1;
                let got = sending.await;
                assert!(got.contains("\r\nsignature: "), "{got}");
                continue;
            }
        };
        assert!(!got.contains("\r\nsignature: "), "round {round}: {got}");
        refused += 1;
    }
    // Changes of what is not signed, such as the host's name, pass: both kinds were tried.
    assert!(
        passed > 20 && refused > 300,
        "{passed} passed, {refused} refused"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn alipay_plus_may_call_over_tls_and_http_2() {
    let pki = Pki::new();
    let file = |name: &str| pki.path(name).display().to_string();
    let tls = format!(
        "  tls: {{ certificate_file: {}, key_file: {} }}",
        file("one.pem"),
        file("one.key")
    );
    let mut world = Inbound::with("", &tls).await;
    let message = world.message(NOTIFY, b"{\"a\":1}");
    for (version, expected) in [("--http2", "2 200"), ("--http1.1", "1.1 200")] {
        let mut curl = tokio::process::Command::new("curl");
        curl.args(["-sS", version, "--cacert", &file("ca.pem")])
            .args(["-d", "{\"a\":1}", "-o", "/dev/null"])
            .args(["-w", "%{http_version} %{http_code} %header{signature}"]);
        for line in message.headers().trim_end().split("\r\n") {
            curl.args(["-H", line]);
        }
        curl.arg(format!(
            "https://localhost:{}{NOTIFY}",
            world.ingress.port()
        ));
        let (output, seen) = tokio::join!(curl.output(), async {
            let (seen, mut stream) = world.app.next().await;
            stream.write_all(&ok(SUCCESS)).await.unwrap();
            String::from_utf8(seen).unwrap().to_ascii_lowercase()
        });
        let output = output.unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        let start = format!("{expected} algorithm=RSA256,");
        assert!(shown.starts_with(&start), "{shown} {:?}", output.stderr);
        let host = format!("\r\nhost: localhost:{}\r\n", world.ingress.port());
        assert!(seen.contains(&host), "{seen}");
        assert!(seen.contains("countersign-verdict: verified"), "{seen}");
    }
    let line = "countersign_handshakes_total{listener=\"ingress\",result=\"ok\"}";
    assert_eq!(world.metric(line), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_is_for_proxies_and_refused() {
    let mut world = Inbound::with("      verify: off", "").await;
    for target in ["/x", "http://a/x", "a.example:443"] {
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let refusal = refused(&mut world, request.into_bytes()).await;
        assert_eq!(refusal, "400 request_malformed PARAM_ILLEGAL", "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_override_path_or_method_do_not_reach_the_app() {
    let names = [
        "X-Original-URL",
        "x-rewrite-url",
        "X-HTTP-Method-Override",
        "X_HTTP_Method",
        "x_forwarded_prefix",
        "X-Original-Method",
    ];
    let fields: String = names.map(|name| format!("{name}: /refund\r\n")).concat();
    for (route, count) in [("", 0), ("      override_fields: keep", names.len())] {
        let mut world = Inbound::with(route, "").await;
        let message = world.message(NOTIFY, b"{}");
        let response = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{SUCCESS}",
            SUCCESS.len()
        );
        let request = message.with(&format!("{}{fields}", message.headers()));
        let (answer, seen) = world.exchange(request, response.as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(seen.matches("/refund").count(), count, "{seen}");
    }
}
