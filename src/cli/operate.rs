//! `wait` and `shutdown`: what scripts and Jobs ask of a running sidecar, through its admin port.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;

use super::{Failure, output::say, runtime};
use crate::clock::Stopwatch;
use crate::config;
use crate::net::listener::Place;

/// How often an admin port that is not there yet is asked again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Wait until the sidecar is ready.
#[derive(Args, Debug)]
pub struct Wait {
    /// The sidecar's admin port.
    #[arg(long, value_name = "ADDRESS", default_value = config::ADMIN, value_parser = admin_port)]
    admin: SocketAddr,
    /// How long to wait at the most.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = config::values::duration)]
    timeout: Duration,
}

/// Ask the sidecar to drain and stop, as a Job does when its work is done.
#[derive(Args, Debug)]
pub struct Shutdown {
    /// The sidecar's admin port.
    #[arg(long, value_name = "ADDRESS", default_value = config::ADMIN, value_parser = admin_port)]
    admin: SocketAddr,
}

impl Wait {
    /// Waits.
    pub(super) fn execute(self) -> Result<(), Failure> {
        let waited = Stopwatch::start();
        runtime()?.block_on(async {
            while ask(self.admin, "GET /readyz") != Some(200) {
                if waited.elapsed() > self.timeout {
                    let text = format!("the sidecar at {} is not ready", self.admin);
                    return Err(Failure::Other(text));
                }
                tokio::time::sleep(PAUSE).await;
            }
            say("ready");
            Ok(())
        })
    }
}

impl Shutdown {
    /// Asks once.
    pub(super) fn execute(self) -> Result<(), Failure> {
        match ask(self.admin, "POST /drain") {
            Some(202) => Ok(()),
            Some(403) => Err(Failure::Other(format!(
                "{} takes this order from loopback only: ask it at 127.0.0.1 or [::1]",
                self.admin
            ))),
            Some(status) => Err(Failure::Other(format!("{} answered {status}", self.admin))),
            None => Err(Failure::Other(format!(
                "no sidecar answers at {}",
                self.admin
            ))),
        }
    }
}

/// An admin port, also written as where it listens: who listens at `:18449` or `localhost:18449` is at 127.0.0.1, too.
pub(super) fn admin_port(text: &str) -> Result<SocketAddr, String> {
    Ok(match config::values::place(text)? {
        Place::At(address) => address,
        Place::Everywhere(port) | Place::Loopback(port) => (Ipv4Addr::LOCALHOST, port).into(),
    })
}

/// The status an admin port answers, if it answers.
fn ask(admin: SocketAddr, what: &str) -> Option<u16> {
    fetch(admin, what).map(|(status, _body)| status)
}

/// What an admin port answers, if it answers.
pub(super) fn fetch(admin: SocketAddr, what: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(
        stream,
        "{what} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let body = answer.split_once("\r\n\r\n")?.1.to_owned();
    Some((status, body))
}
