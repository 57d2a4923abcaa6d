//! One object per tunnel: it reports once, when it is dropped.
//!
//! A tunnel's bytes are not ours to read: its line says where to, how much, how long and how it
//! ended, and nothing else.

use tracing::{info, warn};

use super::Ids;
use crate::clock::Stopwatch;
use crate::telemetry::Metrics;

/// How a connection came to be carried unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The app asked for it by CONNECT.
    Connect,
    /// TLS that names a host we do not sign for.
    Tls,
    /// Redirected by the kernel.
    Redirected,
    /// An upgraded HTTP connection, such as a WebSocket.
    Upgrade,
}

impl Way {
    fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Redirected => "redirected",
            Self::Upgrade => "upgrade",
        }
    }
}

/// A tunnel under way.
pub struct Tunnel {
    id: String,
    way: Way,
    destination: String,
    metrics: Metrics,
    started: Stopwatch,
    result: &'static str,
    reason: Option<String>,
    sent: u64,
    received: u64,
}

impl Tunnel {
    /// A tunnel that begins now.
    pub fn start(way: Way, destination: String, ids: &Ids, metrics: &Metrics) -> Self {
        metrics.tunnels_open.with_label_values::<&str>(&[]).inc();
        Self {
            id: ids.next(),
            way,
            destination,
            metrics: metrics.clone(),
            started: Stopwatch::start(),
            result: "aborted",
            reason: None,
            sent: 0,
            received: 0,
        }
    }

    /// It ended as it should; `result` says how.
    pub fn ended(&mut self, result: &'static str) {
        self.result = result;
    }

    /// It ended badly, and why.
    pub fn failed(&mut self, result: &'static str, reason: String) {
        self.result = result;
        self.reason = Some(reason);
    }

    /// How many bytes the app sent and received.
    pub fn moved(&mut self, sent: u64, received: u64) {
        (self.sent, self.received) = (sent, received);
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let metrics = &self.metrics;
        metrics.tunnels_open.with_label_values::<&str>(&[]).dec();
        metrics.tunnels.with_label_values(&[self.result]).inc();
        let bytes = &metrics.tunnel_bytes;
        bytes.with_label_values(&["sent"]).inc_by(self.sent);
        bytes.with_label_values(&["received"]).inc_by(self.received);
        let (way, seconds) = (self.way.as_str(), self.started.elapsed().as_secs_f64());
        macro_rules! line {
            ($level:ident) => {
                $level!(
                    id = self.id,
                    way,
                    destination = self.destination,
                    result = self.result,
                    reason = self.reason,
                    duration_ms = (seconds * 1_000_000.0).round() / 1_000.0,
                    sent_bytes = self.sent,
                    received_bytes = self.received,
                    "tunnel"
                )
            };
        }
        if self.reason.is_some() {
            line!(warn);
        } else {
            line!(info);
        }
    }
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel")
            .field("id", &self.id)
            .field("destination", &self.destination)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_that_is_dropped_counts_once_as_aborted() {
        let metrics = Metrics::new().unwrap();
        let tunnel = Tunnel::start(Way::Connect, "a:443".to_owned(), &Ids::new(), &metrics);
        assert_eq!(metrics.tunnels_open.with_label_values::<&str>(&[]).get(), 1);
        drop(tunnel);
        assert_eq!(metrics.tunnels_open.with_label_values::<&str>(&[]).get(), 0);
        assert_eq!(metrics.tunnels.with_label_values(&["aborted"]).get(), 1);
    }
}
