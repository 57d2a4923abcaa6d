//! `demo`: the whole story in one process on loopback, with throw-away keys.
//!
//! Starts the simulated gateway, a sidecar and a legacy app, and shows both directions: what the one
//! side sent, what the other saw and what was found out. Every step is checked; with `--once` the
//! exit code tells whether all of them held.

mod called;
mod show;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use countersign_protocol::ClientId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use self::called::{App, Scene};
use self::show::{expect, fields, indent, shorten_lines};
use super::output::say;
use super::sandbox::{CLIENT_ID, Keys, curl, write};
use super::{Failure, runtime};
use crate::app::{self, Running};
use crate::clock::Clock;
use crate::config;
use crate::sandbox::{Caller, Started, start};
use crate::telemetry::log;

/// Show the whole story: a simulated gateway, a sidecar, a legacy app.
///
/// Everything runs on loopback in one process with throw-away keys. Afterwards it stays up, with curl
/// lines to try, until Ctrl-C.
#[derive(Args, Debug)]
pub struct Demo {
    /// End after the story; exit 0 only if every step held.
    #[arg(long)]
    once: bool,
    /// What the sidecar logs meanwhile.
    #[arg(long, default_value = "off")]
    log_level: String,
}

impl Demo {
    /// Tells the story.
    pub(super) fn execute(self) -> Result<(), Failure> {
        log::install(log::Format::Auto, &self.log_level);
        let folder = tempfile::Builder::new()
            .prefix("countersign-demo-")
            .tempdir()
            .map_err(Failure::other)?;
        runtime()?.block_on(async {
            let stage = Box::pin(Stage::build(folder.path())).await?;
            let story = stage.story().await;
            if self.once {
                return story;
            }
            if let Err(Failure::Other(line)) = &story {
                say(format_args!("\nNOT AS IT SHOULD BE: {line}"));
            }
            stage.invite();
            let _interrupted = tokio::signal::ctrl_c().await;
            story
        })
    }
}

/// The gateway, the sidecar, and the app that is called; the other app is played.
struct Stage {
    gateway: Started,
    caller: Caller,
    running: Running,
    egress: SocketAddr,
    ingress: SocketAddr,
    app: App,
    folder: PathBuf,
}

