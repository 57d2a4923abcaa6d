//! Keys from files, variables and descriptors; secrets that others may read; what operators are shown.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::bad_input_is_explained::one_line;
use crate::support::process::{Sidecar, command, countersign, text};
use crate::support::raw::{post, send};
use crate::support::world::{PAY, payment};
use crate::support::{CLIENT_ID, Files, World};

const PARTNER: &str = "{ file: partner.pem, key_version: 1 }";
const GATEWAY: &str = "{ file: alipayplus.pem, key_version: 1 }";

/// The configuration with other words for where the two keys are.
fn with_keys(files: &Files, partner: &str, gateway: &str) -> String {
    let file = files.path("config.yaml");
    let config = fs::read_to_string(&file).unwrap();
    assert!(config.contains(PARTNER) && config.contains(GATEWAY));
    let config = config.replace(PARTNER, partner).replace(GATEWAY, gateway);
    fs::write(&file, config).unwrap();
    text(&file).to_owned()
}

async fn pay(sidecar: &Sidecar) -> String {
    let to = sidecar.egress;
    let request = post(PAY, &to.to_string(), "", payment("R1").as_bytes());
    send(to, request).await.outcome()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_from_the_environment_and_outlive_reloads() {
    let world = World::now("", "").await;
    let file = with_keys(&world.files, "{ env: PARTNER_KEY }", "{ env: GATEWAY_KEY }");
    let mut command = command(&["run", "--config", &file]);
    // One line of base64, as the console hands it out.
    command.env(
        "PARTNER_KEY",
        world.files.partner.to_pkcs8_base64().as_str(),
    );
    command.env(
        "GATEWAY_KEY",
        world.files.gateway.public_key().to_spki_base64(),
    );
    let mut sidecar = Sidecar::start(command);
    assert_eq!(pay(&sidecar).await, "verdict verified");
    sidecar.signal("HUP");
    sidecar.wait_for(|line| line["message"] == "reloaded");
    assert_eq!(pay(&sidecar).await, "verdict verified");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_from_open_descriptors_and_outlive_reloads() {
    let world = World::now("", "").await;
    let partner = text(&world.files.path("partner.pem")).to_owned();
    let gateway = text(&world.files.path("alipayplus.pem")).to_owned();
    let file = with_keys(&world.files, "{ fd: 3 }", "{ fd: 4 }");
    // A file and a pipe; the second can be read only once.
    let script = format!(
        "exec {} run --config {file} 3<{partner} 4< <(cat {gateway})",
        env!("CARGO_BIN_EXE_countersign")
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]);
    let mut sidecar = Sidecar::start(command);
    assert_eq!(pay(&sidecar).await, "verdict verified");
    sidecar.signal("HUP");
    sidecar.wait_for(|line| line["message"] == "reloaded");
    assert_eq!(pay(&sidecar).await, "verdict verified");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_key_is_opened_with_its_passphrase() {
    let world = World::now("", "").await;
    let path = |name: &str| text(&world.files.path(name)).to_owned();
    let made = Command::new("openssl")
        .args([
            "pkcs8",
            "-topk8",
            "-v2",
            "aes-256-cbc",
            "-passout",
            "pass:open sesame",
        ])
        .args(["-in", &path("partner.pem"), "-out", &path("encrypted.pem")])
        .status();
    assert!(made.unwrap().success());
    world.files.write("passphrase", b"open sesame\r\n");
    let key = "{ file: encrypted.pem, passphrase_file: passphrase }";
    let file = with_keys(&world.files, key, GATEWAY);
    let sidecar = Sidecar::run(&["run", "--config", &file]);
    assert_eq!(pay(&sidecar).await, "verdict verified");
    world.files.write("passphrase", b"open says me");
    let line = one_line(&world.files, "config.yaml");
    assert!(
        line.contains("encrypted.pem: the passphrase is wrong"),
        "{line}"
    );
    assert!(!line.contains("says"), "{line}");
}

#[test]
fn mistakes_in_where_a_key_is_have_their_line() {
    for (key, expected) in [
        (
            "{ env: NO_SUCH_KEY }",
            "environment variable NO_SUCH_KEY: is not set, or empty",
        ),
        (
            "{ env: \"A=B\" }",
            "\"A=B\" is no name of an environment variable",
        ),
        (
            "{ fd: 77 }",
            "file descriptor 77: cannot be read: No such file",
        ),
        (
            "{ fd: 1 }",
            "\"1\" is no file descriptor to read from; write a number like 3",
        ),
        (
            "{ fd: three }",
            "\"three\" is no file descriptor to read from",
        ),
        (
            "{ file: partner.pem, env: KEY }",
            "stands beside file; only one of file and env",
        ),
        ("{ key_version: 1 }", "is needed"),
        (
            "{ file: partner.pem, strict_permissions: 1 }",
            "\"1\" is neither true nor false",
        ),
    ] {
        let files = Files::new();
        files.config("https://localhost:1", "", "");
        with_keys(&files, key, GATEWAY);
        let line = one_line(&files, "config.yaml");
        assert!(line.contains("signing_key"), "{key}: {line}");
        assert!(line.contains(expected), "{key}: {line}");
    }
}

#[test]
fn secrets_that_others_may_read_are_warned_of_or_refused() {
    let files = Files::new();
    files.config("https://localhost:1", "", "");
    let file = files.path("config.yaml");
    files.write("passphrase", b"x");
    let open = |name: &str, mode: u32| {
        fs::set_permissions(files.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let warnings = || {
        let output = countersign(&["check", "--config", text(&file)]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let shown = String::from_utf8(output.stdout).unwrap();
        shown
            .matches("lets others than its owner read or write it")
            .count()
    };
    for (mode, expected) in [(0o600, 0), (0o400, 0), (0o640, 1), (0o604, 1), (0o620, 1)] {
        open("partner.pem", mode);
        assert_eq!(warnings(), expected, "{mode:o}");
    }
    with_keys(
        &files,
        "{ file: partner.pem, passphrase_file: passphrase }",
        GATEWAY,
    );
    open("passphrase", 0o644);
    assert_eq!(
        warnings(),
        2,
        "the passphrase is a secret too, Alipay+'s public key is none"
    );
    let config = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("strict_permissions: true\n{config}")).unwrap();
    let line = one_line(&files, "config.yaml");
    assert!(
        line.contains("passphrase: mode 0644 lets others than its owner read or write it, and"),
        "{line}"
    );
    open("passphrase", 0o600);
    let line = one_line(&files, "config.yaml");
    assert!(
        line.contains("partner.pem: mode 0620 lets others"),
        "{line}"
    );
    assert!(line.contains("chmod 600"), "{line}");
    let identity = config.replace(
        "    signing_key",
        "    strict_permissions: true\n    signing_key",
    );
    fs::write(&file, identity).unwrap();
    assert!(one_line(&files, "config.yaml").contains("partner.pem: mode 0620"));
    // One key may be told apart, such as one whose mode an orchestrator decides.
    let lenient = config.replace("passphrase_file: passphrase", "strict_permissions: false");
    fs::write(&file, format!("strict_permissions: true\n{lenient}")).unwrap();
    assert_eq!(warnings(), 1);
}

/// A Secret's files must be readable for a user who is not root, and whom it is mounted for sees it alone.
#[test]
fn a_mounted_secret_that_others_may_read_is_no_reason_to_warn() {
    let files = Files::new();
    let file = files.config("http://127.0.0.1:1", "", "");
    with_keys(&files, "{ file: mounted/partner.pem }", GATEWAY);
    let folder = files.path("mounted");
    fs::create_dir(&folder).unwrap();
    let warnings = |options: &str| {
        let script = format!(
            "set -e; cd '{}'; mount -t tmpfs tmpfs mounted; cp partner.pem mounted; chmod 444 mounted/*; \
             mount -o remount,{options} mounted; exec '{}' check --config '{}'",
            folder.parent().unwrap().display(),
            env!("CARGO_BIN_EXE_countersign"),
            file.display(),
        );
        let mut command = Command::new("unshare");
        let output = command.args(["--mount", "sh", "-c", &script]).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let shown = String::from_utf8(output.stdout).unwrap();
        shown.matches("mode 0444 lets others").count()
    };
    assert_eq!(warnings("ro"), 0);
    assert_eq!(
        warnings("rw"),
        1,
        "what can be written is no mounted Secret"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_shows_what_is_loaded_as_the_console_shows_it() {
    let files = Files::new();
    let file = files.config("http://127.0.0.1:1", "", "");
    let sidecar = Sidecar::run(&["run", "--config", text(&file)]);
    let admin = sidecar.admin.to_string();
    let shown = countersign(&["keys", "--admin", &admin]);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let shown = String::from_utf8(shown.stdout).unwrap();
    for (key, does, name) in [
        (files.partner.public_key(), "signs with", "partner.pem"),
        (
            files.gateway.public_key(),
            "verifies with",
            "alipayplus.pem",
        ),
    ] {
        let console = key.to_spki_base64();
        assert!(!console.contains('\n'));
        for part in [
            format!("{CLIENT_ID} {does} key version 1, since 20"),
            format!("RSA 2048 from {}", files.path(name).display()),
            format!("SHA-256 {}", key.fingerprint()),
            format!("console {console}"),
        ] {
            assert!(shown.contains(&part), "{part}: {shown}");
        }
    }
    let json = countersign(&["keys", "--admin", &admin, "--output", "json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let key = &json["keys"][0];
    assert_eq!(
        (&key["use"], &key["key_version"]),
        (&"sign".into(), &1.into())
    );
    assert_eq!(
        key["public_key"],
        files.partner.public_key().to_spki_base64()
    );
    // Of the files, without anybody who uses them.
    let config = ["keys", "--config", text(&file)];
    let files_say = countersign(&config);
    assert_eq!(files_say.status.code(), Some(0), "{files_say:?}");
    let said = String::from_utf8(files_say.stdout).unwrap();
    assert!(
        said.contains(&files.gateway.public_key().to_spki_base64()),
        "{said}"
    );
    assert!(said.contains("signs with key version 1\n"), "{said}");
    let json = countersign(&[&config[..], &["--output", "json"]].concat());
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["keys"][1]["since"], Value::Null, "{json}");
    drop(sidecar);
    let nobody = countersign(&["keys", "--admin", &admin]);
    assert_eq!(nobody.status.code(), Some(1));
    let said = String::from_utf8(nobody.stderr).unwrap();
    assert!(
        said.contains(&format!("no sidecar answers at {admin}")),
        "{said}"
    );
}
