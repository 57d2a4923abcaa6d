//! The only place that asks the time, and how an instant is shown to people and tools.
//!
//! Wall-clock time goes into `Request-Time` and decides whether an answer is fresh, so tests hold it
//! still. Monotonic time only measures durations and deadlines and is never shown to a peer.
//! Every room above may call this one; it calls none.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Tells the wall-clock time, from the system or held still by a test.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    held: Option<Arc<Mutex<SystemTime>>>,
}

impl Clock {
    /// The clock of the machine.
    pub fn system() -> Self {
        Self { held: None }
    }

    /// A clock that stands at `at` until somebody moves it; clones share it.
    pub fn held(at: SystemTime) -> Self {
        Self {
            held: Some(Arc::new(Mutex::new(at))),
        }
    }

    /// The wall-clock time.
    pub fn now(&self) -> SystemTime {
        match &self.held {
            Some(held) => *held.lock().unwrap_or_else(PoisonError::into_inner),
            None => system_now(),
        }
    }

    /// Sets a held clock, as somebody may set the machine's; the system's clock is left alone.
    pub fn set(&self, at: SystemTime) {
        if let Some(held) = &self.held {
            *held.lock().unwrap_or_else(PoisonError::into_inner) = at;
        }
    }

    /// Moves a held clock forward; the system's clock is left alone.
    pub fn advance(&self, by: Duration) {
        if let Some(held) = &self.held {
            let mut now = held.lock().unwrap_or_else(PoisonError::into_inner);
            *now = now.checked_add(by).unwrap_or(*now);
        }
    }
}

/// An instant as it is shown everywhere: RFC 3339 in UTC and whole seconds.
pub fn written(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Measures how long something takes, in monotonic time.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts to measure.
    pub fn start() -> Self {
        Self(monotonic_now())
    }

    /// The time since the start.
    pub fn elapsed(self) -> Duration {
        monotonic_now().saturating_duration_since(self.0)
    }
}

/// The monotonic clock of the system in microseconds, which other processes of the machine share.
pub fn monotonic_micros() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the room that asks the time"
)]
fn system_now() -> SystemTime {
    SystemTime::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the room that asks the time"
)]
fn monotonic_now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_clock_moves_only_when_told_and_for_all_its_clones() {
        let clock = Clock::held(SystemTime::UNIX_EPOCH);
        let clone = clock.clone();
        clock.advance(Duration::from_secs(7));
        assert_eq!(clone.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(7));
    }
}
