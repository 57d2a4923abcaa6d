//! TLS towards signed hosts ends at the sidecar; what cannot be served has a clear end and is counted.

use std::process::{Command, Stdio};
use std::sync::Arc;

use countersign::clock::Clock;
use countersign::{app, config};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::raw::{connect, post};
use crate::support::world::{PAY, payment};
use crate::support::{Answer, Files, World};

const SEA: &str = "open-sea-global.alipayplus.com";
const NA: &str = "open-na-global.alipayplus.com";

async fn world() -> World {
    World::now("", "ca: { trust_directory: trust }").await
}

/// What trusts the world's CA and nothing else.
fn trusting(world: &World) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let ca = countersign::net::tls::certificates(&world.files.path("trust/ca.pem")).unwrap();
    roots.add_parsable_certificates(ca);
    let mut config = countersign::net::tls::client(roots).unwrap();
    config.alpn_protocols.clear();
    config
}

async fn handshake(
    stream: TcpStream,
    config: ClientConfig,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// Pays for that host over TLS on a connection.
async fn pay(mut stream: TlsStream<TcpStream>, host: &str) -> Answer {
    let request = post(PAY, host, "", payment("R1").as_bytes());
    stream.write_all(&request).await.unwrap();
    Answer::read(stream).await
}

fn interceptions(result: &str) -> String {
    format!("countersign_interceptions_total{{result=\"{result}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateways_name_that_points_here_is_served_by_server_name() {
    let world = world().await;
    for host in [SEA, NA] {
        let stream = TcpStream::connect(world.egress).await.unwrap();
        let stream = handshake(stream, trusting(&world), host).await.unwrap();
        assert_eq!(pay(stream, host).await.outcome(), "verdict verified");
    }
    assert_eq!(world.metric(&interceptions("ok")), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_names_no_server_gets_the_default_host() {
    let world = world().await;
    let mut config = trusting(&world);
    config.enable_sni = false;
    let stream = TcpStream::connect(world.egress).await.unwrap();
    let stream = handshake(stream, config.clone(), SEA).await.unwrap();
    assert_eq!(pay(stream, SEA).await.outcome(), "verdict verified");
    // In a CONNECT it is that host, whatever the default.
    let (stream, _) = connect(world.egress, &format!("{NA}:443"), b"").await;
    let stream = handshake(stream, config, NA).await.unwrap();
    assert_eq!(pay(stream, NA).await.outcome(), "verdict verified");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_name_and_a_default_host_the_client_is_told() {
    let files = Files::new();
    let file = files.config("http://127.0.0.1:9", "", "");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("open-*-global", "open-eu-global");
    let file = files.write("other.yaml", text.as_bytes());
    let prepared = app::prepare(config::load(&file), Clock::system()).unwrap();
    let running = app::start(prepared).await.unwrap();
    let mut config = countersign::net::tls::client(RootCertStore::empty()).unwrap();
    config.enable_sni = false;
    let stream = TcpStream::connect(running.egress[0]).await.unwrap();
    let error = handshake(stream, config, SEA).await.unwrap_err();
    assert!(error.to_string().contains("UnrecognisedName"), "{error}");
    let count = running
        .metrics
        .interceptions
        .with_label_values(&["no_name"]);
    assert_eq!(count.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_name_that_is_not_the_host_of_the_connect_is_refused_by_an_alert() {
    let world = world().await;
    for name in [NA, "evil.example"] {
        let (stream, _) = connect(world.egress, &format!("{SEA}:443"), b"").await;
        let error = handshake(stream, trusting(&world), name).await.unwrap_err();
        assert!(error.to_string().contains("UnrecognisedName"), "{error}");
    }
    world.until(&interceptions("name_mismatch"), 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_field_that_is_not_the_server_name_is_misdirected() {
    let world = world().await;
    for host in [NA, "elsewhere.example", "localhost"] {
        let stream = TcpStream::connect(world.egress).await.unwrap();
        let stream = handshake(stream, trusting(&world), SEA).await.unwrap();
        let answer = pay(stream, host).await;
        assert_eq!(answer.outcome(), "misdirected_request not-sent 421");
    }
    assert_eq!(world.gateway().deliveries(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_begins_like_tls_is_told_closed_and_counted() {
    let world = world().await;
    let garbage = b"\x16\x03\x01\x00\x05garbage";
    let mut stream = TcpStream::connect(world.egress).await.unwrap();
    stream.write_all(garbage).await.unwrap();
    let _end = stream.read_to_end(&mut Vec::new()).await;
    let (mut stream, _) = connect(world.egress, &format!("{SEA}:443"), garbage).await;
    let _end = stream.read_to_end(&mut Vec::new()).await;
    world.until(&interceptions("malformed"), 2.0).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stalls_in_the_handshake_is_let_go_in_time() {
    let world = World::new().await;
    for beginning in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let (mut stream, _) = connect(world.egress, &format!("{SEA}:443"), beginning).await;
        let _end = stream.read_to_end(&mut Vec::new()).await;
    }
    world.until(&interceptions("timeout"), 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_nobody_signs_for_is_not_looked_into() {
    let world = world().await;
    let stream = TcpStream::connect(world.egress).await.unwrap();
    // The name does not resolve, so the tunnel fails; but it is a tunnel, with no certificate of ours.
    let ended = handshake(stream, trusting(&world), "nowhere.invalid").await;
    assert!(ended.is_err());
    let tunnels = "countersign_tunnels_total{result=\"upstream_unreachable\"}";
    world.until(tunnels, 1.0).await;
    assert_eq!(world.metric(&interceptions("ok")), 0.0);
}

/// One TLS connection by the `openssl` command; its report.
async fn s_client(world: &World, name: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-connect", &world.egress.to_string()])
        .args(["-servername", name, "-verify_return_error", "-CAfile"])
        .arg(world.files.path("trust/ca.pem"))
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let output = tokio::process::Command::from(command).output().await;
    let output = output.unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        report.contains("Verify return code: 0 (ok)"),
        "{report}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn old_and_new_clients_get_the_certificate_they_can_use() {
    let world = world().await;
    for (arguments, expected) in [
        (&["-tls1_3"][..], "Peer signature type: ECDSA"),
        (&["-tls1_2"], "Peer signature type: ECDSA"),
        (
            &["-tls1_3", "-sigalgs", "RSA-PSS+SHA256:RSA+SHA256"],
            "Peer signature type: RSA-PSS",
        ),
        (
            &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"],
            "Peer signature type: RSA",
        ),
    ] {
        let report = s_client(&world, SEA, arguments).await;
        assert!(report.contains(expected), "{arguments:?}: {report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tls_session_is_resumed_for_its_own_host_only() {
    let world = world().await;
    let file = world.files.path("session");
    let session = file.to_str().unwrap();
    s_client(&world, SEA, &["-tls1_2", "-sess_out", session]).await;
    let again = s_client(&world, SEA, &["-tls1_2", "-sess_in", session]).await;
    assert!(again.contains("Reused, TLSv1.2"), "{again}");
    let other = s_client(&world, NA, &["-tls1_2", "-sess_in", session]).await;
    assert!(other.contains("New, TLSv1.2"), "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_served_to_apps_that_offer_it() {
    let world = world().await;
    let url = format!("https://{SEA}:{}{PAY}", world.egress.port());
    let mut curl = tokio::process::Command::new("curl");
    curl.args(["-sS", "--http2", "--noproxy", "*", "-o", "/dev/null"])
        .args([
            "-w",
            "%{http_version} %{http_code} %header{countersign-verdict}\\n",
        ])
        .args([
            "--resolve",
            &format!("{SEA}:{}:127.0.0.1", world.egress.port()),
        ])
        .env("CURL_CA_BUNDLE", world.files.path("trust/ca.pem"))
        .args(["-H", &format!("Host: {SEA}"), "-d", &payment("R1"), &url])
        // Two on one connection: streams of their own.
        .args(["--next", "-sS", "--http2", "-o", "/dev/null"])
        .args([
            "-w",
            "%{http_version} %{http_code} %header{countersign-verdict}\\n",
        ])
        .args(["-H", &format!("Host: {SEA}"), "-d", &payment("R2"), &url]);
    let output = curl.output().await.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "2 200 verified\n2 200 verified\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(world.metric(&interceptions("ok")), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_hands_out_the_ca_that_apps_must_trust() {
    let world = world().await;
    let request = "GET /ca.pem HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = crate::support::raw::send(world.running.admin.unwrap(), request).await;
    let written = std::fs::read(world.files.path("trust/ca.pem")).unwrap();
    assert_eq!((answer.status, answer.body), (200, written));
    let inbound =
        crate::support::inbound::Inbound::with("", "admin: { listen: \"127.0.0.1:0\" }").await;
    let answer = crate::support::raw::send(inbound.running.admin.unwrap(), request).await;
    assert_eq!(answer.status, 404, "there is none without egress");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_greeting_is_understood_like_a_short_one() {
    let world = world().await;
    let mut config = trusting(&world);
    // 20 KiB of protocols, as a greeting with many post-quantum shares would have.
    let long = |n: u32| format!("{n:0>200}").into_bytes();
    config.alpn_protocols = (0..100).map(long).chain([b"http/1.1".to_vec()]).collect();
    let stream = TcpStream::connect(world.egress).await.unwrap();
    let stream = handshake(stream, config, SEA).await.unwrap();
    assert_eq!(pay(stream, SEA).await.outcome(), "verdict verified");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_host_on_another_port_is_refused_by_an_alert() {
    let world = world().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let (stream, _) = connect(world.egress, &target, b"").await;
    let error = handshake(stream, trusting(&world), SEA).await.unwrap_err();
    assert!(error.to_string().contains("AccessDenied"), "{error}");
    world.until(&interceptions("wrong_port"), 1.0).await;
}
