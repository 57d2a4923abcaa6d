//! Real clients, unchanged, pay through the sidecar; and the official SDK agrees with our signatures.
//!
//! The clients stand in `tests/clients`; `scripts/test-deps.sh` installs what they need. A missing
//! one fails its test.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign_protocol::{
    ClientId, Content, KeyVersion, Offset, PrivateKey, PublicKey, Signature, Timestamp, sign,
    verify,
};
use serde_json::{Value, json};

use crate::support::World;
use crate::support::clients::ask_sdk;
use crate::support::world::{PAY, payment};

const GATEWAY: &str = "http://open-sea-global.alipayplus.com";

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

fn venv_python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".testbed/venv/bin/python");
    assert!(
        python.exists(),
        "no {}: run scripts/test-deps.sh",
        python.display()
    );
    python
}

/// Lets a client pay and reads its line.
async fn pays(command: &mut Command, url: &str, id: &str) -> Value {
    for name in [
        "http_proxy",
        "NO_PROXY",
        "no_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
    command
        .env("URL", url)
        .env("BODY", payment(id))
        .env("LC_ALL", "C.UTF-8");
    let mut command =
        tokio::process::Command::from(std::mem::replace(command, Command::new("true")));
    let output = command.output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// Every client pays once and is refused once, with the same status, verdict and code.
async fn pays_and_is_protected(world: &World, url: &str, command: impl Fn() -> Command) {
    let line = pays(&mut command(), url, "R1").await;
    assert_eq!(
        (&line["status"], &line["verdict"]),
        (&json!(200), &json!("verified")),
        "{line}"
    );
    let body: Value = serde_json::from_str(line["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["result"]["resultStatus"], "S");
    let seen = world.gateway().last_seen().unwrap();
    assert!(seen.authentic && seen.uri == PAY, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_pays_through_the_proxy_setting_and_the_base_url() {
    let world = World::new().await;
    let proxy = format!("http://{}", world.egress);
    let curl = |proxy: &str| {
        let mut command = Command::new(clients().join("curl.sh"));
        command.env("PROXY", proxy);
        command
    };
    pays_and_is_protected(&world, &format!("{GATEWAY}{PAY}"), || curl(&proxy)).await;
    pays_and_is_protected(&world, &format!("{proxy}{PAY}"), || curl("")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_requests_pays_through_http_proxy() {
    let world = World::new().await;
    let proxy = format!("http://{}", world.egress);
    pays_and_is_protected(&world, &format!("{GATEWAY}{PAY}"), || {
        let mut command = Command::new(venv_python());
        command
            .arg(clients().join("python_requests.py"))
            .env("HTTP_PROXY", &proxy);
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_fetch_pays_at_the_base_url() {
    let world = World::new().await;
    let url = format!("http://{}{PAY}", world.egress);
    pays_and_is_protected(&world, &url, || {
        let mut command = Command::new("node");
        command.arg(clients().join("node_fetch.mjs"));
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn java_http_url_connection_pays_through_the_proxy_properties() {
    let world = World::new().await;
    pays_and_is_protected(&world, &format!("{GATEWAY}{PAY}"), || {
        let mut command = Command::new("java");
        command
            .arg("-Dhttp.proxyHost=127.0.0.1")
            .arg(format!("-Dhttp.proxyPort={}", world.egress.port()))
            .arg(clients().join("Pay.java"));
        command
    })
    .await;
}

/// A message, its key's two halves, and our signature's value as it stands in the header.
struct Case {
    method: String,
    uri: String,
    client_id: String,
    time: String,
    body: Vec<u8>,
    private: String,
    public: String,
    value: String,
}

impl Case {
    fn question(&self, operation: &str) -> Value {
        let key = if operation == "sign" {
            &self.private
        } else {
            &self.public
        };
        json!({
            "op": operation, "method": self.method, "uri": self.uri, "client_id": self.client_id,
            "time": self.time, "body_base64": STANDARD.encode(&self.body), "key": key,
            "signature": self.value,
        })
    }

    /// Whether our own reading of the SDK's value verifies.
    fn accepts(&self, value: &str) -> bool {
        let signature = Signature::parse(&format!("signature={value}")).unwrap();
        let (client_id, time) = (
            ClientId::parse(&self.client_id).unwrap(),
            Timestamp::parse(&self.time).unwrap(),
        );
        let content = Content {
            method: &self.method,
            uri: &self.uri,
            client_id: &client_id,
            time: &time,
            body: &self.body,
        };
        let key = PublicKey::parse(self.public.as_bytes()).unwrap();
        verify(&key, &content, &signature.value).is_ok()
    }
}

fn agrees(cases: &[Case]) {
    let questions: Vec<Value> = cases
        .iter()
        .flat_map(|case| [case.question("sign"), case.question("verify")])
        .collect();
    let answers = ask_sdk(&questions);
    for (case, answers) in cases.iter().zip(answers.chunks(2)) {
        let theirs = answers[0]["signature"]
            .as_str()
            .unwrap_or_else(|| panic!("{}", answers[0]));
        assert!(
            case.accepts(theirs),
            "we refuse the SDK's signature over {}",
            case.uri
        );
        assert_eq!(theirs, case.value, "the SDK signs {} differently", case.uri);
        assert_eq!(
            answers[1]["verified"], true,
            "the SDK refuses ours over {}",
            case.uri
        );
    }
}

#[test]
fn the_official_sdk_agrees_on_the_vectors() {
    let text = include_str!("../../crates/protocol/tests/vectors/signing.json");
    let document: Value = serde_json::from_str(text).unwrap();
    let string = |value: &Value| value.as_str().unwrap().to_owned();
    let vectors = document["vectors"].as_array().unwrap().iter();
    let cases: Vec<Case> = vectors
        // One vector describes its body of 1 MiB instead of holding it.
        .filter(|vector| vector["all_sdks_agree"] == true && vector["body_base64"].is_string())
        .map(|vector| {
            let key = &document["keys"][vector["key"].as_str().unwrap()];
            Case {
                method: string(&vector["method"]),
                uri: string(&vector["uri"]),
                client_id: string(&vector["client_id"]),
                time: string(&vector["time"]),
                body: STANDARD.decode(string(&vector["body_base64"])).unwrap(),
                private: string(&key["pkcs8_der_base64"]),
                public: string(&key["spki_der_base64"]),
                value: string(&vector["signature_urlencoded"]),
            }
        })
        // The SDK takes bodies as text.
        .filter(|case| std::str::from_utf8(&case.body).is_ok())
        .filter(|case| {
            ClientId::parse(&case.client_id).is_ok() && Timestamp::parse(&case.time).is_ok()
        })
        .collect();
    assert!(cases.len() > 25, "only {} vectors", cases.len());
    agrees(&cases);
}

#[test]
fn the_official_sdk_agrees_on_a_thousand_random_messages() {
    let key = PrivateKey::generate(2048).unwrap();
    let (private, public) = (
        key.to_pkcs8_base64().to_string(),
        key.public_key().to_spki_base64(),
    );
    // A fixed generator: a failure can be repeated.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let alphabet: Vec<char> = " {}[]\":,.\n\r\t\\/aZ09äß€漢字😀%+&=".chars().collect();
    let cases: Vec<Case> = (0..1000)
        .map(|_| {
            let body: String = (0..next(400))
                .map(|_| alphabet[usize::try_from(next(alphabet.len() as u64)).unwrap()])
                .collect();
            let uri = format!(
                "/aps/api/v1/{:x}//{}?q={:x}%2F",
                next(1 << 20),
                next(9),
                next(1 << 20)
            );
            let client_id = ClientId::parse(&format!("SANDBOX_{:016X}", next(1 << 31))).unwrap();
            let instant = std::time::UNIX_EPOCH + std::time::Duration::from_secs(next(1 << 31));
            let time = Timestamp::at(instant, Offset::default());
            let content = Content {
                method: "POST",
                uri: &uri,
                client_id: &client_id,
                time: &time,
                body: body.as_bytes(),
            };
            let value = sign(&key, &content).unwrap();
            let header = Signature {
                key_version: KeyVersion::default(),
                value,
            }
            .to_string();
            Case {
                method: "POST".to_owned(),
                client_id: client_id.to_string(),
                time: time.to_string(),
                body: body.into_bytes(),
                private: private.clone(),
                public: public.clone(),
                value: header.rsplit_once("signature=").unwrap().1.to_owned(),
                uri,
            }
        })
        .collect();
    agrees(&cases);
}
