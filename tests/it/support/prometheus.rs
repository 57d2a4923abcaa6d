//! A real Prometheus that scrapes what a test gives it, in a folder of its own, ended with the test.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use super::daemon::closed_port;
use super::monitoring::{Target, config};
use super::process::PATIENCE;
use super::raw::send;

/// A running Prometheus; killed when dropped.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Prometheus {
    /// Starts one with an empty memory, and waits until it answers.
    pub async fn start(targets: &[Target]) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), closed_port());
        let address = port.address;
        let path = |name: &str| folder.path().join(name);
        fs::write(path("prometheus.yml"), config(targets)).unwrap();
        let log = fs::File::create(path("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!(
                "--config.file={}",
                path("prometheus.yml").display()
            ))
            .arg(format!("--storage.tsdb.path={}", path("data").display()))
            .arg(format!("--web.listen-address={address}"))
            // Nobody reads its pages.
            .arg(format!(
                "--web.console.templates={}",
                path("none").display()
            ))
            .arg(format!(
                "--web.console.libraries={}",
                path("none").display()
            ))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("prometheus: {error}; run make deps"));
        let mut prometheus = Self {
            child,
            address,
            folder,
        };
        let start = Instant::now();
        while !prometheus.is_ready().await {
            let ended = prometheus.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {}", prometheus.log());
            assert!(start.elapsed() < PATIENCE, "{}", prometheus.log());
            tokio::task::yield_now().await;
        }
        prometheus
    }

    async fn is_ready(&self) -> bool {
        // The port opens before there is anything to ask.
        if TcpStream::connect(self.address).is_err() {
            return false;
        }
        let answer = send(self.address, "GET /-/ready HTTP/1.0\r\n\r\n").await;
        answer.status == 200
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Asks what an expression is at a time, in seconds since the epoch.
    async fn ask(&self, expression: &str, time: u64) -> Value {
        let body = format!("time={time}&query={}", encoded(expression));
        // HTTP/1.0: the answer comes in one piece.
        let request = format!(
            "POST /api/v1/query HTTP/1.0\r\nHost: {}\r\nContent-Length: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let answer = send(self.address, request).await;
        let answer = answer.json();
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"].clone()
    }

    /// The numbers an expression has at a time, NaN left out.
    pub async fn numbers(&self, expression: &str, time: u64) -> Vec<f64> {
        let data = self.ask(expression, time).await;
        let samples = data["result"].as_array().unwrap();
        let number = |sample: &Value| sample["value"][1].as_str()?.parse::<f64>().ok();
        let numbers = samples.iter().filter_map(number);
        numbers.filter(|number| !number.is_nan()).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Percent-encoded for a form.
fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
