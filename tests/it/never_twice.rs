//! A request of the app reaches the gateway at most once, and what is said of it is true.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use tokio::io::AsyncWriteExt;

use crate::support::World;
use crate::support::daemon::closed_port;
use crate::support::listener::Log;
use crate::support::process::PATIENCE;
use crate::support::raw::{RawGateway, UNSIGNED, post, send};
use crate::support::upstream::WayOut;
use crate::support::world::{PAY, payment};

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_does_not_listen_means_not_sent() {
    let port = closed_port();
    let nobody = port.address;
    for upstream in [format!("http://{nobody}"), format!("https://{nobody}")] {
        let world = World::before(&upstream, "", "").await;
        assert_eq!(
            world.pay("").await.outcome(),
            "upstream_unreachable not-sent 502"
        );
    }
    let world = World::before("https://no-such-host.invalid", "", "").await;
    assert_eq!(
        world.pay("").await.outcome(),
        "upstream_unreachable not-sent 502"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_nobody_vouches_for_means_not_sent() {
    let real = World::new().await;
    let port = real.gateway.as_ref().unwrap().address.port();
    // Without the CA: nobody vouches for it. By an address it has no certificate for: neither.
    let world = World::before(&format!("https://localhost:{port}"), "", "").await;
    assert_eq!(
        world.pay("").await.outcome(),
        "upstream_tls_failed not-sent 502"
    );
    assert_eq!(real.gateway().deliveries(), 0);
    assert_eq!(
        world.metric("countersign_upstream_connects_total{result=\"tls_failed\"}"),
        1.0
    );
}

#[tokio::test]
async fn answer_log_and_metric_say_the_same_of_the_delivery() {
    let log = Log::capture();
    let gone = RawGateway::answering("").await;
    let nobody = closed_port();
    for (upstream, code, delivery) in [
        (nobody.address, "upstream_unreachable", "not-sent"),
        (gone, "upstream_broke_off", "unknown"),
    ] {
        let world = World::before(&format!("http://{upstream}"), "", "").await;
        let answer = world.pay("").await;
        assert_eq!(answer.outcome(), format!("{code} {delivery} 502"));
        let labels = format!(
            "code=\"{code}\",delivery=\"{delivery}\",direction=\"egress\",route=\"gateway\""
        );
        let metric = format!("countersign_faults_total{{{labels}}}");
        world.until(&metric, 1.0).await;
        world
            .until("countersign_in_flight{direction=\"egress\"}", 0.0)
            .await;
        let id = answer.field("countersign-id").unwrap();
        let lines = log.lines(&format!("id=\"{id}\""));
        let [line] = lines.as_slice() else {
            panic!("{lines:?}");
        };
        let says = format!("delivery=\"{delivery}\"");
        assert!(line.contains(&says), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_at_any_byte_of_the_answer_delivers_once_and_says_unknown() {
    let mut gateway = RawGateway::by_hand().await;
    let world = World::before(&format!("http://{}", gateway.address), "", "").await;
    for length in 0..UNSIGNED.len() {
        let (answer, request) = tokio::join!(world.pay(""), async {
            let (request, mut stream) = gateway.next().await;
            stream
                .write_all(&UNSIGNED.as_bytes()[..length])
                .await
                .unwrap();
            request
        });
        assert_eq!(
            answer.outcome(),
            "upstream_broke_off unknown 502",
            "cut at {length}"
        );
        assert!(String::from_utf8_lossy(&request).starts_with("POST "));
        assert!(
            gateway.arrived().is_none(),
            "a second delivery after a cut at {length}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reused_connection_cut_after_the_request_delivers_once() {
    let mut gateway = RawGateway::by_hand().await;
    let world = World::before(&format!("http://{}", gateway.address), "", "").await;
    for round in 0..20 {
        let (answer, mut stream) = tokio::join!(world.pay(""), async {
            let (_, mut stream) = gateway.next().await;
            stream.write_all(UNSIGNED.as_bytes()).await.unwrap();
            stream
        });
        assert_eq!(answer.outcome(), "verdict unsigned", "{round}");
        // The next request comes on the same connection, is read, and never answered.
        let (answer, second) = tokio::join!(world.pay(""), async {
            let second = crate::support::raw::read_message(&mut stream).await;
            drop(stream);
            second
        });
        assert!(second.is_some(), "the connection was not reused");
        assert_eq!(
            answer.outcome(),
            "upstream_broke_off unknown 502",
            "{round}"
        );
        assert!(
            gateway.arrived().is_none(),
            "a second delivery in round {round}"
        );
    }
    assert_eq!(gateway.connections(), 20);
}

/// A gateway on a thread of its own that answers one request on each connection and ends it when told,
/// so that the runtime of the test has no chance to see the end before the next request.
struct Ending {
    address: SocketAddr,
    end: mpsc::Sender<()>,
    ended: mpsc::Receiver<()>,
    served: Arc<AtomicUsize>,
}

impl Ending {
    fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ends) = mpsc::channel();
        let (tell, ended) = mpsc::channel();
        let served = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&served);
        std::thread::spawn(move || {
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                let mut seen = Vec::new();
                while !seen.ends_with(b"paid") {
                    let mut part = [0; 1024];
                    let count = stream.read(&mut part).unwrap();
                    seen.extend_from_slice(&part[..count]);
                }
                counter.fetch_add(1, Ordering::SeqCst);
                stream.write_all(UNSIGNED.as_bytes()).unwrap();
                if ends.recv().is_err() {
                    return;
                }
                stream.shutdown(Shutdown::Write).unwrap();
                until_seen(&stream);
                drop(stream);
                let _test_over = tell.send(());
            }
        });
        Self {
            address,
            end,
            ended,
            served,
        }
    }
}

/// Waits until the other side's kernel has the end of a stream, which takes a moment also on loopback.
fn until_seen(stream: &std::net::TcpStream) {
    let port = |address: SocketAddr| format!(":{:04X}", address.port());
    let ends = [stream.local_addr(), stream.peer_addr()].map(|end| port(end.unwrap()));
    let start = Instant::now();
    loop {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        // Both ends and the state, of which 05 is FIN_WAIT2: the end was acknowledged.
        let is_seen = |line: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            let [_, own, other, state, ..] = words.as_slice() else {
                return false;
            };
            own.ends_with(&ends[0]) && other.ends_with(&ends[1]) && *state == "05"
        };
        if table.lines().any(is_seen) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{ends:?}: {table}");
        std::thread::yield_now();
    }
}

/// On one thread, so that nobody looks at the connection between its end and the next request.
#[tokio::test]
async fn a_kept_connection_that_ended_unseen_is_replaced_before_a_byte_is_sent() {
    let gateway = Ending::start();
    let way_out = WayOut::trusting(None);
    let uri = format!("http://{}/", gateway.address);
    for round in 1..=50 {
        let answer = way_out.send(&uri, b"paid").await;
        assert!(answer.is_ok(), "round {round}: {:?}", answer.err());
        assert_eq!(gateway.served.load(Ordering::SeqCst), round, "once each");
        drop(answer);
        // The connection is back in the pool before it ends.
        tokio::task::yield_now().await;
        gateway.end.send(()).unwrap();
        gateway.ended.recv().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_behind_an_answer_are_never_taken_for_the_next_answer() {
    let mut gateway = RawGateway::by_hand().await;
    let world = World::before(&format!("http://{}", gateway.address), "", "").await;
    let planted = UNSIGNED.replace("200 OK", "418 Planted");
    for round in 0..50 {
        let (answer, _stream) = tokio::join!(world.pay(""), async {
            let (_, mut stream) = gateway.next().await;
            stream
                .write_all(format!("{UNSIGNED}{planted}").as_bytes())
                .await
                .unwrap();
            stream
        });
        assert_ne!(answer.status, 418, "round {round}");
    }
    // Each time the connection was given up, so each request had its own.
    assert_eq!(gateway.connections(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_never_answers_is_given_up_at_the_timeout_as_unknown() {
    let world = World::with("      timeout: 1s", "").await;
    let answer = world.pay("sandbox-fault: stall\r\n").await;
    assert_eq!(answer.outcome(), "upstream_timeout unknown 504");
    let told = &answer.json()["result"]["resultMessage"];
    assert_eq!(told, "countersign: no complete answer within 1s");
    assert_eq!(world.gateway().deliveries(), 1);
    let line = "countersign_faults_total{code=\"upstream_timeout\",delivery=\"unknown\",direction=\"egress\",route=\"gateway\"}";
    assert_eq!(world.metric(line), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_timed_out_is_not_used_again() {
    let mut gateway = RawGateway::by_hand().await;
    let route = "      timeout: 1s";
    let world = World::before(&format!("http://{}", gateway.address), route, "").await;
    let (answer, (_, stream)) = tokio::join!(world.pay(""), gateway.next());
    assert_eq!(answer.outcome(), "upstream_timeout unknown 504");
    let (_, (_, second)) = tokio::join!(world.pay(""), gateway.next());
    assert_ne!(stream.peer_addr().unwrap(), second.peer_addr().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_is_an_http_2_connection_that_timed_out() {
    let world = World::speaking(true, "      timeout: 2s", "").await;
    let answer = world.pay("sandbox-fault: stall\r\n").await;
    assert_eq!(answer.outcome(), "upstream_timeout unknown 504");
    assert_eq!(world.pay("").await.outcome(), "verdict verified");
    let line = "countersign_upstream_connects_total{result=\"ok\"}";
    assert_eq!(world.metric(line), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_over_the_limit_is_refused_before_its_body_is_asked_for() {
    let world = World::with("      request_limit: 1000B", "").await;
    let host = world.egress.to_string();
    let head = format!(
        "POST {PAY} HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\n\
         Content-Length: 9000000000\r\nConnection: close\r\n\r\n"
    );
    let answer = send(world.egress, head).await;
    assert_eq!(answer.outcome(), "request_too_large not-sent 413");
    let answer = send(world.egress, post(PAY, &host, "", &[b'x'; 1001])).await;
    assert_eq!(answer.outcome(), "request_too_large not-sent 413");
    assert_eq!(world.gateway().deliveries(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_drips_is_given_up_in_time() {
    let world = World::with("  request_timeout: 200ms", "").await;
    let head = format!(
        "POST {PAY} HTTP/1.1\r\nHost: {}\r\nContent-Length: 10\r\n\r\nhal",
        world.egress
    );
    assert_eq!(
        send(world.egress, head).await.outcome(),
        "request_timeout not-sent 408"
    );
    assert_eq!(world.gateway().deliveries(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_exchanges_than_allowed_are_refused_and_served_again_afterwards() {
    let mut gateway = RawGateway::by_hand().await;
    let upstream = format!("http://{}", gateway.address);
    let world = World::before(&upstream, "", "limits: { exchanges: 1 }").await;
    let (first, ()) = tokio::join!(world.pay(""), async {
        let (_, mut stream) = gateway.next().await;
        assert_eq!(world.pay("").await.outcome(), "overloaded not-sent 503");
        stream.write_all(UNSIGNED.as_bytes()).await.unwrap();
    });
    assert_eq!(first.outcome(), "verdict unsigned");
    assert!(gateway.arrived().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_over_the_budget_of_all_together_are_refused() {
    let world = World::with("", "limits: { buffered: 1KiB }").await;
    let body = payment(&"x".repeat(1100));
    let request = post(PAY, &world.egress.to_string(), "", body.as_bytes());
    assert_eq!(
        send(world.egress, request).await.outcome(),
        "overloaded not-sent 503"
    );
    assert_eq!(world.metric("countersign_buffered_bytes"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_never_goes_in_circles() {
    let port = closed_port();
    let address = port.address;
    let files = crate::support::Files::new();
    let file = files.config(&format!("http://{address}"), "", "");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace("listen: 127.0.0.1:0", &format!("listen: {address}"));
    let file = files.write("loop.yaml", text.as_bytes());
    let clock = countersign::clock::Clock::system();
    let prepared = countersign::app::prepare(countersign::config::load(&file), clock).unwrap();
    let running = countersign::app::start(prepared).await.unwrap();
    let host = "open-sea-global.alipayplus.com";
    let answer = send(running.egress[0], post(PAY, host, "", b"{}")).await;
    assert_eq!(answer.outcome(), "loop_detected not-sent 508");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_half_closes_still_gets_its_answer() {
    let world = World::new().await;
    let mut stream = tokio::net::TcpStream::connect(world.egress).await.unwrap();
    let request = post(PAY, &world.egress.to_string(), "", payment("R1").as_bytes());
    stream.write_all(&request).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer)
        .await
        .unwrap();
    assert!(answer.contains("countersign-verdict: verified"), "{answer}");
}
