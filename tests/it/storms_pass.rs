//! Floods, full ports, too few files and peers that break off: while it lasts the rest is served, and
//! afterwards everything is as before.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::support::pki::Pki;
use crate::support::process::{PATIENCE, Sidecar, command, text};
use crate::support::raw::{RawGateway, UNSIGNED, post, read_message, send};
use crate::support::world::{PAY, payment};
use crate::support::{Files, World};

const HALF_A_GREETING: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1];

async fn ask(admin: SocketAddr, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = send(admin, request).await;
    (answer.status, answer.text())
}

/// The value of a metric of a sidecar that runs as a process, 0 when there is none.
async fn shown(sidecar: &Sidecar, line: &str) -> f64 {
    let (_, metrics) = ask(sidecar.admin, "/metrics").await;
    let prefix = format!("{line} ");
    let mut values = metrics
        .lines()
        .filter_map(|found| found.strip_prefix(&prefix));
    values.next().map_or(0.0, |value| value.parse().unwrap())
}

async fn until(sidecar: &Sidecar, line: &str, fits: impl Fn(f64) -> bool) {
    let start = Instant::now();
    while !fits(shown(sidecar, line).await) {
        assert!(
            start.elapsed() < PATIENCE,
            "{line} is {}",
            shown(sidecar, line).await
        );
    }
}

/// A gateway that answers all at once and writes down whom.
async fn prompt(delivered: &Arc<Mutex<Vec<String>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, delivered) = (listener.local_addr().unwrap(), Arc::clone(delivered));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let delivered = Arc::clone(&delivered);
            tokio::spawn(async move {
                while let Some(request) = read_message(&mut stream).await {
                    delivered.lock().unwrap().push(id_of(&request));
                    stream.write_all(UNSIGNED.as_bytes()).await.unwrap();
                }
            });
        }
    });
    address
}

