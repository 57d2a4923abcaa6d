//! A TLS listener with a certificate from files, and the clients that look at it.

use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Instant;

use countersign::clock::Clock;
use countersign::http::Body;
use countersign::http::body::full;
use countersign::net::certificate::{Config, Served};
use countersign::net::drain::{Drain, Phase};
use countersign::net::listener::bind;
use countersign::net::serve::{Ends, Server, Service, Settings};
use countersign::telemetry::Metrics;
use countersign::telemetry::metrics::Reload;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tracing::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber};

use super::pki::{Pki, argument};
use super::process::PATIENCE;
use super::world::shown;

pub const RELOADED: &str = "countersign_reloads_total{result=\"ok\",what=\"ingress_certificate\"}";
pub const NOT_RELOADED: &str =
    "countersign_reloads_total{result=\"failed\",what=\"ingress_certificate\"}";

/// Says hello to whoever gets through.
struct Hello;

impl Service for Hello {
    type Arrival = Ends;

    async fn answer(&self, _request: Request<Incoming>, _arrival: &Ends) -> Response<Body> {
        Response::new(full("hello\n"))
    }
}

/// A TLS listener that says hello.
pub struct Listener {
    pub address: SocketAddr,
    metrics: Metrics,
    drain: Drain,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.drain.enter(Phase::Closing);
    }
}

impl Listener {
    pub async fn start(config: &Config, clock: &Clock) -> Self {
        let served = Served::load(config, clock).unwrap();
        let (metrics, drain) = (Metrics::new().unwrap(), Drain::new());
        let socket = bind("listen", "127.0.0.1:0".parse().unwrap()).await;
        let socket = socket.unwrap();
        let address = socket.local_addr().unwrap();
        let open = metrics.connections.with_label_values(&["ingress"]);
        let settings = Settings {
            tls: Some(served.follow(
                "ingress",
                Reload::IngressCertificate,
                &metrics,
                drain.clone(),
            )),
            ..Settings::plain(open)
        };
        tokio::spawn(Server::new(socket, settings).run(Arc::new(Hello), drain.clone()));
        Self {
            address,
            metrics,
            drain,
        }
    }

    pub fn metric(&self, line: &str) -> Option<f64> {
        shown(&self.metrics, line)
    }

    pub fn handshakes(&self, result: &str) -> f64 {
        let labels = format!("listener=\"ingress\",result=\"{result}\"");
        self.metric(&format!("countersign_handshakes_total{{{labels}}}"))
            .unwrap_or(0.0)
    }

    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            let text = self.metrics.render().unwrap();
            assert!(start.elapsed() < PATIENCE, "never {what}: {text}");
            tokio::task::yield_now().await;
        }
    }

    pub async fn until_reloaded(&self, times: f64) {
        let is = |listener: &Self| listener.metric(RELOADED) == Some(times);
        self.until("reloaded", is).await;
    }

    /// The subjects of the chain it shows, as `openssl s_client` prints them.
    pub async fn chain(&self) -> Vec<String> {
        let output = self.s_client(&["-showcerts"]).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let subjects = text.lines().filter_map(|line| {
            let (number, subject) = line.trim_start().split_once(" s:CN = ")?;
            number.parse::<u8>().ok().map(|_| subject.to_owned())
        });
        subjects.collect()
    }

    pub async fn s_client(&self, further: &[&str]) -> Output {
        let mut command = self.s_client_command(further);
        command.stdin(Stdio::null()).output().await.unwrap()
    }

    fn s_client_command(&self, further: &[&str]) -> Command {
        let mut command = Command::new("openssl");
        let address = self.address.to_string();
        command
            .args(["s_client", "-connect", &address, "-servername", "localhost"])
            .args(further)
            .kill_on_drop(true);
        command
    }

    /// What curl gets that trusts the CA, with further arguments: the status and the protocol, or
    /// its error.
    pub async fn curl(&self, pki: &Pki, further: &[String]) -> Result<String, String> {
        let url = format!("https://localhost:{}/", self.address.port());
        let output = Command::new("curl")
            .args(["-sS", "--noproxy", "*", "--max-time", "20", "--cacert"])
            .arg(pki.path("ca.pem"))
            .args(["-o", "/dev/null", "-w", "%{http_code} HTTP/%{http_version}"])
            .args(further)
            .arg(url)
            .output()
            .await
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap())
        } else {
            Err(String::from_utf8(output.stderr).unwrap())
        }
    }

    /// Curl with a client certificate.
    pub async fn curl_as(&self, pki: &Pki, name: &str) -> Result<String, String> {
        let file = |kind| argument(&pki.path(&format!("{name}.{kind}")));
        let shown = ["--cert".into(), file("pem"), "--key".into(), file("key")];
        self.curl(pki, &shown).await
    }
}

/// A connection that asks several times.
pub struct Lasting(Child);

impl Lasting {
    pub async fn open(listener: &Listener) -> Self {
        let mut command = listener.s_client_command(&["-quiet", "-ign_eof", "-alpn", "http/1.1"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut lasting = Self(command.stderr(Stdio::null()).spawn().unwrap());
        lasting.ask().await;
        lasting
    }

    pub async fn ask(&mut self) {
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let (to, from) = (
            self.0.stdin.as_mut().unwrap(),
            self.0.stdout.as_mut().unwrap(),
        );
        to.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello\n") {
            let read = tokio::time::timeout(PATIENCE, from.read_buf(&mut answer)).await;
            assert_ne!(read.unwrap().unwrap(), 0, "the connection was closed");
        }
    }
}

/// Two subscribers more than there are. While there is but one, tracing asks only the thread that comes
/// to a line first whether anybody wants it, and for a thread without a log nobody ever does: another
/// test could turn a line off for the one that waits for it.
static NOBODYS: LazyLock<[Dispatch; 2]> = LazyLock::new(|| {
    let nobody = || Dispatch::new(NoSubscriber::default());
    [nobody(), nobody()]
});

/// The log of this thread while it lives.
pub struct Log {
    text: Arc<Mutex<Vec<u8>>>,
    _guard: DefaultGuard,
}

impl Log {
    pub fn capture() -> Self {
        struct Sink(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        LazyLock::force(&NOBODYS);
        let text = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&text);
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || Sink(Arc::clone(&sink)))
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        Self {
            text,
            _guard: guard,
        }
    }

    pub fn lines(&self, level: &str) -> Vec<String> {
        let text = String::from_utf8(self.text.lock().unwrap().clone()).unwrap();
        let lines = text.lines().filter(|line| line.contains(level));
        lines.map(str::to_owned).collect()
    }
}

#[test]
fn a_log_has_lines_that_another_thread_came_to_first() {
    fn say() {
        tracing::warn!("said by two threads");
    }
    let log = Log::capture();
    std::thread::spawn(say).join().unwrap();
    say();
    assert_eq!(log.lines("said by two threads").len(), 1);
}
