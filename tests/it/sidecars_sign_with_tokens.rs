//! A running sidecar whose key is in a token: payments, the token unplugged in the middle of them, and
//! back.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::keys_in_tokens::runtime_of;
use crate::support::process::{PATIENCE, Sidecar, countersign, text};
use crate::support::raw::{post, send};
use crate::support::softhsm::{PIN, SOFTHSM, TOKEN, Tokens, alone, client};
use crate::support::world::{PAY, payment};
use crate::support::{Answer, CLIENT_ID, Files, World};

/// Puts the partner's key into the token, and the token into the configuration.
fn move_key(files: &Files, tokens: &Tokens) {
    tokens.import(&files.partner.to_pkcs8_pem(), "partner", "01");
    let pin = tokens.path("pin");
    let token = format!(
        "{{ pkcs11: {{ module: {}, token_label: {TOKEN}, key_label: partner, pin_file: {} }} }}",
        client().display(),
        pin.display()
    );
    let file = files.path("config.yaml");
    let config = fs::read_to_string(&file).unwrap();
    let key = "{ file: partner.pem, key_version: 1 }";
    assert!(config.contains(key));
    fs::write(&file, config.replace(key, &token)).unwrap();
    fs::remove_file(files.path("partner.pem")).unwrap();
}

async fn pay(egress: SocketAddr) -> String {
    let request = post(PAY, &egress.to_string(), "", payment("R1").as_bytes());
    send(egress, request).await.outcome()
}

async fn get(sidecar: &Sidecar, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    send(sidecar.admin, request).await
}

/// Waits until that many sessions have the token.
async fn until_sessions(sidecar: &Sidecar, number: usize) {
    let start = Instant::now();
    let line = format!("countersign_token_sessions{{client_id=\"{CLIENT_ID}\"}} {number}\n");
    while !get(sidecar, "/metrics").await.text().contains(&line) {
        assert!(start.elapsed() < PATIENCE, "never {line}");
    }
}

/// What came of the payments of several apps.
#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    verified: AtomicU64,
    unsigned: AtomicU64,
}

impl Tally {
    async fn pay_on(&self, egress: SocketAddr) {
        while !self.stop.load(Ordering::SeqCst) {
            let count = match pay(egress).await.as_str() {
                "verdict verified" => &self.verified,
                "signing_failed not-sent 500" => &self.unsigned,
                other => panic!("{other}"),
            };
            count.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Waits until more of these came than there are now.
    async fn until_more(of: &AtomicU64) {
        let (start, now) = (Instant::now(), of.load(Ordering::SeqCst));
        while of.load(Ordering::SeqCst) < now + 10 {
            assert!(start.elapsed() < PATIENCE);
            tokio::task::yield_now().await;
        }
    }
}

#[test]
fn payments_go_on_when_the_token_is_back_and_none_is_sent_twice_or_unsigned() {
    alone(|tokens| {
        runtime_of(tokio::runtime::Builder::new_multi_thread()).block_on(async {
            let world = World::now("", "reload_interval: off").await;
            move_key(&world.files, tokens);
            let file = world.files.path("config.yaml");
            let mut server = Some(tokens.plug_in(SOFTHSM.as_ref()));
            let mut sidecar = Sidecar::run(&["run", "--config", text(&file)]);
            let tally = Arc::new(Tally::default());
            let apps: Vec<_> = (0..6)
                .map(|_| {
                    let (tally, egress) = (Arc::clone(&tally), sidecar.egress);
                    tokio::spawn(async move { tally.pay_on(egress).await })
                })
                .collect();
            for _ in 0..2 {
                Tally::until_more(&tally.verified).await;
                drop(server.take());
                Tally::until_more(&tally.unsigned).await;
                let ready = get(&sidecar, "/readyz").await.status;
                assert_eq!(ready, 200, "the process is as it should be");
                until_sessions(&sidecar, 0).await;
                sidecar.signal("HUP");
                let line = sidecar.wait_for(|line| {
                    let said = line["message"].as_str().unwrap_or_default();
                    said.starts_with("not reloaded")
                });
                let reason = line["reason"].as_str().unwrap();
                assert!(reason.contains(TOKEN), "{reason}");
                server = Some(tokens.plug_in(SOFTHSM.as_ref()));
                Tally::until_more(&tally.verified).await;
                until_sessions(&sidecar, 4).await;
            }
            tally.stop.store(true, Ordering::SeqCst);
            for app in apps {
                app.await.unwrap();
            }
            let verified = tally.verified.load(Ordering::SeqCst);
            assert_eq!(world.gateway().deliveries(), verified);
            sidecar.signal("HUP");
            sidecar.wait_for(|line| line["message"] == "reloaded");
            assert_eq!(pay(sidecar.egress).await, "verdict verified");
            let failed = sidecar
                .log
                .iter()
                .find(|line| line["error"] == "signing_failed");
            let reason = failed.unwrap()["reason"].as_str().unwrap().to_owned();
            assert!(reason.contains(TOKEN), "{reason}");
            assert!(!format!("{:?}", sidecar.log).contains(PIN));
            sidecar.signal("INT");
            sidecar.wait_for(|line| line["message"] == "drained");
            assert_eq!(sidecar.exit().code(), Some(0));
        });
    });
}

#[test]
fn check_names_the_token_and_every_mistake_in_it() {
    alone(|tokens| {
        let files = Files::new();
        let file = files.config("https://localhost:1", "", "");
        move_key(&files, tokens);
        let _server = tokens.plug_in(SOFTHSM.as_ref());
        let check = || countersign(&["check", "--config", text(&file)]);
        let output = check();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let shown = String::from_utf8(output.stdout).unwrap();
        assert!(
            shown.contains("from token partner keys, key partner"),
            "{shown}"
        );
        let fingerprint = files.partner.public_key().fingerprint().to_string();
        assert!(shown.contains(&fingerprint), "{shown}");
        let good = fs::read_to_string(&file).unwrap();
        let pin = tokens.path("pin").display().to_string();
        for (from, to, expected) in [
            ("key_label: partner", "key_label: other", "other"),
            (
                "token_label: partner keys",
                "token_label: none",
                "no token is labelled 'none'",
            ),
            (
                pin.as_str(),
                PIN,
                "the file that pin_file names: no such file",
            ),
            (
                "key_label: partner,",
                "",
                "the key \"key_label\" is missing",
            ),
            ("pin_file:", "pin:", "unknown key \"pin\""),
            (
                "pin_file:",
                "sessions: 0, pin_file:",
                "\"0\" is no number of sessions from 1 to 64",
            ),
            ("{ pkcs11:", "{ file: x, pkcs11:", "stands beside file"),
        ] {
            assert!(good.contains(from), "{from}");
            fs::write(&file, good.replace(from, to)).unwrap();
            let output = check();
            assert_eq!(output.status.code(), Some(64), "{output:?}");
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains(expected), "{expected}: {said}");
            assert!(said.contains("config.yaml:"), "{said}");
            assert!(!said.contains(PIN), "{said}");
        }
        let theirs = good.replace("{ file: alipayplus.pem", "{ pkcs11: { module: x }");
        fs::write(&file, theirs).unwrap();
        let said = String::from_utf8(check().stderr).unwrap();
        assert!(said.contains("unknown key \"pkcs11\""), "{said}");
    });
}
