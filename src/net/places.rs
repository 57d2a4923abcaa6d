//! The places of a listener: how many connections may be open at a time, and which one gives way when a newcomer finds
//! none free.
//!
//! Where waiting is better, as for an app's payments, nobody gives way. Where strangers could keep all places, as on
//! the ports that probes and API servers ask, somebody without a request does, of those whose address has most. Who has
//! never asked goes first, as long as these are more than half of them; then who is quiet between requests: so there is
//! always room for newcomers, who need a moment to ask. Where all have a request under way, one ends with its answer.
//! Refuses to end a request that is under way. Used by `serve`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tracing::warn;

use super::busy::{Busy, Standing};
use super::serve::Settings;
use crate::clock::Stopwatch;
use crate::telemetry::Metrics;

/// How many that gave way may at a time be left to take their last bytes, beside those that have places. Others end
/// at once: a newcomer waits for none of them.
pub const LEAVING: u32 = 16;
/// How long nothing more is told of a listener that is full: strangers must not fill the log by coming again.
const SILENCE: Duration = Duration::from_mins(1);
const WAITING: &str = "all connections that limits.connections allows are open; new ones wait";
const GIVING_WAY: &str =
    "all connections that may be open are; those without a request give way to new ones";

/// The places of one listener.
pub(super) struct Places {
    most: u32,
    free: Arc<Semaphore>,
    leaving: Semaphore,
    /// Who can be asked to leave, by age; nobody where all wait.
    taken: Option<Mutex<Taken>>,
    /// Tells who waits for a place that somebody may have become quiet.
    changed: Arc<Notify>,
    counted: Option<(Metrics, &'static str)>,
    told: Mutex<Option<Stopwatch>>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    connections: BTreeMap<u64, (IpAddr, Busy)>,
}

/// The connections of an address, and which of them can be asked to leave, the oldest first.
#[derive(Default)]
struct Neighbours<'a> {
    places: usize,
    strangers: Vec<&'a Busy>,
    quiet: Vec<&'a Busy>,
    exchanging: Vec<&'a Busy>,
}

/// The place of a connection, free again when dropped.
pub(super) struct Place {
    places: Arc<Places>,
    /// Under which it can be asked to leave.
    number: Option<u64>,
    /// What its connection is busy with.
    pub(super) busy: Busy,
    permit: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// As many as a listener is set to have, all of them free.
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            most: settings.connections,
            free: Arc::new(Semaphore::new(settings.connections as usize)),
            leaving: Semaphore::new(LEAVING as usize),
            taken: settings.quiet_give_way.then(Mutex::default),
            changed: Arc::default(),
            counted: settings.counted.clone(),
            told: Mutex::default(),
        }
    }

    /// Whether a newcomer can make another one give way.
    pub(super) fn can_be_made(&self) -> bool {
        self.taken.is_some()
    }

    /// A place, as soon as there is one; for whom, if it may be needed by others.
    pub(super) async fn take(self: &Arc<Self>, peer: Option<IpAddr>) -> Place {
        loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                return self.place(permit, peer);
            }
            self.tell();
            self.dismiss();
            tokio::select! {
                // Given back at once: it is taken above.
                _free = self.free.acquire() => {}
                () = self.changed.notified(), if self.can_be_made() => {}
            }
        }
    }

    /// Leave to stay a little without a place; none when too many have it.
    pub(super) fn last_moment(&self) -> Option<SemaphorePermit<'_>> {
        self.leaving.try_acquire().ok()
    }

    /// Waits until every connection has ended.
    pub(super) async fn all_ended(&self) {
        let _places = self.free.acquire_many(self.most).await;
        let _leaving = self.leaving.acquire_many(LEAVING).await;
    }

    fn place(self: &Arc<Self>, permit: OwnedSemaphorePermit, peer: Option<IpAddr>) -> Place {
        let busy = Busy::telling(Arc::clone(&self.changed));
        let mut number = None;
        if let (Some(mut taken), Some(peer)) = (self.taken(), peer) {
            let next = taken.next;
            taken.next += 1;
            taken.connections.insert(next, (peer, busy.clone()));
            number = Some(next);
        }
        Place {
            places: Arc::clone(self),
            number,
            busy,
            permit: Some(permit),
        }
    }

    /// Asks one connection to leave, unless one is about to; where all have a request under way, after its answer.
    fn dismiss(&self) {
        let Some(taken) = self.taken() else {
            return;
        };
        let mut by_address: HashMap<_, Neighbours<'_>> = HashMap::new();
        for (address, busy) in taken.connections.values() {
            let here = by_address.entry(*address).or_default();
            here.places += 1;
            match busy.standing() {
                // One at a time: there is one newcomer.
                Standing::Leaving => return,
                Standing::NeverAsked => here.strangers.push(busy),
                Standing::Quiet => here.quiet.push(busy),
                Standing::Exchanging => here.exchanging.push(busy),
            }
        }
        // Where all addresses have as many, of one that has not asked.
        let most = by_address
            .values()
            .filter_map(|here| Some(((here.places, here.strangers.len()), here.first()?)))
            .max_by_key(|(rank, _)| *rank);
        if let Some((_, chosen)) = most {
            if !chosen.give_way() {
                // It asks just now, so another one is chosen.
                self.changed.notify_one();
            }
        } else if let Some(here) = by_address.values().max_by_key(|here| here.places) {
            // Who asks and asks is never quiet: one of these ends with its answer.
            let _told = here.exchanging.iter().any(|busy| busy.end_soon());
        }
    }

    /// Once a minute, however many come.
    fn tell(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|last| last.elapsed() < SILENCE) {
            return;
        }
        *told = Some(Stopwatch::start());
        let listener = self.counted.as_ref().map(|(metrics, name)| {
            metrics.connections_full.with_label_values(&[*name]).inc();
            *name
        });
        let now = if self.can_be_made() {
            GIVING_WAY
        } else {
            WAITING
        };
        warn!(listener, most = self.most, "{now}");
    }

    fn taken(&self) -> Option<MutexGuard<'_, Taken>> {
        let taken = self.taken.as_ref()?;
        Some(taken.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<'a> Neighbours<'a> {
    fn first(&self) -> Option<&'a Busy> {
        let (stranger, quiet) = (self.strangers.first(), self.quiet.first());
        // Else those who ask once and stay would leave newcomers one place, for which these would chase each other.
        let are_many = self.strangers.len() > self.quiet.len();
        let first = if are_many {
            stranger
        } else {
            quiet.or(stranger)
        };
        first.copied()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let (Some(number), Some(mut taken)) = (self.number, self.places.taken()) {
            taken.connections.remove(&number);
            // Under the lock, or a newcomer could find neither it nor a free place, and ask one more to leave.
            drop(self.permit.take());
        }
    }
}
