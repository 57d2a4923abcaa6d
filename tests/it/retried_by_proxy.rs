//! A payment that a proxy in front of the sidecar repeats reaches the gateway once, and a call the app once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::support::Files;
use crate::support::World;
use crate::support::daemon::closed_port;
use crate::support::envoy::{EVERY_5XX, Envoy, ISTIO};
use crate::support::inbound::{Inbound, NOTIFY};
use crate::support::process::{Sidecar, text};
use crate::support::raw::{Answer, post, read_message, send};
use crate::support::world::{PAY, payment};

const HOST: &str = "open-sea-global.alipayplus.com";

/// A peer that gives every request this response, and counts the requests.
struct Peer {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Peer {
    async fn responding(response: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    while read_message(&mut stream).await.is_some() {
                        count.fetch_add(1, Ordering::Relaxed);
                        if response.is_empty()
                            || stream.write_all(response.as_bytes()).await.is_err()
                        {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";
const CLOSES: &str = "";

async fn pay(to: SocketAddr, fields: &str, id: &str) -> Answer {
    send(to, post(PAY, HOST, fields, payment(id).as_bytes())).await
}

/// A sidecar as a process, in front of `gateway`.
fn sidecar(files: &Files, gateway: SocketAddr, route: &str) -> Sidecar {
    let file = files.config(&format!("http://{gateway}"), route, "");
    Sidecar::run(&["run", "--config", text(&file)])
}

async fn repeated(sidecar: &Sidecar, result: &str) -> f64 {
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let metrics = send(sidecar.admin, request).await.text();
    let start = "countersign_repeated_requests_total{direction=\"egress\",";
    let line = format!("{start}result=\"{result}\",route=\"gateway\"}} ");
    let mut values = metrics
        .lines()
        .filter_map(|found| found.strip_prefix(&line));
    values.next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_envoy_retries_is_delivered_once() {
    for (retry_on, attempts) in [(ISTIO, 1.0), (EVERY_5XX, 2.0)] {
        for response in [UNAVAILABLE, CLOSES] {
            let gateway = Peer::responding(response).await;
            let files = Files::new();
            let mut sidecar = sidecar(&files, gateway.address, "");
            let envoy = Envoy::start(sidecar.egress, retry_on, true).await;
            let answer = pay(envoy.address, "", "R1").await;
            assert_eq!(gateway.requests(), 1, "{retry_on} {response}");
            // Istio does not retry the sidecar's 502, which stands for a connection that broke off.
            if retry_on == ISTIO && response == CLOSES {
                assert_eq!(answer.outcome(), "upstream_broke_off unknown 502");
                continue;
            }
            assert_eq!(answer.outcome(), "retried_by_proxy unknown 502");
            assert_eq!(answer.json()["result"]["resultStatus"], "U");
            assert_eq!(repeated(&sidecar, "refused").await, attempts);
            let line = sidecar.wait_for(|line| line["error"] == "retried_by_proxy");
            assert_eq!(line["level"], "WARN");
            assert_eq!(line["delivery"], "unknown");
            let reason = line["reason"].as_str().unwrap();
            assert!(reason.contains("x-envoy-attempt-count"), "{reason}");
            // The next payment, and the same one asked for anew, are no retries of a proxy.
            assert_ne!(pay(envoy.address, "", "R2").await.outcome(), "");
            assert_eq!(gateway.requests(), 2);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_passes_where_no_earlier_attempt_was_delivered() {
    let files = Files::new();
    let nobody = closed_port();
    let sidecar = sidecar(&files, nobody.address, "");
    let envoy = Envoy::start(sidecar.egress, EVERY_5XX, true).await;
    let answer = pay(envoy.address, "", "R1").await;
    assert_eq!(answer.outcome(), "upstream_unreachable not-sent 502");
    assert_eq!(repeated(&sidecar, "not_delivered").await, 2.0);
    assert_eq!(repeated(&sidecar, "refused").await, 0.0);
    // Attempts that went elsewhere prove nothing.
    for (number, outcome) in [
        ("4", "upstream_unreachable not-sent 502"),
        ("6", "retried_by_proxy unknown 502"),
        ("x", "retried_by_proxy unknown 502"),
    ] {
        let fields = format!("x-envoy-attempt-count: {number}\r\n");
        assert_eq!(
            pay(sidecar.egress, &fields, "R1").await.outcome(),
            outcome,
            "{number}"
        );
    }
    let fields = "x-envoy-attempt-count: 2\r\n";
    let answer = pay(sidecar.egress, fields, "never seen").await;
    assert_eq!(answer.outcome(), "retried_by_proxy unknown 502");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_without_a_number_is_reported_or_refused_by_its_content() {
    for (policy, deliveries, result) in [
        ("report", 3, "same_content"),
        ("refuse", 1, "refused"),
        ("allow", 3, ""),
    ] {
        let gateway = Peer::responding(UNAVAILABLE).await;
        let files = Files::new();
        let route = format!("      repeated_requests: {policy}");
        let sidecar = sidecar(&files, gateway.address, &route);
        let envoy = Envoy::start(sidecar.egress, EVERY_5XX, false).await;
        let answer = pay(envoy.address, "", "R1").await;
        assert_eq!(gateway.requests(), deliveries, "{policy}");
        if !result.is_empty() {
            assert_eq!(repeated(&sidecar, result).await, 2.0, "{policy}");
        }
        let refused = answer.field("countersign-error") == Some("retried_by_proxy");
        assert_eq!(refused, policy == "refuse");
        // Another content is another payment.
        pay(sidecar.egress, "", "R2").await;
        assert_eq!(gateway.requests(), deliveries + 1, "{policy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_can_report_or_allow_numbered_retries() {
    for (policy, counted) in [("report", 2.0), ("allow", 0.0)] {
        let gateway = Peer::responding(UNAVAILABLE).await;
        let files = Files::new();
        let route = format!("      proxy_retries: {policy}");
        let sidecar = sidecar(&files, gateway.address, &route);
        let envoy = Envoy::start(sidecar.egress, ISTIO, true).await;
        assert_eq!(pay(envoy.address, "", "R1").await.status, 503);
        assert_eq!(gateway.requests(), 3);
        assert_eq!(
            repeated(&sidecar, "attempt_count").await,
            counted,
            "{policy}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_after_a_known_outcome_is_no_repetition() {
    let world = World::new().await;
    for _ in 0..3 {
        let answer = pay(world.egress, "", "R1").await;
        assert_eq!(answer.field("countersign-verdict"), Some("verified"));
    }
    for result in ["same_content", "refused"] {
        let line = format!(
            "countersign_repeated_requests_total{{direction=\"egress\",result=\"{result}\",route=\"gateway\"}}"
        );
        assert_eq!(world.metric(&line), 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unsigned_traffic_of_a_signed_host_is_refused_by_its_number_alone() {
    let gateway = Peer::responding(UNAVAILABLE).await;
    let files = Files::new();
    let sidecar = sidecar(&files, gateway.address, "");
    let fields = "Authorization: Bearer isak_x\r\n";
    assert_eq!(pay(sidecar.egress, fields, "R1").await.status, 503);
    assert_eq!(pay(sidecar.egress, fields, "R1").await.status, 503);
    let numbered = format!("{fields}x-envoy-attempt-count: 2\r\n");
    let answer = pay(sidecar.egress, &numbered, "R1").await;
    assert_eq!(answer.outcome(), "retried_by_proxy unknown 502");
    assert_eq!(gateway.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_envoy_retries_reaches_the_app_once() {
    let mut world = Inbound::new().await;
    let envoy = Envoy::start(world.ingress, ISTIO, true).await;
    let message = world.message(NOTIFY, b"{\"paymentRequestId\":\"R1\"}");
    let (answer, first) = tokio::join!(send(envoy.address, message.bytes()), async {
        let (request, mut stream) = world.app.next().await;
        stream.write_all(UNAVAILABLE.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        request
    });
    assert!(String::from_utf8_lossy(&first).contains("R1"));
    assert!(world.app.arrived().is_none(), "the app was called twice");
    assert_eq!(answer.outcome(), "retried_by_proxy unknown 502");
    assert_eq!(answer.json()["result"]["resultStatus"], "U");
    assert_eq!(world.flaw(&message, &answer), None, "signed for Alipay+");
    // Whoever proves nothing learns nothing else.
    let mut forged = message.clone();
    forged.body = b"{\"paymentRequestId\":\"R2\"}".to_vec();
    let forged = forged.with("x-envoy-attempt-count: 2\r\n");
    assert_eq!(send(world.ingress, forged).await.status, 401);
}
