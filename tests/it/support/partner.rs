//! Partners that the simulated gateway calls, and the gateway's caller with its clock held.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign::clock::Clock;
use countersign::sandbox;
use countersign::sandbox::caller::{Call, CallFault, Caller, Operation, Payment, Report};
use countersign_protocol::{ClientId, Content, KeyVersion, Signature, Timestamp, sign};
use serde_json::{Value, json};

use super::clients::{clients, venv_python};
use super::world::{CLIENT_ID, Files};

pub const NOTIFY: &str = "/aps/api/v1/payments/notifyPayment";
pub const NOW: &str = "2027-01-15T08:00:00Z";
pub const GOOD: &str =
    r#"{"result":{"resultStatus":"S","resultCode":"SUCCESS","resultMessage":"success"}}"#;

pub fn held() -> Clock {
    Clock::held(Timestamp::parse(NOW).unwrap().instant())
}

/// What the gateway of these keys is made of.
pub fn gateway(files: &Files, clock: &Clock) -> sandbox::Config {
    sandbox::Config {
        client_id: ClientId::parse(CLIENT_ID).unwrap(),
        partner_key: files.partner.public_key(),
        key: files.gateway.clone(),
        key_version: KeyVersion::default(),
        http2: true,
        fault: None,
        clock: clock.clone(),
    }
}

/// One that calls plain partners.
pub fn caller(files: &Files, clock: &Clock) -> Caller {
    Caller::new(&gateway(files, clock), None).unwrap()
}

pub fn call(caller: &Caller, url: &str, operation: Operation, fault: Option<CallFault>) -> Call {
    let payment = Payment::sample("R1");
    Call {
        fault,
        ..caller.about(url.parse().unwrap(), operation, &payment)
    }
}

pub async fn notified(caller: &Caller, at: SocketAddr, fault: Option<CallFault>) -> Report {
    let url = format!("http://{at}{NOTIFY}");
    let call = call(caller, &url, Operation::NotifyPayment, fault);
    caller.call(&call).await.unwrap()
}

/// A call as it arrived.
pub struct Arrived {
    pub head: String,
    pub body: Vec<u8>,
}

impl Arrived {
    pub fn read(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let (head, body) = bytes.split_at(end.unwrap() + 4);
        Self {
            head: String::from_utf8(head.to_vec()).unwrap(),
            body: body.to_vec(),
        }
    }

    pub fn field(&self, name: &str) -> &str {
        let lines = self.head.lines();
        let mut values = lines.filter_map(|line| line.strip_prefix(&format!("{name}: ")));
        let value = values.next().unwrap_or_else(|| panic!("{}", self.head));
        assert_eq!(values.next(), None, "{}", self.head);
        value
    }

    pub fn question(&self, files: &Files) -> Value {
        let mut line = self.head.lines().next().unwrap().split(' ');
        json!({
            "op": "check_signature", "method": line.next(), "uri": line.next(),
            "client_id": self.field("client-id"), "time": self.field("request-time"),
            "body_base64": STANDARD.encode(&self.body), "signature": self.field("signature"),
            "key": files.gateway.public_key().to_spki_base64(),
        })
    }
}

/// A partner on the official SDK; killed when dropped.
pub struct SdkPartner {
    child: Child,
    pub address: SocketAddr,
}

impl SdkPartner {
    pub fn start(files: &Files) -> Self {
        let mut child = Command::new(venv_python())
            .arg(clients().join("partner_sdk.py"))
            .env("CLIENT_ID", CLIENT_ID)
            .env("PARTNER_PRIVATE_KEY", files.path("partner.pem"))
            .env("ALIPAY_PUBLIC_KEY", files.path("alipayplus.pem"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut port).unwrap();
        let port: u16 = port.trim().parse().unwrap();
        Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        }
    }
}

impl Drop for SdkPartner {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// An answer before it is written.
pub struct Reply {
    pub status: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Reply {
    /// A good one, signed over the body and with these values.
    pub fn signed(files: &Files, body: &str, client_id: &str, time: &str, version: u32) -> Self {
        let (id, at) = (
            ClientId::parse(client_id).unwrap(),
            Timestamp::parse(time).unwrap(),
        );
        let content = Content {
            method: "POST",
            uri: NOTIFY,
            client_id: &id,
            time: &at,
            body: body.as_bytes(),
        };
        let signature = Signature {
            key_version: version.into(),
            value: sign(&files.partner, &content).unwrap(),
        };
        Self {
            status: "200 OK",
            headers: vec![
                ("Client-Id", client_id.to_owned()),
                ("Response-Time", time.to_owned()),
                ("Signature", signature.to_string()),
            ],
            body: body.to_owned(),
        }
    }

    pub fn good(files: &Files) -> Self {
        Self::signed(files, GOOD, CLIENT_ID, NOW, 1)
    }

    pub fn without(mut self, names: &[&str]) -> Self {
        self.headers.retain(|(name, _)| !names.contains(name));
        self
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub fn status(mut self, status: &'static str) -> Self {
        self.status = status;
        self
    }

    pub fn body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let fields = self.headers.iter();
        let fields: String = fields
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let Self { status, body, .. } = self;
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\n{fields}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}
