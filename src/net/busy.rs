//! Whether a connection has exchanges on it, from a request's head to its answer's last byte, and whether it should
//! leave to others.
//!
//! A drain waits for exchanges, and not for peers that never finish a head. Refuses to let a connection go on which an
//! exchange has begun: that, and the wish that it leaves, are decided under one lock. Used by `speaker` and `places`.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;

use crate::http::Body;
use crate::http::body::BoxError;
use crate::task;

/// How long a connection without an exchange is left to finish a head, or to take the last bytes.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// The exchanges of a connection; clones count together.
#[derive(Clone, Debug)]
pub(super) struct Busy(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: watch::Sender<State>,
    dismissed: Notify,
    /// Of all connections of a listener: one has become quiet, or stays though it was to leave.
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    exchanges: usize,
    has_asked: bool,
    asked_to: Wish,
    /// An answer was not taken in time.
    is_overdue: bool,
}

/// What others want of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wish {
    #[default]
    Stay,
    /// What has begun is the last.
    EndSoon,
    /// At once: nothing has begun.
    Leave,
}

/// How a connection stands to those that need its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// No request has come on it yet.
    NeverAsked,
    /// It had a request, and has none now.
    Quiet,
    /// It was asked to leave.
    Leaving,
    /// A request is under way.
    Exchanging,
}

/// One exchange, over when dropped.
#[derive(Debug)]
pub(super) struct Exchanging(Busy);

/// A body that keeps its exchange until it is handed over whole.
struct Sent {
    body: Body,
    _exchange: Exchanging,
    /// Tells by its end that it was sent.
    _watched: Option<oneshot::Sender<Infallible>>,
}

impl Busy {
    /// A connection that is new; `changed` hears when it can be asked to leave.
    pub(super) fn telling(changed: Arc<Notify>) -> Self {
        Self(Arc::new(Shared {
            state: watch::Sender::default(),
            dismissed: Notify::new(),
            changed,
        }))
    }

    /// An exchange begins. Whoever was to leave stays for it, and for no other.
    pub(super) fn enter(&self) -> Exchanging {
        let mut stays = false;
        self.0.state.send_modify(|state| {
            state.exchanges += 1;
            state.has_asked = true;
            stays = state.asked_to == Wish::Leave;
            if stays {
                state.asked_to = Wish::EndSoon;
            }
        });
        if stays {
            self.0.changed.notify_one();
        }
        Exchanging(self.clone())
    }

    /// How it stands now.
    pub(super) fn standing(&self) -> Standing {
        let state = self.0.state.borrow();
        match *state {
            State { exchanges: 1.., .. } => Standing::Exchanging,
            State {
                asked_to: Wish::Leave,
                ..
            } => Standing::Leaving,
            State {
                has_asked: true, ..
            } => Standing::Quiet,
            _ => Standing::NeverAsked,
        }
    }

    /// Asks it to leave. Returns whether it will: not with a request under way, and not if one comes first.
    pub(super) fn give_way(&self) -> bool {
        let mut leaves = false;
        self.0.state.send_if_modified(|state| {
            leaves = state.exchanges == 0;
            if leaves {
                state.asked_to = Wish::Leave;
            }
            false
        });
        self.0.dismissed.notify_waiters();
        leaves
    }

    /// Asks it to leave after what is under way. Returns whether it was not asked before.
    pub(super) fn end_soon(&self) -> bool {
        let mut is_new = false;
        self.0.state.send_if_modified(|state| {
            is_new = state.asked_to == Wish::Stay;
            if is_new {
                state.asked_to = Wish::EndSoon;
            }
            false
        });
        self.0.dismissed.notify_waiters();
        is_new
    }

    /// Waits until it is asked to leave. To be asked by the task that enters requests, after it has looked for them:
    /// then none can come in between.
    pub(super) async fn dismissed(&self) {
        loop {
            // Before the look, or what is told in between would be lost.
            let told = self.0.dismissed.notified();
            if self.0.state.borrow().asked_to == Wish::Leave {
                return;
            }
            told.await;
        }
    }

