//! Flags say where a sidecar stands, in place of what its file says, at the start and at every reload.

use std::net::SocketAddr;

use crate::support::inbound::Message;
use crate::support::process::{Sidecar, command, countersign, text};
use crate::support::raw::{RawGateway, post, send};
use crate::support::world::PAY;
use crate::support::{CLIENT_ID, Files};

/// What `check` shows of a file and flags; it must find them good.
fn shown(arguments: &[&str]) -> String {
    let output = countersign(&[&["check"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What `check` complains of.
fn complaints(arguments: &[&str]) -> String {
    let output = countersign(&[&["check"], arguments].concat());
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

const INGRESS: &str = "ingress: { routes: [{ app: \"http://127.0.0.1:1\" }] }\n";

/// The three flags that stand for a file.
fn without_file(files: &Files) -> Vec<String> {
    let (private, public) = (files.path("partner.pem"), files.path("alipayplus.pem"));
    ["--client-id", CLIENT_ID, "--private-key", text(&private)]
        .into_iter()
        .chain(["--alipay-public-key", text(&public)])
        .map(str::to_owned)
        .collect()
}

#[test]
fn flags_take_the_place_of_what_the_file_says() {
    let files = Files::new();
    let rest = format!(
        "{INGRESS}ca: {{ directory: own, trust_directory: trust }}\n\
         resolve: {{ nameservers: [10.0.0.9], hosts: {{ a.example: [10.0.0.1] }} }}"
    );
    let file = files.config("https://localhost:1", "", &rest);
    let flags = [
        "--config",
        text(&file),
        "--egress-listen=127.0.0.1:1001",
        "--egress-listen=[::1]:1001",
        "--ingress-listen=0.0.0.0:1002",
        "--admin-listen=:1090",
        "--trust-directory=/placed/trust",
        "--ca-directory=/placed/ca",
        "--nameservers=10.0.0.10,10.0.0.11:5353",
    ];
    let shown = shown(&flags);
    for line in [
        "egress: listens on 127.0.0.1:1001 [::1]:1001\n",
        // The file may leave out where ingress listens, as the flag says it.
        "ingress: listens on 0.0.0.0:1002\n",
        "admin: listens on :1090\n",
        "ca: what apps need to trust it is in /placed/trust\n",
        "ca: kept in /placed/ca\n",
        "upstream: names are resolved by 10.0.0.10:53 10.0.0.11:5353\n",
        "upstream: a.example is at 10.0.0.1\n",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    let line = complaints(&["--config", text(&file)]);
    assert!(
        line.contains("ingress: the key \"listen\" is missing"),
        "{line}"
    );
}

#[test]
fn flags_add_what_no_section_says_and_no_direction_there_is_not() {
    let files = Files::new();
    let file = files.config("https://localhost:1", "", "");
    let whole = std::fs::read_to_string(&file).unwrap();
    let admin = whole.find("\nadmin:").unwrap();
    files.write("bare.yaml", &whole.as_bytes()[..=admin]);
    let bare = files.path("bare.yaml");
    let flags = ["--config", text(&bare), "--ingress-listen=0.0.0.0:1002"];
    let before = shown(&flags);
    assert!(
        !before.contains("ingress:") && !before.contains("admin:"),
        "{before}"
    );
    let flags = [
        &flags[..],
        &["--admin-listen=[::]:1090", "--trust-directory=/t"],
    ]
    .concat();
    let after = shown(&flags);
    for line in ["admin: listens on [::]:1090\n", "trust it is in /t\n"] {
        assert!(after.contains(line), "{after}");
    }
}

#[test]
fn a_file_names_places_as_flags_do() {
    let files = Files::new();
    let rest = "ingress:\n  listen: :1002\n  routes: [{ app: \"http://127.0.0.1:1\" }]\n";
    let file = files.config("https://localhost:1", "", rest);
    let shown = shown(&["--config", text(&file)]);
    assert!(shown.contains("ingress: listens on :1002\n"), "{shown}");
}

#[test]
fn addresses_that_exclude_each_other_are_refused_whoever_named_them() {
    let files = Files::new();
    let rest = "ingress: { listen: \"127.0.0.1:1002\", routes: [{ app: \"http://127.0.0.1:1\" }] }";
    let file = files.config("https://localhost:1", "", rest);
    let with = |flags: &[&'static str]| [&["--config", text(&file)], flags].concat();
    for (flags, expected) in [
        (
            &["--egress-listen=127.0.0.1:1002"][..],
            "egress and ingress both listen on 127.0.0.1:1002",
        ),
        (
            &["--admin-listen=0.0.0.0:1002"],
            "ingress listens on 127.0.0.1:1002, and so admin cannot on 0.0.0.0:1002",
        ),
        (
            &["--admin-listen=:1002"],
            "ingress listens on 127.0.0.1:1002, and so admin cannot on :1002",
        ),
        (
            &["--egress-listen=localhost:1002"],
            "egress listens on localhost:1002, and so ingress cannot on 127.0.0.1:1002",
        ),
        (
            &["--egress-listen=localhost:1", "--admin-listen=[::]:1"],
            "egress listens on localhost:1, and so admin cannot on [::]:1",
        ),
        (
            &["--egress-listen=127.0.0.1:1", "--egress-listen=127.0.0.1:1"],
            "egress and egress both listen on 127.0.0.1:1",
        ),
    ] {
        let line = complaints(&with(flags));
        assert!(line.contains(expected), "{flags:?}: {line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }
    // The flag moves out of the way what in the file is in it.
    shown(&with(&[
        "--ingress-listen=127.0.0.1:1003",
        "--egress-listen=127.0.0.1:1002",
    ]));
    shown(&with(&[
        "--egress-listen=[::1]:1002",
        "--admin-listen=127.0.0.2:1002",
    ]));
    let own = without_file(&files);
    let own: Vec<_> = own.iter().map(String::as_str).collect();
    let line = complaints(&[&own[..], &["--egress-listen=127.0.0.1:18449"]].concat());
    assert!(
        line.contains("arguments: egress and admin both listen on 127.0.0.1:18449"),
        "{line}"
    );
}

#[test]
fn what_is_no_address_and_no_app_has_its_line() {
    let files = Files::new();
    let own = without_file(&files);
    let own: Vec<_> = own.iter().map(String::as_str).collect();
    for (flag, expected) in [
        (
            "--egress-listen=18441",
            "\"18441\" is no IP address with a port",
        ),
        (
            "--ingress-listen=sidecar:1",
            "\"sidecar:1\" is no IP address with a port",
        ),
        ("--admin-listen=:+1", "\":+1\" is no IP address with a port"),
        ("--admin-listen=localhost:", "\"localhost:\" is no IP"),
        (
            "--nameservers=dns.example",
            "\"dns.example\" is no nameserver's IP address",
        ),
        (
            "--nameservers=10.0.0.1,,10.0.0.2",
            "\"\" is no nameserver's IP address",
        ),
        ("--app=0", "\"0\" is no port"),
        ("--app=http://127.0.0.1/path", "or only a port like 8080"),
        ("--app=70000", "or only a port like 8080"),
    ] {
        let line = complaints(&[&own[..], &[flag]].concat());
        assert!(line.contains(expected), "{flag}: {line}");
    }
    // An app is named by the file where there is one.
    let file = files.config("https://localhost:1", "", "");
    complaints(&["--config", text(&file), "--app=8080"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_file_an_app_turns_ingress_on() {
    let files = Files::new();
    let own = without_file(&files);
    let own: Vec<_> = own.iter().map(String::as_str).collect();
    let shown = shown(&[&own[..], &["--app=8080"]].concat());
    for line in [
        "ingress: listens on 127.0.0.1:18442\n",
        "ingress route /: any host / to http://127.0.0.1:8080, answers signed as the client the \
         caller names, verify enforce, replay report\n",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    let mut app = RawGateway::by_hand().await;
    let url = format!("--app=http://{}", app.address);
    let anywhere = ["--egress-listen", "--ingress-listen", "--admin-listen"]
        .map(|flag| format!("{flag}=127.0.0.1:0"));
    let anywhere = anywhere.each_ref().map(String::as_str);
    let sidecar = Sidecar::run(&[&["run"], &own[..], &anywhere, &[&url]].concat());
    let clock = countersign::clock::Clock::system();
    let call = Message::at(&clock, &files, "/notify", b"{}").bytes();
    let calling = tokio::spawn(send(sidecar.ingress, call));
    let (seen, mut stream) = app.next().await;
    assert!(seen.starts_with(b"POST /notify HTTP/1.1\r\n"));
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    tokio::io::AsyncWriteExt::write_all(&mut stream, answer)
        .await
        .unwrap();
    let answer = calling.await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.field("signature").is_some(), "{}", answer.text());
}

/// Rewrites a file as careful tools do.
fn rewrite(files: &Files, name: &str, change: impl Fn(String) -> String) {
    let text = std::fs::read_to_string(files.path(name)).unwrap();
    files.write("next", change(text).as_bytes());
    std::fs::rename(files.path("next"), files.path(name)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_leaves_the_sidecar_where_its_flags_put_it() {
    let files = Files::new();
    let file = files.config("http://127.0.0.1:1", "", "reload_interval: 1h");
    let trust = files.path("placed");
    let mut run = command(&[
        "run",
        "--config",
        text(&file),
        "--trust-directory",
        text(&trust),
    ]);
    run.args(["--egress-listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"]);
    run.arg("--nameservers=10.0.0.10");
    let mut sidecar = Sidecar::start(run);
    assert!(trust.join("ca.pem").exists());
    let pays = async |egress: SocketAddr, expected: &str| {
        let request = post(PAY, &egress.to_string(), "", b"{}");
        assert_eq!(send(egress, request).await.outcome(), expected);
    };
    pays(sidecar.egress, "upstream_unreachable not-sent 502").await;
    // Unchanged; then where it stands changes in the file; then something that counts.
    let moved = |text: String| {
        let text = text.replacen("listen: 127.0.0.1:0", "listen: 127.0.0.1:9", 1);
        assert!(text.contains("127.0.0.1:9"), "{text}");
        text + "ca: { trust_directory: elsewhere }\nresolve: { nameservers: system }\n"
    };
    let refusing = |text: String| text.replacen("\negress:", "\negress:\n  unmatched: refuse", 1);
    let changes: [&dyn Fn(String) -> String; 3] = [&|text| text, &moved, &refusing];
    for change in changes {
        rewrite(&files, "config.yaml", change);
        sidecar.signal("HUP");
        let line = sidecar.wait_for(|line| {
            let message = line["message"].as_str().unwrap();
            message == "reloaded" || message.starts_with("not reloaded")
        });
        assert_eq!(line["message"], "reloaded", "{line}");
    }
    pays(sidecar.egress, "upstream_unreachable not-sent 502").await;
    let other =
        "GET http://other.example/ HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n";
    assert_eq!(
        send(sidecar.egress, other).await.outcome(),
        "host_not_allowed not-sent 403"
    );
    // What no flag says still needs a restart.
    rewrite(&files, "config.yaml", |text| {
        text + "limits: { exchanges: 5 }\n"
    });
    sidecar.signal("HUP");
    let line = sidecar.wait_for(|line| {
        let message = line["message"].as_str().unwrap();
        message.starts_with("not reloaded")
    });
    let reason = line["reason"].as_str().unwrap();
    assert!(
        reason.ends_with("config.yaml: a change of limits needs a restart"),
        "{reason}"
    );
}
