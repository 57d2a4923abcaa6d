//! An injector as a process: what it lacks is told before it listens, and it ends only when the API server could know,
//! but waits for no connection that is merely kept.

use crate::support::cluster::{Cluster, POD, created, has_sidecar};
use crate::support::injector::{address, defaults, start};
use crate::support::pki::Pki;
use crate::support::process::{command, text};
use crate::support::raw::send;

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_readiness_first_and_kubectl_last() {
    let cluster = Cluster::new();
    let command = cluster.command_draining("20s");
    let mut injector = start(command, &defaults(&cluster.pki));
    cluster.lead_to(address(&injector, "injector"));
    let admin = address(&injector, "admin");
    let ready = || {
        send(
            admin,
            "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
    };
    assert_eq!(ready().await.status, 200);
    injector.signal("TERM");
    injector.wait_for(|line| line["message"] == "draining");
    assert_eq!(ready().await.status, 503);
    // Nobody has heard of it yet: the pods of the grace are injected, too.
    assert!(has_sidecar(&created(&cluster.create(POD))));
    injector.signal("HUP");
    injector.signal("TERM");
    injector.wait_for(|line| line["message"].as_str().unwrap().starts_with("stopped"));
    assert!(injector.exit().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_the_api_server_keeps_do_not_hold_the_end() {
    let cluster = Cluster::new();
    let mut injector = start(cluster.command(), &defaults(&cluster.pki));
    let address = address(&injector, "injector");
    // Two that were used or not, kept open as connection pools do.
    let mut kept = Vec::new();
    for alpn in ["http/1.1", "h2"] {
        let child = std::process::Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                "-connect",
                &address.to_string(),
                "-alpn",
                alpn,
            ])
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn();
        kept.push(child.unwrap());
    }
    let open = || async {
        let admin = self::address(&injector, "admin");
        let answer = send(
            admin,
            "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
        .await;
        answer
            .text()
            .contains("countersign_connections{listener=\"injector\"} 2")
    };
    while !open().await {}
    injector.signal("TERM");
    injector.wait_for(|line| line["message"] == "drained");
    assert!(injector.exit().success());
    for mut child in kept {
        let _gone_already = child.kill();
        let _reaped = child.wait();
    }
}

#[test]
fn wrong_usage_is_explained_before_anything_listens() {
    let pki = Pki::new();
    pki.write("tls.crt", pki.read("one.pem"));
    pki.write("bad.yaml", "defaults:\n  kyes: partner-keys\n");
    let folder = text(pki.folder.path()).to_owned();
    let bad = text(&pki.path("bad.yaml")).to_owned();
    let own = ["--secret=s", "--webhook=w", "--service=i"];
    let table: [(&[&str], &str); 8] = [
        (&[], "--certificate-directory"),
        (&["--secret=s"], "--webhook"),
        (
            &[
                "--secret=s",
                "--webhook=w",
                "--service=i",
                "--certificate-directory=x",
            ],
            "cannot be used with",
        ),
        (
            &["--secret=../s", "--webhook=w", "--service=i"],
            "is no name of an object",
        ),
        (
            &[own[0], own[1], own[2], "--namespace=n"],
            "KUBERNETES_SERVICE_HOST: is not set",
        ),
        (
            &["--certificate-directory", &folder],
            "tls.key: no such file",
        ),
        (
            &["--certificate-directory", &folder, "--interval=0s"],
            "no time at all",
        ),
        (
            &["--certificate-directory", &folder, "--config", &bad],
            "kyes",
        ),
    ];
    for (arguments, told) in table {
        let mut command = command(&[&["injector"], arguments].concat());
        let output = command
            .env_remove("KUBERNETES_SERVICE_HOST")
            .output()
            .unwrap();
        let complained = String::from_utf8(output.stderr).unwrap();
        let is_usage = matches!(output.status.code(), Some(64));
        assert!(
            is_usage && complained.contains(told),
            "{arguments:?}: {complained}"
        );
    }
}
