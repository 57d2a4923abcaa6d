//! Where callers hand in what is to be signed, and the threads with sessions fetch it.
//!
//! Bounded: who comes when too many wait is told so at once, and what nobody waits for any more makes
//! room. A thread without a session leaves the work to those that have one; only when none has, it
//! takes work to say why it cannot be done, so that nobody waits for a token that is away.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_protocol::sign::DIGEST_INFO;
use tokio::sync::oneshot;

use super::error::{Place, TokenError};
use crate::clock::Stopwatch;

/// How many signatures may wait, those that are being made not counted.
pub(super) const MOST_WAITING: usize = 1024;

/// A session that was quiet for so long is asked whether it still is one.
const QUIET: Duration = Duration::from_secs(30);

/// What one caller waits for.
pub(super) struct Job {
    /// What the token signs.
    pub(super) info: [u8; DIGEST_INFO],
    answer: oneshot::Sender<Result<Vec<u8>, TokenError>>,
}

impl Job {
    /// Gives the caller the signature, or the reason why there is none.
    pub(super) fn answer(self, result: Result<Vec<u8>, TokenError>) {
        // Who has gone needs no answer.
        let _gone = self.answer.send(result);
    }

    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }
}

/// The queue of one key.
pub(super) struct Desk {
    at: Arc<Place>,
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    workers: usize,
    connected: usize,
    closed: bool,
    reason: Option<Arc<TokenError>>,
}

impl State {
    /// The next job somebody still waits for.
    fn wanted(&mut self) -> Option<Job> {
        while let Some(job) = self.jobs.pop_front() {
            if !job.is_abandoned() {
                return Some(job);
            }
        }
        None
    }
}

/// What a thread is to do next.
pub(super) enum Task {
    /// Sign this.
    Sign(Job),
    /// Look for the token.
    Connect,
    /// See whether the session still is one.
    Probe,
    /// Go home.
    End,
}

/// How long a thread without a session leaves the token alone.
pub(super) struct Pause {
    since: Stopwatch,
    length: Duration,
}

impl Pause {
    const SHORTEST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(2);

    /// None at all.
    pub(super) fn none() -> Self {
        Self {
            since: Stopwatch::start(),
            length: Duration::ZERO,
        }
    }

    /// The one after this one: twice as long, from a quarter of a second to two.
    pub(super) fn next(&self) -> Self {
        let length = self.length.saturating_mul(2);
        Self {
            since: Stopwatch::start(),
            length: length.clamp(Self::SHORTEST, Self::LONGEST),
        }
    }

    fn rest(&self) -> Duration {
        self.length.saturating_sub(self.since.elapsed())
    }
}

impl Desk {
    /// A desk without any thread.
    pub(super) fn new(at: Arc<Place>) -> Self {
        Self {
            at,
            state: Mutex::default(),
            bell: Condvar::new(),
        }
    }

    /// Hands in what is to be signed; dropping the receiver takes it back.
    pub(super) fn hand_in(
        &self,
        info: [u8; DIGEST_INFO],
    ) -> Result<oneshot::Receiver<Result<Vec<u8>, TokenError>>, TokenError> {
        let (answer, receiver) = oneshot::channel();
        let mut state = self.state();
        if state.jobs.len() >= MOST_WAITING {
            state.jobs.retain(|job| !job.is_abandoned());
        }
        if state.jobs.len() >= MOST_WAITING {
            return Err(TokenError::Busy {
                at: Arc::clone(&self.at),
                waiting: state.jobs.len(),
            });
        }
        state.jobs.push_back(Job { info, answer });
        if state.connected == state.workers {
            self.bell.notify_one();
        } else {
            // One alone could be one without a session.
            self.bell.notify_all();
        }
        Ok(receiver)
    }

    /// Waits for work. A thread without a session says until when it leaves the token alone.
    pub(super) fn next(&self, apart: Option<&Pause>) -> Task {
        let quiet = Stopwatch::start();
        let mut state = self.state();
        loop {
            let rest = apart.map_or(QUIET.saturating_sub(quiet.elapsed()), Pause::rest);
            if state.closed {
                return Task::End;
            }
            if apart.is_some() && rest.is_zero() {
                return Task::Connect;
            }
            if (apart.is_none() || state.connected == 0)
                && let Some(job) = state.wanted()
            {
                return Task::Sign(job);
            }
            if rest.is_zero() {
                return Task::Probe;
            }
            let waited = self.bell.wait_timeout(state, rest);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Counts a thread.
    pub(super) fn arrive(&self) {
        self.state().workers += 1;
    }

    /// Takes it back.
    pub(super) fn leave(&self) {
        let mut state = self.state();
        state.workers = state.workers.saturating_sub(1);
    }

    /// Counts a session. Says whether it is the first since there was none.
    pub(super) fn connected(&self) -> bool {
        let mut state = self.state();
        state.connected += 1;
        let first = state.connected == 1;
        // Nothing that is true of a token that is away is true any more.
        state.reason = None;
        first
    }

    /// Takes it back. Says whether none is left.
    pub(super) fn disconnected(&self) -> bool {
        let mut state = self.state();
        state.connected = state.connected.saturating_sub(1);
        // Those that left work to this one must look again.
        self.bell.notify_all();
        state.connected == 0
    }

    /// How many sessions there are.
    pub(super) fn sessions(&self) -> usize {
        self.state().connected
    }

    /// Keeps why there is no session, for callers that come before the next look. Says whether that
    /// is news.
    pub(super) fn explain(&self, reason: &Arc<TokenError>) -> bool {
        let known = self.state().reason.replace(Arc::clone(reason));
        known.is_none_or(|known| known.to_string() != reason.to_string())
    }

    /// Why there is no session.
    pub(super) fn reason(&self) -> Option<Arc<TokenError>> {
        self.state().reason.clone()
    }

    /// Sends the threads home; what waits is dropped.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.jobs.clear();
        self.bell.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
