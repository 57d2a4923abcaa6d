//! Checks at an interval that the kernel's redirect rules are in force, in the sidecar that depends on them.
//!
//! Rules of others (a mesh, a firewall) can take precedence, or the sidecar's own can be removed; then payments leave
//! unsigned without a trace here. The sidecar may not read the rule set, so it connects to an address that is reserved for
//! documentation and that its rules redirect for every user, itself included ([`crate::net::original`]): if the connection
//! does not arrive at its own listener, other rules win, or there are none. A chain that exempts the sidecar's user alone
//! and takes the app's connections is not detected. Started by `app` when `egress.transparent.self_check` is on.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::Egress;
use crate::net::drain::{Drain, Phase};
use crate::net::original::{PROBE_PORT, PROBES};
use crate::telemetry::Metrics;

/// How long a connection may take to arrive: it stays on this host.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a listener sends on a connection of the check, by which the check knows its own.
#[derive(Clone, Debug)]
pub struct Token(Arc<str>);

impl Token {
    /// A token that no other process knows.
    pub fn new(instance: &str) -> Self {
        use std::hash::{BuildHasher, RandomState};
        let random = RandomState::new().hash_one(instance);
        Self(format!("countersign self-check {instance} {random:016x}\n").into())
    }
}

/// What was found out about one version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Active,
    /// Other rules win, or there are none.
    Inactive,
    /// This version of IP leads nowhere, so nothing can leave by it.
    NoRoute,
}

impl Egress {
    /// Responds to a connection of the self-check.
    pub(super) async fn respond_to_self_check(&self, mut stream: TcpStream) {
        // A client that is gone needs no token.
        let _gone = stream.write_all(self.token.0.as_bytes()).await;
        let _gone = stream.shutdown().await;
    }
}

/// Checks at once, and then at this interval until the drain closes.
pub async fn run(token: Token, every: Duration, metrics: Metrics, drain: Drain) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut closing = pin!(drain.reached(Phase::Closing));
    let mut last = [None; PROBES.len()];
    loop {
        tokio::select! {
            biased;
            () = &mut closing => return,
            _instant = ticks.tick() => {}
        }
        for (address, last) in PROBES.into_iter().zip(&mut last) {
            let found = check(address, &token).await;
            report(&metrics, address, found);
            if last.replace(found) != Some(found) {
                tell(address, found);
            }
        }
    }
}

async fn check(address: IpAddr, token: &Token) -> Found {
    let arrives = async {
        let mut stream = TcpStream::connect(SocketAddr::new(address, PROBE_PORT)).await?;
        let mut received = String::new();
        let limit = u64::try_from(token.0.len()).unwrap_or(u64::MAX);
        let mut limited = (&mut stream).take(limit);
        limited.read_to_string(&mut received).await?;
        Ok::<_, io::Error>(received == *token.0)
    };
    match timeout(PATIENCE, arrives).await {
        Ok(Ok(true)) => Found::Active,
        Ok(Err(error)) if is_unreachable(&error) => Found::NoRoute,
        _ => Found::Inactive,
    }
}

fn is_unreachable(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrNotAvailable, HostUnreachable, NetworkUnreachable, Unsupported};
    matches!(
        error.kind(),
        NetworkUnreachable | HostUnreachable | AddrNotAvailable | Unsupported
    )
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ipv4" } else { "ipv6" }
}

fn report(metrics: &Metrics, address: IpAddr, found: Found) {
    let labels = [family(address)];
    match found {
        Found::Active => metrics.redirect_active.with_label_values(&labels).set(1),
        Found::Inactive => metrics.redirect_active.with_label_values(&labels).set(0),
        Found::NoRoute => {
            // Without a series if there was none yet.
            let _absent = metrics.redirect_active.remove_label_values(&labels);
        }
    }
}

fn tell(address: IpAddr, found: Found) {
    let family = family(address);
    match found {
        Found::Active => info!(family, "redirect rules are in force"),
        Found::Inactive => warn!(
            family,
            "redirect rules are not in force: other rules take precedence, or they were removed; the app's connections \
             leave past the sidecar, unsigned"
        ),
        Found::NoRoute => info!(
            family,
            "no route, so nothing is redirected and nothing leaves"
        ),
    }
}
