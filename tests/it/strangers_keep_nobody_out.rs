//! Whoever can connect to the admin port or to the injector can hold connections there, and hold them again: probes,
//! scrapes and reviews are answered all the same, and nobody who asks loses an answer by it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use countersign::http::Body;
use countersign::http::body::full;
use countersign::net::drain::{Drain, Phase};
use countersign::net::serve::{Ends, Server, Service, Settings};
use countersign::telemetry::Metrics;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::support::cluster::until;
use crate::support::process::PATIENCE;
use crate::support::raw::{read_message, send};
use crate::support::reviews::{self, patched, pod, review};
use crate::support::world::World;

const ASK: &[u8] = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
/// On the admin port the silent go by themselves after five seconds; nobody is to wait for that.
const BEFORE_THE_SILENT_GO: Duration = Duration::from_secs(3);
/// On the injector's port a handshake may take ten seconds, and the next request two minutes.
const BEFORE_HANDSHAKES_END: Duration = Duration::from_secs(9);
const FULL: &str = "countersign_connections_full_total{listener=\"admin\"}";

/// Strangers who hold connections and open new ones when they lose them, until dropped. In a thread of their own: they
/// are to keep others out by the places they hold.
struct Strangers {
    opened: Arc<AtomicUsize>,
    end: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Strangers {
    /// `count` of them at another address than the tests', each of whom sends these bytes on each connection and waits.
    fn at(address: SocketAddr, count: usize, sends: &'static [u8]) -> Self {
        let opened = Arc::new(AtomicUsize::new(0));
        let (end, ended) = oneshot::channel();
        let counter = Arc::clone(&opened);
        let thread = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut tasks = JoinSet::new();
                for _ in 0..count {
                    tasks.spawn(hold(address, sends, Arc::clone(&counter)));
                }
                let _dropped = ended.await;
            });
        });
        Self {
            opened,
            end: Some((end, thread)),
        }
    }

    async fn have_opened(&self, count: usize) {
        let opened = || self.opened.load(Ordering::Relaxed);
        until("they have come", || opened() >= count).await;
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.end.take() {
            drop(end);
            thread.join().unwrap();
        }
    }
}

/// A connection from another address than the tests' others.
async fn from_elsewhere(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.2:0".parse().unwrap())?;
    socket.connect(to).await
}

