//! Whatever happens to the connection to the app at whatever byte, a call of Alipay+ reaches the app
//! at most once, what is said of it is true, and half an answer never becomes a signed one.
//!
//! The man in the middle stands between sidecar and app, and does harm at every third byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use countersign::clock::Clock;
use countersign::http::Body;
use countersign::http::body::full;
use countersign::net::drain::{Drain, Phase};
use countersign::net::serve::{Ends, Server, Service, Settings};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use prometheus::IntGauge;
use tokio::net::TcpListener;

use crate::support::Files;
use crate::support::faulty::{Fault, Faulty, Way};
use crate::support::inbound::{Message, SUCCESS, flaw};
use crate::support::lanes::{Case, cases};
use crate::support::raw::{Answer, send};
use crate::support::world::{self, faults_told};

const FAULTS: [Fault; 4] = [Fault::Cut, Fault::Reset, Fault::Stall, Fault::Garble(1)];
const LANES: usize = 64;

/// Counts the calls that arrive whole, and takes each.
#[derive(Default)]
struct App(AtomicUsize);

impl Service for App {
    type Arrival = Ends;

    async fn answer(&self, request: Request<Incoming>, _arrival: &Ends) -> Response<Body> {
        if request.into_body().collect().await.is_ok() {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        Response::new(full(SUCCESS))
    }
}

/// One app, with the path that leads to it.
struct Lane {
    ingress: SocketAddr,
    uri: String,
    peer: Faulty,
    app: Arc<App>,
    open: IntGauge,
    drain: Drain,
    calls: usize,
}

impl Lane {
    async fn call(&mut self, keys: &(Clock, Files)) -> (Message, Answer) {
        self.calls += 1;
        let body = format!("{{\"paymentRequestId\":\"R{:05}\"}}", self.calls);
        let message = Message::at(&keys.0, &keys.1, &self.uri, body.as_bytes());
        let answer = send(self.ingress, message.bytes()).await;
        (message, answer)
    }

    /// Leaves one connection to the app behind; what did not go through before one call did.
    async fn warm_up(&mut self, keys: &(Clock, Files)) -> Vec<String> {
        self.peer.plan(None);
        let mut early = Vec::new();
        loop {
            let (_, answer) = self.call(keys).await;
            if answer.status == 200 {
                assert_eq!(self.peer.open(), 1);
                return early;
            }
            early.push(answer.outcome());
            assert!(early.len() < 20, "{early:?}");
            self.settle().await;
        }
    }

    async fn settle(&self) {
        self.peer.end_all(&self.open).await;
    }

    /// Calls once; all outcomes, and how many calls the app got of the last.
    async fn run(&mut self, case: Case, keys: &(Clock, Files)) -> Vec<String> {
        let mut outcomes = if case.reused {
            self.warm_up(keys).await
        } else {
            Vec::new()
        };
        let before = self.app.0.load(Ordering::SeqCst);
        self.peer.plan(Some(case.plan));
        let (message, answer) = self.call(keys).await;
        self.settle().await;
        let arrived = self.app.0.load(Ordering::SeqCst) - before;
        assert!(arrived <= 1, "{case:?}: {arrived} times");
        assert_eq!(
            flaw(&keys.1, &message, &answer),
            None,
            "{case:?}: {}",
            answer.head
        );
        let length = answer.field("content-length");
        let whole = answer.body.len().to_string();
        assert_eq!(length, Some(whole.as_str()), "{case:?}");
        let altered = case.plan.way == Way::Response && matches!(case.plan.fault, Fault::Garble(_));
        if answer.field("countersign-error").is_none() {
            assert!(
                altered
                    || answer.status >= 400
                    || (arrived, answer.text().as_str()) == (1, SUCCESS)
            );
            outcomes.push("answered".to_owned());
        } else {
            let outcome = answer.outcome();
            assert_eq!(answer.json()["result"]["resultStatus"], "U", "{case:?}");
            let not_sent = outcome.contains(" not-sent ");
            assert!(!not_sent || arrived == 0, "{case:?}: {outcome}");
            outcomes.push(outcome);
        }
        outcomes
    }
}

/// One sidecar before many apps.
async fn lanes(files: &Files, clock: &Clock) -> (countersign::app::Running, Vec<Lane>) {
    let (mut lanes, mut routes) = (Vec::new(), Vec::new());
    for number in 0..LANES {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = Faulty::before(listener.local_addr().unwrap()).await;
        let (app, open) = (
            Arc::<App>::default(),
            IntGauge::new("open", "open").unwrap(),
        );
        let (drain, settings) = (Drain::new(), Settings::plain(open.clone()));
        tokio::spawn(Server::new(listener, settings).run(Arc::clone(&app), drain.clone()));
        let uri = format!("/lane-{number:02}/notifyPayment");
        routes.push(format!(
            "    - {{ path_prefix: /lane-{number:02}, app: \"http://{}\", timeout: 1s }}\n",
            peer.address
        ));
        let ingress = peer.address;
        let calls = 0;
        lanes.push(Lane {
            ingress,
            uri,
            peer,
            app,
            open,
            drain,
            calls,
        });
    }
    let (identities, routes) = (Files::identities(), routes.concat());
    let text = format!("{identities}ingress:\n  listen: 127.0.0.1:0\n  routes:\n{routes}");
    let running = world::start(&files.write("lanes.yaml", text.as_bytes()), clock.clone()).await;
    for lane in &mut lanes {
        lane.ingress = running.ingress[0];
    }
    (running, lanes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_to_the_app_that_breaks_at_any_byte_delivers_once_at_most() {
    let clock = Clock::held(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let keys = Arc::new((clock.clone(), Files::new()));
    let (running, mut lanes) = lanes(&keys.1, &clock).await;
    let mut planned = Vec::new();
    let mut told = Vec::new();
    for reused in [false, true] {
        if reused {
            told.extend(lanes[0].warm_up(&keys).await);
        }
        lanes[0].peer.plan(None);
        assert_eq!(lanes[0].call(&keys).await.1.status, 200);
        lanes[0].settle().await;
        let lengths = [Way::Request, Way::Response];
        let lengths = lengths.map(|way| (way, lanes[0].peer.passed(way)));
        planned.extend(
            FAULTS
                .iter()
                .flat_map(|fault| cases(lengths, reused, (*fault, 3))),
        );
    }
    let (planned, next) = (Arc::new(planned), Arc::new(AtomicUsize::new(0)));
    let calling = lanes.into_iter().map(|mut lane| {
        let (planned, next, keys) = (Arc::clone(&planned), Arc::clone(&next), Arc::clone(&keys));
        tokio::spawn(async move {
            let mut outcomes = Vec::new();
            while let Some(case) = planned.get(next.fetch_add(1, Ordering::SeqCst)) {
                outcomes.extend(lane.run(*case, &keys).await);
            }
            lane.drain.enter(Phase::Closing);
            outcomes
        })
    });
    for lane in calling.collect::<Vec<_>>() {
        told.extend(lane.await.unwrap());
    }
    let count = |what: &str| told.iter().filter(|told| told.contains(what)).count();
    for code in [
        "app_broke_off unknown 502",
        "app_timeout unknown 504",
        "app_malformed unknown 502",
    ] {
        assert!(count(code) > 10, "{code}: {}", count(code));
    }
    for delivery in ["not-sent", "unknown"] {
        let expected = count(&format!(" {delivery} "));
        assert_eq!(
            faults_told(&running, "ingress", delivery),
            expected,
            "{delivery}"
        );
    }
}
