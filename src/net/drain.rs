//! Stopping in order: readiness off, a grace, no new connections, in-flight finished, deadline.
//!
//! Started by a signal or by `POST /drain`; every room watches the phase. Refuses to go back: a
//! drain that has begun ends with the process.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How long the steps of a drain take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long new connections are still accepted after readiness went off, so that load balancers
    /// and an app that stops at the same time find an open port.
    pub grace: Duration,
    /// When the process ends at the latest, counted from the start of the drain.
    pub deadline: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(5),
            deadline: Duration::from_secs(25),
        }
    }
}

/// What is kept of the deadline to answer what is still in flight.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Normal work.
    Serving,
    /// Readiness is off, everything else goes on.
    Draining,
    /// No new connections; what is in flight is finished.
    Closing,
    /// The deadline is near: what is still in flight is answered `shutting_down`.
    Expired,
}

/// The phase of the process, shared by all rooms.
#[derive(Clone, Debug)]
pub struct Drain {
    phase: Arc<watch::Sender<Phase>>,
}

impl Drain {
    /// A process that serves.
    pub fn new() -> Self {
        Self {
            phase: Arc::new(watch::Sender::new(Phase::Serving)),
        }
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves on to a later phase; an earlier one is ignored.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let later = phase > *now;
            if later {
                *now = phase;
            }
            later
        });
    }

    /// Waits until a phase is reached.
    pub async fn reached(&self, phase: Phase) {
        let mut changes = self.phase.subscribe();
        // The sender lives as long as `self`, so the channel cannot close.
        let _never_closed = changes.wait_for(|now| *now >= phase).await.is_ok();
    }

    /// Runs a flow, but not past the deadline of a drain; then nothing comes back, and its caller can
    /// be told what is known instead of finding a dead connection.
    pub async fn unless_expired<T>(&self, flow: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            output = flow => Some(output),
            () = self.reached(Phase::Expired) => None,
        }
    }

    /// Takes a drain that has begun to its end: grace, closing, and at the deadline expiry.
    /// `finished` resolves when all connections are gone. Returns whether that was before the
    /// deadline.
    pub async fn run(&self, config: Config, finished: impl Future<Output = ()>) -> bool {
        let grace = config.grace.min(config.deadline);
        let () = tokio::select! {
            () = sleep(grace) => {}
            () = self.reached(Phase::Closing) => {}
        };
        self.enter(Phase::Closing);
        let mut finished = std::pin::pin!(finished);
        // What is in flight then is answered; a peer that does not read must not hold the process.
        let last = LAST_WORDS.min(config.deadline / 4);
        let left = config.deadline.saturating_sub(grace).saturating_sub(last);
        if timeout(left, &mut finished).await.is_ok() {
            return true;
        }
        self.enter(Phase::Expired);
        let _answered = timeout(last, finished).await;
        false
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn passes_through_its_phases_and_ends_in_time_when_all_is_finished() {
        let drain = Drain::new();
        drain.enter(Phase::Draining);
        assert!(drain.run(Config::default(), drain.clone().closed()).await);
        assert_eq!(drain.phase(), Phase::Closing);
    }

    #[tokio::test(start_paused = true)]
    async fn expires_at_the_deadline_when_a_connection_stays() {
        let drain = Drain::new();
        drain.enter(Phase::Draining);
        assert!(!drain.run(Config::default(), std::future::pending()).await);
        assert_eq!(drain.phase(), Phase::Expired);
    }

    #[test]
    fn never_goes_back() {
        let drain = Drain::new();
        drain.enter(Phase::Closing);
        drain.enter(Phase::Serving);
        assert_eq!(drain.phase(), Phase::Closing);
    }

    impl Drain {
        async fn closed(self) {
            self.reached(Phase::Closing).await;
        }
    }
}
