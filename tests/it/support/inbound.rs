//! The way in: a caller with Alipay+'s key, a sidecar, and an app whose every answer the test gives.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use countersign::app::{self, Running};
use countersign::clock::Clock;
use countersign::config;
use countersign_protocol::{
    ClientId, Content, KeyVersion, Offset, PrivateKey, Signature, Timestamp, sign, verify,
};
use tokio::io::AsyncWriteExt;

use super::raw::{Answer, RawGateway, post, send};
use super::world::{CLIENT_ID, Files, metric};

/// What Alipay+ posts to, in public.
pub const NOTIFY: &str = "/alipayplus/notifyPayment";
/// What a good app answers.
pub const SUCCESS: &str =
    r#"{"result":{"resultCode":"SUCCESS","resultStatus":"S","resultMessage":"success"}}"#;

pub struct Inbound {
    pub running: Running,
    pub ingress: SocketAddr,
    pub app: RawGateway,
    pub clock: Clock,
    pub files: Files,
}

impl Inbound {
    pub async fn new() -> Self {
        Self::with("", "").await
    }

    /// With further YAML for the route and the file.
    pub async fn with(route: &str, rest: &str) -> Self {
        let files = Files::new();
        let app = RawGateway::by_hand().await;
        let config = format!(
            "{}  - client_id: OTHER\n    signing_key: {{ file: partner.pem }}\n    \
             verification_keys: [{{ file: alipayplus.pem }}]\n\
             ingress:\n  listen: 127.0.0.1:0\n  routes:\n    - app: http://{}\n{route}\n{rest}\n",
            Files::identities(),
            app.address
        );
        let file = files.write("ingress.yaml", config.as_bytes());
        let clock = Clock::held(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let prepared = app::prepare(config::load(&file), clock.clone()).unwrap();
        let running = app::start(prepared).await.unwrap();
        Self {
            ingress: running.ingress[0],
            running,
            app,
            clock,
            files,
        }
    }

    /// What Alipay+ would send now.
    pub fn message(&self, uri: &str, body: &[u8]) -> Message {
        Message::at(&self.clock, &self.files, uri, body)
    }

    /// Sends a message whose answer the app gives as these bytes; what the app saw.
    pub async fn exchange(&mut self, request: Vec<u8>, answer: &[u8]) -> (Answer, String) {
        let (got, seen) = tokio::join!(send(self.ingress, request), async {
            let (seen, mut stream) = self.app.next().await;
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
            seen
        });
        (got, String::from_utf8_lossy(&seen).into_owned())
    }

    pub fn metric(&self, line: &str) -> f64 {
        metric(&self.running, line)
    }

    pub fn verifications(&self, result: &str) -> f64 {
        self.metric(&format!(
            "countersign_verifications_total{{direction=\"ingress\",result=\"{result}\"}}"
        ))
    }

    /// What is wrong with the signature of an answer; nothing when it is the partner's.
    pub fn flaw(&self, message: &Message, answer: &Answer) -> Option<String> {
        flaw(&self.files, message, answer)
    }
}

/// What is wrong with the signature of an answer; nothing when it is the partner's.
pub fn flaw(files: &Files, message: &Message, answer: &Answer) -> Option<String> {
    let field = |name| answer.field(name).ok_or(format!("no {name}"));
    let check = || {
        let signature = Signature::parse(field("signature")?).map_err(|e| e.to_string())?;
        let time = Timestamp::parse(field("response-time")?).map_err(|e| e.to_string())?;
        let client_id = ClientId::parse(field("client-id")?).map_err(|e| e.to_string())?;
        if signature.key_version != KeyVersion::default() {
            return Err("another key version".to_owned());
        }
        let content = Content {
            method: &message.method,
            uri: &message.uri,
            client_id: &client_id,
            time: &time,
            body: &answer.body,
        };
        verify(&files.partner.public_key(), &content, &signature.value)
            .map_err(|error| error.to_string())
    };
    check().err()
}

/// A request of Alipay+, to be changed before it is signed.
#[derive(Clone)]
pub struct Message {
    pub method: String,
    pub uri: String,
    pub client_id: String,
    pub time: String,
    pub key: PrivateKey,
    pub key_version: u32,
    pub body: Vec<u8>,
}

impl Message {
    /// What Alipay+ would send at that time.
    pub fn at(clock: &Clock, files: &Files, uri: &str, body: &[u8]) -> Self {
        Self {
            method: "POST".to_owned(),
            uri: uri.to_owned(),
            client_id: CLIENT_ID.to_owned(),
            time: Timestamp::at(clock.now(), Offset::default()).to_string(),
            key: files.gateway.clone(),
            key_version: 1,
            body: body.to_vec(),
        }
    }

    /// Its three headers.
    pub fn headers(&self) -> String {
        format!(
            "Client-Id: {}\r\nRequest-Time: {}\r\nSignature: {}\r\n",
            self.client_id,
            self.time,
            self.signature()
        )
    }

    pub fn signature(&self) -> String {
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
        Signature {
            key_version: KeyVersion::new(self.key_version),
            value: sign(&self.key, &content).unwrap(),
        }
        .to_string()
    }

    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.with(&self.headers())
    }

    /// Its bytes with other header lines.
    pub fn with(&self, headers: &str) -> Vec<u8> {
        let bytes = post(&self.uri, "pay.partner.example", headers, &self.body);
        let head = String::from_utf8(bytes[..4].to_vec()).unwrap();
        assert_eq!(head, "POST");
        [self.method.as_bytes(), &bytes[4..]].concat()
    }
}
