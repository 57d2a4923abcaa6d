//! Many gateways behind one sidecar, each with a man in the middle of its own, so that whatever
//! happens to a payment is known to have happened to this one, however many run at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use countersign::app::Running;
use countersign::clock::Clock;
use countersign::net::drain::{Drain, Phase};
use countersign::net::handshake::Tls;
use countersign::net::serve::{Server, Settings};
use countersign::net::tls;
use countersign::sandbox::{Sandbox, certificate};
use countersign_protocol::PrivateKey;
use prometheus::IntGauge;
use rustls::ServerConfig;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::faulty::{Fault, Faulty, Plan, Way};
use super::partner;
use super::process::PATIENCE;
use super::raw::{Answer, post, send};
use super::world::{self, Files, PAY, payment};

/// How many payments the length of one is taken from.
const SAMPLES: usize = 16;
/// How many lanes pay on a sound network at a time.
const TURNS: usize = 4;

/// What is spoken with the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    Plain,
    /// HTTP/1.1 over TLS with a whole handshake each time.
    Tls,
    /// HTTP/2 over TLS, where sessions are resumed.
    Http2,
}

/// One sidecar and its gateways.
pub struct Lanes {
    pub running: Running,
    all: Vec<Lane>,
    _files: Files,
}

struct Lane {
    egress: SocketAddr,
    host: String,
    peer: Faulty,
    gateway: Sandbox,
    /// The gateway's open connections.
    open: IntGauge,
    drain: Drain,
    payments: u64,
    /// For payments on a sound network: were all lanes to try at a time, and again when they are too slow,
    /// a busy machine would come to nothing else.
    turns: Arc<Semaphore>,
    /// What did not go through though nobody did any harm.
    early: Vec<String>,
}

/// One payment on a broken network.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub plan: Plan,
    /// Whether it goes over a connection that was used before.
    pub reused: bool,
}

/// What came of many.
#[derive(Debug, Default)]
pub struct Tally {
    /// How often an app saw what.
    pub outcomes: BTreeMap<String, usize>,
    /// What must not be.
    pub wrong: Vec<String>,
    /// How often the man in the middle came to do what he was told.
    pub struck: usize,
    /// What went wrong though nobody did any harm, on a machine that is busy.
    pub early: Vec<String>,
}

