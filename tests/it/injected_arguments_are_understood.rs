//! What is injected is what the real binary takes: every argument of every container of the corpus, as the kubelet would
//! hand it over, with the folders of the pod somewhere else.

use std::fs;

use serde_json::Value;

use crate::support::manifests::{files, inject_file, python};
use crate::support::process::{Sidecar, countersign, text};
use crate::support::{CLIENT_ID, Files};

const CONFIG: &str = "
identities:
  - client_id: SANDBOX_5X00000000000000
    signing_key: { file: ../keys/partner.pem }
    verification_keys: [{ file: ../keys/alipayplus.pub.pem }]
egress: {}
ingress: { routes: [{ app: 'http://127.0.0.1:8080' }] }
";

/// The folders a pod has, with everything that the corpus names in them.
struct Folders {
    root: tempfile::TempDir,
}

impl Folders {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new();
        for folder in ["keys", "config", "ca", "trust"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        let folder = |name: &str| root.path().join(name);
        for (from, to) in [
            ("partner.pem", "partner.pem"),
            ("partner.pem", "private.pem"),
            ("alipayplus.pem", "alipayplus.pub.pem"),
            ("alipayplus.pem", "alipay.pem"),
        ] {
            fs::copy(files.path(from), folder("keys").join(to)).unwrap();
        }
        // Some CA, as of a sandbox.
        accepted(&["ca", "create", "--directory", text(&folder("sandbox"))]);
        for to in ["ca.pem", "sandbox-ca.pem"] {
            fs::copy(folder("sandbox/ca.pem"), folder("keys").join(to)).unwrap();
        }
        fs::write(root.path().join("config/config.yaml"), CONFIG).unwrap();
        Self { root }
    }

    /// An argument as the container sees it, but in these folders.
    fn argument(&self, argument: &str) -> String {
        let root = text(self.root.path());
        let expanded = argument.replace("$$", "$");
        let here = |argument: String, folder| argument.replace(folder, root);
        here(here(expanded, "/etc/countersign"), "/var/run/countersign")
    }
}

/// The containers of all pods of the corpus that have this name.
fn containers(name: &str) -> Vec<Value> {
    fn find(value: &Value, name: &str, found: &mut Vec<Value>) {
        match value {
            Value::Object(members)
                if members.get("name").is_some_and(|own| own == name)
                    && members.contains_key("image") =>
            {
                found.push(value.clone());
            }
            Value::Object(members) => members.values().for_each(|value| find(value, name, found)),
            Value::Array(items) => items.iter().for_each(|value| find(value, name, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for file in files() {
        for document in python(&inject_file(&file).out) {
            find(&document, name, &mut found);
        }
    }
    found
}

fn words(list: &Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect()
}

fn accepted(arguments: &[&str]) -> String {
    let output = countersign(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_rules_of_redirect_are_accepted_and_spare_the_sidecar() {
    let containers = containers("countersign-redirect");
    assert!(containers.len() >= 2);
    for container in containers {
        let mut arguments = words(&container["args"]);
        assert_eq!(arguments[..2], ["redirect", "apply"]);
        arguments[1] = "print";
        let script = accepted(&arguments);
        assert!(
            script.contains("4343") && script.contains("18441"),
            "{script}"
        );
    }
}

#[test]
fn the_sidecar_takes_its_arguments_and_starts() {
    let folders = Folders::new();
    let containers = containers("countersign");
    assert!(containers.len() > 8);
    for container in &containers {
        let arguments: Vec<String> = words(&container["args"])
            .into_iter()
            .map(|argument| folders.argument(argument))
            .collect();
        assert_eq!(arguments[0], "run");
        // `check` takes what `run` takes, but for the log.
        let mut checked: Vec<&str> = arguments.iter().map(String::as_str).collect();
        checked[0] = "check";
        checked.retain(|argument| !argument.starts_with("--log-level="));
        accepted(&checked);
        // One start is a second; these are the ones that differ.
        let differs =
            |argument: &String| argument.contains("--config=") || argument.contains("--app=");
        if !arguments.iter().any(differs) {
            continue;
        }
        // What it listens on are the ports the container shows; here they are anybody's.
        let free: Vec<String> = arguments
            .iter()
            .filter(|argument| !argument.ends_with(":443") && !argument.ends_with(":80"))
            .map(|argument| match argument.rsplit_once(':') {
                Some((before, _)) if argument.contains("-listen=") => format!("{before}:0"),
                _ => argument.clone(),
            })
            .collect();
        let sidecar = Sidecar::run(&free.iter().map(String::as_str).collect::<Vec<_>>());
        sidecar.signal("INT");
        assert!(sidecar.exit().success());
    }
    assert!(folders.root.path().join("trust/truststore.p12").exists());
}

#[test]
fn the_app_of_a_classic_sidecar_is_kept_until_it_is_ready() {
    let classic = containers("countersign")
        .into_iter()
        .find(|one| one.get("lifecycle").is_some());
    let classic = classic.unwrap();
    let command = words(&classic["lifecycle"]["postStart"]["exec"]["command"]);
    assert_eq!(command[0], "/countersign");
    let port = classic["ports"][0]["containerPort"].as_u64().unwrap();
    assert_eq!(command[2], format!("--admin=127.0.0.1:{port}"));
    let folders = Folders::new();
    let key = |name: &str| folders.argument(&format!("/etc/countersign/keys/{name}"));
    let (private, public) = (key("partner.pem"), key("alipayplus.pub.pem"));
    let sidecar = Sidecar::run(&[
        "run",
        "--client-id",
        CLIENT_ID,
        "--private-key",
        &private,
        "--alipay-public-key",
        &public,
        "--egress-listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ]);
    let admin = format!("--admin={}", sidecar.admin);
    assert_eq!(accepted(&[command[1], &admin]), "ready\n");
}
