//! The real binary: started as a user would, asked as an operator would.

use std::io::Write;
use std::process::Stdio;

use crate::support::process::{Sidecar, command, countersign, text};
use crate::support::raw::{post, send};
use crate::support::world::{PAY, payment};
use crate::support::{CLIENT_ID, Files, World};

async fn get(sidecar: &Sidecar, path: &str) -> crate::support::Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    send(sidecar.admin, request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_flags_and_no_file_are_enough() {
    let files = Files::new();
    let sidecar = Sidecar::run(&[
        "run",
        "--client-id",
        CLIENT_ID,
        "--private-key",
        text(&files.path("partner.pem")),
        "--alipay-public-key",
        text(&files.path("alipayplus.pem")),
        "--egress-listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--upstream",
        "http://127.0.0.1:1",
    ]);
    assert_eq!(get(&sidecar, "/readyz").await.status, 200);
    let request = post(PAY, &sidecar.egress.to_string(), "", b"{}");
    let answer = send(sidecar.egress, request).await;
    assert_eq!(answer.outcome(), "upstream_unreachable not-sent 502");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_another_client_is_refused_without_a_file() {
    let files = Files::new();
    let mut sidecar = Sidecar::run(&[
        "run",
        "--client-id",
        CLIENT_ID,
        "--private-key",
        text(&files.path("partner.pem")),
        "--alipay-public-key",
        text(&files.path("alipayplus.pem")),
        "--egress-listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--upstream",
        "http://127.0.0.1:1",
    ]);
    let own = format!("Client-Id: {CLIENT_ID}\r\n");
    for (fields, outcome, signer) in [
        (
            "Client-Id: SOMEBODY\r\n",
            "identity_unknown not-sent 400",
            None,
        ),
        (&own, "upstream_unreachable not-sent 502", Some(CLIENT_ID)),
    ] {
        let request = post(PAY, &sidecar.egress.to_string(), fields, b"{}");
        let answer = send(sidecar.egress, request).await;
        assert_eq!(answer.outcome(), outcome);
        let line = sidecar.wait_for(|line| line["message"] == "exchange");
        assert_eq!(line["client_id"].as_str(), signer, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_readiness_metrics_and_a_page_without_secrets() {
    let files = Files::new();
    let file = files.config("http://127.0.0.1:1", "", "");
    let mut sidecar = Sidecar::run(&["run", "--config", text(&file)]);
    for path in [
        "/", "/livez", "/readyz", "/metrics", "/keys", "/ca.pem", "/none",
    ] {
        let answer = get(&sidecar, path).await;
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{path}");
        assert_eq!(
            answer.field("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
        let policy = answer.field("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
    }
    assert_eq!(get(&sidecar, "/livez").await.status, 200);
    let request = post(
        &format!("{PAY}?card=4111-1111"),
        &sidecar.egress.to_string(),
        "Authorization: Bearer topsecret\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
        b"{\"body\":\"private\"}",
    );
    send(sidecar.egress, request).await;
    let line = sidecar.wait_for(|line| line["message"] == "exchange");
    for (field, value) in [
        ("direction", "egress"),
        ("route", "gateway"),
        ("method", "POST"),
        ("path", PAY),
        ("outcome", "upstream_unreachable"),
        ("error", "upstream_unreachable"),
        ("delivery", "not-sent"),
        ("trace_id", "0af7651916cd43dd8448eb211c80319c"),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    let metrics = get(&sidecar, "/metrics").await.text();
    let fingerprint = files.gateway.public_key().fingerprint();
    for part in [
        "countersign_exchanges_total{direction=\"egress\",outcome=\"upstream_unreachable\",route=\"gateway\"} 1",
        "countersign_in_flight{direction=\"egress\"} 0",
        "countersign_overhead_seconds_count{direction=\"egress\"} 1",
        "countersign_exchange_duration_seconds_count{direction=\"egress\",route=\"gateway\"} 1",
        "countersign_sign_duration_seconds_count 1",
        "countersign_upstream_connects_total{result=\"connect_failed\"} 1",
        "countersign_build_info{version=",
        "process_resident_memory_bytes",
        &format!(
            "client_id=\"{CLIENT_ID}\",fingerprint=\"{fingerprint}\",key_version=\"1\",use=\"verify\"}} 1"
        ),
    ] {
        assert!(metrics.contains(part), "{part}\n{metrics}");
    }
    let page = get(&sidecar, "/").await;
    assert!(page.text().contains(&fingerprint.to_string()) && page.text().contains("ready"));
    let secret = files.partner.to_pkcs8_base64();
    for shown in [page.text(), metrics, format!("{:?}", sidecar.log)] {
        for hidden in ["4111-1111", "topsecret", "private\"}", &secret[100..140]] {
            assert!(!shown.contains(hidden), "{hidden}: {shown}");
        }
    }
}

#[test]
fn bundled_roots_serve_where_the_system_has_none() {
    let files = Files::new();
    let file = files.config("https://localhost:1", "", "");
    let output = command(&["check", "--config", text(&file)])
        .env("SSL_CERT_FILE", "/no/such/file.pem")
        .env("SSL_CERT_DIR", "/no/such/folder")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let roots = countersign::net::tls::roots(None).unwrap();
    assert!(roots.len() > 50, "{} roots", roots.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_answers_only_what_it_knows() {
    let files = Files::new();
    let file = files.config("http://127.0.0.1:1", "", "");
    let sidecar = Sidecar::run(&["run", "--config", text(&file)]);
    assert_eq!(get(&sidecar, "/nothing").await.status, 404);
    assert_eq!(get(&sidecar, "/drain").await.status, 405);
    assert_eq!(
        send(sidecar.admin, post("/metrics", "x", "", b""))
            .await
            .status,
        405
    );
    let page = post("/drain", "x", "Origin: http://evil.example\r\n", b"");
    assert_eq!(send(sidecar.admin, page).await.status, 403);
    assert_eq!(get(&sidecar, "/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_sidecar_is_small() {
    let files = Files::new();
    let file = files.config("http://127.0.0.1:1", "", "");
    let sidecar = Sidecar::run(&["run", "--config", text(&file)]);
    // A debug build is larger than the release; the promise for that is 15 MB.
    assert!(
        sidecar.resident() < 40 << 20,
        "{} bytes",
        sidecar.resident()
    );
}

#[test]
fn the_demo_ends_well() {
    let output = countersign(&["demo", "--once"]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("every step held"), "{shown}");
}

#[test]
fn sign_and_verify_agree_and_verify_explains() {
    let files = Files::new();
    let body = files.write("body.json", payment("R1").as_bytes());
    let (private, public) = (files.path("partner.pem"), files.path("partner.pub.pem"));
    let time = "2026-01-02T03:04:05+08:00";
    let message = ["--client-id", CLIENT_ID, "--uri", PAY, "--time", time];
    let signed = command(&[
        "sign",
        "--private-key",
        text(&private),
        "--key-version",
        "2",
    ])
    .args(message)
    .args(["--body", text(&body)])
    .output()
    .unwrap();
    let value = String::from_utf8(signed.stdout).unwrap();
    let value = value.strip_suffix('\n').unwrap();
    assert!(
        value.starts_with("algorithm=RSA256,keyVersion=2,signature="),
        "{value}"
    );
    let verify = |uri: &str| {
        let mut command = command(&["verify", "--public-key", text(&public), "--uri", uri]);
        command.args([
            "--client-id",
            CLIENT_ID,
            "--time",
            time,
            "--signature",
            value,
        ]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The body from stdin this time.
        child
            .stdin
            .take()
            .unwrap()
            .write_all(payment("R1").as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    };
    assert_eq!(verify(PAY).status.code(), Some(0));
    let failed = verify(&format!("{PAY}?a=1"));
    assert_eq!(failed.status.code(), Some(1));
    let line = String::from_utf8(failed.stderr).unwrap();
    assert!(
        line.lines().count() == 1 && line.contains("query"),
        "{line}"
    );
}

#[test]
fn keygen_makes_a_pair_only_its_owner_can_read_and_never_overwrites() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let out = text(folder.path()).to_owned();
    assert!(countersign(&["keygen", "--out", &out]).status.success());
    let private = folder.path().join("partner.pem");
    assert_eq!(
        std::fs::metadata(&private).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let key =
        countersign_protocol::PrivateKey::parse(&std::fs::read(&private).unwrap(), None).unwrap();
    let line = std::fs::read_to_string(folder.path().join("partner.pub.txt")).unwrap();
    assert_eq!(line.trim_end(), key.public_key().to_spki_base64());
    let again = countersign(&["keygen", "--out", &out]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_payments_one_after_another_are_all_verified() {
    let world = World::new().await;
    for _ in 0..1000 {
        assert_eq!(world.pay("").await.outcome(), "verdict verified");
    }
    assert_eq!(world.gateway().deliveries(), 1000);
    // All on a handful of pooled connections.
    assert!(world.metric("countersign_upstream_connects_total{result=\"ok\"}") < 10.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_allows_itself_the_open_files_it_may_have_and_says_when_they_are_too_few() {
    let files = Files::new();
    let file = files.config("http://127.0.0.1:1", "", "");
    let limited = |limits: &str| {
        let line = format!("ulimit {limits}; exec \"$0\" run --config \"$1\"");
        let mut shell = std::process::Command::new("sh");
        shell
            .args(["-c", &line, env!("CARGO_BIN_EXE_countersign"), text(&file)])
            .env_remove("COUNTERSIGN_CONFIG")
            .stdin(Stdio::null());
        Sidecar::start(shell)
    };
    let is_warned = |sidecar: &Sidecar| {
        let said =
            |line: &serde_json::Value| line["message"].to_string().contains("files may be open");
        sidecar.log.iter().any(said)
    };
    let raised = limited("-Sn 100; ulimit -Hn 20000");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", raised.id())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    assert!(line.unwrap().matches("20000").count() == 2, "{limits}");
    assert!(!is_warned(&raised));
    assert!(is_warned(&limited("-Sn 100; ulimit -Hn 200")));
}
