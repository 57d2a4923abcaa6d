//! Sidecars as a cluster has them, to which everything happens that monitoring shows: both directions, faults, strangers,
//! limits, a file that cannot be read, a token that is away, and one that is killed. And an injector with its cluster.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use countersign::clock::Clock;
use countersign::sandbox::Started;
use countersign_protocol::PrivateKey;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::cluster::Cluster;
use super::daemon::{ClosedPort, closed_port};
use super::inbound::{Message, NOTIFY, SUCCESS};
use super::injector;
use super::monitoring::Target;
use super::pki::Pki;
use super::process::{PATIENCE, Sidecar, text};
use super::raw::{RawGateway, connect, post, send};
use super::softhsm::{Server, TOKEN, Tokens, client};
use super::world::{self, CLIENT_ID, Files, PAY, payment};

/// Plays Alipay+'s host at every sidecar.
const GATEWAY: &str = "open-sea-global.alipayplus.com";
/// The host of the route whose gateway's clock is ahead.
const LATE: &str = "late.example";
/// The host of the route whose gateway has trouble.
const TROUBLED: &str = "troubled.example";

/// How long a signature takes when it is slow; twice what the alert asks for and more.
const SLOW: Duration = Duration::from_millis(80);

pub struct Fleet {
    /// Everything but the following.
    busy: Sidecar,
    /// Is killed.
    mortal: Option<Sidecar>,
    /// Has next to no room, and a certificate of one day.
    small: Sidecar,
    /// Signs with a token, which is unplugged.
    token: Sidecar,
    plugged: Option<Server>,
    injector: injector::Started,
    _cluster: Cluster,
    files: Files,
    _gateway: Started,
    _nobody: ClosedPort,
    _pki: Pki,
    /// What is held open.
    held: Vec<TcpStream>,
}

