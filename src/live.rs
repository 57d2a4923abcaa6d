//! A value that is replaced as a whole while others use it.
//!
//! Whoever works with it takes it once, at the beginning, and goes on with what it took: a
//! replacement changes nothing for work that has begun. Refuses to change a value in place. Used for
//! what a reload brings: the configuration of the flows and the keys.

use std::sync::{Arc, PoisonError, RwLock};

/// The value of the moment; clones share it.
#[derive(Debug)]
pub struct Live<T>(Arc<RwLock<Arc<T>>>);

impl<T> Live<T> {
    /// Begins with this value.
    pub fn new(value: T) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(value))))
    }

    /// The value now; it stays what it is for whoever took it.
    pub fn now(&self) -> Arc<T> {
        // Held for a count only, never while anybody works or waits.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives all who ask from now on another value.
    pub fn replace(&self, value: T) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_took_a_value_keeps_it_and_clones_see_the_next_one() {
        let live = Live::new(1);
        let (taken, clone) = (live.now(), live.clone());
        live.replace(2);
        assert_eq!((*taken, *clone.now()), (1, 2));
    }
}
