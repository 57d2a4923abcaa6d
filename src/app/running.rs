//! A sidecar that runs, and the order in which it ends.
//!
//! Ingress ends first: an app that is answering Alipay+ may have to call out before it can. When the
//! last request from outside is answered, egress ends. Operators can ask to the end.

use std::net::SocketAddr;

use tokio::task::JoinHandle;

use super::reload::Trigger;
use crate::net::drain::{Config, Drain, Phase};
use crate::telemetry::Metrics;

/// A sidecar that runs.
#[derive(Debug)]
pub struct Running {
    /// Where egress listens.
    pub egress: Vec<SocketAddr>,
    /// Where ingress listens.
    pub ingress: Vec<SocketAddr>,
    /// Where operators are answered.
    pub admin: Option<SocketAddr>,
    /// Begins the end, and watches it.
    pub drain: Drain,
    /// The metrics it counts in.
    pub metrics: Metrics,
    /// Asks it to reload.
    pub trigger: Trigger,
    /// Ingress and egress.
    pub(super) sides: (Side, Side),
    pub(super) operators: Side,
    pub(super) times: Config,
}

/// Servers that end together.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) drain: Drain,
    pub(super) servers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Takes a drain that has begun to its end. Returns whether everything in flight was finished
    /// before the deadline.
    pub async fn finish(self) -> bool {
        let (ingress, egress) = self.sides;
        let sides = [ingress.drain.clone(), egress.drain.clone()];
        let finished = async move {
            ingress.close().await;
            egress.close().await;
        };
        let at_the_deadline = async {
            self.drain.reached(Phase::Expired).await;
            for side in sides {
                side.enter(Phase::Expired);
            }
            std::future::pending::<()>().await;
        };
        let in_time = tokio::select! {
            in_time = self.drain.run(self.times, finished) => in_time,
            () = at_the_deadline => false,
        };
        self.operators.drain.enter(Phase::Closing);
        self.operators.servers.iter().for_each(JoinHandle::abort);
        in_time
    }
}

impl Side {
    /// Takes no new connections, and waits until those that are open have ended.
    async fn close(self) {
        self.drain.enter(Phase::Closing);
        for server in self.servers {
            // A server task that panicked has nothing left to finish.
            let _ended = server.await;
        }
    }
}
