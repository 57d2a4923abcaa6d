//! Takes over what changed on disk, or nothing of it: the configuration's routes and identities, and all
//! keys.
//!
//! Everything is read and checked anew before anything is replaced; then all rooms get it at once, and
//! exchanges that have begun go on with what they began with. What cannot be used, or could only be half
//! used, changes nothing: the last good state stays, readiness too, with a log line for each problem.
//! It is tried again, silently, until the files are right.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::expected;
use super::prepared::{State, load_keys};
use crate::clock::Clock;
use crate::config::{Config, Loaded};
use crate::ingress::Guard;
use crate::keys::{Environment, KeyFacts, Keyring};
use crate::live::Live;
use crate::net::drain::{Drain, Phase};
use crate::net::watch::Watch;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Reload;
use crate::{admin, egress, ingress, task};

/// How long reading may take before it is told.
const STUCK: Duration = Duration::from_secs(30);

/// How often files that change while they are read are read again at once.
const TRIES: usize = 5;

/// Asks for a reload now, as SIGHUP does; clones ask the same process.
#[derive(Clone, Debug)]
pub struct Trigger(mpsc::UnboundedSender<Answer>);

/// Where who asked is told whether all was taken over.
type Answer = oneshot::Sender<bool>;

/// What was asked for and is not done yet.
pub(super) type Asked = mpsc::UnboundedReceiver<Answer>;

impl Trigger {
    /// A way to ask, and where it leads.
    pub(super) fn new() -> (Self, Asked) {
        let (trigger, asked) = mpsc::unbounded_channel();
        (Self(trigger), asked)
    }

    /// Asks; one that is under way is followed by another. What comes back says whether all was taken
    /// over; a sidecar that drains may reload no more, and says nothing.
    pub fn reload(&self) -> oneshot::Receiver<bool> {
        let (answer, outcome) = oneshot::channel();
        // Nobody is left during a drain; then the answer is dropped, too.
        let _nobody = self.0.send(answer);
        outcome
    }
}

/// What a reload replaces; clones are the same.
#[derive(Clone)]
pub(super) struct Targets {
    pub(super) egress: Option<Live<egress::Rules>>,
    pub(super) ingress: Option<(Live<ingress::Rules>, Arc<Guard>)>,
    pub(super) shown: Live<admin::Shown>,
}

impl Targets {
    /// What the rooms begin with.
    pub(super) fn new(state: &State, now: SystemTime) -> Self {
        let egress = state.config.egress.as_ref();
        let ingress = state.config.ingress.as_ref();
        let guard = |config: &ingress::Config| Arc::new(Guard::new(config.routes.window(), now));
        Self {
            egress: egress.map(|config| Live::new(state.egress(config))),
            ingress: ingress.map(|config| (Live::new(state.ingress(config)), guard(config))),
            shown: Live::new(state.shown()),
        }
    }

    /// Gives the rooms another state.
    fn replace(&self, state: &State) {
        if let (Some(live), Some(config)) = (&self.egress, &state.config.egress) {
            live.replace(state.egress(config));
        }
        if let (Some((live, guard)), Some(config)) = (&self.ingress, &state.config.ingress) {
            guard.remember_for(config.routes.window());
            live.replace(state.ingress(config));
        }
        self.shown.replace(state.shown());
    }
}

/// Watches the files and reloads.
pub(super) struct Reloader {
    pub(super) state: State,
    pub(super) targets: Targets,
    pub(super) watch: Watch,
    pub(super) asked: Asked,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    /// What was wrong the last time, to be told once.
    pub(super) failed: Vec<String>,
}

/// What was read.
struct Read {
    loaded: Result<State, Vec<String>>,
    /// Follows the files that were read, from just before they were.
    watch: Watch,
    /// Whether it is the configuration's text that differs, or only what it names.
    what: Reload,
}

impl Reloader {
    /// Reloads whenever the files change or somebody asks, until the drain closes.
    pub(super) async fn run(mut self, drain: Drain) {
        for what in [Reload::Config, Reload::Keys] {
            self.metrics.can_reload(what);
        }
        let mut ticks = self.state.config.reload_interval.map(ticks);
        let mut closing = pin!(drain.reached(Phase::Closing));
        loop {
            let mut answers: Vec<Answer> = tokio::select! {
                biased;
                () = &mut closing => return,
                Some(answer) = self.asked.recv() => vec![answer],
                () = tick(&mut ticks) => Vec::new(),
            };
            // All who asked before it begins are content with one.
            answers.extend(std::iter::from_fn(|| self.asked.try_recv().ok()));
            let asked = !answers.is_empty();
            let due = asked || !self.failed.is_empty() || self.watch.is_changed_aside().await;
            if asked {
                info!("asked to reload");
            }
            if due {
                self.reload(asked).await;
            }
            for answer in answers {
                let _not_waited_for = answer.send(self.failed.is_empty());
            }
        }
    }

    async fn reload(&mut self, asked: bool) {
        let (state, now) = (self.state.clone(), self.clock.now());
        let reading = task::aside(move || read(&state, now));
        let metrics = self.metrics.clone();
        let stuck = move || {
            // Nobody knows yet what it was that changed.
            metrics.reload_ended(Reload::Config, false);
            let seconds = STUCK.as_secs();
            warn!("the files have not answered for {seconds} s; nothing is reloaded until they do");
        };
        let read = match told_if_late(reading, stuck).await {
            Ok(read) => read,
            Err(error) => {
                // It is tried again, as the files were looked at and not taken over.
                self.refused(Reload::Config, vec![error.to_string()], asked);
                return;
            }
        };
        self.watch = read.watch;
        match read.loaded {
            Ok(state) => {
                self.failed.clear();
                expected::show(&state.config, &self.metrics);
                self.take_over(state);
                // All was read, so nothing of it fails any longer.
                for what in [Reload::Config, Reload::Keys] {
                    self.metrics.reload_ended(what, true);
                }
                // Whoever waits for the count finds what it counts.
                self.metrics.reloaded(read.what, true);
            }
            Err(problems) => self.refused(read.what, problems, asked),
        }
    }

