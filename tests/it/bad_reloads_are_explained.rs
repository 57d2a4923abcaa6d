//! A reload that cannot be: a line with the file and what is wrong, a count, and everything goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use serde_json::Value;

use crate::support::process::{Sidecar, text};
use crate::support::raw::{post, send};
use crate::support::world::{PAY, payment};
use crate::support::{Answer, Files, World};

const NOT_RELOADED: &str = "not reloaded, the last good configuration and keys stay";

/// The real binary before a simulated gateway that outlives it.
struct Binary {
    world: World,
    sidecar: Sidecar,
}

impl Binary {
    async fn start() -> Self {
        let world = World::now("", "").await;
        let file = world.files.path("config.yaml");
        // Nothing but SIGHUP reloads, so that each attempt is the test's.
        let config = fs::read_to_string(&file).unwrap() + "reload_interval: off\n";
        fs::write(&file, config).unwrap();
        let sidecar = Sidecar::run(&["run", "--config", text(&file)]);
        Self { world, sidecar }
    }

    fn files(&self) -> &Files {
        &self.world.files
    }

    async fn pay(&self) -> String {
        let to = self.sidecar.egress;
        let request = post(PAY, &to.to_string(), "", payment("R1").as_bytes());
        send(to, request).await.outcome()
    }

    async fn get(&self, path: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        send(self.sidecar.admin, request).await
    }

    /// The reason of the one line that a reload which fails leaves.
    fn reason(&mut self) -> String {
        self.sidecar.signal("HUP");
        let line = self
            .sidecar
            .wait_for(|line| line["message"] == NOT_RELOADED);
        line["reason"].as_str().unwrap().to_owned()
    }

