//! Everything a sidecar needs, looked at before anything is bound: configuration, keys, certificates.
//!
//! Reports all that is wrong in one go. Called for `run`, `check` and the tests; a reload looks at keys
//! the same way.

use std::sync::Arc;
use std::time::SystemTime;

use super::summary::{self, WARNING};
use crate::ca::{AuthorityError, Permitted, directory};
use crate::clock::Clock;
use crate::config::{self, Config, Loaded};
use crate::keys::{KeyError, KeyFacts, Keyring};
use crate::net::certificate::Served;
use crate::net::places::LEAVING;
use crate::net::tls;
use crate::net::watch::Watch;
use crate::upstream::{Proxy, Resolver};
use crate::{admin, egress, ingress};

/// Everything that could be wrong was looked at and is right.
#[derive(Debug)]
pub struct Prepared {
    pub(super) state: State,
    pub(super) watch: Watch,
    pub(super) tls: rustls::ClientConfig,
    pub(super) resolver: Resolver,
    pub(super) proxy: Option<Proxy>,
    pub(super) served: Option<Served>,
    pub(super) clock: Clock,
}

impl Prepared {
    /// What was loaded, one line each, nothing secret.
    pub fn summary(&self) -> Vec<String> {
        let mut lines = self.state.traffic();
        let keyring = &self.state.keyring;
        lines.extend(keyring.facts().iter().map(|key| format!("key: {key}")));
        lines.extend(key_warnings(keyring));
        lines
    }

    /// What is known of the keys.
    pub fn keys(&self) -> Vec<KeyFacts> {
        self.state.keyring.facts()
    }

    /// What is configured.
    pub fn config(&self) -> &Config {
        &self.state.config
    }

    /// How many file descriptors can be in use at once: two for each connection, and some more.
    pub fn descriptors(&self) -> u64 {
        let config = &self.state.config;
        let egress = config.egress.iter().flat_map(|section| &section.listen);
        let ingress = config.ingress.iter().flat_map(|section| &section.listen);
        let listeners = egress
            .chain(ingress)
            .map(|place| place.sockets())
            .sum::<u64>();
        let most = config.limits.connections;
        // One each; of those that give way some linger, and one newcomer waits.
        let operators = u64::from(admin::connections(most)) + u64::from(LEAVING) + 1;
        let admin = config.admin.iter().map(|admin| admin.listen.sockets());
        2 * listeners * u64::from(most) + admin.sum::<u64>() * operators + 64
    }
}

/// What is configured and loaded; a reload replaces it as a whole.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) file: Option<config::File>,
    pub(super) text: String,
    pub(super) config: Config,
    pub(super) keyring: Arc<Keyring>,
    /// What the summary says besides: it never changes.
    pub(super) fixed_lines: Vec<String>,
}

impl State {
    pub(super) fn egress(&self, config: &egress::Config) -> egress::Rules {
        egress::Rules {
            config: config.clone(),
            keyring: Arc::clone(&self.keyring),
        }
    }

    pub(super) fn ingress(&self, config: &ingress::Config) -> ingress::Rules {
        ingress::Rules {
            routes: config.routes.clone(),
            keyring: Arc::clone(&self.keyring),
        }
    }

    /// What is configured, without the keys.
    fn traffic(&self) -> Vec<String> {
        let mut lines = summary::lines(&self.config);
        lines.extend(self.fixed_lines.iter().cloned());
        lines
    }

    pub(super) fn shown(&self) -> admin::Shown {
        admin::Shown {
            keyring: Arc::clone(&self.keyring),
            summary: self.traffic(),
        }
    }
}

/// Loads all a sidecar needs: keys, certificates, the proxy's credentials.
///
/// # Errors
/// Every problem of the configuration and of the files it names, one line each.
pub fn prepare(loaded: impl Into<Loaded>, clock: Clock) -> Result<Prepared, Vec<String>> {
    let Loaded {
        config,
        mut problems,
        file,
        text,
        mut watch,
    } = loaded.into();
    let Some(config) = config else {
        return Err(problems);
    };
    watch.add(config.keys.files());
    let keyring = load_keys(&config, None, clock.now(), &mut problems);
    let tls = tls::roots(config.extra_roots.as_deref())
        .and_then(tls::client)
        .map_err(|error| {
            problems.push(format!("{}: upstream_tls.ca_file: {error}", config.source));
        });
    if let Err(error) = look_at_ca(&config, &clock) {
        problems.push(format!("{}: ca: {error}", config.source));
    }
    let resolver = Resolver::new(&config.upstream.resolve).map_err(|error| {
        problems.push(format!("{}: resolve.nameservers: {error}", config.source));
    });
    let proxy = proxy(&config, &mut problems);
    let served = served(&config, &clock, &mut problems);
    match (keyring, tls, resolver) {
        (Some(keyring), Ok(tls), Ok(resolver)) if problems.is_empty() => Ok(Prepared {
            state: State {
                file,
                text,
                config,
                keyring: Arc::new(keyring),
                fixed_lines: tls_lines(served.as_ref()),
            },
            watch,
            tls,
            resolver,
            proxy,
            served,
            clock,
        }),
        _ => Err(problems),
    }
}

/// All keys, or what is wrong is reported.
pub(super) fn load_keys(
    config: &Config,
    before: Option<&Keyring>,
    now: SystemTime,
    problems: &mut Vec<String>,
) -> Option<Keyring> {
    let loaded = Keyring::load(&config.keys, before, now);
    let report = |errors: Vec<KeyError>| {
        let lines = errors
            .iter()
            .map(|error| format!("{}: {error}", error.place()));
        problems.extend(lines);
    };
    loaded.map_err(report).ok()
}

/// What should not stay so, as lines of the summary.
pub(super) fn key_warnings(keyring: &Keyring) -> impl Iterator<Item = String> {
    let warnings = keyring.warnings().iter();
    warnings.map(|warning| format!("{WARNING} {warning}"))
}

fn tls_lines(served: Option<&Served>) -> Vec<String> {
    let served = served.into_iter();
    served
        .map(|tls| format!("ingress: TLS with {}", tls.summary()))
        .collect()
}

/// The proxy with its credentials; none is configured, or what is wrong is reported.
fn proxy(config: &Config, problems: &mut Vec<String>) -> Option<Proxy> {
    let proxy = config.upstream.proxy.as_ref()?;
    let loaded = Proxy::load(proxy);
    if let (Err(error), Some((_, place))) = (&loaded, &proxy.credentials) {
        problems.push(format!("{place}: {error}"));
    }
    loaded.ok()
}

/// The certificate ingress shows; none is configured, or what is wrong is reported.
fn served(config: &Config, clock: &Clock, problems: &mut Vec<String>) -> Option<Served> {
    let tls = config.ingress.as_ref()?.tls.as_ref()?;
    let loaded = Served::load(tls, clock);
    loaded
        .map_err(|error| problems.push(format!("{}: {error}", error.place())))
        .ok()
}

/// Finds what is wrong with the local CA without making one.
fn look_at_ca(config: &Config, clock: &Clock) -> Result<(), AuthorityError> {
    let hosts: Vec<String> = config.signed_hosts().into_iter().collect();
    if hosts.is_empty() && config.ca.trust_directory.is_none() {
        return Ok(());
    }
    Permitted::of(&hosts)?;
    if let Some(directory) = &config.ca.directory {
        directory::find(directory, &hosts, clock.now())?;
    }
    Ok(())
}
