//! What the injector answers to reviews, and to what is none: whatever is a review is allowed, and nothing that
//! arrives takes it down.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign::clock::Clock;
use countersign::http::Body;
use countersign::http::body::full;
use countersign::kube::{self, Defaults, Outcome};
use countersign::net::certificate::Served;
use countersign::net::tls;
use countersign::telemetry::Metrics;
use http::Request;
use http_body_util::BodyExt;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::Answer;
use crate::support::cluster::{Started, until};
use crate::support::manifests;
use crate::support::pki::Pki;

/// An injector with a certificate from files.
struct World {
    pki: Pki,
    started: Started,
}

impl World {
    async fn new() -> Self {
        let pki = Pki::new();
        let served = Served::load(&pki.config("one"), &Clock::system()).unwrap();
        let certificate = countersign::app::injector::Certificate::Files(Box::new(served));
        let metrics = Metrics::new().unwrap();
        let started = Started::start(certificate, Clock::system(), metrics).await;
        Self { pki, started }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        self.connect_by("http/1.1").await
    }

    async fn connect_by(&self, protocol: &str) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        for certificate in tls::certificates(&self.pki.path("ca.pem")).unwrap() {
            roots.add(certificate).unwrap();
        }
        let mut config = tls::client(roots).unwrap();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(self.started.running.address)
            .await
            .unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.unwrap()
    }

    /// A connection that reviews are posted on, one after another, as the API server does.
    async fn session(&self) -> Session {
        let (sender, connection) = handshake(TokioIo::new(self.connect().await)).await.unwrap();
        tokio::spawn(connection);
        Session(sender)
    }

    /// Sends bytes on a connection of its own and reads to its end.
    async fn send(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        // It may refuse the rest.
        let _refused = stream.write_all(request).await;
        Answer::read(stream).await
    }

    fn count(&self, result: &str) -> f64 {
        let line = format!("countersign_injections_total{{result=\"{result}\"}}");
        self.started.metric(&line).unwrap()
    }
}

struct Session(SendRequest<Body>);

impl Session {
    async fn post(&mut self, review: &Value) -> (u16, String) {
        self.0.ready().await.unwrap();
        let answer = self.0.send_request(posted("/inject?timeout=10s", review));
        let answer = answer.await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The response of what is a review.
    async fn ask(&mut self, review: &Value) -> Value {
        let (status, body) = self.post(review).await;
        assert_eq!(status, 200, "{body}: {review}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer["response"]["uid"], review["request"]["uid"]);
        assert_eq!(answer["response"]["allowed"], json!(true), "{review}");
        answer["response"].clone()
    }
}

fn posted(target: &str, review: &Value) -> Request<Body> {
    Request::post(target)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(full(review.to_string()))
        .unwrap()
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": "shop-", "namespace": "pay",
            "annotations": {
                "countersign.dev/inject": "enabled",
                "countersign.dev/keys": "partner-keys",
                "countersign.dev/client-id": "SANDBOX_5X00000000000000",
            },
        },
        "spec": { "containers": [
            { "name": "shop", "image": "shop:1", "env": [{ "name": "PASSWORD", "value": "hunter2" }] },
        ] },
    })
}

fn review(object: &Value) -> Value {
    let kind = json!({ "group": "", "version": "v1", "kind": "Pod" });
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": kind,
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "namespace": "pay", "operation": "CREATE", "object": object, "oldObject": null, "dryRun": false,
        },
    })
}

/// The patch of a response.
fn patch(response: &Value) -> Value {
    assert_eq!(response["patchType"], "JSONPatch", "{response}");
    let patch = STANDARD.decode(response["patch"].as_str().unwrap());
    serde_json::from_slice(&patch.unwrap()).unwrap()
}

