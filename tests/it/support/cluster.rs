//! A small cluster: an API server with a service account. It is `tests/tools/api_server.py`, its CA openssl's, its
//! clients curl, kubectl and the injectors of `injector`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign::app::injector::Certificate;
use countersign::clock::Clock;
use countersign::kube::cluster::Cluster as Client;
use countersign::kube::serving::{Config, LABEL};
use countersign::telemetry::Metrics;
use serde_json::{Value, json};

use super::clients::venv_python;
use super::injector::Started;
use super::pki::Pki;
use super::process::{PATIENCE, command, text};

pub const NAMESPACE: &str = "countersign";
pub const SECRET: &str = "/api/v1/namespaces/countersign/secrets/injector-tls";
pub const SECRETS: &str = "/api/v1/namespaces/countersign/secrets";
pub const WEBHOOKS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
pub const WEBHOOK: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/countersign";
pub const ENDPOINTS: &str = "/api/v1/namespaces/countersign/endpoints";
const TOKEN: &str = "the-first-token";

/// A pod that asks for the sidecar, as a person writes one; the name of its Secret comes from `injector::defaults`.
pub const POD: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: shop
  namespace: pay
  annotations:
    countersign.dev/inject: enabled
    countersign.dev/client-id: SANDBOX_5X00000000000000
spec:
  containers:
    - name: shop
      image: shop:1
      env: [{ name: PASSWORD, value: hunter2 }]
";

/// An API server; ended when dropped.
pub struct Cluster {
    pub pki: Pki,
    child: Option<Child>,
    pub port: u16,
}

impl Cluster {
    /// One that knows nothing but a webhook configuration without bundles.
    pub fn new() -> Self {
        let cluster = Self::empty();
        cluster.post(WEBHOOKS, &webhook());
        cluster
    }

    /// One that knows nothing.
    pub fn empty() -> Self {
        let pki = Pki::new();
        for (from, to) in [
            ("one.pem", "server.pem"),
            ("one.key", "server.key"),
            ("ca.pem", "ca.crt"),
        ] {
            fs::copy(pki.path(from), pki.path(to)).unwrap();
        }
        pki.write("token", TOKEN);
        pki.write("namespace", NAMESPACE);
        let mut cluster = Self {
            pki,
            child: None,
            port: 0,
        };
        cluster.start();
        cluster
    }