/// What an app got.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Stage {
    async fn build(folder: &Path) -> Result<Self, Failure> {
        let client_id = ClientId::parse(CLIENT_ID).map_err(Failure::other)?;
        let keys = Keys::in_folder(folder)?;
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = keys.gateway_config(client_id);
        let caller = Caller::new(&config, None).map_err(Failure::other)?;
        let gateway = start(config, anywhere).await.map_err(Failure::other)?;
        let app = App::start().await?;
        write(&folder.join("ca.pem"), &gateway.ca_pem, 0o644)?;
        let file = folder.join("config.yaml");
        write(
            &file,
            configuration(gateway.address.port(), app.address).as_bytes(),
            0o644,
        )?;
        let prepared =
            app::prepare(config::load(&file), Clock::system()).map_err(Failure::Usage)?;
        let running = app::start(prepared).await.map_err(Failure::other)?;
        let egress = *running
            .egress
            .first()
            .ok_or_else(|| Failure::other("egress did not start"))?;
        let ingress = *running
            .ingress
            .first()
            .ok_or_else(|| Failure::other("ingress did not start"))?;
        Ok(Self {
            gateway,
            caller,
            running,
            egress,
            ingress,
            app,
            folder: folder.to_owned(),
        })
    }

    async fn story(&self) -> Result<(), Failure> {
        self.tell().await?;
        self.scene().tell().await
    }

    /// The second half.
    fn scene(&self) -> Scene<'_> {
        Scene {
            caller: &self.caller,
            ingress: self.ingress,
            app: &self.app,
        }
    }

    async fn tell(&self) -> Result<(), Failure> {
        say("Countersign demo: a legacy app, the sidecar, and a simulated Alipay+ gateway\n");
        say(format_args!("  app  ──http──▶  sidecar {}", self.egress));
        say(format_args!(
            "                  ──https, signed──▶  gateway {}\n",
            self.gateway.address
        ));
        self.a_payment().await?;
        self.through_the_proxy_setting().await?;
        for (fault, code, what) in [
            (
                "altered-body",
                "response_signature_invalid",
                "changes one digit of the answer",
            ),
            (
                "unsigned-success",
                "response_signature_missing",
                "says S without a signature",
            ),
            (
                "half-signed",
                "response_signature_missing",
                "leaves out Response-Time",
            ),
            (
                "wrong-key",
                "response_signature_invalid",
                "signs with another key",
            ),
            (
                "wrong-client",
                "response_client_mismatch",
                "answers for another client",
            ),
            (
                "stale-time",
                "response_time_unacceptable",
                "repeats an answer of an hour ago",
            ),
        ] {
            self.refused(fault, code, what).await?;
        }
        self.counted()
    }

    async fn a_payment(&self) -> Result<(), Failure> {
        say("1. The app pays. It knows nothing of signatures; its base URL is the sidecar.\n");
        let request = payment(
            "/aps/api/v1/payments/pay",
            &self.egress.to_string(),
            "R1",
            "",
        );
        say(indent("app sent", &request));
        let answer = self.send(&request).await?;
        let seen = self.gateway.gateway.last_seen();
        let seen = seen.ok_or_else(|| Failure::other("nothing arrived at the gateway"))?;
        let wire = format!("{} {} (over TLS)\n", seen.method, seen.uri);
        let wire = wire + &fields(&seen.headers);
        say(indent("on the wire to the gateway", &wire));
        say(format_args!(
            "   gateway: signature {}\n",
            if seen.authentic {
                "verified"
            } else {
                "REFUSED"
            }
        ));
        say(indent(
            "app got",
            &format!("{}\n\n{}", shorten_lines(&answer.head), answer.body),
        ));
        expect(seen.authentic, "the gateway verifies the request")?;
        expect(answer.status == 200, "the app gets status 200")?;
        expect(
            answer.has("countersign-verdict: verified"),
            "the answer is verified",
        )
    }

    async fn through_the_proxy_setting(&self) -> Result<(), Failure> {
        say("2. Another app uses HTTP_PROXY and the gateway's own name: the same, verified.\n");
        let target = "http://open-sea-global.alipayplus.com/aps/api/v1/payments/inquiryPayment";
        let body = payment(target, "open-sea-global.alipayplus.com", "R1", "");
        let answer = self.send(&body).await?;
        expect(
            answer.has("countersign-verdict: verified"),
            "the proxied answer is verified",
        )
    }

    async fn refused(&self, fault: &str, code: &str, what: &str) -> Result<(), Failure> {
        let header = format!("sandbox-fault: {fault}\r\n");
        let request = payment(
            "/aps/api/v1/payments/pay",
            &self.egress.to_string(),
            "R2",
            &header,
        );
        let answer = self.send(&request).await?;
        say(format_args!(
            "3. The gateway {what}: the app gets {} {code}",
            answer.status
        ));
        expect(answer.status == 502, "the altered answer becomes 502")?;
        expect(answer.has(&format!("countersign-error: {code}")), code)?;
        expect(
            answer.body.contains("\"resultStatus\":\"U\""),
            "the result is unknown",
        )?;
        expect(
            !answer.body.contains("paymentId"),
            "no byte of the answer reaches the app",
        )
    }

    fn counted(&self) -> Result<(), Failure> {
        let metrics = self.running.metrics.render().map_err(Failure::other)?;
        say("\n4. What the operator sees:\n");
        let lines = metrics
            .lines()
            .filter(|line| line.starts_with("countersign_verifications_total"));
        let lines: Vec<&str> = lines.collect();
        say(indent("metrics", &lines.join("\n")));
        expect(lines.len() >= 5, "every refusal is counted under its code")?;
        Ok(())
    }

    fn invite(&self) {
        say("Still running. Try it, Ctrl-C ends it:\n");
        say(curl(&self.egress.to_string(), None));
        say(curl(&self.egress.to_string(), Some("altered-body")));
        self.scene().invite(&self.folder);
        if let Some(admin) = self.running.admin {
            say(format_args!(
                "  curl -s http://{admin}/metrics | grep countersign_"
            ));
            say(format_args!("  open http://{admin}/"));
        }
    }

    /// Sends raw HTTP, as the oldest of apps would.
    async fn send(&self, request: &str) -> Result<Answer, Failure> {
        let mut stream = TcpStream::connect(self.egress)
            .await
            .map_err(Failure::other)?;
        stream
            .write_all(request.as_bytes())
            .await
            .map_err(Failure::other)?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .await
            .map_err(Failure::other)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| Failure::other("the sidecar answered no HTTP"))?;
        Ok(Answer {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        })
    }
}

impl Answer {
    fn has(&self, line: &str) -> bool {
        self.head.lines().any(|found| found == line)
    }
}

fn payment(target: &str, host: &str, id: &str, extra: &str) -> String {
    let body = format!(
        "{{\"paymentRequestId\":\"{id}\",\"paymentAmount\":{{\"currency\":\"JPY\",\"value\":\"100\"}}}}"
    );
    let length = body.len();
    format!(
        "POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{extra}\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn configuration(port: u16, app: SocketAddr) -> String {
    format!(
        "identities:\n  - client_id: {CLIENT_ID}\n    signing_key: {{ file: partner.pem }}\n    \
         verification_keys: [{{ file: alipayplus.pub.pem }}]\n\
         egress:\n  listen: 127.0.0.1:0\n  default_host: open-sea-global.alipayplus.com\n  routes:\n    \
         - name: gateway\n      hosts: [open-*-global.alipayplus.com]\n      \
         upstream: https://localhost:{port}\n\
         ingress:\n  listen: 127.0.0.1:0\n  routes:\n    - app: http://{app}\n\
         upstream_tls: {{ ca_file: ca.pem }}\nadmin: {{ listen: \"127.0.0.1:0\" }}\n"
    )
}
