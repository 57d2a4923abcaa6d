//! Apps without any setting: their packets are redirected by the kernel, or the gateway's name points
//! at the sidecar. In networks of the tests' own.

use serde_json::{Value, json};

use crate::support::clients::{self, Client, clients, venv_python};
use crate::support::netns::succeed;
use crate::support::raw::unreadable_greeting;
use crate::support::town::{GATEWAY, GATEWAY6, SIDECAR, Town};
use crate::support::world::{PAY, payment};

const SEA: &str = "open-sea-global.alipayplus.com";
const BOTH: &str = "\"localhost:18441\"";

/// A town whose apps are redirected, and whose resolver knows the gateway's real address.
fn redirected(label: &str) -> Town {
    let town = Town::new(label, BOTH, "");
    town.network
        .hosts(&format!("{GATEWAY} {SEA}\n{GATEWAY} gateway.test"));
    town.redirect(&["apply", "--exempt-uid", &SIDECAR.to_string()]);
    town
}

/// Lets the clients pay one after the other; what went wrong, if anything.
async fn pay(town: &Town, which: impl Iterator<Item = &'static Client>) -> Vec<String> {
    let (around, url) = (town.surroundings(), format!("https://{SEA}{PAY}"));
    let mut failures = Vec::new();
    for (count, client) in which.enumerate() {
        let command = client.command(&around, |program| town.app(program));
        match clients::pay(command, &url, &payment(&format!("R{count}"))).await {
            Ok(line) if line["status"] == 200 && line["verdict"] == "verified" => {
                let body: Value = serde_json::from_str(line["body"].as_str().unwrap()).unwrap();
                assert_eq!(body["result"]["resultStatus"], "S", "{}", client.name);
            }
            other => failures.push(format!("{}: {other:?}", client.name)),
        }
    }
    failures
}