    fn reloaded(&mut self) -> Vec<Value> {
        let known = self.sidecar.log.len();
        self.sidecar.signal("HUP");
        self.sidecar.wait_for(|line| line["message"] == "reloaded");
        self.sidecar.log[known..].to_vec()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_key_file_has_its_line_and_the_last_good_keys_go_on() {
    let mut binary = Binary::start().await;
    let pem = binary.files().partner.to_pkcs8_pem().to_string();
    let public = binary.files().partner.public_key().to_spki_pem();
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let ec = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let ec = String::from_utf8(ec.private_key_to_pem_pkcs8().unwrap()).unwrap();
    let short = Rsa::generate(1024).unwrap();
    let short_private = String::from_utf8(short.private_key_to_pem().unwrap()).unwrap();
    let short_public = String::from_utf8(short.public_key_to_pem().unwrap()).unwrap();
    let base64 = binary.files().partner.to_pkcs8_base64().to_string();
    let certificate = String::from_utf8(fs::read(binary.files().path("ca.pem")).unwrap()).unwrap();
    let twice = format!("{pem}{pem}");
    let cut = base64[..base64.len() - 40].to_owned();
    let half = pem[..pem.len() / 2].to_owned();
    for (file, content, expected) in [
        ("partner.pem", "", "there is nothing in it"),
        ("partner.pem", "  \r\n", "there is nothing in it"),
        (
            "partner.pem",
            &certificate,
            "a certificate was found; an RSA private key is needed",
        ),
        (
            "partner.pem",
            &ec,
            "an EC private key was found; an RSA private key is needed",
        ),
        (
            "partner.pem",
            &short_private,
            "the key has 1024 bits; at least 2048 are needed",
        ),
        (
            "partner.pem",
            &cut,
            "the key is cut short; its end is missing",
        ),
        (
            "partner.pem",
            &half,
            "the PEM block is damaged: no END line to its BEGIN",
        ),
        (
            "partner.pem",
            &public,
            "an RSA public key was found; an RSA private key is needed",
        ),
        (
            "partner.pem",
            &twice,
            "more than one PEM block was found; exactly one key is needed",
        ),
        ("alipayplus.pem", "", "there is nothing in it"),
        (
            "alipayplus.pem",
            &pem,
            "an RSA private key was found; an RSA public key is needed",
        ),
        (
            "alipayplus.pem",
            &short_public,
            "the key has 1024 bits; at least 2048 are needed",
        ),
        (
            "alipayplus.pem",
            &ec,
            "an EC private key was found; an RSA public key is needed",
        ),
        (
            "alipayplus.pem",
            &public,
            "this is the partner's own public key",
        ),
        (
            "alipayplus.pem",
            "no key",
            "no key was found: this is neither PEM nor base64 nor DER",
        ),
    ] {
        let good = fs::read(binary.files().path(file)).unwrap();
        binary.files().write(file, content.as_bytes());
        let reason = binary.reason();
        let name = binary.files().path(file).display().to_string();
        assert!(reason.contains(&format!("{name}: {expected}")), "{reason}");
        assert!(
            reason.contains("config.yaml:"),
            "the place as well: {reason}"
        );
        assert_eq!(binary.pay().await, "verdict verified", "{expected}");
        assert_eq!(binary.get("/readyz").await.status, 200, "{expected}");
        binary.files().write(file, &good);
    }
    let metrics = binary.get("/metrics").await.text();
    let line = "countersign_reloads_total{result=\"failed\",what=\"keys\"} 15";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn key_files_that_only_look_odd_are_taken() {
    let mut binary = Binary::start().await;
    let pem = binary.files().partner.to_pkcs8_pem().to_string();
    let base64 = binary.files().partner.to_pkcs8_base64().to_string();
    let theirs = binary.files().gateway.public_key().to_spki_pem();
    let (bom, dos) = (format!("\u{feff}{pem}"), pem.replace('\n', "\r\n"));
    for (file, content) in [
        ("partner.pem", bom.as_str()),
        ("partner.pem", &dos),
        ("partner.pem", &base64),
        ("alipayplus.pem", &theirs.replace('\n', "\r\n")),
        ("alipayplus.pem", &format!("\u{feff}{theirs}")),
    ] {
        binary.files().write(file, content.as_bytes());
        binary.reloaded();
        assert_eq!(binary.pay().await, "verdict verified");
    }
    let metrics = binary.get("/metrics").await.text();
    let line = "countersign_reloads_total{result=\"ok\",what=\"keys\"} 5";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_a_missing_file_and_an_unreadable_one_have_their_line() {
    let mut binary = Binary::start().await;
    let key = binary.files().path("partner.pem");
    let aside = binary.files().path("aside.pem");
    fs::rename(&key, &aside).unwrap();
    assert!(binary.reason().contains("partner.pem: no such file"));
    fs::create_dir(&key).unwrap();
    let reason = binary.reason();
    assert!(
        reason.contains("partner.pem: is a directory; name the key file in it"),
        "{reason}"
    );
    fs::remove_dir(&key).unwrap();
    std::os::unix::fs::symlink("partner.pem", &key).unwrap();
    assert!(
        binary
            .reason()
            .contains("partner.pem: cannot be read: Too many levels")
    );
    fs::remove_file(&key).unwrap();
    fs::rename(&aside, &key).unwrap();
    assert_eq!(binary.pay().await, "verdict verified");
    binary.reloaded();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_configuration_has_its_line_and_the_last_good_one_goes_on() {
    let mut binary = Binary::start().await;
    let file = binary.files().path("config.yaml");
    let good = fs::read_to_string(&file).unwrap();
    for (from, to, expected) in [
        ("egress:", "egress: {", "not valid YAML"),
        (
            "hosts:",
            "colour: red\n      hosts:",
            "unknown key \"colour\"",
        ),
        ("partner.pem", "absent.pem", "absent.pem: no such file"),
        (
            "127.0.0.1:0",
            "127.0.0.1:1",
            "a change of egress.listen needs a restart",
        ),
        (
            "key_version: 1",
            "key_version: one",
            "\"one\" is no decimal number",
        ),
        (
            "{ file: partner.pem, key_version: 1 }",
            "{ pkcs11: { module: ./absent.so, token_label: t, key_label: k } }",
            "a change of pkcs11 (the first key in a token, with hardening.landlock) needs a restart",
        ),
    ] {
        fs::write(&file, good.replacen(from, to, 1)).unwrap();
        let reason = binary.reason();
        assert!(reason.contains(expected), "{expected}: {reason}");
        assert!(reason.contains("config.yaml"), "{reason}");
        assert_eq!(binary.pay().await, "verdict verified", "{expected}");
    }
    fs::remove_file(&file).unwrap();
    assert!(binary.reason().contains("config.yaml: no such file"));
    fs::write(&file, &good).unwrap();
    binary.reloaded();
    assert_eq!(binary.pay().await, "verdict verified");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_says_which_keys_came_and_went_and_what_looks_like_a_mistake() {
    let mut binary = Binary::start().await;
    let other = countersign_protocol::PrivateKey::generate(2048).unwrap();
    let own = binary
        .files()
        .partner
        .public_key()
        .fingerprint()
        .to_string();
    binary
        .files()
        .write("partner.pem", other.to_pkcs8_pem().as_bytes());
    binary.sidecar.signal("HUP");
    let came = binary
        .sidecar
        .wait_for(|line| line["message"] == "key in use");
    let new = other.public_key().fingerprint().to_string();
    assert!(came["key"].as_str().unwrap().contains(&new), "{came}");
    let odd = binary.sidecar.wait_for(|line| line["level"] == "WARN");
    let said = odd["message"].as_str().unwrap();
    assert!(
        said.contains("another key came under the same key version"),
        "{odd}"
    );
    let went = binary
        .sidecar
        .wait_for(|line| line["message"] == "key no longer in use");
    assert!(went["key"].as_str().unwrap().contains(&own), "{went}");
    let mode = fs::Permissions::from_mode(0o644);
    fs::set_permissions(binary.files().path("partner.pem"), mode).unwrap();
    binary.sidecar.signal("HUP");
    let open = binary.sidecar.wait_for(|line| line["level"] == "WARN");
    let said = open["message"].as_str().unwrap();
    assert!(
        said.contains("mode 0644 lets others than its owner"),
        "{open}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_key_of_the_gateway_is_counted_and_told_once() {
    let mut binary = Binary::start().await;
    let file = binary.files().path("config.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let newer = countersign_protocol::PrivateKey::generate(2048).unwrap();
    let newer = newer.public_key().to_spki_pem();
    binary.files().write("newer.pem", newer.as_bytes());
    let list = "verification_keys: [";
    let keys = format!("{list}{{ file: newer.pem, key_version: 2 }}, ");
    assert_eq!(binary.pay().await, "verdict verified");
    fs::write(&file, text.replace(list, &keys)).unwrap();
    binary.reloaded();
    for _ in 0..3 {
        assert_eq!(binary.pay().await, "verdict verified");
    }
    let metrics = binary.get("/metrics").await.text();
    let line = "countersign_older_key_uses_total{client_id=\"SANDBOX_5X00000000000000\",\
                direction=\"egress\",key_version=\"1\"} 3";
    assert!(metrics.contains(line), "{metrics}");
    // The line stands before that of its exchange, and the last exchange is here.
    let exchanges = |sidecar: &Sidecar| {
        let lines = sidecar.log.iter();
        lines.filter(|line| line["message"] == "exchange").count()
    };
    while exchanges(&binary.sidecar) < 4 {
        binary
            .sidecar
            .wait_for(|line| line["message"] == "exchange");
    }
    let told = binary.sidecar.log.iter().filter(|line| {
        let said = line["message"].as_str().unwrap_or_default();
        said.contains("older key than our newest")
    });
    assert_eq!(told.count(), 1, "{:#?}", binary.sidecar.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_configuration_file_the_key_files_are_followed() {
    let files = Files::new();
    let mut sidecar = Sidecar::run(&[
        "run",
        "--client-id",
        crate::support::CLIENT_ID,
        "--private-key",
        text(&files.path("partner.pem")),
        "--alipay-public-key",
        text(&files.path("alipayplus.pem")),
        "--egress-listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ]);
    let other = countersign_protocol::PrivateKey::generate(2048).unwrap();
    files.write("partner.pem", b"half of it");
    sidecar.signal("HUP");
    sidecar.wait_for(|line| line["message"] == NOT_RELOADED);
    files.write("partner.pem", other.to_pkcs8_pem().as_bytes());
    sidecar.signal("HUP");
    let came = sidecar.wait_for(|line| line["message"] == "key in use");
    let new = other.public_key().fingerprint().to_string();
    assert!(came["key"].as_str().unwrap().contains(&new), "{came}");
}

/// A file on a network file system whose server is gone, or a token that hangs, is like this pipe.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_never_ends_keeps_neither_requests_nor_the_end_waiting() {
    let mut binary = Binary::start().await;
    let file = binary.files().path("partner.pem");
    fs::remove_file(&file).unwrap();
    let made = Command::new("mkfifo").arg(&file).status().unwrap();
    assert!(made.success());
    binary.sidecar.signal("HUP");
    // Opens when the other end does: from here on the sidecar reads.
    let writer = fs::OpenOptions::new().write(true).open(&file).unwrap();
    assert_eq!(binary.pay().await, "verdict verified");
    binary.sidecar.signal("INT");
    binary.sidecar.wait_for(|line| line["message"] == "drained");
    assert_eq!(binary.sidecar.exit().code(), Some(0));
    drop(writer);
}
