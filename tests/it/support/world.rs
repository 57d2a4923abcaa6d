//! A simulated gateway and a sidecar in front of it, in this process, with a clock held still.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use countersign::app::{self, Running};
use countersign::clock::Clock;
use countersign::config;
use countersign::sandbox::{self, Started};
use countersign::telemetry::Metrics;
use countersign_protocol::{
    ClientId, Content, KeyVersion, Offset, PrivateKey, Signature, Timestamp, sign,
};
use tempfile::TempDir;

use super::process::PATIENCE;
use super::raw::{Answer, post, send};

pub const CLIENT_ID: &str = "SANDBOX_5X00000000000000";
pub const PAY: &str = "/aps/api/v1/payments/pay";

/// A folder with a partner's and a gateway's keys.
pub struct Files {
    pub folder: TempDir,
    pub partner: PrivateKey,
    pub gateway: PrivateKey,
}

impl Files {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (partner, gateway) = (
            PrivateKey::generate(2048).unwrap(),
            PrivateKey::generate(2048).unwrap(),
        );
        let files = Self {
            folder,
            partner,
            gateway,
        };
        files.write("partner.pem", files.partner.to_pkcs8_pem().as_bytes());
        // As a careful operator keeps it: otherwise each start has a line about it.
        let own = fs::Permissions::from_mode(0o600);
        fs::set_permissions(files.path("partner.pem"), own).unwrap();
        files.write(
            "partner.pub.pem",
            files.partner.public_key().to_spki_pem().as_bytes(),
        );
        files.write(
            "alipayplus.pem",
            files.gateway.public_key().to_spki_pem().as_bytes(),
        );
        files
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    /// The section of the one identity.
    pub fn identities() -> String {
        format!(
            "identities:\n  - client_id: {CLIENT_ID}\n    \
             signing_key: {{ file: partner.pem, key_version: 1 }}\n    \
             verification_keys: [{{ file: alipayplus.pem, key_version: 1 }}]\n"
        )
    }

    /// A configuration whose one route goes to `upstream`; `route` and `rest` are further YAML.
    pub fn config(&self, upstream: &str, route: &str, rest: &str) -> PathBuf {
        let text = format!(
            "{}egress:\n  listen: 127.0.0.1:0\n  routes:\n    \
             - name: gateway\n      hosts: [open-*-global.alipayplus.com]\n      \
             upstream: {upstream}\n{route}\nadmin: {{ listen: \"127.0.0.1:0\" }}\n{rest}\n",
            Self::identities()
        );
        self.write("config.yaml", text.as_bytes())
    }
}

/// A sidecar, and the gateway behind it when it is the simulated one.
pub struct World {
    pub running: Running,
    pub egress: SocketAddr,
    pub gateway: Option<Started>,
    pub clock: Clock,
    pub files: Files,
}

impl World {
    /// A sidecar in front of the simulated gateway.
    pub async fn new() -> Self {
        Self::with("", "").await
    }

    /// The same with further YAML for the route and the file.
    pub async fn with(route: &str, rest: &str) -> Self {
        Self::speaking(false, route, rest).await
    }

    /// A sidecar in front of the simulated gateway, which speaks HTTP/2 or HTTP/1.1 only.
    pub async fn speaking(http2: bool, route: &str, rest: &str) -> Self {
        Self::at(held(), "localhost", http2, route, rest).await
    }

    /// The same, where the sidecar knows the gateway by that name.
    pub async fn calling(name: &str, http2: bool, route: &str, rest: &str) -> Self {
        Self::at(held(), name, http2, route, rest).await
    }

    /// One at the present time, for clients that look at the clock themselves.
    pub async fn now(route: &str, rest: &str) -> Self {
        Self::at(Clock::system(), "localhost", false, route, rest).await
    }

    async fn at(clock: Clock, name: &str, http2: bool, route: &str, rest: &str) -> Self {
        let files = Files::new();
        let gateway = gateway(&files, &clock, http2, "127.0.0.1:0").await;
        let upstream = format!("https://{name}:{}", gateway.address.port());
        let rest = format!("upstream_tls: {{ ca_file: ca.pem }}\n{rest}");
        let file = files.config(&upstream, route, &rest);
        let running = start(&file, clock.clone()).await;
        let egress = running.egress[0];
        Self {
            running,
            egress,
            gateway: Some(gateway),
            clock,
            files,
        }
    }

    /// A sidecar in front of something else.
    pub async fn before(upstream: &str, route: &str, rest: &str) -> Self {
        Self::before_at(held(), upstream, route, rest).await
    }

    /// The same at another time.
    pub async fn before_at(clock: Clock, upstream: &str, route: &str, rest: &str) -> Self {
        let files = Files::new();
        let file = files.config(upstream, route, rest);
        Self::of_at(clock, files, &file).await
    }

