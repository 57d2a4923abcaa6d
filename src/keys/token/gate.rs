//! Lets many in, or one alone.
//!
//! Unlike a lock for readers and writers, who wants to be alone gives up when the others do not leave
//! in time: a call into a module may hang for ever, and must stop nobody else.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counts who is inside, and how often somebody was there alone.
#[derive(Debug, Default)]
pub(super) struct Gate {
    narrow: bool,
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct State {
    inside: usize,
    /// Somebody is alone inside, or waits for it.
    shut: bool,
    closed: bool,
    generation: u64,
}

/// One of many inside.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    generation: u64,
}

/// The only one inside.
#[derive(Debug)]
pub(super) struct Alone<'a>(&'a Gate);

impl Gate {
    /// A gate that lets one in after the other.
    pub(super) fn narrow() -> Self {
        Self {
            narrow: true,
            ..Self::default()
        }
    }

    /// Goes in, when nobody is alone inside any more. Not to be called by who is inside already.
    pub(super) fn enter(&self) -> Pass<'_> {
        let full =
            |state: &mut State| state.shut || state.closed || (self.narrow && state.inside > 0);
        let state = self.bell.wait_while(self.state(), full);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.inside += 1;
        Pass {
            gate: self,
            generation: state.generation,
        }
    }

    /// Goes in alone, if those inside leave within `patience`. Only one at a time may ask.
    pub(super) fn alone(&self, patience: Duration) -> Option<Alone<'_>> {
        let mut state = self.state();
        if state.closed {
            return None;
        }
        state.shut = true;
        if self.empty(state, patience) {
            return Some(Alone(self));
        }
        self.state().shut = false;
        self.bell.notify_all();
        None
    }

    /// Lets nobody in any more, for good. Says whether all inside left within `patience`.
    pub(super) fn close(&self, patience: Duration) -> bool {
        let mut state = self.state();
        state.closed = true;
        self.empty(state, patience)
    }

    fn empty(&self, state: MutexGuard<'_, State>, patience: Duration) -> bool {
        let others = |state: &mut State| state.inside > 0;
        let waited = self.bell.wait_timeout_while(state, patience, others);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.inside == 0
    }

    /// How often somebody was alone inside and changed something.
    pub(super) fn generation(&self) -> u64 {
        self.state().generation
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// The generation of the gate while this is held.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.inside = state.inside.saturating_sub(1);
        if state.inside == 0 {
            self.gate.bell.notify_all();
        }
    }
}

impl Alone<'_> {
    /// Begins a new generation.
    pub(super) fn change(&self) {
        self.0.state().generation += 1;
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.0.state().shut = false;
        self.0.bell.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn who_wants_to_be_alone_gives_up_when_others_stay() {
        let gate = Gate::default();
        let pass = gate.enter();
        assert!(gate.alone(Duration::from_millis(1)).is_none());
        // And nobody is shut out by the try.
        drop(gate.enter());
        drop(pass);
        let alone = gate.alone(Duration::from_millis(1));
        alone.unwrap().change();
        assert_eq!(gate.enter().generation(), 1);
    }

    #[test]
    fn who_waits_to_be_alone_is_let_in_by_the_last_to_leave() {
        let gate = Gate::default();
        let pass = gate.enter();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| gate.alone(Duration::from_mins(1)).is_some());
            drop(pass);
            assert!(waiting.join().unwrap());
        });
        drop(gate.enter());
    }

    #[test]
    fn a_closed_gate_is_never_opened() {
        let gate = Gate::default();
        let pass = gate.enter();
        assert!(!gate.close(Duration::from_millis(1)));
        drop(pass);
        assert!(gate.close(Duration::from_millis(1)));
        assert!(gate.alone(Duration::from_millis(1)).is_none());
        assert!(gate.state().closed);
    }

    #[test]
    fn a_narrow_gate_lets_one_in_after_the_other() {
        let gate = Gate::narrow();
        let most = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _pass = gate.enter();
                        most.fetch_max(gate.state().inside, Ordering::Relaxed);
                        std::thread::yield_now();
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
    }
}
