//! Detects requests that a proxy in front of the sidecar repeats.
//!
//! A proxy that retries (Envoy, Istio by default) sends the same payment again, and the sidecar would sign it anew. Envoy
//! counts its attempts in `x-envoy-attempt-count`; other proxies leave no trace but the same content. [`AttemptMemory`]
//! therefore remembers, for a short time and in bounded memory, how earlier attempts with the same content ended. A
//! repeated request may pass only if this process saw every earlier attempt and delivered none of them. Called by both
//! flows; knows no route and no status.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, HeaderName, StatusCode};

use crate::exchange::{Code, Delivery, Exchange, Fault, Repetition};

/// The field in which Envoy counts its attempts, 1 for the first.
pub const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

/// How long an attempt is remembered at least.
const REMEMBERED: Duration = Duration::from_mins(1);
/// The most attempts of one generation; two are kept, at some 60 bytes each.
const MOST: usize = 20_000;

/// What happens to a repeated request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryPolicy {
    /// It is refused, unless no earlier attempt was delivered.
    Refuse,
    /// It passes, with a warning in the log and a count.
    Report,
    /// It passes.
    Allow,
}

/// What a route says of repeated requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policies {
    /// Of those that a proxy numbers as a further attempt.
    pub numbered: RetryPolicy,
    /// Of those with the content of an earlier one whose outcome is unknown.
    pub same_content: RetryPolicy,
}

impl Policies {
    /// Unless an egress route says otherwise. An app that asks again after a timeout, as Alipay+ wants it to, sends the
    /// same content, too: that is only reported.
    pub fn egress() -> Self {
        Self {
            numbered: RetryPolicy::Refuse,
            same_content: RetryPolicy::Report,
        }
    }

    /// Unless an ingress route says otherwise. Calls with the same signature are what `replay` is about.
    pub fn ingress() -> Self {
        Self {
            numbered: RetryPolicy::Refuse,
            same_content: RetryPolicy::Allow,
        }
    }
}

/// The number of this attempt by the proxy's count; 1 without one. Of several values the largest counts, and one that is
/// no number counts as the most attempts there can be.
pub fn attempt_number(fields: &HeaderMap) -> u32 {
    let values = fields.get_all(ATTEMPT_COUNT).iter();
    let numbers = values.flat_map(|value| {
        let text = value.to_str().unwrap_or("unreadable");
        text.split(',')
            .map(|part| part.trim().parse().unwrap_or(u32::MAX))
    });
    numbers.max().unwrap_or(1).max(1)
}

/// Identifies the content of a request: what its signature covers, but for the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentKey(u64, u64);

/// How earlier attempts with one content ended.
#[derive(Clone, Copy, Debug, Default)]
struct Past {
    /// So many were certainly not delivered.
    not_sent: u32,
    /// At least one may have been.
    is_unknown: bool,
}

/// Remembers attempts; clones share it.
#[derive(Clone, Debug)]
pub struct AttemptMemory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    hashers: (RandomState, RandomState),
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    began: SystemTime,
    under_way: HashMap<ContentKey, u32>,
    current: HashMap<ContentKey, Past>,
    previous: HashMap<ContentKey, Past>,
}

impl AttemptMemory {
    /// An empty memory.
    pub fn new(now: SystemTime) -> Self {
        let state = State {
            began: now,
            under_way: HashMap::new(),
            current: HashMap::new(),
            previous: HashMap::new(),
        };
        Self {
            shared: Arc::new(Shared {
                hashers: (RandomState::new(), RandomState::new()),
                state: Mutex::new(state),
            }),
        }
    }

    /// The key of a request with this content.
    pub fn key(&self, method: &str, uri: &str, client_id: &str, body: &[u8]) -> ContentKey {
        let content = (method, uri, client_id, body);
        let (first, second) = &self.shared.hashers;
        ContentKey(first.hash_one(content), second.hash_one(content))
    }

    /// Admits a request, or refuses it as repeated. The attempt ends with [`Attempt::ended`]; one that is dropped may have
    /// been delivered.
    ///
    /// # Errors
    /// [`Code::RetriedByProxy`], with an unknown outcome.
    pub fn admit(
        &self,
        exchange: &mut Exchange,
        (key, number): (ContentKey, u32),
        policies: Policies,
        now: SystemTime,
    ) -> Result<Attempt, Fault> {
        let mut state = self.shared.lock();
        state.turn(now);
        let past = state.past(key);
        let is_under_way = state.under_way.contains_key(&key);
        let may_be_delivered = past.is_unknown || is_under_way;
        let is_disproved = !may_be_delivered && past.not_sent >= number.saturating_sub(1);
        if number > 1 && !is_disproved {
            refuse_or_report(exchange, policies.numbered, Repetition::Numbered)?;
        } else if number > 1 {
            exchange.repeated(Repetition::NotDelivered);
        } else if may_be_delivered {
            refuse_or_report(exchange, policies.same_content, Repetition::SameContent)?;
        }
        *state.under_way.entry(key).or_default() += 1;
        drop(state);
        Ok(Attempt {
            memory: self.clone(),
            key,
            end: End::Unknown,
        })
    }
}

