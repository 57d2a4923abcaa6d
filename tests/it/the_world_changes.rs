//! Gateways, apps, names, certificates and clocks come, go and change under a sidecar that runs; it needs
//! no restart, and says what is wrong meanwhile.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::app;
use countersign::clock::Clock;
use countersign::config;
use countersign::exchange::{Code, Delivery};
use countersign::net::tls;
use countersign::upstream::nameservers::Nameservers;
use countersign::upstream::{Config, resolve};
use openssl::asn1::Asn1Time;
use openssl::pkey::PKey;
use openssl::x509::X509;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::support::daemon::{Nameserver, closed_port};
use crate::support::inbound::{Inbound, NOTIFY, SUCCESS};
use crate::support::pki::Pki;
use crate::support::process::{Sidecar, text};
use crate::support::raw::{UNSIGNED, post, read_message, send};
use crate::support::upstream::WayOut;
use crate::support::world::{PAY, gateway, metric, payment};
use crate::support::{Files, World};

/// A gateway that keeps connections and answers all that comes, until it goes.
struct Passing {
    task: JoinHandle<()>,
    going: oneshot::Sender<()>,
}

impl Passing {
    async fn at(address: SocketAddr, deliveries: &Arc<Mutex<Vec<Vec<u8>>>>) -> Self {
        let (listener, deliveries) = (bind(address).await, Arc::clone(deliveries));
        let (going, mut gone) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let mut stream = tokio::select! {
                    _ = &mut gone => break,
                    accepted = listener.accept() => accepted.unwrap().0,
                };
                let deliveries = Arc::clone(&deliveries);
                connections.spawn(async move {
                    while let Some(request) = read_message(&mut stream).await {
                        deliveries.lock().unwrap().push(request);
                        stream.write_all(UNSIGNED.as_bytes()).await.unwrap();
                    }
                });
            }
            connections.shutdown().await;
        });
        Self { task, going }
    }

    /// Goes, and is gone with all its connections when this returns.
    async fn go(self) {
        self.going.send(()).unwrap();
        self.task.await.unwrap();
    }
}