impl Lanes {
    /// So many gateways, of which each answer must come within `within`.
    pub async fn open(count: usize, speech: Speech, within: &str) -> Self {
        let files = Files::new();
        let clock = Clock::held(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let settings = server_settings(&files, speech);
        let stranger = PrivateKey::generate(2048).unwrap();
        let turns = Arc::new(Semaphore::new(TURNS));
        let (mut lanes, mut routes) = (Vec::new(), Vec::new());
        for number in 0..count {
            let config = partner::gateway(&files, &clock);
            let gateway = Sandbox::new(config, stranger.clone()).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let peer = Faulty::before(listener.local_addr().unwrap()).await;
            let open = IntGauge::new("open", "open").unwrap();
            let settings = Settings {
                tls: settings.clone(),
                ..Settings::plain(open.clone())
            };
            let drain = Drain::new();
            let server = Server::new(listener, settings);
            tokio::spawn(server.run(Arc::new(gateway.clone()), drain.clone()));
            let (host, port) = (format!("lane-{number}.test"), peer.address.port());
            let scheme = if speech == Speech::Plain {
                "http"
            } else {
                "https"
            };
            routes.push(format!(
                "    - {{ hosts: [{host}], upstream: \"{scheme}://localhost:{port}\", \
                 timeout: {within} }}\n"
            ));
            lanes.push(Lane {
                egress: peer.address,
                host,
                peer,
                gateway,
                open,
                drain,
                payments: 0,
                turns: Arc::clone(&turns),
                early: Vec::new(),
            });
        }
        let routes = routes.concat();
        let text = format!(
            "{}egress:\n  listen: 127.0.0.1:0\n  routes:\n{routes}\
             upstream_tls: {{ ca_file: ca.pem }}\nresolve: {{ hosts: {{ localhost: [127.0.0.1] }} }}\n",
            Files::identities()
        );
        let running = world::start(&files.write("lanes.yaml", text.as_bytes()), clock).await;
        for lane in &mut lanes {
            lane.egress = running.egress[0];
        }
        Self {
            running,
            all: lanes,
            _files: files,
        }
    }

    /// How many bytes a payment takes each way on a sound network, at the most: signatures are written
    /// in percent escapes, so no two have the same length.
    pub async fn lengths(&mut self, reused: bool) -> [(Way, usize); 2] {
        let mut lengths = [(Way::Request, 0), (Way::Response, 0)];
        let (lane, mut samples) = (&mut self.all[0], 0);
        while samples < SAMPLES {
            if reused {
                lane.warm_up().await;
            }
            if lane.pay_soundly().await {
                samples += 1;
                lane.settle().await;
                for (way, length) in &mut lengths {
                    *length = lane.peer.passed(*way).max(*length);
                }
            }
        }
        lengths
    }

    /// Pays that often at a time over one connection that was used; what the app got for each payment,
    /// and how often that arrived.
    pub async fn pay_together(&mut self, plan: Plan, count: usize) -> Vec<(String, usize)> {
        let lane = &mut self.all[0];
        lane.warm_up().await;
        let before = lane.gateway.deliveries();
        lane.peer.plan(Some(plan));
        let first = lane.payments + 1;
        let numbers = first..first + count as u64;
        let paying: Vec<_> = numbers
            .clone()
            .map(|number| tokio::spawn(lane.paying(number)))
            .collect();
        let mut outcomes = Vec::new();
        for paid in paying {
            outcomes.push(paid.await.unwrap().outcome());
        }
        lane.settle().await;
        let arrived = (lane.gateway.deliveries() - before) as usize;
        let seen = lane.gateway.seen();
        let new = &seen[seen.len() - arrived..];
        lane.payments = numbers.end - 1;
        let times = |number| {
            let id = id(number);
            new.iter()
                .filter(|seen| String::from_utf8_lossy(&seen.body).contains(&id))
                .count()
        };
        outcomes.into_iter().zip(numbers.map(times)).collect()
    }

    /// Pays once for each case, as many at a time as there are lanes.
    pub async fn pay(self, cases: Vec<Case>) -> (Tally, Running) {
        let (cases, next) = (Arc::new(cases), Arc::new(AtomicUsize::new(0)));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let mut tasks = Vec::new();
        for mut lane in self.all {
            let (cases, next) = (Arc::clone(&cases), Arc::clone(&next));
            let tally = Arc::clone(&tally);
            tasks.push(tokio::spawn(async move {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let seen = lane.run(*case).await;
                    tally.lock().unwrap().add(*case, &seen);
                }
                tally.lock().unwrap().early.append(&mut lane.early);
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let tally = std::mem::take(&mut *tally.lock().unwrap());
        (tally, self.running)
    }
}

/// What is known of one payment.
struct Seen {
    answer: Answer,
    /// The gateway's own answer, if it acted.
    receipt: String,
    /// Whole requests that came to the gateway.
    arrived: u64,
    /// Payments it made.
    acted: bool,
    struck: bool,
}

impl Lane {
    async fn run(&mut self, case: Case) -> Seen {
        if case.reused {
            self.warm_up().await;
        }
        let before = self.gateway.deliveries();
        self.peer.plan(Some(case.plan));
        let answer = self.pay().await;
        let struck = self.peer.has_struck();
        self.settle().await;
        let arrived = self.gateway.deliveries() - before;
        let acted = arrived > 0 && self.gateway.last_seen().is_some_and(|seen| seen.authentic);
        if acted {
            self.payments += 1;
        }
        Seen {
            answer,
            receipt: receipt(self.payments),
            arrived,
            acted,
            struck,
        }
    }

    /// A payment of its own number, for each one that the gateway made is another.
    async fn pay(&self) -> Answer {
        self.paying(self.payments + 1).await
    }

    fn paying(&self, number: u64) -> impl Future<Output = Answer> + use<> {
        let body = payment(&id(number));
        let paid = send(self.egress, post(PAY, &self.host, "", body.as_bytes()));
        async {
            let answer = timeout(PATIENCE, paid).await;
            answer.unwrap_or_else(|_| panic!("an app waits for ever"))
        }
    }

    /// Leaves one connection behind that was used.
    async fn warm_up(&mut self) {
        while !self.pay_soundly().await {}
        assert_eq!(self.peer.open(), 1);
    }

    /// Pays on a sound network; whether that went through, as on a machine that is busy it may be too
    /// slow.
    async fn pay_soundly(&mut self) -> bool {
        let turns = Arc::clone(&self.turns);
        let _turn = turns.acquire().await.unwrap();
        self.peer.plan(None);
        let before = self.gateway.deliveries();
        let outcome = self.pay().await.outcome();
        if outcome == "verdict verified" {
            self.payments += 1;
            return true;
        }
        self.early.push(outcome);
        assert!(
            self.early.len() < 100,
            "nothing goes through: {:?}",
            self.early
        );
        self.settle().await;
        self.payments += self.gateway.deliveries() - before;
        false
    }

    /// Ends all connections and waits until the gateway has done all it will.
    async fn settle(&self) {
        let settled = timeout(PATIENCE, self.peer.end_all(&self.open)).await;
        settled.unwrap_or_else(|_| panic!("a connection does not end"));
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.drain.enter(Phase::Closing);
    }
}

impl Tally {
    fn add(&mut self, case: Case, seen: &Seen) {
        let outcome = seen.answer.outcome();
        for (is_wrong, what) in [
            (seen.arrived > 1, "arrived more than once"),
            (
                seen.arrived > 0 && outcome.contains(" not-sent "),
                "arrived though reported as not sent",
            ),
            (!seen.is_whole(), "the app got half an answer"),
            (!seen.is_exact(), "the app got something altered"),
        ] {
            if is_wrong {
                self.wrong.push(format!("{case:?}: {what}: {seen}"));
            }
        }
        self.struck += usize::from(seen.struck);
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    /// How many answers say that of the delivery.
    pub fn say(&self, outcome: &str) -> usize {
        let early = self.early.iter().map(|text| (text, &1));
        let all = self.outcomes.iter().chain(early);
        let matching = all.filter(|(text, _)| text.contains(outcome));
        matching.map(|(_, count)| count).sum()
    }
}

impl Seen {
    fn is_whole(&self) -> bool {
        let length = self.answer.field("content-length");
        length == Some(self.answer.body.len().to_string().as_str())
    }

    /// A verified answer is the gateway's to the byte. What passes unsigned is a refusal, or an error of
    /// its HTTP, and only of what the gateway did not do. Anything else is unknown.
    fn is_exact(&self) -> bool {
        let Self { answer, acted, .. } = self;
        let result = || answer.json()["result"]["resultStatus"].clone();
        match answer.outcome().as_str() {
            "verdict verified" => *acted && answer.text() == self.receipt,
            "verdict unsigned" if answer.status < 400 => !acted && result() == "F",
            "verdict unsigned" => !acted,
            _ => result() == "U",
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, body) = (&self.answer.head, self.answer.text());
        let (arrived, acted) = (self.arrived, self.acted);
        write!(f, "arrived {arrived}, acted {acted}: {head}\n{body}")
    }
}

/// All of the same length, so that the same byte is at the same place.
fn id(number: u64) -> String {
    format!("R{number:07}")
}

/// What the gateway answers to its payment of that number.
fn receipt(number: u64) -> String {
    let result = json!({
        "resultStatus": "S", "resultCode": "SUCCESS", "resultMessage": "success"
    });
    json!({
        "paymentId": format!("sandbox-pay-{number:08}"),
        "paymentRequestId": id(number),
        "paymentAmount": {"currency": "JPY", "value": "100"},
        "result": result,
    })
    .to_string()
}

fn server_settings(files: &Files, speech: Speech) -> Option<Tls> {
    let chain = certificate::make(SystemTime::now()).unwrap();
    files.write("ca.pem", &chain.ca_pem);
    let protocols: &[&[u8]] = match speech {
        Speech::Plain => return None,
        Speech::Tls => &[b"http/1.1"],
        Speech::Http2 => &[b"h2", b"http/1.1"],
    };
    let mut settings: ServerConfig = tls::server(chain.certificates, chain.key, protocols).unwrap();
    if speech == Speech::Tls {
        settings.send_tls13_tickets = 0;
    }
    Some(Tls::new(settings))
}

/// One fault at every `step`th byte of both ways.
pub fn cases(lengths: [(Way, usize); 2], reused: bool, (fault, step): (Fault, usize)) -> Vec<Case> {
    let mut cases = Vec::new();
    for (way, length) in lengths {
        // One more than there are: behind the last byte.
        let plans = (0..=length).step_by(step).map(|at| Plan { way, at, fault });
        cases.extend(plans.map(|plan| Case { plan, reused }));
    }
    cases
}