fn id_of(request: &[u8]) -> String {
    let text = String::from_utf8_lossy(request);
    let id = text.split("\"paymentRequestId\":\"").nth(1).unwrap();
    id.split('"').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_loses_nothing() {
    let delivered = Arc::default();
    let gateway = prompt(&delivered).await;
    let files = Files::new();
    let rest = "drain: { grace: 500ms, deadline: 60s }";
    let file = files.config(&format!("http://{gateway}"), "", rest);
    let sidecar = Sidecar::run(&["run", "--config", text(&file)]);
    let (egress, count) = (sidecar.egress, Arc::new(AtomicUsize::new(0)));
    let apps = (0..16).map(|app| {
        let count = Arc::clone(&count);
        tokio::spawn(async move {
            let mut answered = Vec::new();
            // Until nobody listens any more.
            while let Ok(mut stream) = TcpStream::connect(egress).await {
                let id = format!("{app}-{}", answered.len());
                let request = post(PAY, &egress.to_string(), "", payment(&id).as_bytes());
                let mut answer = Vec::new();
                let written = stream.write_all(&request).await;
                let read = stream.read_to_end(&mut answer).await;
                // One in the queue of a port that closes is reset, untouched.
                if (written.is_err() || read.is_err()) && answer.is_empty() {
                    break;
                }
                let answer = String::from_utf8(answer).unwrap();
                assert!(
                    answer.ends_with(r#"{"result":{"resultStatus":"F"}}"#),
                    "{id}: {answer}"
                );
                assert!(
                    answer.contains("countersign-verdict: unsigned"),
                    "{id}: {answer}"
                );
                answered.push(id);
                count.fetch_add(1, Ordering::SeqCst);
            }
            answered
        })
    });
    let apps: Vec<_> = apps.collect();
    while count.load(Ordering::SeqCst) < 200 {
        tokio::task::yield_now().await;
    }
    sidecar.signal("TERM");
    let at_the_signal = count.load(Ordering::SeqCst);
    let mut answered = HashSet::new();
    for app in apps {
        answered.extend(app.await.unwrap());
    }
    assert_eq!(sidecar.exit().code(), Some(0));
    assert!(
        answered.len() > at_the_signal,
        "none was served during the grace"
    );
    let delivered = delivered.lock().unwrap();
    let different: HashSet<_> = delivered.iter().cloned().collect();
    assert_eq!(delivered.len(), different.len(), "delivered twice");
    assert_eq!(different, answered, "delivered and not answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_during_a_drain_cuts_nothing_off() {
    let mut gateway = RawGateway::by_hand().await;
    let files = Files::new();
    let rest = "drain: { grace: 0s, deadline: 60s }";
    let file = files.config(&format!("http://{}", gateway.address), "", rest);
    let mut sidecar = Sidecar::run(&["run", "--config", text(&file)]);
    let request = post(PAY, &sidecar.egress.to_string(), "", b"{}");
    let payment = tokio::spawn(send(sidecar.egress, request));
    let (_, mut stream) = gateway.next().await;
    sidecar.signal("TERM");
    sidecar.wait_for(|line| line["message"] == "draining");
    sidecar.signal("HUP");
    // Answered behind the signal, so it has been seen.
    assert_eq!(ask(sidecar.admin, "/readyz").await.0, 503);
    stream.write_all(UNSIGNED.as_bytes()).await.unwrap();
    assert_eq!(payment.await.unwrap().outcome(), "verdict unsigned");
    sidecar.wait_for(|line| line["message"] == "drained");
    assert_eq!(sidecar.exit().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_answers_while_the_traffic_ports_are_full() {
    let gateway = prompt(&Arc::default()).await;
    let files = Files::new();
    let rest = "limits: { connections: 4 }";
    let file = files.config(&format!("http://{gateway}"), "", rest);
    let sidecar = Sidecar::run(&["run", "--config", text(&file)]);
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(TcpStream::connect(sidecar.egress).await.unwrap());
    }
    let open = "countersign_connections{listener=\"egress\"}";
    until(&sidecar, open, |open| open == 4.0).await;
    let request = post(
        PAY,
        &sidecar.egress.to_string(),
        "",
        payment("R1").as_bytes(),
    );
    let waiting = tokio::spawn(send(sidecar.egress, request));
    for path in ["/livez", "/readyz", "/metrics", "/"] {
        assert_eq!(ask(sidecar.admin, path).await.0, 200, "{path}");
    }
    assert_eq!(shown(&sidecar, open).await, 4.0);
    assert!(!waiting.is_finished());
    idle.pop();
    assert_eq!(waiting.await.unwrap().outcome(), "verdict unsigned");
}

/// Ticks of a hundredth of a second that a process has run.
fn processor_time(id: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_free_file_it_waits_quietly_and_serves_again_afterwards() {
    let gateway = prompt(&Arc::default()).await;
    let files = Files::new();
    let file = files.config(&format!("http://{gateway}"), "", "");
    let line = "ulimit -n 64; exec \"$0\" run --config \"$1\"";
    let mut shell = Command::new("sh");
    shell
        .args(["-c", line, env!("CARGO_BIN_EXE_countersign"), text(&file)])
        .env_remove("COUNTERSIGN_CONFIG")
        .stdin(Stdio::null());
    let mut sidecar = Sidecar::start(shell);
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(sidecar.egress).await.unwrap());
    }
    let is_full = |line: &serde_json::Value| {
        line["message"]
            .to_string()
            .contains("cannot accept a connection")
    };
    let line = sidecar.wait_for(is_full);
    assert!(
        line["error"].to_string().contains("Too many open files"),
        "{line}"
    );
    // A second in which it could spin, or fill the log.
    let before = processor_time(sidecar.id());
    let request = post(
        PAY,
        &sidecar.egress.to_string(),
        "",
        payment("R1").as_bytes(),
    );
    let mut waiting = tokio::spawn(send(sidecar.egress, request));
    let answered = timeout(Duration::from_secs(1), &mut waiting).await;
    assert!(answered.is_err(), "there was no file for it");
    let spent = processor_time(sidecar.id()) - before;
    assert!(spent < 20, "{spent} hundredths of a second");
    drop(idle);
    assert_eq!(waiting.await.unwrap().outcome(), "verdict unsigned");
    sidecar.wait_for(|line| line["message"] == "exchange");
    let complaints = sidecar.log.iter().filter(|line| is_full(line)).count();
    assert_eq!(complaints, 1, "{:#?}", sidecar.log);
    let open = "countersign_connections{listener=\"egress\"}";
    until(&sidecar, open, |open| open == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_handshakes_leaves_honest_callers_served_and_memory_flat() {
    let (files, pki) = (Files::new(), Pki::new());
    let path = |name| text(&pki.path(name)).to_owned();
    let config = format!(
        "{}ingress:\n  listen: 127.0.0.1:0\n  tls: {{ certificate_file: {}, key_file: {} }}\n  \
         routes: [{{ app: \"http://127.0.0.1:1\" }}]\nadmin: {{ listen: \"127.0.0.1:0\" }}\n",
        Files::identities(),
        path("one.pem"),
        path("one.key"),
    );
    let file = files.write("config.yaml", config.as_bytes());
    let sidecar = Sidecar::start(command(&["run", "--config", text(&file)]));
    let ingress = sidecar.ingress;
    let honest = async || {
        let mut curl = tokio::process::Command::new("curl");
        let url = format!("https://localhost:{}/", ingress.port());
        curl.args([
            "-s",
            "-m",
            "20",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--cacert",
        ]);
        let output = curl
            .arg(pki.path("ca.pem"))
            .arg(url)
            .output()
            .await
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(
        honest().await,
        "401",
        "it proves nothing, and its TLS is served"
    );
    let failed = "countersign_handshakes_total{listener=\"ingress\",result=\"failed\"}";
    let flood = async |count: usize| {
        for _ in 0..count {
            let mut stream = TcpStream::connect(ingress).await.unwrap();
            stream
                .write_all(b"\x16\x03\x01\x00\x05nonsense")
                .await
                .unwrap();
            // An alert, or a reset.
            let _refused = stream.read_to_end(&mut Vec::new()).await;
        }
    };
    flood(100).await;
    let before = sidecar.resident();
    // Some say nothing more for the ten seconds they are given; others come and go.
    let mut silent = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(ingress).await.unwrap();
        stream.write_all(HALF_A_GREETING).await.unwrap();
        silent.push(stream);
    }
    for _ in 0..5 {
        let ((), answer) = tokio::join!(flood(100), honest());
        assert_eq!(answer, "401");
    }
    until(&sidecar, failed, |count| count >= 600.0).await;
    let grown = sidecar.resident().saturating_sub(before);
    assert!(grown < 16 << 20, "grown by {grown} bytes");
    drop(silent);
    until(
        &sidecar,
        "countersign_connections{listener=\"ingress\"}",
        |open| open == 0.0,
    )
    .await;
    assert_eq!(honest().await, "401");
}

/// Ends a connection as a crash does: by a reset, whatever is on the way.
fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_breaks_off_in_any_phase_leaves_nothing_behind() {
    let mut gateway = RawGateway::by_hand().await;
    let upstream = format!("http://{}", gateway.address);
    let world = World::before(&upstream, "      timeout: 20s", "").await;
    let request = post(PAY, &world.egress.to_string(), "", payment("R1").as_bytes());
    let large = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}{{\"result\":{{\"resultStatus\":\"F\"}}}}",
        31 + (3 << 20),
        " ".repeat(3 << 20)
    );
    for (phase, written, delivered) in [
        ("nothing", 0, false),
        ("half a head", 20, false),
        ("half a body", request.len() - 5, false),
        ("all, and no answer yet", request.len(), true),
        ("all, and some of the answer", request.len(), true),
    ] {
        let mut app = TcpStream::connect(world.egress).await.unwrap();
        app.write_all(&request[..written]).await.unwrap();
        if phase.ends_with("answer") {
            let (_, mut stream) = gateway.next().await;
            stream.write_all(large.as_bytes()).await.unwrap();
            let mut some = [0; 1000];
            app.read_exact(&mut some).await.unwrap();
            reset(app);
        } else if delivered {
            let (_, mut stream) = gateway.next().await;
            reset(app);
            // It cannot be unsaid, and is finished and counted.
            stream.write_all(UNSIGNED.as_bytes()).await.unwrap();
        } else {
            reset(app);
        }
        world
            .until("countersign_in_flight{direction=\"egress\"}", 0.0)
            .await;
        world.until("countersign_buffered_bytes", 0.0).await;
        world
            .until("countersign_connections{listener=\"egress\"}", 0.0)
            .await;
        assert!(gateway.arrived().is_none(), "{phase}: delivered");
        let (answer, ()) = tokio::join!(world.pay(""), async {
            let (_, mut stream) = gateway.next().await;
            stream.write_all(UNSIGNED.as_bytes()).await.unwrap();
        });
        assert_eq!(answer.outcome(), "verdict unsigned", "{phase}");
    }
}
