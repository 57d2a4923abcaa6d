//! The sidecar of `deploy/compose.yaml` is started by flags it takes, as nobody but its user, with nothing to
//! write but what apps trust.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::clients::venv_python;
use crate::support::process::{countersign, text};
use crate::support::{CLIENT_ID, Files};

/// The file as JSON, read by another reader of YAML than our own.
fn composed() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/compose.yaml");
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let mut python = Command::new(venv_python());
    let output = python.args(["-c", script, text(&file)]).output().unwrap();
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{why}; run make deps");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn its_command_is_one_the_sidecar_takes() {
    let files = Files::new();
    let rest = "ingress: { routes: [{ app: \"http://127.0.0.1:8080\" }] }";
    let file = files.config("https://localhost:1", "", rest);
    let composed = composed();
    let command = composed["services"]["countersign"]["command"]
        .as_array()
        .unwrap();
    let flags = command.iter().map(|flag| flag.as_str().unwrap());
    let config = format!("--config={}", text(&file));
    let flags: Vec<_> = flags
        .skip(1)
        .map(|flag| {
            if flag.starts_with("--config=") {
                &config
            } else {
                flag
            }
        })
        .collect();
    assert_eq!(command[0], "run");
    let output = countersign(&[&["check"], &flags[..]].concat());
    let shown = String::from_utf8(output.stdout).unwrap();
    for line in [
        "egress: listens on 127.0.0.1:18441\n",
        "ingress: listens on :18442\n",
        "admin: listens on 127.0.0.1:18449\n",
        "trust it is in /trust\n",
        CLIENT_ID,
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let check = &composed["services"]["countersign"]["healthcheck"]["test"];
    assert_eq!(
        *check,
        json!(["CMD", "/countersign", "wait", "--timeout=2s"])
    );
}

#[test]
fn it_has_no_rights_and_the_app_waits_for_it() {
    let composed = composed();
    let sidecar = &composed["services"]["countersign"];
    for (key, expected) in [
        ("user", json!("4343:4343")),
        ("read_only", json!(true)),
        ("cap_drop", json!(["ALL"])),
        ("security_opt", json!(["no-new-privileges:true"])),
        ("image", json!("countersign:0.1.0")),
    ] {
        assert_eq!(sidecar[key], expected, "{key}");
    }
    let app = &composed["services"]["app"];
    assert_eq!(app["network_mode"], "service:countersign");
    assert_eq!(
        app["depends_on"]["countersign"]["condition"],
        "service_healthy"
    );
    // The app may read what it must trust, and has no secret.
    assert_eq!(app["volumes"], json!(["trust:/trust:ro"]));
    assert!(app["secrets"].is_null() && app["configs"].is_null());
    let grace = sidecar["stop_grace_period"].as_str().unwrap();
    let grace: u64 = grace.trim_end_matches('s').parse().unwrap();
    assert!(
        grace
            > countersign::net::drain::Config::default()
                .deadline
                .as_secs()
    );
}
