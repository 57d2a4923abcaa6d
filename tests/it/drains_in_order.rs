//! SIGTERM and `POST /drain`: readiness off, in-flight finished, exit 0; and not for ever.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;

use crate::support::Files;
use crate::support::netns::{Namespace, succeed};
use crate::support::process::{Sidecar, countersign, text};
use crate::support::raw::{Answer, RawGateway, UNSIGNED, post, send};
use crate::support::world::PAY;

async fn ready(admin: SocketAddr) -> u16 {
    send(
        admin,
        "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await
    .status
}

fn sidecar(gateway: &RawGateway, drain: &str) -> (Files, Sidecar) {
    let files = Files::new();
    let file = files.config(&format!("http://{}", gateway.address), "", drain);
    let sidecar = Sidecar::run(&["run", "--config", text(&file)]);
    (files, sidecar)
}

fn pay(sidecar: &Sidecar) -> tokio::task::JoinHandle<Answer> {
    let request = post(PAY, &sidecar.egress.to_string(), "", b"{}");
    tokio::spawn(send(sidecar.egress, request))
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_what_is_in_flight_finish_and_exits_0() {
    let mut gateway = RawGateway::by_hand().await;
    let (_files, mut sidecar) = sidecar(&gateway, "drain: { grace: 10s, deadline: 60s }");
    let first = pay(&sidecar);
    let (_, mut first_stream) = gateway.next().await;
    sidecar.signal("TERM");
    sidecar.wait_for(|line| line["message"] == "draining");
    assert_eq!(ready(sidecar.admin).await, 503);
    // During the grace new connections are still served.
    let second = pay(&sidecar);
    let (_, mut second_stream) = gateway.next().await;
    first_stream.write_all(UNSIGNED.as_bytes()).await.unwrap();
    second_stream.write_all(UNSIGNED.as_bytes()).await.unwrap();
    assert_eq!(first.await.unwrap().outcome(), "verdict unsigned");
    assert_eq!(second.await.unwrap().outcome(), "verdict unsigned");
    // Nobody waits for the rest of the grace at a terminal.
    sidecar.signal("INT");
    assert_eq!(sidecar.exit().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_still_in_flight_at_the_deadline_is_answered_and_the_exit_is_0() {
    let mut gateway = RawGateway::by_hand().await;
    let (_files, mut sidecar) = sidecar(&gateway, "drain: { grace: 0s, deadline: 2s }");
    let stuck = pay(&sidecar);
    let _never_answered = gateway.next().await;
    sidecar.signal("TERM");
    assert_eq!(stuck.await.unwrap().outcome(), "shutting_down unknown 503");
    let line = sidecar.wait_for(|line| line["message"] == "exchange");
    // Nearly all of it was waiting for the gateway, also though that was cut short.
    assert!(line["waited_ms"].as_f64().unwrap() > 200.0, "{line}");
    assert_eq!(sidecar.exit().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_and_wait_speak_to_the_admin_port() {
    let gateway = RawGateway::by_hand().await;
    let (_files, sidecar) = sidecar(&gateway, "drain: { grace: 0s, deadline: 5s }");
    let admin = sidecar.admin.to_string();
    assert_eq!(
        countersign(&["wait", "--admin", &admin]).status.code(),
        Some(0)
    );
    assert_eq!(
        countersign(&["shutdown", "--admin", &admin]).status.code(),
        Some(0)
    );
    assert_eq!(sidecar.exit().code(), Some(0));
    let gone = countersign(&["wait", "--admin", &admin, "--timeout", "100ms"]);
    assert_eq!(gone.status.code(), Some(1));
    assert_eq!(
        countersign(&["shutdown", "--admin", &admin]).status.code(),
        Some(1)
    );
}

/// By the words of `admin.listen`, of which the first one is the chart's.
#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_is_found_as_it_is_written_where_it_listens() {
    let gateway = RawGateway::by_hand().await;
    let (_files, sidecar) = sidecar(&gateway, "drain: { grace: 0s, deadline: 5s }");
    let port = sidecar.admin.port();
    for admin in [format!(":{port}"), format!("localhost:{port}")] {
        for command in ["wait", "keys"] {
            let done = countersign(&[command, "--admin", &admin]);
            assert_eq!(done.status.code(), Some(0), "{command} {admin}");
        }
    }
    let wrong = countersign(&["wait", "--admin", "sidecar:18449"]);
    assert_eq!(wrong.status.code(), Some(64));
    let error = String::from_utf8(wrong.stderr).unwrap();
    assert!(error.contains("write it like 127.0.0.1:"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_alive_connection_without_a_request_does_not_hold_the_drain() {
    let mut gateway = RawGateway::by_hand().await;
    let (_files, sidecar) = sidecar(&gateway, "drain: { grace: 0s, deadline: 60s }");
    let mut idle = tokio::net::TcpStream::connect(sidecar.egress)
        .await
        .unwrap();
    let request = format!(
        "POST {PAY} HTTP/1.1\r\nHost: {}\r\nContent-Length: 2\r\n\r\n{{}}",
        sidecar.egress
    );
    idle.write_all(request.as_bytes()).await.unwrap();
    let (_, mut stream) = gateway.next().await;
    stream.write_all(UNSIGNED.as_bytes()).await.unwrap();
    crate::support::raw::read_message(&mut idle).await.unwrap();
    sidecar.signal("TERM");
    assert_eq!(sidecar.exit().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_after_a_drain_through_the_admin_port_cuts_nothing_off() {
    let mut gateway = RawGateway::by_hand().await;
    let (_files, mut sidecar) = sidecar(&gateway, "drain: { grace: 0s, deadline: 60s }");
    let payment = pay(&sidecar);
    let (_, mut stream) = gateway.next().await;
    let admin = sidecar.admin.to_string();
    assert!(
        countersign(&["shutdown", "--admin", &admin])
            .status
            .success()
    );
    sidecar.wait_for(|line| line["message"] == "draining");
    // As Kubernetes does after a preStop hook.
    sidecar.signal("TERM");
    assert_eq!(ready(sidecar.admin).await, 503);
    stream.write_all(UNSIGNED.as_bytes()).await.unwrap();
    assert_eq!(payment.await.unwrap().outcome(), "verdict unsigned");
    sidecar.wait_for(|line| line["message"] == "drained");
    assert_eq!(sidecar.exit().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_never_ends_holds_up_no_drain() {
    let gateway = RawGateway::by_hand().await;
    let (_files, mut sidecar) = sidecar(&gateway, "drain: { grace: 0s, deadline: 60s }");
    let mut stranger = tokio::net::TcpStream::connect(sidecar.egress)
        .await
        .unwrap();
    stranger.write_all(b"POST /x HTTP/1.1\r\nHo").await.unwrap();
    // Behind it in the queue, so that it has been accepted when this one is answered.
    assert_eq!(ready(sidecar.admin).await, 200);
    sidecar.signal("TERM");
    sidecar.wait_for(|line| line["message"] == "drained");
    assert_eq!(sidecar.exit().code(), Some(0));
}

#[test]
fn only_loopback_may_order_a_drain_and_everybody_may_look() {
    let (files, network) = (Files::new(), Namespace::new("drain"));
    let file = files.config(
        "http://127.0.0.1:1",
        "",
        "drain: { grace: 0s, deadline: 5s }",
    );
    let mut run = network.command(env!("CARGO_BIN_EXE_countersign"));
    run.args(["run", "--config", text(&file), "--admin-listen", "[::]:0"])
        .env_remove("COUNTERSIGN_CONFIG");
    let mut sidecar = Sidecar::start(run);
    let port = sidecar.admin.port();
    let asked = |mut curl: std::process::Command, method: &str, host: &str, path: &str| {
        let url = format!("http://{host}:{port}{path}");
        let curl = curl.args(["-s", "-m", "20", "-w", "%{http_code}", "-X", method, &url]);
        succeed(curl)
    };
    let afar =
        "only from loopback: ask 127.0.0.1 or [::1] from within the same pod or machine\n403";
    for host in ["192.0.2.2", "[2001:db8::2]"] {
        let outside = || network.outside("curl");
        for path in ["/livez", "/readyz", "/metrics", "/keys", "/ca.pem", "/"] {
            let shown = asked(outside(), "GET", host, path);
            assert!(shown.ends_with("200"), "{host}{path}: {shown}");
        }
        assert_eq!(asked(outside(), "POST", host, "/drain"), afar);
        // The pod's own address is how others reach it.
        assert_eq!(asked(network.command("curl"), "POST", host, "/drain"), afar);
        let admin = format!("{host}:{port}");
        let mut shutdown = network.outside(env!("CARGO_BIN_EXE_countersign"));
        let shutdown = shutdown
            .args(["shutdown", "--admin", &admin])
            .output()
            .unwrap();
        assert_eq!(shutdown.status.code(), Some(1));
        let line = String::from_utf8(shutdown.stderr).unwrap();
        assert!(
            line.contains("takes this order from loopback only"),
            "{line}"
        );
    }
    assert_eq!(
        asked(network.command("curl"), "GET", "127.0.0.1", "/readyz"),
        "ready\n200"
    );
    let drained = asked(network.command("curl"), "POST", "127.0.0.1", "/drain");
    assert_eq!(drained, "draining\n202");
    sidecar.wait_for(|line| line["message"] == "drained");
    assert_eq!(sidecar.exit().code(), Some(0));
}
