//! The certificates that were made, one TLS setting for each host and algorithm.
//!
//! Holds at most [`LIMIT`]; the oldest goes first. Gives out a place rather than a setting, so that
//! those who come while it is made wait for it instead of making it again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::ServerConfig;
use tokio::sync::OnceCell;

use super::authority::Algorithm;

/// More hosts than any app pays at.
pub(super) const LIMIT: usize = 256;

/// A place for a setting, filled by whoever needs it first.
pub(super) type Place = Arc<OnceCell<Minted>>;

/// A setting and when it is to be made anew.
#[derive(Debug)]
pub(super) struct Minted {
    pub(super) config: Arc<ServerConfig>,
    pub(super) renewal: SystemTime,
}

#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    by_host: HashMap<(String, Algorithm), (u64, Place)>,
    made: u64,
}

impl Cache {
    /// The place of a host; a new one when there is none or its certificate is due.
    pub(super) fn place(&self, host: &str, algorithm: Algorithm, now: SystemTime) -> Place {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (host.to_owned(), algorithm);
        if let Some((_, place)) = places.by_host.get(&key)
            && place.get().is_none_or(|minted| now < minted.renewal)
        {
            return Arc::clone(place);
        }
        places.make_room(&key);
        let place = Place::default();
        places.made += 1;
        let number = places.made;
        places.by_host.insert(key, (number, Arc::clone(&place)));
        place
    }
}

impl Places {
    fn make_room(&mut self, key: &(String, Algorithm)) {
        if self.by_host.len() < LIMIT || self.by_host.contains_key(key) {
            return;
        }
        let oldest = self.by_host.iter().min_by_key(|(_, (number, _))| *number);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.by_host.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn holds_no_more_than_its_limit_and_the_oldest_goes_first() {
        let cache = Cache::default();
        let host = |number: usize| format!("h{number}.example");
        let places: Vec<Place> = (0..=LIMIT)
            .map(|number| cache.place(&host(number), Algorithm::Rsa, NOW))
            .collect();
        assert_eq!(cache.0.lock().unwrap().by_host.len(), LIMIT);
        for number in [1, LIMIT] {
            let again = cache.place(&host(number), Algorithm::Rsa, NOW);
            assert!(Arc::ptr_eq(&again, &places[number]), "{number}");
        }
        let again = cache.place(&host(0), Algorithm::Rsa, NOW);
        assert!(!Arc::ptr_eq(&again, &places[0]));
    }

    #[test]
    fn each_host_and_each_algorithm_has_a_place_of_its_own() {
        let cache = Cache::default();
        let place = cache.place("a.example", Algorithm::Rsa, NOW);
        for (host, algorithm) in [
            ("a.example", Algorithm::Ecdsa),
            ("b.example", Algorithm::Rsa),
        ] {
            assert!(
                !Arc::ptr_eq(&place, &cache.place(host, algorithm, NOW)),
                "{host}"
            );
        }
    }
}