async fn bind(address: SocketAddr) -> TcpListener {
    TcpListener::bind(address).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_comes_and_goes_gets_each_payment_at_most_once() {
    let kept = closed_port();
    let address = kept.address;
    let world = World::before(&format!("http://{address}"), "", "").await;
    let deliveries = Arc::default();
    let pay = |id: String| {
        let request = post(PAY, &world.egress.to_string(), "", payment(&id).as_bytes());
        send(world.egress, request)
    };
    let (mut answered, mut refused) = (0, 0);
    for round in 0..5 {
        // The connection in the pool is closed, and whether that was noticed yet is a race: what was
        // written on it may have arrived, for all the sidecar knows.
        let down = pay(format!("down-{round}")).await.outcome();
        if down == "upstream_unreachable not-sent 502" {
            refused += 1;
        } else {
            assert_eq!(down, "upstream_broke_off unknown 502", "{round}");
        }
        let gateway = Passing::at(address, &deliveries).await;
        for one in 0..3 {
            let up = pay(format!("up-{round}-{one}")).await;
            assert_eq!(up.outcome(), "verdict unsigned", "{round}");
            answered += 1;
        }
        gateway.go().await;
    }
    let deliveries = deliveries.lock().unwrap();
    let different: HashSet<_> = deliveries.iter().collect();
    assert_eq!((deliveries.len(), different.len()), (answered, answered));
    let connects = |result: &str| {
        world.metric(&format!(
            "countersign_upstream_connects_total{{result=\"{result}\"}}"
        ))
    };
    let expected = (f64::from(refused), 5.0);
    assert_eq!((connects("connect_failed"), connects("ok")), expected);
    assert_eq!(
        world.metric("countersign_in_flight{direction=\"egress\"}"),
        0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_starts_after_the_sidecar_is_served_as_soon_as_it_listens() {
    let kept = closed_port();
    let address = kept.address;
    let route = format!("      path_prefix: /other\n    - app: http://{address}");
    let world = Inbound::with(&route, "").await;
    let message = world.message(NOTIFY, b"{}");
    let early = send(world.ingress, message.bytes()).await;
    assert_eq!(early.outcome(), "app_unreachable not-sent 502");
    assert_eq!(
        world.flaw(&message, &early),
        None,
        "signed, so Alipay+ asks again"
    );
    let app = bind(address).await;
    let (answer, ()) = tokio::join!(send(world.ingress, message.bytes()), async {
        let (mut stream, _) = app.accept().await.unwrap();
        read_message(&mut stream).await.unwrap();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            SUCCESS.len()
        );
        stream.write_all((head + SUCCESS).as_bytes()).await.unwrap();
    });
    assert_eq!((answer.status, world.flaw(&message, &answer)), (200, None));
}

/// Gives `one.pem` other dates, in days from now, signed by the same CA.
fn redate(pki: &Pki, from: i64, to: i64) {
    let read = |name: &str| X509::from_pem(pki.read(name).as_bytes()).unwrap();
    let (old, ca) = (read("one.pem"), read("ca.pem"));
    let key = PKey::private_key_from_pem(pki.read("ca.key").as_bytes()).unwrap();
    let day = |days: i64| {
        let now = Clock::system()
            .now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        Asn1Time::from_unix(now.as_secs().cast_signed() + days * 86_400).unwrap()
    };
    let mut new = X509::builder().unwrap();
    new.set_version(2).unwrap();
    new.set_subject_name(old.subject_name()).unwrap();
    new.set_issuer_name(ca.subject_name()).unwrap();
    new.set_pubkey(&old.public_key().unwrap()).unwrap();
    let names = openssl::x509::extension::SubjectAlternativeName::new()
        .dns("localhost")
        .build(&new.x509v3_context(Some(&ca), None))
        .unwrap();
    new.append_extension(names).unwrap();
    new.set_not_before(&day(from)).unwrap();
    new.set_not_after(&day(to)).unwrap();
    new.sign(&key, openssl::hash::MessageDigest::sha256())
        .unwrap();
    pki.write("one.pem", new.build().to_pem().unwrap());
}

/// A TLS gateway with `one.pem`, which handshakes and closes.
async fn tls_gateway(pki: &Pki) -> u16 {
    let chain = CertificateDer::pem_slice_iter(pki.read("one.pem").as_bytes())
        .map(Result::unwrap)
        .collect();
    let key = PrivateKeyDer::from_pem_slice(pki.read("one.key").as_bytes()).unwrap();
    let settings = tls::server(chain, key, &[b"http/1.1"]).unwrap();
    let listener = bind("127.0.0.1:0".parse().unwrap()).await;
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(settings));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            read_message(&mut stream).await.unwrap();
            stream.write_all(UNSIGNED.as_bytes()).await.unwrap();
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_certificate_expired_is_told_as_that() {
    let pki = Pki::new();
    for (from, to, expected) in [
        (-2, 1, None),
        (-2, -1, Some("expired")),
        (1, 2, Some("not valid yet")),
    ] {
        redate(&pki, from, to);
        let files = Files::new();
        files.write("ca.pem", pki.read("ca.pem").as_bytes());
        let upstream = format!("https://localhost:{}", tls_gateway(&pki).await);
        let file = files.config(&upstream, "", "upstream_tls: { ca_file: ca.pem }");
        let mut sidecar = Sidecar::run(&["run", "--config", text(&file)]);
        let request = post(PAY, &sidecar.egress.to_string(), "", b"{}");
        let answer = send(sidecar.egress, request).await;
        let line = sidecar.wait_for(|line| line["message"] == "exchange");
        let Some(expected) = expected else {
            assert_eq!(answer.outcome(), "verdict unsigned");
            continue;
        };
        assert_eq!(answer.outcome(), "upstream_tls_failed not-sent 502");
        let cause = line["reason"].as_str().unwrap();
        assert!(cause.contains(expected), "{cause}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_shows_in_the_metric_and_mends_itself() {
    let (files, start) = (Files::new(), Duration::from_secs(1_800_000_000));
    let right = Clock::held(std::time::UNIX_EPOCH + start);
    let gateway = gateway(&files, &right, false, "127.0.0.1:0").await;
    let upstream = format!("https://localhost:{}", gateway.address.port());
    let rest = "upstream_tls: { ca_file: ca.pem }";
    let file = files.config(&upstream, "      max_skew: 3m", rest);
    let ours = Clock::held(right.now());
    let prepared = app::prepare(config::load(&file), ours.clone()).unwrap();
    let running = app::start(prepared).await.unwrap();
    let egress = running.egress[0];
    let hour = Duration::from_hours(1);
    let (little, more) = (Duration::from_mins(2), Duration::from_mins(4));
    let mut first = None;
    let refused = "response_time_unacceptable unknown 502";
    for (now, time, outcome, skew) in [
        (right.now(), "2027-01-15T08:00:00Z", "verdict verified", 0.0),
        (
            right.now() + little,
            "2027-01-15T08:02:00Z",
            "verdict verified",
            -120.0,
        ),
        (
            right.now() - little,
            "2027-01-15T07:58:00Z",
            "verdict verified",
            120.0,
        ),
        (right.now() + more, "2027-01-15T08:04:00Z", refused, -240.0),
        (right.now() - more, "2027-01-15T07:56:00Z", refused, 240.0),
        // Here the gateway refuses first, and without a signature, as the real one does.
        (
            right.now() + hour,
            "2027-01-15T09:00:00Z",
            "verdict unsigned",
            -3600.0,
        ),
        (
            right.now() - hour,
            "2027-01-15T07:00:00Z",
            "verdict unsigned",
            3600.0,
        ),
        (right.now(), "2027-01-15T08:00:00Z", "verdict verified", 0.0),
    ] {
        ours.set(now);
        let request = post(PAY, &egress.to_string(), "", payment(time).as_bytes());
        let answer = send(egress, request).await;
        assert_eq!(answer.outcome(), outcome, "{time}: {}", answer.text());
        let seen = gateway.gateway.last_seen().unwrap();
        assert_eq!(seen.headers["request-time"], time);
        let shown = metric(
            &running,
            "countersign_clock_skew_seconds{route=\"gateway\"}",
        );
        // Its `Date` is of the machine's clock, which goes on.
        let first = *first.get_or_insert(shown);
        assert!(
            (shown - first - skew).abs() < 20.0,
            "{time}: {shown}, at first {first}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_remembered_when_the_clock_jumps_forward_and_back() {
    let mut world = Inbound::with("      replay: enforce", "").await;
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{SUCCESS}",
        SUCCESS.len()
    );
    let first = world.message(NOTIFY, b"{}");
    let (got, _) = world.exchange(first.bytes(), answer.as_bytes()).await;
    assert_eq!(got.status, 200);
    let right = world.clock.now();
    world.clock.set(right + Duration::from_hours(1));
    // Now the first one is too old, and others are taken.
    let got = send(world.ingress, first.bytes()).await;
    assert_eq!(got.outcome(), "request_time_unacceptable not-sent 401");
    let later = world.message(NOTIFY, b"{}");
    let (got, _) = world.exchange(later.bytes(), answer.as_bytes()).await;
    assert_eq!(got.status, 200);
    world.clock.set(right);
    let got = send(world.ingress, first.bytes()).await;
    assert_eq!(got.outcome(), "request_replayed not-sent 401");
    // A clock that is behind confuses nobody either.
    world.clock.set(right - Duration::from_hours(1));
    let earlier = world.message(NOTIFY, b"{}");
    let (got, _) = world.exchange(earlier.bytes(), answer.as_bytes()).await;
    assert_eq!(got.status, 200);
}

/// A server at one address that says which it is.
async fn greeter(address: &str, port: u16) -> JoinHandle<()> {
    let listener = bind(format!("{address}:{port}").parse().unwrap()).await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let own = stream.local_addr().unwrap().ip().to_string();
            stream.write_all(own.as_bytes()).await.unwrap();
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nameserver_that_fails_and_an_address_that_moves_need_no_restart() {
    let kept = closed_port();
    let port = kept.address.port();
    let _servers = (
        greeter("127.0.0.2", port).await,
        greeter("127.0.0.3", port).await,
    );
    let dns = Nameserver::with("address=/moving.example/127.0.0.2");
    let address = dns.address;
    let way = WayOut::by(&Config {
        resolve: resolve::Config {
            nameservers: Nameservers::Listed(vec![address]),
            ..resolve::Config::default()
        },
        proxy: None,
    });
    let reached = async || {
        let mut dialled = way.dial(&format!("moving.example:{port}")).await?;
        let mut greeting = String::new();
        dialled.read_to_string(&mut greeting).await.unwrap();
        Ok::<_, countersign::exchange::Fault>(greeting)
    };
    assert_eq!(reached().await.unwrap(), "127.0.0.2");
    drop(dns);
    let fault = reached().await.unwrap_err();
    assert_eq!(
        (fault.code(), fault.delivered()),
        (Code::UpstreamUnreachable, Delivery::NotSent)
    );
    let _dns = Nameserver::at(address, "address=/moving.example/127.0.0.3");
    assert_eq!(reached().await.unwrap(), "127.0.0.3");
    assert_eq!(way.connects("resolve_failed"), 1);
}