    /// A sidecar with that configuration, which says where the gateway is.
    pub async fn of(files: Files, file: &Path) -> Self {
        Self::of_at(held(), files, file).await
    }

    async fn of_at(clock: Clock, files: Files, file: &Path) -> Self {
        let running = start(file, clock.clone()).await;
        let egress = running.egress[0];
        Self {
            running,
            egress,
            gateway: None,
            clock,
            files,
        }
    }

    pub fn gateway(&self) -> &sandbox::Sandbox {
        &self.gateway.as_ref().unwrap().gateway
    }

    /// An answer to a payment whose body the gateway signed, with further header lines.
    pub fn signed_answer(&self, body: &str, extra: &str) -> Vec<u8> {
        self.signed_answer_of(body.as_bytes(), extra, body.as_bytes())
    }

    /// The same, where what is sent is not what was signed.
    pub fn signed_answer_of(&self, signed: &[u8], extra: &str, sent: &[u8]) -> Vec<u8> {
        let client_id = ClientId::parse(CLIENT_ID).unwrap();
        let time = Timestamp::at(self.clock.now(), Offset::default());
        let content = Content {
            method: "POST",
            uri: PAY,
            client_id: &client_id,
            time: &time,
            body: signed,
        };
        let signature = Signature {
            key_version: KeyVersion::default(),
            value: sign(&self.files.gateway, &content).unwrap(),
        };
        let length = sent.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\nClient-Id: {CLIENT_ID}\r\nResponse-Time: {time}\r\n\
             Signature: {signature}\r\n{extra}Content-Length: {length}\r\n\r\n"
        );
        [head.as_bytes(), sent].concat()
    }

    /// Pays with further header lines.
    pub async fn pay(&self, extra: &str) -> Answer {
        let host = self.egress.to_string();
        let request = post(PAY, &host, extra, payment("R1").as_bytes());
        send(self.egress, request).await
    }

    /// The value of a metric line, 0 when there is none.
    pub fn metric(&self, line: &str) -> f64 {
        metric(&self.running, line)
    }

    /// Waits until a metric has that value; it changes just after a peer sees the end.
    pub async fn until(&self, line: &str, value: f64) {
        let start = Instant::now();
        while self.metric(line) != value {
            let text = self.running.metrics.render().unwrap();
            assert!(start.elapsed() < PATIENCE, "{line} is not {value}: {text}");
            tokio::task::yield_now().await;
        }
    }

    pub fn verifications(&self, result: &str) -> f64 {
        self.metric(&format!(
            "countersign_verifications_total{{direction=\"egress\",result=\"{result}\"}}"
        ))
    }
}

/// The value of a metric line, 0 when there is none.
pub fn metric(running: &Running, line: &str) -> f64 {
    shown(&running.metrics, line).unwrap_or(0.0)
}

/// The value of a metric line, if there is one.
pub fn shown(metrics: &Metrics, line: &str) -> Option<f64> {
    let text = metrics.render().unwrap();
    let found = text
        .lines()
        .find_map(|found| found.strip_prefix(&format!("{line} ")));
    found.map(|value| value.parse().unwrap())
}

/// How many answers of a direction the sidecar gave itself that say this of the delivery.
pub fn faults_told(running: &Running, direction: &str, delivery: &str) -> usize {
    let text = running.metrics.render().unwrap();
    let told = text.lines().filter(|line| {
        line.starts_with("countersign_faults_total{")
            && line.contains(&format!(
                "delivery=\"{delivery}\",direction=\"{direction}\""
            ))
    });
    told.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum()
}

fn held() -> Clock {
    Clock::held(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
}

/// The simulated gateway alone; its CA is written to `ca.pem`.
pub async fn gateway(files: &Files, clock: &Clock, http2: bool, listen: &str) -> Started {
    let config = sandbox::Config {
        client_id: ClientId::parse(CLIENT_ID).unwrap(),
        partner_key: files.partner.public_key(),
        key: files.gateway.clone(),
        key_version: KeyVersion::default(),
        http2,
        fault: None,
        clock: clock.clone(),
    };
    let gateway = sandbox::start(config, listen.parse().unwrap())
        .await
        .unwrap();
    files.write("ca.pem", &gateway.ca_pem);
    gateway
}

/// A sidecar that is configured by a file.
pub async fn start(file: &Path, clock: Clock) -> Running {
    app::start(app::prepare(config::load(file), clock).unwrap())
        .await
        .unwrap()
}

/// A payment of that id, addressed to the sidecar itself.
pub fn pay_request(egress: SocketAddr, id: &str) -> Vec<u8> {
    post(PAY, &egress.to_string(), "", payment(id).as_bytes())
}

pub fn payment(id: &str) -> String {
    format!(r#"{{"paymentRequestId":"{id}","paymentAmount":{{"currency":"JPY","value":"100"}}}}"#)
}