/// The pod with the patch, by Python's jsonpatch, which the schemas of Kubernetes must take.
fn patched(pod: &Value, response: &Value) -> Value {
    let lines = manifests::patched(&[(pod.clone(), patch(response))]);
    let whole: Value = serde_json::from_str(&lines[0]).unwrap();
    // The API server makes names behind the webhooks, and before it validates.
    let mut named = whole.clone();
    named["metadata"]["name"] = json!("shop-x7f2p");
    assert_eq!(
        manifests::invalid(&named.to_string(), "1.30"),
        Vec::<String>::new()
    );
    whole
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_asks_gets_a_patch_that_makes_a_valid_pod() {
    let world = World::new().await;
    let mut session = world.session().await;
    for dry_run in [false, true] {
        let mut review = review(&pod());
        review["request"]["dryRun"] = json!(dry_run);
        let response = session.ask(&review).await;
        let whole = patched(&pod(), &response);
        let sidecars = whole["spec"]["initContainers"].as_array().unwrap();
        assert!(
            sidecars
                .iter()
                .any(|container| container["name"] == "countersign")
        );
        assert_eq!(
            whole["metadata"]["annotations"]["countersign.dev/status"],
            "injected"
        );
        // Once more, as a webhook is called again when another one changed the pod.
        let mut again = review.clone();
        again["request"]["object"] = whole;
        assert_eq!(session.ask(&again).await.get("patch"), None);
    }
    assert_eq!(
        (world.count("injected"), world.count("unasked")),
        (2.0, 2.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_does_to_every_pod_of_the_corpus_what_the_command_does() {
    let world = World::new().await;
    let mut session = world.session().await;
    let (mut injected, mut left) = (Vec::new(), 0);
    let mut expected = Vec::new();
    for given in manifests::pods() {
        let response = session.ask(&review(&given)).await;
        match kube::inject(&given, &Defaults::default()) {
            Outcome::Injected { pod, warnings, .. } => {
                let said = response["warnings"].as_array().map_or(0, Vec::len);
                assert_eq!(said, warnings.len(), "{response}");
                injected.push((given, patch(&response)));
                expected.push(pod.to_string());
            }
            Outcome::Unasked(_) => assert_eq!(response.get("warnings"), None, "{response}"),
            Outcome::Refused(lines) => {
                left += 1;
                assert_eq!(response.get("patch"), None);
                let said = response["warnings"].as_array().unwrap();
                for (said, line) in said.iter().zip(&lines) {
                    let text = format!("countersign: not injected: {line}");
                    assert_eq!(said.as_str().unwrap(), text);
                }
                assert_eq!(said.len(), lines.len());
            }
        }
    }
    assert!(
        injected.len() > 10 && left > 0,
        "{} and {left}",
        injected.len()
    );
    assert_eq!(manifests::patched(&injected), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_posts_reviews_over_http_2_and_1() {
    let world = World::new().await;
    world.pki.write("review.json", review(&pod()).to_string());
    let url = format!(
        "https://localhost:{}/inject?timeout=10s",
        world.started.running.address.port()
    );
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let output = tokio::process::Command::new("curl")
            .args([
                "-sS",
                "--noproxy",
                "*",
                "--cacert",
                "ca.pem",
                flag,
                "--max-time",
                "20",
            ])
            .args(["-H", "Content-Type: application/json; charset=utf-8"])
            .args([
                "--data-binary",
                "@review.json",
                "-w",
                "\n%{http_code} %{http_version}",
                &url,
            ])
            .current_dir(&world.pki.folder)
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, end) = text.rsplit_once('\n').unwrap();
        assert_eq!(end, format!("200 {version}"), "{text}");
        let answer: Value = serde_json::from_str(body).unwrap();
        patched(&pod(), &answer["response"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_injected_is_admitted_as_it_is_and_a_person_is_told_why() {
    let world = World::new().await;
    let mut session = world.session().await;
    let with = |path: &str, value: Value| {
        let mut review = review(&pod());
        *review.pointer_mut(path).unwrap() = value;
        review
    };
    let mut no_object = review(&pod());
    no_object["request"]
        .as_object_mut()
        .unwrap()
        .remove("object");
    let deployment = json!({ "group": "apps", "version": "v1", "kind": "Deployment" });
    let annotations = json!({ "countersign.dev/inject": "enabled", "countersign.dev/kyes": "k" });
    for (review, told) in [
        (
            with("/request/object/metadata/annotations", annotations),
            "kyes",
        ),
        (with("/request/object", Value::Null), "no object"),
        (no_object, "no object"),
        (with("/request/kind", deployment), "this is a Deployment"),
        (with("/request/object/kind", json!("Job")), "this is a Job"),
        (with("/request/object/spec", json!("no spec")), "spec"),
        (
            with("/request/object/metadata/annotations", json!(7)),
            "annotations",
        ),
    ] {
        let response = session.ask(&review).await;
        assert_eq!(response.get("patch"), None, "{told}");
        let warnings = response["warnings"]
            .as_array()
            .unwrap_or_else(|| panic!("no warning: {told}"));
        let all: Vec<_> = warnings.iter().map(|text| text.as_str().unwrap()).collect();
        assert!(
            all.iter()
                .all(|text| text.starts_with("countersign: not injected: ")),
            "{all:?}"
        );
        assert!(
            all.iter().any(|text| text.contains(told)),
            "{told}: {all:?}"
        );
        assert!(
            all.iter().all(|text| text.chars().count() <= 256),
            "{all:?}"
        );
    }
    assert_eq!((world.count("refused"), world.count("failed")), (7.0, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_about_new_pods_passes_without_a_word() {
    let world = World::new().await;
    let mut session = world.session().await;
    for (field, value) in [
        ("operation", json!("UPDATE")),
        ("operation", json!("DELETE")),
        ("operation", json!("CONNECT")),
        ("operation", Value::Null),
        ("subResource", json!("ephemeralcontainers")),
        ("subResource", json!("exec")),
    ] {
        let mut review = review(&pod());
        review["request"][field] = value;
        let response = session.ask(&review).await;
        assert_eq!(
            (response.get("patch"), response.get("warnings")),
            (None, None),
            "{review}"
        );
    }
    assert_eq!(world.count("unasked"), 6.0);
}

/// Every place in a value, as a JSON pointer.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    let step = |name: &str| format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Object(members) => members
            .iter()
            .for_each(|(name, value)| places(value, &step(name), found)),
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(index, value)| places(value, &step(&index.to_string()), found));
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_stands_in_a_review_it_is_allowed() {
    let world = World::new().await;
    let mut session = world.session().await;
    let whole = review(&pod());
    let mut all = Vec::new();
    places(&whole, "", &mut all);
    assert!(all.len() > 30, "{all:?}");
    let must = ["", "/apiVersion", "/kind", "/request", "/request/uid"];
    for place in &all {
        for value in [
            Value::Null,
            json!(true),
            json!(-1),
            json!(1.5e300),
            json!(""),
            json!("x\u{0}\u{2028}"),
            json!([]),
            json!({}),
            json!([[{}]]),
            json!({ "": { "": null } }),
        ] {
            let mut review = whole.clone();
            *review.pointer_mut(place).unwrap() = value.clone();
            let is_other_uid =
                place == "/request/uid" && value.as_str().is_some_and(|uid| !uid.is_empty());
            if must.contains(&place.as_str()) && !is_other_uid {
                let (status, why) = session.post(&review).await;
                assert_eq!(status, 400, "{place} = {value}: {why}");
                assert!(why.starts_with("countersign: ") && why.len() < 200, "{why}");
            } else {
                session.ask(&review).await;
            }
        }
    }
    // And it goes on.
    patched(&pod(), &session.ask(&whole).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_review_is_refused_with_a_reason() {
    let world = World::new().await;
    let good = review(&pod()).to_string();
    let beta = good.replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
    let twice = good.replacen("\"uid\":", "\"uid\":\"another\",\"uid\":", 1);
    let operation = good.replacen(
        "\"operation\":",
        "\"operation\":\"UPDATE\",\"operation\":",
        1,
    );
    let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
    let deep_pod = good.replace(
        "\"shop:1\"",
        &format!("{}{}", "{\"a\":".repeat(100_000), "1"),
    );
    let many = good.replace("\"shop:1\"", &format!("[{}0]", "0,".repeat(60_000)));
    let json = "Content-Type: application/json\r\n";
    for (line, head, body, status, why) in [
        ("POST /inject", json, "", 400, "ends too early"),
        ("POST /inject", json, "{\"a\":", 400, "ends too early"),
        ("POST /inject", json, "inject me", 400, "its JSON is wrong"),
        ("POST /inject", json, "\u{feff}{}", 400, "its JSON is wrong"),
        ("POST /inject", json, "[]", 400, "no JSON object"),
        (
            "POST /inject",
            json,
            "{}",
            400,
            "kind is not AdmissionReview",
        ),
        (
            "POST /inject",
            json,
            &beta,
            400,
            "admissionReviewVersions: [v1]",
        ),
        ("POST /inject", json, &twice, 400, "says request.uid twice"),
        (
            "POST /inject",
            json,
            &operation,
            400,
            "says request.operation twice",
        ),
        ("POST /inject", json, &deep, 400, "nested too deep"),
        ("POST /inject", json, &deep_pod, 400, "nested too deep"),
        ("POST /inject", json, &many, 400, "more than 50000 values"),
        (
            "POST /inject",
            "",
            &good,
            415,
            "Content-Type: application/json",
        ),
        (
            "POST /inject",
            "Content-Type: application/yaml\r\n",
            &good,
            415,
            "application/json",
        ),
        (
            "POST /inject",
            "Content-Type: application/jsonp\r\n",
            &good,
            415,
            "application/json",
        ),
        ("PUT /inject", json, &good, 405, "posted"),
        ("GET /inject", "", "", 405, "posted"),
        ("POST /", json, &good, 404, "/inject"),
        ("POST /inject/", json, &good, 404, "/inject"),
        ("POST /INJECT", json, &good, 404, "/inject"),
    ] {
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        let answer = world.send(request.as_bytes()).await;
        let text = answer.text();
        assert_eq!(answer.status, status, "{line}: {text}");
        assert!(text.contains(why), "{line}: {text}");
        assert_eq!(answer.field("allow"), (status == 405).then_some("POST"));
    }
    assert_eq!(
        (world.count("no_review"), world.count("failed")),
        (20.0, 0.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_said_twice_in_a_pod_leaves_it_alone() {
    let world = World::new().await;
    let text = review(&pod()).to_string().replacen(
        "\"containers\":",
        "\"containers\":[],\"containers\":",
        1,
    );
    let request = format!(
        "POST /inject HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    );
    let response = world.send(request.as_bytes()).await.json()["response"].clone();
    assert_eq!(
        (&response["allowed"], response.get("patch")),
        (&json!(true), None)
    );
    let warning = response["warnings"][0].as_str().unwrap();
    assert!(
        warning.ends_with("the pod says spec.containers twice"),
        "{warning}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_makes_no_more_of_itself_than_a_pod_needs() {
    let world = World::new().await;
    let mut session = world.session().await;
    let annotated = |name: &str, value: String| {
        let mut pod = pod();
        pod["metadata"]["annotations"][format!("countersign.dev/{name}")] = json!(value);
        pod
    };
    let mut crowd = pod();
    crowd["spec"]["containers"] = json!(vec![json!({ "name": "a" }); 20_000]);
    let hosts: Vec<String> = (0..300_000).map(|number| format!("n{number}")).collect();
    let mut strange = pod();
    for number in 0..20_000 {
        strange["metadata"]["annotations"][format!("countersign.dev/zz{number}")] = json!("a");
    }
    for (pod, why) in [
        (crowd, "has 20000 containers"),
        (annotated("no-proxy", hosts.join(",")), "at most 4096"),
        (
            annotated(&"x".repeat(2_000_000), "a".to_owned()),
            "countersign.dev/xxx",
        ),
        (strange, "countersign.dev/zz"),
        (wordy(90), "the pod would be larger than a cluster stores"),
    ] {
        let response = session.ask(&review(&pod)).await;
        let said = response.to_string();
        assert!(said.contains(why) && said.len() < 5000, "{said:.5000}");
    }
    patched(&pod(), &session.ask(&review(&pod())).await);
}

/// A pod of many containers, each of which gets long variables.
fn wordy(containers: usize) -> Value {
    let hosts: Vec<String> = (0..700).map(|number| format!("n{number}")).collect();
    let mut pod = pod();
    pod["metadata"]["annotations"]["countersign.dev/no-proxy"] = json!(hosts.join(","));
    pod["spec"]["containers"] = json!(vec![json!({ "name": "a" }); containers]);
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_nobody_reads_take_no_more_memory_than_reviews_may() {
    let world = World::new().await;
    let stream = TokioIo::new(world.connect_by("h2").await);
    let mut client = http2::Builder::new(TokioExecutor::new());
    let client = client.initial_stream_window_size(1024).handshake(stream);
    let (mut sender, connection) = client.await.unwrap();
    tokio::spawn(connection);
    let review = review(&wordy(30));
    let held = || world.started.metric("countersign_buffered_bytes").unwrap();
    let (mut unread, mut refused) = (Vec::new(), 0);
    for _ in 0..60 {
        let request = posted("https://localhost/inject", &review);
        let answer = sender.send_request(request).await.unwrap();
        match answer.status().as_u16() {
            200 => unread.push(answer),
            status => {
                assert_eq!(status, 503);
                refused += 1;
            }
        }
    }
    assert!(unread.len() > 10 && refused > 10, "{refused} were refused");
    assert!(held() > 10e6 && held() <= f64::from(16 << 20), "{}", held());
    drop(unread);
    until("given back", || held() == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_that_is_too_large_or_too_slow_is_given_up() {
    let world = World::new().await;
    let head = "POST /inject HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n";
    // At once where it says so itself, without a byte of it.
    let announced = format!("{head}Content-Length: {}\r\n\r\n", (4 << 20) + 1);
    let answer = world.send(announced.as_bytes()).await;
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(answer.text().contains("4194304 bytes"), "{}", answer.text());
    // And where it shows.
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(0x10_0000));
    let chunked = format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n{}1\r\n \r\n0\r\n\r\n",
        chunk.repeat(4)
    );
    assert_eq!(world.send(chunked.as_bytes()).await.status, 413);
    // What is as large as it may be is read.
    let good = review(&pod()).to_string();
    let padded = format!("{good}{}", " ".repeat((4 << 20) - good.len()));
    let request = format!("{head}Content-Length: {}\r\n\r\n{padded}", 4 << 20);
    assert_eq!(world.send(request.as_bytes()).await.status, 200);
    let stopped = format!("{head}Content-Length: 100\r\n\r\n{{");
    let answer = world.send(stopped.as_bytes()).await;
    assert_eq!(answer.status, 408, "{}", answer.text());
    let held = || world.started.metric("countersign_buffered_bytes").unwrap();
    until("given back", || held() == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_metrics_are_answered_and_nothing_else() {
    let world = World::new().await;
    let admin = world.started.running.admin;
    for (line, status, text) in [
        ("GET /livez", 200, "ok"),
        ("GET /readyz", 200, "ready"),
        (
            "GET /metrics",
            200,
            "countersign_injections_total{result=\"refused\"} 0",
        ),
        ("POST /readyz", 405, "not allowed"),
        ("POST /drain", 404, "/readyz"),
        ("GET /keys", 404, "/readyz"),
    ] {
        let request = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = crate::support::raw::send(admin, request).await;
        assert_eq!(answer.status, status, "{line}");
        assert!(answer.text().contains(text), "{line}: {}", answer.text());
    }
}