/// Admits a request whose content is not looked at, so that nothing can be proved of it.
///
/// # Errors
/// [`Code::RetriedByProxy`] where a proxy repeats it.
pub fn admit_unseen(
    exchange: &mut Exchange,
    fields: &HeaderMap,
    policies: Policies,
) -> Result<(), Fault> {
    if attempt_number(fields) > 1 {
        refuse_or_report(exchange, policies.numbered, Repetition::Numbered)?;
    }
    Ok(())
}

fn refuse_or_report(
    exchange: &mut Exchange,
    policy: RetryPolicy,
    repetition: Repetition,
) -> Result<(), Fault> {
    let text = match repetition {
        Repetition::SameContent => {
            "a request with the same content was sent shortly before, and its outcome is unknown"
        }
        _ => {
            "a proxy repeats the request (x-envoy-attempt-count), and an earlier attempt may have been delivered"
        }
    };
    let fault = Fault::unknown(Code::RetriedByProxy, text);
    match policy {
        RetryPolicy::Allow => Ok(()),
        RetryPolicy::Report => {
            exchange.repeated(repetition);
            exchange.warn_of(&fault);
            Ok(())
        }
        RetryPolicy::Refuse => {
            exchange.repeated(Repetition::Refused);
            Err(fault)
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A response says what came of it.
    Known,
    NotSent,
    Unknown,
}

/// An attempt under way.
#[derive(Debug)]
pub struct Attempt {
    memory: AttemptMemory,
    key: ContentKey,
    end: End,
}

impl Attempt {
    /// The attempt ended with a response of this status, or with a fault.
    pub fn ended(mut self, result: Result<StatusCode, &Fault>) {
        self.end = match result {
            Ok(status) if is_retried(status) => End::Unknown,
            Ok(_) => End::Known,
            Err(fault) if fault.delivered() == Delivery::NotSent => End::NotSent,
            Err(_) => End::Unknown,
        };
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut state = self.memory.shared.lock();
        if let Some(count) = state.under_way.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                state.under_way.remove(&self.key);
            }
        }
        let mut past = state.past(self.key);
        match self.end {
            End::Known if !past.is_unknown => {
                state.current.remove(&self.key);
                state.previous.remove(&self.key);
                return;
            }
            End::Known => {}
            End::NotSent => past.not_sent = past.not_sent.saturating_add(1),
            End::Unknown => past.is_unknown = true,
        }
        state.current.insert(self.key, past);
    }
}

/// Whether proxies repeat a request because of this status.
fn is_retried(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 409 | 425 | 429)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn past(&self, key: ContentKey) -> Past {
        let past = self.current.get(&key).or_else(|| self.previous.get(&key));
        past.copied().unwrap_or_default()
    }

    /// Forgets the older generation when the younger one is old enough, or full.
    fn turn(&mut self, now: SystemTime) {
        // A clock that was set back leaves the generation as it is.
        let age = now.duration_since(self.began).unwrap_or_default();
        if age >= REMEMBERED || self.current.len() >= MOST {
            self.previous = std::mem::take(&mut self.current);
            self.began = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::*;

    #[test]
    fn reads_the_number_of_the_attempt() {
        for (values, number) in [
            (&[][..], 1),
            (&["1"], 1),
            (&["0"], 1),
            (&["2"], 2),
            (&[" 3 "], 3),
            (&["1", "2"], 2),
            (&["1, 2"], 2),
            (&[""], u32::MAX),
            (&["-1"], u32::MAX),
            (&["two"], u32::MAX),
            (&["99999999999"], u32::MAX),
            (&["1\u{e9}"], u32::MAX),
        ] {
            let mut fields = HeaderMap::new();
            for value in values {
                let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
                fields.append(ATTEMPT_COUNT, value);
            }
            assert_eq!(attempt_number(&fields), number, "{values:?}");
        }
    }

    #[test]
    fn every_part_of_the_content_counts() {
        let memory = AttemptMemory::new(SystemTime::UNIX_EPOCH);
        let key = memory.key("POST", "/pay", "C", b"{}");
        assert_eq!(key, memory.key("POST", "/pay", "C", b"{}"));
        for other in [
            memory.key("PUT", "/pay", "C", b"{}"),
            memory.key("POST", "/pay?", "C", b"{}"),
            memory.key("POST", "/pa", "yC", b"{}"),
            memory.key("POST", "/pay", "D", b"{}"),
            memory.key("POST", "/pay", "C", b"{} "),
        ] {
            assert_ne!(key, other);
        }
    }

    #[test]
    fn memory_is_bounded_and_old_attempts_are_forgotten() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        let memory = AttemptMemory::new(start);
        let mut state = memory.shared.lock();
        for number in 0..3 * MOST as u64 {
            state.turn(start);
            let past = Past {
                is_unknown: true,
                not_sent: 0,
            };
            state.current.insert(ContentKey(number, 0), past);
        }
        assert!(state.current.len() <= MOST && state.previous.len() <= MOST);
        let last = ContentKey(3 * MOST as u64 - 1, 0);
        assert!(state.past(last).is_unknown);
        state.turn(start + REMEMBERED);
        assert!(state.past(last).is_unknown);
        state.turn(start + REMEMBERED * 2);
        assert!(!state.past(last).is_unknown);
    }
}