    /// Waits until it was once asked to leave, whatever has begun since.
    pub(super) async fn told_to_leave(&self) {
        loop {
            let told = self.0.dismissed.notified();
            if self.0.state.borrow().asked_to != Wish::Stay {
                return;
            }
            told.await;
        }
    }

    /// Waits until an answer was not taken in time.
    pub(super) async fn overdue(&self) {
        let mut changes = self.0.state.subscribe();
        // The sender lives as long as `self`, so the channel cannot close.
        let _overdue = changes.wait_for(|state| state.is_overdue).await.is_ok();
    }

    /// Whether any request has come on it.
    pub(super) fn has_asked(&self) -> bool {
        self.0.state.borrow().has_asked
    }

    /// Waits until there was none for a second.
    pub(super) async fn has_been_idle(&self) {
        let mut changes = self.0.state.subscribe();
        loop {
            // The sender lives as long as `self`, so the channel cannot close.
            let _idle = changes.wait_for(|state| state.exchanges == 0).await.is_ok();
            let begins = changes.wait_for(|state| state.exchanges > 0);
            if timeout(LAST_PATIENCE, begins).await.is_err() {
                return;
            }
        }
    }
}

impl Exchanging {
    /// Makes the exchange last as long as the body of its answer, which its peer may have to take within a time.
    pub(super) fn until_sent(self, body: Body, within: Option<Duration>) -> Body {
        let watched = within.map(|within| {
            let (watched, sent) = oneshot::channel::<Infallible>();
            let busy = self.0.clone();
            task::spawn(async move {
                if timeout(within, sent).await.is_err() {
                    let state = &busy.0.state;
                    state.send_modify(|state| state.is_overdue = true);
                }
            });
            watched
        });
        let sent = Sent {
            body,
            _exchange: self,
            _watched: watched,
        };
        sent.boxed_unsync()
    }
}

impl Drop for Exchanging {
    fn drop(&mut self) {
        let shared = &self.0.0;
        let mut is_quiet = false;
        shared.state.send_modify(|state| {
            state.exchanges -= 1;
            is_quiet = state.exchanges == 0;
        });
        if is_quiet {
            shared.changed.notify_one();
        }
    }
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::full;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_busy_to_the_last_byte_of_an_answer() {
        let busy = Busy::telling(Arc::default());
        let hour = Duration::from_hours(1);
        let body = busy.enter().until_sent(full("answer"), None);
        assert!(timeout(hour, busy.has_been_idle()).await.is_err());
        drop(body);
        assert!(timeout(hour, busy.has_been_idle()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_taken_in_time_is_overdue() {
        let (second, hour) = (Duration::from_secs(1), Duration::from_hours(1));
        let busy = Busy::telling(Arc::default());
        drop(busy.enter().until_sent(full("taken"), Some(second)));
        assert!(timeout(hour, busy.overdue()).await.is_err());
        let _kept = busy.enter().until_sent(full("answer"), Some(second));
        assert!(timeout(2 * second, busy.overdue()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_asked_to_leave_stays_for_an_exchange() {
        let hour = Duration::from_hours(1);
        let changed = Arc::new(Notify::new());
        let busy = Busy::telling(Arc::clone(&changed));
        assert_eq!(busy.standing(), Standing::NeverAsked);
        assert!(busy.give_way());
        assert_eq!(busy.standing(), Standing::Leaving);
        assert!(timeout(hour, busy.dismissed()).await.is_ok());
        let exchange = busy.enter();
        assert!(timeout(hour, busy.dismissed()).await.is_err());
        assert!(timeout(hour, changed.notified()).await.is_ok());
        assert_eq!(busy.standing(), Standing::Exchanging);
        assert!(!busy.give_way());
        assert!(timeout(hour, busy.dismissed()).await.is_err());
        drop(exchange);
        assert!(timeout(hour, changed.notified()).await.is_ok());
        assert_eq!(busy.standing(), Standing::Quiet);
        // It stayed for one.
        assert!(timeout(hour, busy.told_to_leave()).await.is_ok());
        let wish = async {
            tokio::task::yield_now().await;
            assert!(busy.give_way());
        };
        assert!(
            timeout(hour, async { tokio::join!(busy.dismissed(), wish) })
                .await
                .is_ok()
        );
    }
}