    /// Starts it, with what it knew before.
    pub fn start(&mut self) {
        let tool = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tools/api_server.py");
        let mut child = Command::new(venv_python())
            .arg(tool)
            .arg(self.pki.folder.path())
            .arg(self.port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let port = line.trim().parse();
        self.port =
            port.unwrap_or_else(|_| panic!("the API server does not start: {line}; run make deps"));
        self.child = Some(child);
    }

    /// Ends it; what it knew stays in its folder.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone_already = child.kill();
            let _reaped = child.wait();
        }
    }

    /// Lets nobody do this any more, as `get secrets`.
    pub fn forbid(&self, what: &str) {
        self.pki.replace("forbidden", what);
    }

    /// Answers none of these before so many have seen the object, once, as `get secrets 2`.
    pub fn together(&self, what: &str) {
        self.pki.replace("together", what);
    }

    /// How many of them have come.
    pub fn waiting(&self, what: &str) -> usize {
        let came = fs::read_to_string(self.pki.path("waiting")).unwrap_or_default();
        came.lines().filter(|line| *line == what).count()
    }

    fn curl(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let token = format!("Authorization: Bearer {}", self.pki.read("token"));
        let url = format!("https://localhost:{}{path}", self.port);
        let mut command = Command::new("curl");
        command
            .args([
                "-sS",
                "--noproxy",
                "*",
                "--max-time",
                "20",
                "-X",
                method,
                "-H",
                &token,
            ])
            .args(["-w", "\n%{http_code}", "--cacert"])
            .arg(self.pki.path("ca.pem"));
        if let Some(body) = body {
            command.args(["--data-binary", &body.to_string()]);
        }
        let output = command.arg(url).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let answer = String::from_utf8(output.stdout).unwrap();
        let (body, status) = answer.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        let (status, value) = self.curl("GET", path, None);
        (status == 200).then_some(value)
    }

    pub fn post(&self, path: &str, value: &Value) {
        let (status, answer) = self.curl("POST", path, Some(value));
        assert_eq!(status, 201, "{answer}");
    }

    pub fn put(&self, path: &str, value: &Value) {
        let (status, answer) = self.curl("PUT", path, Some(value));
        assert_eq!(status, 200, "{answer}");
    }

    pub fn delete(&self, path: &str) {
        let (status, answer) = self.curl("DELETE", path, None);
        assert_eq!(status, 200, "{answer}");
    }

    /// An item of the Secret, decoded.
    pub fn item(&self, name: &str) -> String {
        let secret = self.get(SECRET).expect("there is no Secret");
        decoded(secret["data"][name].as_str().unwrap())
    }

    /// The bundle that is written into the configuration's first webhook.
    pub fn bundle(&self) -> String {
        let value = self.get(WEBHOOK).unwrap();
        let bundle = value["webhooks"][0]["clientConfig"]["caBundle"].as_str();
        decoded(bundle.unwrap_or_default())
    }

    /// Leads the service to an injector.
    pub fn lead_to(&self, address: SocketAddr) {
        let subset = json!({
            "addresses": [{ "ip": address.ip().to_string() }],
            "ports": [{ "port": address.port() }],
        });
        let value = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": { "name": "injector", "namespace": NAMESPACE }, "subsets": [subset],
        });
        let path = format!("{ENDPOINTS}/injector");
        if self.get(&path).is_some() {
            self.put(&path, &value);
        } else {
            self.post(ENDPOINTS, &value);
        }
    }

    /// What came of the calls of webhooks.
    pub fn calls(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.pki.path("webhooks.log")).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Runs the real kubectl against it.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        let server = format!("https://localhost:{}", self.port);
        let output = Command::new("kubectl")
            .args(["--server", &server, "--token", &self.pki.read("token")])
            .arg("--certificate-authority")
            .arg(self.pki.path("ca.pem"))
            .arg("--cache-dir")
            .arg(self.pki.path("cache"))
            .args(arguments)
            .env("KUBECONFIG", "/dev/null")
            .env("NO_PROXY", "*")
            .stdin(Stdio::null())
            .output();
        output.unwrap_or_else(|error| panic!("kubectl: {error}; run make deps"))
    }

    /// Has kubectl create what a manifest describes, without a schema to check it by.
    pub fn create(&self, manifest: &str) -> Output {
        self.pki.write("pod.yaml", manifest);
        let file = self.pki.path("pod.yaml");
        self.kubectl(&[
            "create",
            "--validate=false",
            "-o",
            "json",
            "-f",
            text(&file),
        ])
    }

    /// An injector in this process, whose time is the test's.
    pub async fn injector(&self, clock: &Clock) -> Started {
        let metrics = Metrics::new().unwrap();
        let config = Config {
            namespace: NAMESPACE.to_owned(),
            secret: "injector-tls".to_owned(),
            webhook: "countersign".to_owned(),
            service: "injector".to_owned(),
            interval: Duration::from_millis(50),
        };
        let client = Client {
            host: "localhost".to_owned(),
            port: self.port,
            account: self.pki.folder.path().to_owned(),
            metrics: metrics.clone(),
        };
        let certificate = Certificate::Kept(config, Box::new(client));
        Started::start(certificate, clock.clone(), metrics).await
    }

    /// The command of an injector that is a process of its own.
    pub fn command(&self) -> Command {
        self.command_draining("100ms")
    }

    /// The same with a grace of its own.
    pub fn command_draining(&self, grace: &str) -> Command {
        let mut command = command(&[
            "injector",
            "--listen=127.0.0.1:0",
            "--admin-listen=127.0.0.1:0",
            "--secret=injector-tls",
            "--webhook=countersign",
            "--service=injector",
            "--interval=100ms",
            "--drain-grace",
            grace,
            "--service-account",
            text(self.pki.folder.path()),
        ]);
        command
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", self.port.to_string());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

fn decoded(text: &str) -> String {
    String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
}

/// A webhook configuration as a chart installs it.
pub fn webhook() -> Value {
    let hook = json!({
        "name": "inject.countersign.dev",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Ignore",
        "timeoutSeconds": 10,
        "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] }],
        "clientConfig": {
            "service": { "name": "injector", "namespace": NAMESPACE, "path": "/inject", "port": 443 },
        },
    });
    let mut other = hook.clone();
    other["name"] = json!("other.example.com");
    other["rules"] = json!([]);
    other["clientConfig"]["service"]["name"] = json!("another");
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": { "name": "countersign", "labels": { "chart": "countersign" } },
        "webhooks": [hook, other],
    })
}

/// The Secret as a chart may make it: empty, and labelled.
pub fn empty_secret() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {
            "name": "injector-tls", "namespace": NAMESPACE,
            "labels": { LABEL: "injector", "app": "countersign" },
        },
    })
}

/// What kubectl says that it has created.
pub fn created(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Whether a pod has the sidecar, as an init container that runs on.
pub fn has_sidecar(pod: &Value) -> bool {
    let containers = pod["spec"]["initContainers"].as_array();
    containers.is_some_and(|all| all.iter().any(|one| one["name"] == "countersign"))
}

/// Waits until something holds, which it must do soon.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        tokio::task::yield_now().await;
    }
}