impl Fleet {
    pub async fn start(tokens: &Tokens) -> Self {
        let (files, pki) = (Files::new(), Pki::new());
        // Alipay+'s next key, which is not in use yet.
        let next = PrivateKey::generate(2048).unwrap().public_key();
        files.write("next.pem", next.to_spki_pem().as_bytes());
        pki.leaf_ending("short", "ca", 1);
        tokens.import(&files.partner.to_pkcs8_pem(), "partner", "01");
        let gateway = world::gateway(&files, &Clock::system(), false, "127.0.0.1:0").await;
        let upstream = format!("https://localhost:{}", gateway.address.port());
        let app = RawGateway::answering(ok(SUCCESS, "")).await;
        let ahead = Clock::system().now() + Duration::from_secs(120);
        let date = format!(
            "Connection: close\r\nDate: {}\r\n",
            httpdate::fmt_http_date(ahead)
        );
        let late = RawGateway::answering(ok(r#"{"result":{"resultStatus":"F"}}"#, &date)).await;
        let troubled =
            b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let troubled = RawGateway::answering(*troubled).await;
        let nobody = closed_port();
        let ingress = format!(
            "routes: [{{ name: calls, app: \"http://{app}\" }}, \
             {{ name: gone, path_prefix: /gone, app: \"http://{}\" }}]",
            nobody.address
        );
        let file_key = "{ file: partner.pem, key_version: 1 }";
        let pin = tokens.path("pin");
        let token_key = format!(
            "{{ pkcs11: {{ module: {}, token_label: {TOKEN}, key_label: partner, pin_file: {} }} }}",
            client().display(),
            pin.display()
        );
        let run = |name: &str, key: &str, rest: &str| {
            let config = format!(
                "identities:\n  - client_id: {CLIENT_ID}\n    signing_key: {key}\n    verification_keys:\n      \
                 - {{ file: alipayplus.pem, key_version: 1 }}\n      - {{ file: next.pem, key_version: 2 }}\n\
                 egress:\n  listen: 127.0.0.1:0\n  default_host: {GATEWAY}\n  routes:\n    \
                 - {{ name: gateway, hosts: [{GATEWAY}], upstream: \"{upstream}\" }}\n    \
                 - {{ name: late, hosts: [{LATE}], upstream: \"http://{late}\" }}\n    \
                 - {{ name: troubled, hosts: [{TROUBLED}], upstream: \"http://{troubled}\" }}\n\
                 upstream_tls: {{ ca_file: ca.pem }}\nadmin: {{ listen: \"127.0.0.1:0\" }}\n\
                 reload_interval: 50ms\n{rest}\n"
            );
            let file = files.write(name, config.as_bytes());
            Sidecar::run(&["run", "--config", text(&file)])
        };
        let plain =
            format!("ingress: {{ listen: \"127.0.0.1:0\", {ingress} }}\nca: {{ life: 30d }}");
        let tls = format!(
            "ingress: {{ listen: \"127.0.0.1:0\", {ingress}, tls: {{ certificate_file: {}, key_file: {} }} }}\n\
             limits: {{ connections: 8, tunnels: 1 }}",
            pki.path("short.pem").display(),
            pki.path("short.key").display()
        );
        let plugged = tokens.plug_in(&tokens.faulty());
        let cluster = Cluster::new();
        let injector = cluster.injector(&Clock::system()).await;
        injector.running.ready().await;
        Self {
            busy: run("busy.yaml", file_key, &plain),
            mortal: Some(run("mortal.yaml", file_key, "")),
            small: run("small.yaml", file_key, &tls),
            token: run("token.yaml", &token_key, ""),
            plugged: Some(plugged),
            injector,
            _cluster: cluster,
            files,
            _gateway: gateway,
            _nobody: nobody,
            _pki: pki,
            held: Vec::new(),
        }
    }

    pub fn targets(&self) -> Vec<Target> {
        let target = |sidecar: &Sidecar, pod| Target {
            admin: sidecar.admin,
            namespace: "pay",
            pod,
        };
        vec![
            target(&self.busy, "busy"),
            target(self.mortal.as_ref().unwrap(), "mortal"),
            target(&self.small, "small"),
            target(&self.token, "token"),
            Target {
                admin: self.injector.running.admin,
                namespace: "countersign",
                pod: "injector",
            },
        ]
    }

    /// What the sidecars that live show as metrics now, one after the other.
    pub async fn metrics(&self) -> Vec<String> {
        let mut all = Vec::new();
        for sidecar in [&self.busy, &self.small, &self.token] {
            all.push(shown(sidecar.admin).await);
        }
        all.push(shown(self.injector.running.admin).await);
        all
    }

    /// Lets everything happen once.
    pub async fn live(&mut self, tokens: &Tokens) {
        self.pay_and_fail().await;
        self.lead_astray().await;
        self.call().await;
        self.review();
        self.fill_up().await;
        self.sign_slowly(tokens).await;
        self.unplug().await;
        // Once more, when Prometheus has seen that there were some.
        self.pay_late().await;
        drop(self.mortal.take());
        fs::write(self.files.path("busy.yaml"), "nonsense").unwrap();
    }

    async fn pay_and_fail(&self) {
        let egress = self.busy.egress;
        for (fault, expected, times) in [
            ("altered-body", "response_signature_invalid unknown 502", 40),
            (
                "unsigned-success",
                "response_signature_missing unknown 502",
                3,
            ),
        ] {
            for _ in 0..times {
                let got = pay(egress, &format!("sandbox-fault: {fault}\r\n")).await;
                assert_eq!(got, expected);
            }
        }
        for _ in 0..20 {
            self.pay_late().await;
        }
        for _ in 0..6 {
            let request = post(PAY, TROUBLED, "", payment("R1").as_bytes());
            assert_eq!(send(egress, request).await.outcome(), "verdict unsigned");
        }
    }

    /// Pays where the gateway's clock is ahead.
    async fn pay_late(&self) {
        let request = post(PAY, LATE, "", payment("R1").as_bytes());
        let answer = send(self.busy.egress, request).await;
        assert_eq!(answer.outcome(), "verdict unsigned");
    }

    /// Requests nobody can read, loops, and apps without the CA.
    async fn lead_astray(&self) {
        let egress = self.busy.egress;
        let odd = "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n";
        assert_eq!(send(egress, odd).await.status, 400);
        let mut half = TcpStream::connect(egress).await.unwrap();
        half.write_all(b"GET / HT").await.unwrap();
        drop(half);
        let (_, refused) = connect(egress, &egress.to_string(), b"").await;
        assert_eq!(refused.status, 508);
        for _ in 0..6 {
            let line = [
                "-s",
                "-x",
                &format!("http://{egress}"),
                &format!("https://{GATEWAY}/"),
            ];
            let mut curl = Command::new("curl");
            let ended = curl.args(line).stdout(Stdio::null()).status().unwrap();
            assert_eq!(ended.code(), Some(60), "curl distrusts");
        }
    }

    /// Calls from Alipay+: one again and again, and forgeries of it.
    async fn call(&self) {
        let good = Message::at(&Clock::system(), &self.files, NOTIFY, b"{}");
        let mut forged = good.clone();
        forged.body = b"{ }".to_vec();
        let forged = forged.with(&good.headers());
        let gone = Message::at(&Clock::system(), &self.files, "/gone", b"{}").bytes();
        for (bytes, status, times) in [(good.bytes(), 200, 12), (forged, 401, 12), (gone, 502, 1)] {
            for _ in 0..times {
                assert_eq!(send(self.busy.ingress, &bytes).await.status, status);
            }
        }
    }

    /// Pods of every kind come to the injector, and what is none.
    fn review(&self) {
        let url = format!("https://{}/inject", self.injector.running.address);
        let pod = |annotations: &str| {
            format!(
                r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"1","operation":"CREATE",
                "resource":{{"group":"","version":"v1","resource":"pods"}},"kind":{{"group":"","version":"v1","kind":"Pod"}},
                "object":{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"shop","annotations":{{{annotations}}}}},
                "spec":{{"containers":[{{"name":"shop","image":"shop:1"}}]}}}}}}}}"#
            )
        };
        let asked = r#""countersign.dev/inject":"enabled","countersign.dev/keys":"k""#;
        let injected = pod(&format!(r#"{asked},"countersign.dev/client-id":"C""#));
        for review in [injected, pod(asked), pod(""), "{}".to_owned()] {
            let line = ["-sk", &url, "-H", "Content-Type: application/json", "-d"];
            let mut curl = Command::new("curl");
            let curl = curl.args(line).arg(review).stdout(Stdio::null());
            assert!(curl.status().unwrap().success());
        }
    }

    /// Payments wait for their signatures, and for nothing else: the token does one thing at a time.
    async fn sign_slowly(&self, tokens: &Tokens) {
        let egress = self.token.egress;
        let (count, before) = (|| tokens.calls("C_Sign"), tokens.calls("C_Sign"));
        tokens.hang();
        let waiting: Vec<_> = (0..10).map(|_| tokio::spawn(pay(egress, ""))).collect();
        while count() == before {
            tokio::task::yield_now().await;
        }
        let start = Instant::now();
        while start.elapsed() < SLOW {
            self.metrics().await;
        }
        let _open = tokens.release();
        for payment in waiting {
            assert_eq!(payment.await.unwrap(), "verdict verified");
        }
    }

    /// The token goes, and a signature finds out.
    async fn unplug(&mut self) {
        drop(self.plugged.take());
        // Each session finds out by itself.
        let gone = format!("countersign_token_sessions{{client_id=\"{CLIENT_ID}\"}} 0\n");
        let start = Instant::now();
        while !shown(self.token.admin).await.contains(&gone) {
            assert!(start.elapsed() < PATIENCE, "it stays");
            let refused = pay(self.token.egress, "").await;
            assert_eq!(refused, "signing_failed not-sent 500");
        }
    }

    /// Takes every tunnel and every connection there may be.
    async fn fill_up(&mut self) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = server.local_addr().unwrap().to_string();
        let egress = self.small.egress;
        let (tunnel, _) = connect(egress, &target, b"").await;
        drop((tunnel, server.accept().await.unwrap()));
        // The first one's end may take a moment to be seen.
        let tunnel = loop {
            let (tunnel, answer) = connect(egress, &target, b"").await;
            if answer.status == 200 {
                break tunnel;
            }
        };
        self.held.extend([tunnel, server.accept().await.unwrap().0]);
        let (_, refused) = connect(egress, &target, b"").await;
        assert_eq!(refused.status, 503);
        // One that leaves is counted as a handshake, those that stay take all the places.
        drop(TcpStream::connect(self.small.ingress).await.unwrap());
        for _ in 0..9 {
            let stranger = TcpStream::connect(self.small.ingress).await.unwrap();
            self.held.push(stranger);
        }
    }
}

async fn shown(admin: SocketAddr) -> String {
    let ask = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    send(admin, ask).await.text()
}

async fn pay(egress: SocketAddr, extra: &str) -> String {
    let request = post(PAY, GATEWAY, extra, payment("R1").as_bytes());
    send(egress, request).await.outcome()
}

fn ok(body: &str, extra: &str) -> Vec<u8> {
    let length = body.len();
    // Said, as who answers ends the connection: or the next request could still go out on it.
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{extra}Content-Length: {length}");
    format!("{head}\r\n\r\n{body}").into_bytes()
}
