//! Remembers signatures for as long as their times are acceptable, in bounded memory.
//!
//! RSA signatures of this protocol are deterministic, so a request sent twice within a second by an
//! honest caller is the very same: that is why seeing one again is only reported unless the route
//! says otherwise. Only what verified is remembered, so forged requests cannot push anything out.
//! Each process remembers for itself; what another replica saw is not known here.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// The most signatures of one generation; two are kept, at some 40 bytes each.
const MOST: usize = 100_000;

/// The beginning of a signature's value, which is as good as a random number.
type Mark = [u8; 16];

/// What was here before.
#[derive(Debug)]
pub struct Guard {
    generations: Mutex<Generations>,
}

/// Two sets of marks: a mark is remembered for at least one window, and until two later ones began.
#[derive(Debug)]
struct Generations {
    window: Duration,
    began: SystemTime,
    current: HashSet<Mark>,
    previous: HashSet<Mark>,
}

impl Guard {
    /// Remembers for at least `window`: as long as a request can be old and acceptable.
    pub fn new(window: Duration, now: SystemTime) -> Self {
        let generations = Generations {
            window,
            began: now,
            current: HashSet::new(),
            previous: HashSet::new(),
        };
        Self {
            generations: Mutex::new(generations),
        }
    }

    /// Remembers from now on for at least `window`; what was seen under a shorter one may be forgotten
    /// by that.
    pub fn remember_for(&self, window: Duration) {
        self.lock().window = window;
    }

    /// Whether this signature, which verified, was here before; it is remembered from now on.
    pub fn was_here(&self, signature: &[u8], now: SystemTime) -> bool {
        let Some(mark) = signature.first_chunk::<16>() else {
            return false;
        };
        let mut generations = self.lock();
        generations.turn(now);
        let known = generations.previous.contains(mark);
        !generations.current.insert(*mark) || known
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    /// Forgets the older generation when the younger one is a window old, or full.
    fn turn(&mut self, now: SystemTime) {
        let window = self.window;
        // A clock that was set back leaves the generation as it is.
        let age = now.duration_since(self.began).unwrap_or_default();
        if age >= window || self.current.len() >= MOST {
            self.previous = std::mem::take(&mut self.current);
            // Also after a long time without requests, or what looks like it: a clock that jumped
            // forward may jump back, and then the old ones are acceptable again.
            self.began = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_mins(10);

    fn mark(number: u64) -> [u8; 16] {
        u128::from(number).to_be_bytes()
    }

    #[test]
    fn remembers_for_a_window_and_forgets_after_two() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        let guard = Guard::new(WINDOW, start);
        assert!(!guard.was_here(&mark(1), start));
        assert!(guard.was_here(&mark(1), start));
        assert!(!guard.was_here(&mark(2), start));
        // Into the next generation, where the first one is still known.
        assert!(guard.was_here(&mark(2), start + WINDOW));
        let later = start + WINDOW * 4;
        assert!(!guard.was_here(&mark(1), later));
    }

    #[test]
    fn memory_is_bounded_and_the_youngest_stay_known() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        let guard = Guard::new(WINDOW, start);
        let many = 3 * MOST as u64;
        for number in 0..many {
            guard.was_here(&mark(number), start);
        }
        {
            let kept = guard.generations.lock().unwrap();
            assert!(kept.current.len() <= MOST && kept.previous.len() <= MOST);
        }
        assert!(guard.was_here(&mark(many - MOST as u64), start));
        assert!(!guard.was_here(&mark(0), start));
    }
}