    fn refused(&mut self, what: Reload, problems: Vec<String>, asked: bool) {
        if what == Reload::Keys {
            // The configuration is that which runs, again or still.
            self.metrics.reload_ended(Reload::Config, true);
        }
        self.metrics.reload_ended(what, false);
        // A person who asked is answered, the files' silent repetition is not.
        if asked || problems != self.failed {
            self.metrics.reloaded(what, false);
            for reason in &problems {
                warn!(
                    reason,
                    "not reloaded, the last good configuration and keys stay"
                );
            }
        }
        self.failed = problems;
    }

    fn take_over(&mut self, state: State) {
        // Shown before they are used: a signature never has a fingerprint that is not to be found.
        state
            .keyring
            .publish(&self.metrics, Some(&self.state.keyring));
        self.targets.replace(&state);
        tell(&self.state.keyring, &state.keyring);
        self.state = state;
    }
}

/// Reads everything again. Files that change meanwhile are read once more, so that no two of them are of
/// different times.
fn read(state: &State, now: SystemTime) -> Read {
    let mut read = read_once(state, now);
    for _ in 0..TRIES {
        if !read.watch.is_changed() {
            return read;
        }
        read = read_once(state, now);
    }
    let problem = "the files change again and again while they are read".to_owned();
    read.loaded = Err(vec![problem]);
    read
}

fn read_once(state: &State, now: SystemTime) -> Read {
    let environment = &state.config.keys.environment;
    let Loaded {
        config,
        mut problems,
        file,
        text,
        mut watch,
    } = again(state, environment);
    let what = if text == state.text {
        Reload::Keys
    } else {
        Reload::Config
    };
    let Some(config) = config else {
        watch.add(state.config.keys.files());
        return Read {
            loaded: Err(problems),
            watch,
            what,
        };
    };
    problems.extend(unreachable(&state.config, &config));
    watch.add(config.keys.files());
    // A module is foreign code: it is not loaded in vain.
    let in_vain = !problems.is_empty() && config.keys.has_token();
    let keyring = (!in_vain)
        .then(|| load_keys(&config, Some(&state.keyring), now, &mut problems))
        .flatten();
    let loaded = match keyring {
        Some(keyring) if problems.is_empty() => Ok(State {
            file,
            text,
            config,
            keyring: Arc::new(keyring),
            fixed_lines: state.fixed_lines.clone(),
        }),
        _ => Err(problems),
    };
    Read {
        loaded,
        watch,
        what,
    }
}

/// The configuration as its file says now; without a file as it was.
fn again(state: &State, environment: &Environment) -> Loaded {
    match &state.file {
        Some(file) => file.clone().load().with_environment(environment),
        None => Loaded::from(state.config.clone()),
    }
}

/// What a running process cannot take over.
fn unreachable(now: &Config, next: &Config) -> Option<String> {
    let keys = now.needs_restart(next);
    (!keys.is_empty()).then(|| {
        format!(
            "{}: a change of {} needs a restart",
            next.source,
            keys.join(", ")
        )
    })
}

/// Says which keys came and went, and what looks like a mistake.
fn tell(before: &Keyring, now: &Keyring) {
    let (old, new) = (before.facts(), now.facts());
    let same = |one: &KeyFacts, other: &KeyFacts| one.to_string() == other.to_string();
    let place = |one: &KeyFacts, other: &KeyFacts| {
        (&one.client_id, one.usage, one.key_version)
            == (&other.client_id, other.usage, other.key_version)
    };
    info!(keys = new.len(), "reloaded");
    for key in new
        .iter()
        .filter(|key| !old.iter().any(|one| same(one, key)))
    {
        info!(key = %key, "key in use");
        let replaced = old.iter().find(|one| place(one, key));
        if replaced.is_some_and(|one| one.public != key.public) {
            warn!(
                key = %key,
                "another key came under the same key version; a new key should get a version of its \
                 own, or peers cannot tell which one was meant"
            );
        }
    }
    for key in old
        .iter()
        .filter(|key| !new.iter().any(|one| same(one, key)))
    {
        info!(key = %key, "key no longer in use");
    }
    let fresh = |warning: &&String| !before.warnings().contains(warning);
    for warning in now.warnings().iter().filter(fresh) {
        warn!("{warning}");
    }
}

/// Waits for work that cannot be given up, and tells once when it takes longer than [`STUCK`].
async fn told_if_late<T>(work: impl Future<Output = T>, tell: impl FnOnce()) -> T {
    let mut work = pin!(work);
    if let Ok(done) = timeout(STUCK, &mut work).await {
        return done;
    }
    tell();
    work.await
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Never, where nothing is looked at by itself.
async fn tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_is_late_is_told_once_and_waited_for() {
        for (seconds, expected) in [(1, 0), (29, 0), (31, 1), (3600, 1)] {
            let mut told = 0;
            let work = async {
                sleep(Duration::from_secs(seconds)).await;
                "done"
            };
            assert_eq!(told_if_late(work, || told += 1).await, "done");
            assert_eq!(told, expected, "{seconds} s");
        }
    }
}