/// The official SDK with its own keys pays through its own client.
async fn sdk_pays(town: &Town) {
    let mut sdk = town.app(&venv_python());
    sdk.arg(clients().join("python_sdk.py"))
        .env("GATEWAY_URL", format!("https://{SEA}"))
        .env("CLIENT_ID", "SANDBOX_5X00000000000000")
        .env("PARTNER_PRIVATE_KEY", town.path("partner.pem"))
        .env("ALIPAY_PUBLIC_KEY", town.path("alipayplus.pub.pem"))
        .env("SSL_CERT_FILE", town.path("trust/ca-bundle.pem"));
    let line = clients::pay(sdk, "", &payment("SDK")).await.unwrap();
    assert_eq!(line["sdk_verified"], json!(true), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_pays_when_the_kernel_redirects_it() {
    let mut town = redirected("pay");
    let failures = pay(&town, clients::HTTPS.iter()).await;
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    sdk_pays(&town).await;
    // It signed by itself, under its own path; the sidecar's signature took the place.
    let line = town.sidecar.wait_for(|line| {
        line["message"] == "exchange" && line["path"] == "/ams/sandbox/api/v1/payments/pay"
    });
    assert_eq!(line["outcome"], "verified");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_pay_when_the_gateways_name_points_at_the_sidecar() {
    let town = Town::new("alias", "127.0.0.1:443", "");
    town.network.hosts(&format!("127.0.0.1 {SEA}"));
    let of_each_kind = ["curl", "python urllib", "node fetch", "java HttpClient"];
    let which = clients::HTTPS
        .iter()
        .filter(|client| of_each_kind.contains(&client.name));
    let failures = pay(&town, which).await;
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    sdk_pays(&town).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_else_passes_to_where_it_was_going() {
    let mut town = redirected("others");
    let curl = |town: &Town, arguments: &[&str]| {
        let mut curl = town.app("curl");
        curl.args(["-sS", "--max-time", "60"]).args(arguments);
        succeed(&mut curl)
    };
    // TLS to a host that is not signed for: the other side's own certificate arrives.
    let ca = town.path("ca.pem").to_str().unwrap().to_owned();
    let answer = curl(
        &town,
        &[
            "--cacert",
            &ca,
            "-d",
            "{}",
            "https://gateway.test/aps/api/v1/payments/pay",
        ],
    );
    assert!(answer.contains("INVALID_SIGNATURE"), "not signed: {answer}");
    assert_eq!(town.tunnel(&format!("{GATEWAY}:443"))["way"], "redirected");
    // Plain HTTP, by address and by name: not even a Via is added.
    for url in ["http://198.51.100.7/", "http://[2001:db8:7::7]/"] {
        let answer = curl(&town, &["-i", url]);
        assert!(answer.contains("X-Seen: nobody between"), "{url}: {answer}");
        assert!(!answer.contains("countersign"), "{url}: {answer}");
    }
    assert_eq!(town.tunnel("[2001:db8:7::7]:80")["result"], "closed");
    // 100 MiB, whole.
    let large = town.path("large");
    curl(
        &town,
        &["-o", large.to_str().unwrap(), "http://198.51.100.8/large"],
    );
    let length = std::fs::metadata(&large).unwrap().len();
    assert_eq!(length, 100 * 1024 * 1024);
    let megabyte: Vec<u8> = (0..=255).cycle().take(1024 * 1024).collect();
    let bytes = std::fs::read(&large).unwrap();
    assert!(bytes.chunks(megabyte.len()).all(|chunk| chunk == megabyte));
    // A server that speaks first.
    let mail = "import smtplib; s = smtplib.SMTP('198.51.100.9', 25, timeout=30); print(s.noop()); s.quit()";
    let mut python = town.app("/usr/bin/python3");
    assert_eq!(
        succeed(python.args(["-c", mail])),
        "(250, b'mail.example')\n"
    );
    assert_eq!(town.tunnel("198.51.100.9:25")["result"], "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_host_is_signed_over_ipv6_and_in_plain_http_too() {
    let town = redirected("six");
    town.network.hosts(&format!("{GATEWAY6} {SEA}"));
    for scheme in ["https", "http"] {
        let mut curl = town.app("curl");
        curl.args([
            "-sS",
            "-6",
            "-d",
            &payment(scheme),
            "-w",
            "%header{countersign-verdict}",
        ])
        .arg("--cacert")
        .arg(town.path("trust/ca.pem"))
        .arg(format!("{scheme}://{SEA}{PAY}"));
        let answer = succeed(&mut curl);
        assert!(answer.ends_with("verified"), "{scheme}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_catch_the_sidecar_itself_are_noticed_at_the_first_turn() {
    let mut town = Town::new("loop", BOTH, "");
    town.network.hosts(&format!("{GATEWAY} {SEA}"));
    town.redirect(&["apply", "--exempt-uid", "9"]);
    let mut curl = town.app("curl");
    curl.args(["-sS", "-i", "--max-time", "60", "-d", "{}", "--cacert"])
        .arg(town.path("trust/ca.pem"))
        .arg(format!("https://{SEA}{PAY}"));
    let answer = succeed(&mut curl);
    assert!(answer.contains("countersign-outcome: not-sent"), "{answer}");
    let line = town.tunnel(&format!("{GATEWAY}:443"));
    assert_eq!(line["result"], "loop_detected", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_to_leave_alone_are_not_looked_into() {
    let rest = "  transparent: { opaque_ports: [80] }";
    let mut town = Town::new("opaque", BOTH, rest);
    town.network.hosts(&format!("{GATEWAY} {SEA}"));
    town.redirect(&["apply", "--exempt-uid", &SIDECAR.to_string()]);
    let mut curl = town.app("curl");
    curl.args(["-sS", "-i", "--max-time", "60", &format!("http://{SEA}/")]);
    let answer = succeed(&mut curl);
    assert!(answer.contains("X-Seen: nobody between"), "{answer}");
    assert_eq!(town.tunnel(&format!("{GATEWAY}:80"))["result"], "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_names_a_signed_host_is_never_carried_unread() {
    let town = redirected("odd");
    let talk = |port: u16, bytes: &str| {
        let script = format!(
            "import socket; s = socket.create_connection(('{GATEWAY}', {port}), 30); \
             s.sendall({bytes}); print(s.recv(65536)[:60])"
        );
        succeed(town.app("/usr/bin/python3").args(["-c", &script]))
    };
    let host = format!("Host: {SEA}\\r\\n");
    for (label, head) in [
        (
            "two hosts",
            format!("GET / HTTP/1.1\\r\\n{host}{host}\\r\\n"),
        ),
        (
            "a space",
            format!("GET / HTTP/1.1\\r\\nHost : {SEA}\\r\\n\\r\\n"),
        ),
        (
            "folded",
            format!("GET / HTTP/1.1\\r\\nA: b\\r\\n c\\r\\n{host} x\\r\\n\\r\\n"),
        ),
        ("a bare LF", format!("GET / HTTP/1.1\\n{host}\\r\\n")),
        (
            "both framings",
            format!(
                "POST / HTTP/1.1\\r\\n{host}Content-Length: 5\\r\\n\
                 Transfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\n"
            ),
        ),
        (
            "user info",
            format!("GET / HTTP/1.1\\r\\nHost: me@{SEA}\\r\\n\\r\\n"),
        ),
    ] {
        let answer = talk(80, &format!("b'{head}'"));
        assert!(answer.starts_with("b'HTTP/1.1 400 "), "{label}: {answer}");
    }
    let target = format!("GET http://{SEA}/x HTTP/1.1\\r\\nHost: elsewhere.example\\r\\n\\r\\n");
    let answer = talk(80, &format!("b'{target}'"));
    assert!(
        !answer.contains("X-Seen") && answer.contains("HTTP/1.1 200"),
        "{answer}"
    );
    let greeting: String = unreadable_greeting(SEA)
        .iter()
        .map(|byte| format!("\\x{byte:02x}"))
        .collect();
    let answer = talk(443, &format!("b'{greeting}'"));
    assert!(
        answer.starts_with("b'\\x15\\x03\\x03"),
        "an alert: {answer}"
    );
}
