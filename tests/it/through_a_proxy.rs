//! With a corporate proxy everything leaves by CONNECT through it, except what it is not for; whatever
//! the proxy does wrong is bounded and said, and its credentials are never shown.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use countersign::exchange::{Code, Delivery, Fault};
use countersign::upstream::{Config, Proxy, proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::support::daemon::{ForwardProxy, closed_port};
use crate::support::process::PATIENCE;
use crate::support::raw::{RawGateway, UNSIGNED, post, send};
use crate::support::upstream::WayOut;
use crate::support::{Files, World};

const SECRET: &str = "open-sesame";

fn config(proxy: SocketAddr, credentials: Option<PathBuf>) -> proxy::Config {
    proxy::Config {
        host: proxy.ip().to_string().parse().unwrap(),
        port: proxy.port(),
        credentials: credentials.map(|file| (file, "here".to_owned())),
        bypass: vec![],
    }
}

fn by(proxy: proxy::Config) -> WayOut {
    WayOut::by(&Config {
        proxy: Some(proxy),
        ..Config::default()
    })
}

fn through(proxy: SocketAddr) -> WayOut {
    by(config(proxy, None))
}

fn not_sent(fault: &Fault) -> String {
    assert_eq!(
        (fault.code(), fault.delivered()),
        (Code::UpstreamUnreachable, Delivery::NotSent)
    );
    fault.chain()
}

fn payment_target(world: &World) -> String {
    let gateway = world.gateway.as_ref().unwrap();
    format!("localhost:{}", gateway.address.port())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_goes_through_the_proxy_verified() {
    let proxy = ForwardProxy::with("");
    let section = format!("upstream_proxy: {{ url: \"http://{}\" }}", proxy.address);
    for http2 in [false, true] {
        let world = World::speaking(http2, "", &section).await;
        assert_eq!(world.pay("").await.outcome(), "verdict verified");
        assert!(proxy.was_asked(&payment_target(&world)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_gets_its_credentials_from_the_file() {
    let proxy = ForwardProxy::with(&format!("BasicAuth user {SECRET}"));
    let folder = Files::new();
    let file = folder.write("credentials", format!("user:{SECRET}\r\n").as_bytes());
    let section = format!(
        "upstream_proxy: {{ url: \"http://{}\", credentials_file: {} }}",
        proxy.address,
        file.display()
    );
    let world = World::with("", &section).await;
    assert_eq!(world.pay("").await.outcome(), "verdict verified");
    assert!(proxy.was_asked(&payment_target(&world)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_wants_other_credentials_is_explained_and_nothing_is_sent() {
    let proxy = ForwardProxy::with(&format!("BasicAuth user {SECRET}"));
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = server.local_addr().unwrap().to_string();
    let folder = Files::new();
    let wrong = folder.write("wrong", b"user:wrong-secret\n");
    for (credentials, text) in [
        (
            None,
            "asks for credentials (407); set upstream_proxy.credentials_file",
        ),
        (
            Some(wrong),
            // tinyproxy says 401 where RFC 9110 has 407.
            "refuses the credentials in upstream_proxy.credentials_file (401)",
        ),
    ] {
        let config = config(proxy.address, credentials);
        let way = by(config.clone());
        let chain = not_sent(&way.dial(&to).await.unwrap_err());
        let expected = format!("the proxy {} {text}", proxy.address);
        assert!(chain.ends_with(&expected), "{chain}");
        assert_eq!(way.connects("proxy_refused"), 1);
        let loaded = Proxy::load(&config).unwrap();
        let shown = format!("{chain} {config:?} {loaded:?} {:?}", way.upstream);
        assert!(!shown.contains("wrong-secret"), "{shown}");
        assert!(!shown.contains("dXNlcjp3cm9uZy1zZWNyZXQ"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_and_forwarded_requests_go_through_the_proxy_too() {
    let proxy = ForwardProxy::with("");
    let mut other = RawGateway::by_hand().await;
    let section = format!("upstream_proxy: {{ url: \"http://{}\" }}", proxy.address);
    let world = World::with("", &section).await;
    let request = post(&format!("http://{}/x", other.address), "x", "", b"");
    let (answer, ()) = tokio::join!(send(world.egress, request), async {
        let (_, mut stream) = other.next().await;
        stream.write_all(UNSIGNED.as_bytes()).await.unwrap();
    });
    assert_eq!(answer.outcome(), "verdict forwarded");
    assert!(proxy.was_asked(&other.address.to_string()));

    let way = through(proxy.address);
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = server.local_addr().unwrap();
    let destination = format!("localhost:{}", to.port());
    let (dialled, accepted) = tokio::join!(way.dial(&destination), server.accept());
    let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap().0);
    dialled.write_all(b"ping").await.unwrap();
    let mut four = [0; 4];
    accepted.read_exact(&mut four).await.unwrap();
    assert_eq!(&four, b"ping");
    assert!(proxy.was_asked(&destination));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_proxy_is_not_for_goes_directly() {
    let nobody = closed_port();
    let section = |except: &str| {
        let nobody = nobody.address;
        format!("upstream_proxy: {{ url: \"http://{nobody}\", no_proxy: [{except}] }}")
    };
    let world = World::with("", &section("LOCALHOST., 10.0.0.0/8")).await;
    assert_eq!(world.pay("").await.outcome(), "verdict verified");
    let world = World::with("", &section("10.0.0.0/8")).await;
    let answer = world.pay("").await;
    assert_eq!(answer.outcome(), "upstream_unreachable not-sent 502");
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let nobody = closed_port();
    let chain = not_sent(
        &through(nobody.address)
            .dial("a.example:443")
            .await
            .unwrap_err(),
    );
    let expected = format!("cannot connect to the proxy {}", nobody.address);
    assert!(chain.contains(&expected), "{chain}");
}

#[tokio::test]
async fn a_proxy_that_is_the_sidecar_itself_is_a_loop() {
    let way = through("127.0.0.1:18441".parse().unwrap());
    way.own.set(vec!["0.0.0.0:18441".parse().unwrap()]);
    let fault = way.dial("a.example:443").await.unwrap_err();
    assert_eq!(fault.code(), Code::LoopDetected);
}

/// A proxy that answers CONNECT with these bytes and keeps the connection open.
async fn answering(answer: Vec<u8>) -> SocketAddr {
    let mut gateway = RawGateway::by_hand().await;
    let address = gateway.address;
    tokio::spawn(async move {
        let (request, mut stream) = gateway.next().await;
        assert!(request.starts_with(b"CONNECT a.example:443 HTTP/1.1\r\n"));
        // The sidecar may hang up before it has taken all of a flood.
        let _hung_up = stream.write_all(&answer).await;
        let _until_closed = stream.read(&mut [0]).await;
    });
    address
}

#[tokio::test]
async fn whatever_a_proxy_answers_is_bounded_and_nothing_is_sent() {
    let endless = "X-Header: 0123456789abcdef\r\n".repeat(1 << 16);
    for (what, answer, expected) in [
        (
            "refusal",
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\n".to_owned(),
            "refuses CONNECT to a.example:443 (403 Forbidden)",
        ),
        (
            "garbage",
            "SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(),
            "did not answer CONNECT",
        ),
        (
            "huge head",
            format!("HTTP/1.1 200 OK\r\n{endless}\r\n"),
            "did not answer CONNECT",
        ),
        (
            "endless line",
            format!("HTTP/1.1 200 {}", "O".repeat(1 << 20)),
            "did not answer CONNECT",
        ),
    ] {
        let proxy = answering(answer.into_bytes()).await;
        let way = through(proxy);
        let opened = tokio::time::timeout(Duration::from_secs(4), way.dial("a.example:443"));
        let chain = not_sent(&opened.await.expect(what).unwrap_err());
        assert!(
            chain.contains(&format!("the proxy {proxy} {expected}")),
            "{what}: {chain}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_never_answers_is_given_up_after_five_seconds() {
    for answer in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 100 Continue\r\n\r\n"] {
        let way = through(answering(answer.into()).await);
        let start = Instant::now();
        let chain = not_sent(&way.dial("a.example:443").await.unwrap_err());
        let took = start.elapsed();
        assert!((5..7).contains(&took.as_secs()), "{answer:?}: {took:?}");
        assert!(chain.contains("did not answer CONNECT"), "{chain}");
        assert_eq!(way.connects("proxy_failed"), 1);
    }
}

#[tokio::test]
async fn the_first_bytes_of_a_server_that_speaks_first_are_kept() {
    let proxy = answering(b"HTTP/1.0 200 Connection established\r\n\r\nSSH-2.0-x".to_vec()).await;
    let way = through(proxy);
    let mut dialled = way.dial("a.example:443").await.unwrap();
    let mut first = [0; 9];
    for byte in &mut first {
        let next = tokio::time::timeout(PATIENCE, dialled.read_u8()).await;
        *byte = next.expect("the first bytes are lost").unwrap();
    }
    assert_eq!(&first, b"SSH-2.0-x");
}
