//! Targets over HTTP/2 are held to the same grammar as those over HTTP/1.1, before anything is signed or sent.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use countersign::http::body::full;
use countersign::net::tls;
use http::Request;
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::Files;
use crate::support::pki::Pki;
use crate::support::process::{Sidecar, command, text};
use crate::support::raw::RawGateway;

const HOST: &str = "open-sea-global.alipayplus.com";
/// Raw bytes that no target may have, and one that may.
const TARGETS: [(&str, bool); 4] = [
    ("/pay/\u{e9}", false),
    ("/pay?x=\u{20ac}", false),
    ("/\u{2028}", false),
    ("/pay/%C3%A9", true),
];

/// The status and the error's code of a POST over HTTP/2, whose target is sent as these bytes.
async fn over_http2(to: SocketAddr, name: &'static str, ca: &Path, target: &str) -> String {
    let mut roots = RootCertStore::empty();
    for certificate in tls::certificates(ca).unwrap() {
        roots.add(certificate).unwrap();
    }
    let mut config = tls::client(roots).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(to).await.unwrap();
    let stream = connector.connect(ServerName::try_from(name).unwrap(), stream);
    let io = TokioIo::new(stream.await.unwrap());
    let (mut sender, connection) = handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("https://{name}{target}"));
    let request = request.body(full("{}")).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let code = response.headers().get("countersign-error");
    let code = code.map_or("", |code| code.to_str().unwrap());
    format!("{} {code}", response.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_target_is_refused_on_ingress() {
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
    let ca = pki.path("ca.pem");
    for (target, is_good) in TARGETS {
        let expected = if is_good {
            "401 request_signature_missing"
        } else {
            "400 request_malformed"
        };
        let outcome = over_http2(sidecar.ingress, "localhost", &ca, target).await;
        assert_eq!(outcome, expected, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_target_is_neither_signed_nor_sent_on_egress() {
    let gateway = RawGateway::by_hand().await;
    let files = Files::new();
    let upstream = format!("http://{}", gateway.address);
    let route = "      timeout: 2s";
    let file = files.config(&upstream, route, "ca: { trust_directory: trust }");
    let sidecar = Sidecar::run(&["run", "--config", text(&file)]);
    let ca = files.path("trust/ca.pem");
    for (target, is_good) in TARGETS {
        let expected = if is_good {
            "504 upstream_timeout"
        } else {
            "400 request_malformed"
        };
        let outcome = over_http2(sidecar.egress, HOST, &ca, target).await;
        assert_eq!(outcome, expected, "{target}");
        assert_eq!(gateway.connections() > 0, is_good, "{target}");
    }
}
