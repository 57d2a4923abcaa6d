//! An injector with a certificate from files, and reviews that are posted to it as an API server does.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign::clock::Clock;
use countersign::http::Body;
use countersign::http::body::full;
use countersign::net::certificate::Served;
use countersign::net::tls;
use countersign::telemetry::Metrics;
use http::Request;
use http_body_util::BodyExt;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Answer;
use super::injector::Started;
use super::manifests;
use super::pki::Pki;

/// An injector with a certificate from files.
pub struct World {
    pub pki: Pki,
    pub started: Started,
}

impl World {
    pub async fn new() -> Self {
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

    pub async fn connect_by(&self, protocol: &str) -> TlsStream<TcpStream> {
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
    pub async fn session(&self) -> Session {
        let (sender, connection) = handshake(TokioIo::new(self.connect().await)).await.unwrap();
        tokio::spawn(connection);
        Session(sender)
    }

    /// Sends bytes on a connection of its own and reads to its end.
    pub async fn send(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect().await;
        // It may refuse the rest.
        let _refused = stream.write_all(request).await;
        Answer::read(stream).await
    }

    pub fn count(&self, result: &str) -> f64 {
        let line = format!("countersign_injections_total{{result=\"{result}\"}}");
        self.started.metric(&line).unwrap()
    }
}

pub struct Session(SendRequest<Body>);

impl Session {
    pub async fn post(&mut self, review: &Value) -> (u16, String) {
        self.0.ready().await.unwrap();
        let answer = self.0.send_request(posted("/inject?timeout=10s", review));
        let answer = answer.await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The response of what is a review.
    pub async fn ask(&mut self, review: &Value) -> Value {
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

pub fn posted(target: &str, review: &Value) -> Request<Body> {
    Request::post(target)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(full(review.to_string()))
        .unwrap()
}

/// A pod that asks for the sidecar.
pub fn pod() -> Value {
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

/// A review of a pod that is being made.
pub fn review(object: &Value) -> Value {
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
pub fn patch(response: &Value) -> Value {
    assert_eq!(response["patchType"], "JSONPatch", "{response}");
    let patch = STANDARD.decode(response["patch"].as_str().unwrap());
    serde_json::from_slice(&patch.unwrap()).unwrap()
}

/// The pod with the patch, by Python's jsonpatch, which the schemas of Kubernetes must take.
pub fn patched(pod: &Value, response: &Value) -> Value {
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