/// Holds a connection, again and again.
async fn hold(address: SocketAddr, sends: &'static [u8], opened: Arc<AtomicUsize>) {
    loop {
        let Ok(mut stream) = from_elsewhere(address).await else {
            continue;
        };
        let _lost = stream.write_all(sends).await;
        opened.fetch_add(1, Ordering::Relaxed);
        let _ended = stream.read_to_end(&mut Vec::new()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_scrapes_are_answered_whatever_strangers_hold() {
    for sends in [b"".as_slice(), b"GET /livez HT", ASK] {
        let world = World::with("", "limits: { connections: 64 }").await;
        let admin = world.running.admin.unwrap();
        let strangers = Strangers::at(admin, 100, sends);
        strangers.have_opened(200).await;
        for path in ["livez", "readyz", "metrics", "livez", "readyz", "metrics"] {
            let request = format!("GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let begun = Instant::now();
            let answer = timeout(PATIENCE, send(admin, request)).await.expect(path);
            assert_eq!(answer.status, 200, "{path}");
            assert!(
                begun.elapsed() < BEFORE_THE_SILENT_GO,
                "{path}: {:?}",
                begun.elapsed()
            );
        }
        // However often they come, that is told once.
        assert_eq!(world.metric(FULL), 1.0);
        let open = world.metric("countersign_connections{listener=\"admin\"}");
        assert!(open <= 64.0, "{open}");
    }
}

/// Answers what it is let answer.
struct Gate {
    asked: AtomicUsize,
    open: Semaphore,
}

impl Service for Gate {
    type Arrival = Ends;

    async fn answer(&self, request: Request<Incoming>, _ends: &Ends) -> Response<Body> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if request.uri().path() == "/slow" {
            self.open.acquire().await.unwrap().forget();
        }
        Response::new(full("answer"))
    }
}

/// A listener on which the quiet give way.
struct Crowded {
    address: SocketAddr,
    gate: Arc<Gate>,
    metrics: Metrics,
    server: tokio::task::JoinHandle<()>,
    drain: Drain,
}

impl Crowded {
    async fn with(connections: u32) -> Self {
        let metrics = Metrics::new().unwrap();
        let settings = Settings {
            connections,
            quiet_give_way: true,
            counted: Some((metrics.clone(), "admin")),
            ..Settings::plain(metrics.connections.with_label_values(&["admin"]))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::new(Gate {
            asked: AtomicUsize::new(0),
            open: Semaphore::new(0),
        });
        let drain = Drain::new();
        let server = Server::new(listener, settings).run(Arc::clone(&gate), drain.clone());
        Self {
            address,
            gate,
            metrics,
            server: tokio::spawn(server),
            drain,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection on which a request was answered.
    async fn acquaintance(&self) -> TcpStream {
        let mut stream = self.connect().await;
        assert!(is_answered(&mut stream).await);
        stream
    }

    /// A connection on which a request is under way.
    async fn under_way(&self) -> TcpStream {
        let mut stream = self.connect().await;
        let before = self.gate.asked.load(Ordering::Relaxed);
        stream
            .write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        until("asked", || self.gate.asked.load(Ordering::Relaxed) > before).await;
        stream
    }

    fn open(&self) -> i64 {
        self.metrics.connections.with_label_values(&["admin"]).get()
    }
}

/// Whether a request is answered on a connection.
async fn is_answered(stream: &mut TcpStream) -> bool {
    if stream.write_all(ASK).await.is_err() {
        return false;
    }
    let answer = timeout(PATIENCE, read_message(stream)).await;
    answer.expect("neither an answer nor the end").is_some()
}

/// How many connections whoever listens there has not closed; an inode means that a process has it.
fn sockets_at(address: SocketAddr) -> usize {
    let here = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table
        .lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>());
    let held = rows.filter(|row| row[1].ends_with(&here) && row[3] != "0A" && row[9] != "0");
    held.count()
}

/// Whether a connection ends cleanly before anything comes.
async fn ends(stream: &mut TcpStream) -> bool {
    matches!(timeout(PATIENCE, stream.read(&mut [0])).await, Ok(Ok(0)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_is_never_ended_for_a_newcomer() {
    let crowded = Crowded::with(3).await;
    let mut under_way = vec![crowded.under_way().await, crowded.under_way().await];
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(crowded.connect().await);
        others.push(crowded.acquaintance().await);
    }
    // Where all have one, newcomers wait.
    under_way.push(crowded.under_way().await);
    let before = crowded.gate.asked.load(Ordering::Relaxed);
    let mut waiting = crowded.connect().await;
    waiting.write_all(ASK).await.unwrap();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(crowded.gate.asked.load(Ordering::Relaxed), before);
    // The first that becomes quiet makes room, with its answer in full.
    crowded.gate.open.add_permits(1);
    let answer = timeout(PATIENCE, read_message(&mut waiting)).await;
    assert!(answer.expect("it still waits").is_some());
    crowded.gate.open.add_permits(2);
    for stream in &mut under_way {
        let answer = timeout(PATIENCE, read_message(stream)).await.unwrap();
        assert!(answer.unwrap().ends_with(b"answer"));
    }
}

#[tokio::test]
async fn who_asks_without_a_pause_leaves_after_an_answer() {
    let crowded = Crowded::with(1).await;
    let mut greedy = crowded.under_way().await;
    // On one thread each of these begins before anybody sees that the one before has ended.
    let more = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3);
    greedy.write_all(&more).await.unwrap();
    let mut newcomer = crowded.connect().await;
    newcomer.write_all(ASK).await.unwrap();
    until("told", || {
        let full = crowded
            .metrics
            .connections_full
            .with_label_values(&["admin"]);
        full.get() > 0
    })
    .await;
    crowded.gate.open.add_permits(1);
    let answer = timeout(PATIENCE, read_message(&mut newcomer)).await;
    assert!(answer.expect("it still waits").is_some());
    let answer = timeout(PATIENCE, read_message(&mut greedy)).await.unwrap();
    assert!(answer.unwrap().ends_with(b"answer"));
    assert_eq!(crowded.gate.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quiet_give_way_only_when_needed_and_those_who_never_asked_before_them() {
    let crowded = Crowded::with(4).await;
    let mut kept = crowded.acquaintance().await;
    let mut silent = Vec::new();
    for number in 2..=4 {
        silent.push(crowded.connect().await);
        until("taken", || crowded.open() == number).await;
    }
    // All places are taken, and nobody needs one.
    assert!(is_answered(&mut kept).await);
    let mut newcomer = crowded.acquaintance().await;
    assert!(ends(&mut silent[0]).await);
    assert!(is_answered(&mut kept).await && is_answered(&mut newcomer).await);
    // The silent are no more than half now: newcomers must not chase each other over what is left.
    let mut other = crowded.acquaintance().await;
    assert!(ends(&mut kept).await, "it ends without a reset");
    let stay = [&mut newcomer, &mut other];
    for stream in stay.into_iter().chain(&mut silent[1..]) {
        assert!(is_answered(stream).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_has_many_connections_makes_its_own_give_way() {
    let crowded = Crowded::with(4).await;
    let mut slow = crowded.connect().await;
    let mut others = Vec::new();
    for _ in 0..40 {
        let mut other = from_elsewhere(crowded.address).await.unwrap();
        if others.len() % 2 == 0 {
            assert!(is_answered(&mut other).await);
        }
        others.push(other);
    }
    assert!(is_answered(&mut slow).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_take_no_more_memory_than_the_places_there_are() {
    let crowded = Crowded::with(8).await;
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(10_000));
    let mut strangers = Vec::new();
    for number in 0..200 {
        let mut stream = match number % 2 {
            0 => crowded.connect().await,
            _ => crowded.acquaintance().await,
        };
        // It may be gone already.
        let _gone = stream.write_all(head.as_bytes()).await;
        strangers.push(stream);
        assert!(crowded.open() <= 8);
    }
    // Those who gave way are gone but for a few, to whom it is still told.
    let held = sockets_at(crowded.address);
    assert!((8..=8 + 16 + 1).contains(&held), "{held}");
    // And a drain waits for nobody else.
    crowded.drain.enter(Phase::Closing);
    timeout(PATIENCE, crowded.server).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_are_answered_whatever_strangers_hold() {
    let world = reviews::World::new().await;
    // Who has asked once, stays, and does not even answer when told to go.
    let mut mute = Vec::new();
    for _ in 0..256 {
        mute.push(mute_acquaintance(&world).await);
    }
    // Nobody waits for them, though each newcomer stays.
    let (begun, mut stay) = (Instant::now(), Vec::new());
    for _ in 0..40 {
        let mut session = world.session().await;
        session.ask(&review(&pod())).await;
        stay.push(session);
    }
    assert!(
        begun.elapsed() < BEFORE_HANDSHAKES_END,
        "{:?}",
        begun.elapsed()
    );
    for sends in [b"".as_slice(), b"\x16\x03\x01\x01\x00"] {
        let strangers = Strangers::at(world.started.running.address, 300, sends);
        strangers.have_opened(600).await;
        for _ in 0..3 {
            let begun = Instant::now();
            let mut newcomer = world.session().await;
            patched(&pod(), &newcomer.ask(&review(&pod())).await);
            assert!(
                begun.elapsed() < BEFORE_HANDSHAKES_END,
                "{:?}",
                begun.elapsed()
            );
        }
    }
}

/// A connection of HTTP/2 with these SETTINGS, and a GET on its stream 1.
async fn ask_by_http_2(world: &reviews::World, settings: &[u8]) -> TlsStream<TcpStream> {
    let mut stream = world.connect_by("h2").await;
    let request = b"\0\0\x0e\x01\x05\0\0\0\x01\x82\x87\x84\x41\x09localhost";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice();
    let all = [preface, settings, request].concat();
    stream.write_all(&all).await.unwrap();
    stream
}

/// A connection of HTTP/2 on which one request was answered, and that nobody looks after any more.
async fn mute_acquaintance(world: &reviews::World) -> impl Sized {
    let mut stream = ask_by_http_2(world, b"\0\0\0\x04\0\0\0\0\0").await;
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("posted to /inject") {
        assert!(stream.read_buf(&mut seen).await.unwrap() > 0, "{seen:?}");
    }
    stream
}

#[tokio::test(start_paused = true)]
async fn an_answer_whose_window_stays_shut_ends_the_connection() {
    let world = reviews::World::new().await;
    // An initial window of 0.
    let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";
    let mut stream = ask_by_http_2(&world, settings).await;
    let mut seen = Vec::new();
    let ended = timeout(Duration::from_secs(60), stream.read_to_end(&mut seen)).await;
    assert!(ended.is_ok(), "it is still open");
    let text = String::from_utf8_lossy(&seen);
    assert!(!text.contains("posted to /inject"), "{text}");
    let open = "countersign_connections{listener=\"injector\"}";
    until("free", || world.started.metric(open) == Some(0.0)).await;
}

#[tokio::test(start_paused = true)]
async fn who_reads_no_answer_of_the_admin_port_holds_a_place_for_five_seconds() {
    let world = World::new().await;
    let mut stream = TcpStream::connect(world.running.admin.unwrap())
        .await
        .unwrap();
    // More answers than the kernel takes.
    let asks = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2000);
    stream.write_all(&asks).await.unwrap();
    let open = "countersign_connections{listener=\"admin\"}";
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(world.metric(open), 1.0);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(world.metric(open), 0.0);
    drop(stream);
}
