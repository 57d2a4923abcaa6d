//! The signals of what serves: two that end it, and one that reloads, if there is something to reload.
//!
//! SIGHUP never ends the process, from its first step on: it is caught before the configuration is read,
//! and what came before there was anything to reload is done then. Called by `run`
//! and `injector`.

use std::io;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot::Receiver;

use super::supervisor::Supervisor;
use crate::app::Trigger;

/// SIGHUP, from now on caught.
#[derive(Debug)]
pub(super) struct Hangup(Signal);

impl Hangup {
    /// Catches it, before there is a runtime.
    pub(super) fn catch() -> io::Result<Self> {
        // One that starts no threads: those must come after the process has confined itself. What is
        // caught stays caught when it is gone, and is delivered to the one that serves.
        let early = Builder::new_current_thread().enable_io().build()?;
        let _inside = early.enter();
        signal(SignalKind::hangup()).map(Self)
    }
}

/// The signals, caught but not yet obeyed.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Catches the others, too.
    pub(super) fn listen(hangup: Hangup) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: hangup.0,
        })
    }

    /// The next signal that ends the process, for one that has nothing to reload.
    pub(super) async fn end(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => {}
            }
        }
    }

    /// Begins to obey: SIGHUP reloads, and the supervisor hears of it.
    pub(super) fn obey(self, trigger: Trigger, supervisor: Supervisor) -> Orders {
        Orders {
            signals: self,
            trigger,
            supervisor,
            reloading: None,
        }
    }
}

/// What signals order.
#[derive(Debug)]
pub(super) struct Orders {
    signals: Signals,
    trigger: Trigger,
    pub(super) supervisor: Supervisor,
    /// Says how the last reload that was asked for went.
    reloading: Option<Receiver<bool>>,
}

impl Orders {
    /// The next signal that ends the process.
    pub(super) async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.signals.terminate.recv() => return "SIGTERM",
                _ = self.signals.interrupt.recv() => return "SIGINT",
                _ = self.signals.hangup.recv() => {
                    self.supervisor.reloading();
                    // One before it that is still under way ends earlier.
                    self.reloading = Some(self.trigger.reload());
                }
                taken_over = ended(&mut self.reloading) => {
                    self.reloading = None;
                    self.supervisor.reloaded(taken_over);
                }
            }
        }
    }
}

/// Never, where nothing reloads.
async fn ended(reloading: &mut Option<Receiver<bool>>) -> bool {
    match reloading {
        // During a drain there may be nobody left who reloads.
        Some(reloading) => reloading.await.unwrap_or(false),
        None => std::future::pending().await,
    }
}
