//! A client that reads only after it has sent its whole body still gets an early response.

use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::Files;
use crate::support::clients::{clients, venv_python};
use crate::support::inbound::Inbound;
use crate::support::pki::Pki;
use crate::support::process::{Sidecar, command, text};
use crate::support::world::PAY;

/// Of the bodies, in MiB: far over the limits of 4 MiB and 256 KiB, and over every buffer of a socket.
const SIZE: &str = "24";

/// Each client, and whether it can send chunked bodies.
fn clients_with(url: &str, framing: &str, ca: Option<&str>) -> Vec<(&'static str, Command)> {
    let program = |name: &str| text(&clients().join(name)).to_owned();
    let mut all = Vec::new();
    for library in ["urllib", "requests"] {
        let mut python = Command::new(venv_python());
        python.args([&program("large_body.py"), library, url, framing, SIZE]);
        python.args(ca);
        all.push((library, python));
    }
    if ca.is_none() {
        let mut java = Command::new("java");
        java.args([&program("LargeBody.java"), url, framing, SIZE]);
        all.push(("HttpURLConnection", java));
    }
    let mut curl = Command::new("curl");
    curl.args([
        "-sS",
        "--max-time",
        "60",
        "-H",
        "Expect:",
        "-X",
        "POST",
        "-o",
        "/dev/null",
    ]);
    curl.args([
        "-w",
        "%{http_code} %header{countersign-error}\n",
        "--data-binary",
        "@-",
        url,
    ]);
    if framing == "chunked" {
        curl.args(["-H", "Transfer-Encoding: chunked"]);
    }
    if let Some(ca) = ca {
        curl.args(["--cacert", ca]);
    }
    all.push(("curl", curl));
    for (_, client) in &mut all {
        for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"] {
            client.env_remove(name);
        }
    }
    all
}

/// What a client prints, with a body on its stdin for those that read it there.
async fn printed(mut client: Command) -> String {
    let body = tempfile::NamedTempFile::new().unwrap();
    body.as_file().set_len(24 << 20).unwrap();
    client.stdin(body.reopen().unwrap());
    let output = tokio::task::spawn_blocking(move || client.output().unwrap());
    let output = output.await.unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if printed.is_empty() {
        return String::from_utf8_lossy(&output.stderr).into_owned();
    }
    printed
}

#[tokio::test(flavor = "multi_thread")]
async fn real_clients_see_413_on_egress() {
    let files = Files::new();
    let file = files.config("http://127.0.0.1:1", "", "");
    let config = std::fs::read_to_string(&file).unwrap();
    let config = config.replace(
        "  routes:",
        "  default_host: open-sea-global.alipayplus.com\n  routes:",
    );
    std::fs::write(&file, config).unwrap();
    let sidecar = Sidecar::run(&["run", "--config", text(&file)]);
    let url = format!("http://{}{PAY}", sidecar.egress);
    for framing in ["length", "chunked"] {
        for (name, client) in clients_with(&url, framing, None) {
            assert_eq!(
                printed(client).await,
                "413 request_too_large",
                "{name} {framing}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_clients_see_401_on_ingress_behind_tls() {
    let pki = Pki::new();
    pki.authority("ca");
    pki.leaf("localhost", "ca");
    let files = Files::new();
    let config = format!(
        "{}ingress:\n  listen: 127.0.0.1:0\n  tls: {{ certificate_file: {}, key_file: {} }}\n  \
         routes: [{{ app: \"http://127.0.0.1:1\" }}]\n",
        Files::identities(),
        text(&pki.path("localhost.pem")),
        text(&pki.path("localhost.key")),
    );
    let file = files.write("ingress.yaml", config.as_bytes());
    let sidecar = Sidecar::start(command(&["run", "--config", text(&file)]));
    let url = format!("https://localhost:{}/notify", sidecar.ingress.port());
    let ca = pki.path("ca.pem");
    for (name, mut client) in clients_with(&url, "length", Some(text(&ca))) {
        if name == "curl" {
            client.arg("--http1.1");
        }
        let printed = printed(client).await;
        assert_eq!(printed, "401 request_signature_missing", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_stops_sending_is_cut_off_and_holds_no_drain_up() {
    let world = Inbound::with("", "drain: { grace: 0s, deadline: 5s }").await;
    let mut endless = TcpStream::connect(world.ingress).await.unwrap();
    let head = "POST /notify HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000000\r\n\r\n";
    endless.write_all(head.as_bytes()).await.unwrap();
    let mut response = vec![0; 12];
    endless.read_exact(&mut response).await.unwrap();
    assert!(response.starts_with(b"HTTP/1.1 4"), "{response:?}");
    let sending = async { while endless.write_all(&[b'x'; 16384]).await.is_ok() {} };
    // It is discarded meanwhile; the drain ends all the same.
    world
        .running
        .drain
        .enter(countersign::net::drain::Phase::Draining);
    let drained = tokio::time::timeout(Duration::from_secs(20), world.running.finish());
    let (in_time, ()) = tokio::join!(drained, sending);
    assert!(in_time.unwrap(), "the drain waited for it");
}
