//! Puts the rooms together and starts them in order.
//!
//! First everything that can be wrong is found ([`prepare`]), then all listeners are bound, and only
//! then is anything served; so a start either succeeds whole or leaves nothing behind. Called by
//! `cli` and by the tests.

mod expected;
pub mod injector;
mod listeners;
mod prepared;
mod reload;
mod running;
mod summary;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub use self::prepared::{Prepared, prepare};
pub use self::reload::Trigger;
pub use self::running::Running;
pub use self::summary::WARNING;

use self::listeners::{Bound, serve};
use self::prepared::State;
use self::reload::{Reloader, Targets};
use self::running::Side;
use crate::admin::{self, Admin};
use crate::ca::trust::{self, TrustError};
use crate::ca::{Authority, AuthorityError};
use crate::clock::Clock;
use crate::egress::{Egress, self_check};
use crate::exchange::{Direction, Ids};
use crate::http::Budget;
use crate::http::retries::AttemptMemory;
use crate::ingress::Ingress;
use crate::net::certificate::Served;
use crate::net::drain::Drain;
use crate::net::handshake::Tls;
use crate::net::linger::Linger;
use crate::net::listener::BindError;
use crate::net::serve::Settings;
use crate::net::watch::Watch;
use crate::task;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Reload;
use crate::upstream::{Connector, OwnAddresses, Proxy, Resolver, Upstream};

/// Why a sidecar did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The metrics could not be set up.
    #[error("metrics cannot be set up: {0}")]
    Metrics(#[from] prometheus::Error),
    /// There is no CA to be trusted.
    #[error("ca: {0}")]
    Authority(#[from] AuthorityError),
    /// What apps need to trust the CA could not be written.
    #[error("ca.trust_directory: {0}")]
    Trust(#[from] TrustError),
}

/// Binds all listeners and serves.
///
/// # Errors
/// [`StartError`]; nothing is left listening then.
pub async fn start(mut prepared: Prepared) -> Result<Running, StartError> {
    let served = prepared.served.take();
    let watch = std::mem::take(&mut prepared.watch);
    let bound = Bound::bind(&prepared.state.config).await?;
    let common = Common::new(prepared, &bound).await?;
    let egress = common.egress(bound.egress);
    let ingress = common.ingress(bound.ingress, served);
    let operators = common.operators(bound.admin);
    let trigger = common.follow(watch);
    Ok(Running {
        egress: bound.addresses.egress,
        ingress: bound.addresses.ingress,
        admin: bound.addresses.admin,
        drain: common.drain,
        metrics: common.metrics,
        trigger,
        sides: (ingress, egress),
        operators,
        times: common.state.config.drain,
    })
}

/// How long a connection from outside may be without a request: strangers can make many.
const STRANGERS: Duration = Duration::from_secs(30);

/// What the rooms share.
struct Common {
    state: State,
    targets: Targets,
    tls: rustls::ClientConfig,
    resolver: Resolver,
    proxy: Option<Proxy>,
    clock: Clock,
    metrics: Metrics,
    own: OwnAddresses,
    authority: Arc<Authority>,
    ids: Arc<Ids>,
    drain: Drain,
}

impl Common {
    async fn new(prepared: Prepared, bound: &Bound) -> Result<Self, StartError> {
        let Prepared {
            state,
            tls,
            resolver,
            proxy,
            clock,
            watch: _,
            served: _,
        } = prepared;
        let (config, metrics) = (&state.config, Metrics::new()?);
        expected::show(config, &metrics);
        state.keyring.publish(&metrics, None);
        let hosts: Vec<String> = config.signed_hosts().into_iter().collect();
        let authority = Authority::new(&config.ca, &hosts, clock.clone())?;
        if let Some(directory) = &config.ca.trust_directory {
            trust::write(directory, &authority.ca_pem().await?, clock.now())?;
        }
        Ok(Self {
            targets: Targets::new(&state, clock.now()),
            state,
            tls,
            resolver,
            proxy,
            clock,
            metrics,
            own: bound.own(),
            authority: Arc::new(authority),
            ids: Arc::new(Ids::new()),
            drain: Drain::new(),
        })
    }

    fn egress(&self, listeners: Vec<TcpListener>) -> Side {
        let Some(rules) = &self.targets.egress else {
            return Side::default();
        };
        let pseudonym = format!("countersign-{}", self.ids.instance());
        let connector = Connector::new(
            self.tls.clone(),
            self.resolver.clone(),
            self.proxy
                .clone()
                .map(|proxy| proxy.calling_itself(&pseudonym)),
            self.own.clone(),
            self.metrics.clone(),
        );
        let (budget, drain) = (self.budget(), Drain::new());
        let token = self_check::Token::new(self.ids.instance());
        let service = Egress {
            rules: rules.clone(),
            upstream: Upstream::new(connector, budget.clone()),
            authority: Arc::clone(&self.authority),
            own: self.own.clone(),
            clock: self.clock.clone(),
            budget,
            slots: self.slots(Direction::Egress),
            attempts: AttemptMemory::new(self.clock.now()),
            token: token.clone(),
            tunnels: self.tunnels(),
            metrics: self.metrics.clone(),
            pseudonym,
            ids: Arc::clone(&self.ids),
            drain: drain.clone(),
        };
        let settings = self.settings(Direction::Egress, None);
        let servers = serve(listeners, service, &settings, &drain);
        if let Some(every) = rules.now().config.transparent.self_check {
            let check = self_check::run(token, every, self.metrics.clone(), drain.clone());
            task::spawn(check);
        }
        Side { drain, servers }
    }

    fn ingress(&self, listeners: Vec<TcpListener>, served: Option<Served>) -> Side {
        let Some((rules, guard)) = &self.targets.ingress else {
            return Side::default();
        };
        // The app is next door: neither the proxy nor the nameservers of the way out lead there.
        let connector = Connector::new(
            self.tls.clone(),
            Resolver::system(),
            None,
            self.own.clone(),
            self.metrics.clone(),
        );
        let (budget, drain) = (self.budget(), Drain::new());
        let service = Ingress {
            rules: rules.clone(),
            // Apart from what strangers may send: an app that has acted must be heard.
            upstream: Upstream::new(connector, self.budget()),
            clock: self.clock.clone(),
            budget,
            slots: self.slots(Direction::Ingress),
            guard: Arc::clone(guard),
            attempts: AttemptMemory::new(self.clock.now()),
            metrics: self.metrics.clone(),
            // Another name than egress has: an app may call its own public address.
            pseudonym: format!("countersign-in-{}", self.ids.instance()),
            ids: Arc::clone(&self.ids),
            drain: drain.clone(),
        };
        let what = Reload::IngressCertificate;
        let tls = served.map(|served| served.follow("ingress", what, &self.metrics, drain.clone()));
        let settings = self.settings(Direction::Ingress, tls);
        let servers = serve(listeners, service, &settings, &drain);
        Side { drain, servers }
    }

    fn operators(&self, listeners: Vec<TcpListener>) -> Side {
        let service = Admin {
            metrics: self.metrics.clone(),
            shown: self.targets.shown.clone(),
            authority: self.signs_for_apps().then(|| Arc::clone(&self.authority)),
            drain: self.drain.clone(),
        };
        // Its own drain: operators can still ask while the traffic ends.
        let settings = admin::settings(&self.metrics, self.state.config.limits.connections);
        let drain = Drain::new();
        let servers = serve(listeners, service, &settings, &drain);
        Side { drain, servers }
    }

    /// Begins to follow the files that were read.
    fn follow(&self, watch: Watch) -> Trigger {
        let (trigger, asked) = Trigger::new();
        let reloader = Reloader {
            state: self.state.clone(),
            targets: self.targets.clone(),
            watch,
            asked,
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            failed: Vec::new(),
        };
        drop(task::spawn(reloader.run(self.drain.clone())));
        trigger
    }

    /// How a direction's port treats its connections.
    fn settings(&self, direction: Direction, tls: Option<Tls>) -> Settings {
        let name = direction.as_str();
        let usual = Settings::plain(self.metrics.connections.with_label_values(&[name]));
        Settings {
            connections: self.state.config.limits.connections,
            tls,
            counted: Some((self.metrics.clone(), name)),
            head_timeout: match direction {
                Direction::Ingress => STRANGERS,
                Direction::Egress => usual.head_timeout,
            },
            linger: match direction {
                Direction::Ingress => Linger::unauthenticated(),
                Direction::Egress => usual.linger.clone(),
            },
            ..usual
        }
    }

    fn signs_for_apps(&self) -> bool {
        !self.state.config.signed_hosts().is_empty()
    }

    /// Each direction has memory and places of its own, so that neither can starve the other.
    fn budget(&self) -> Budget {
        let bytes = self.state.config.limits.buffered;
        let limit = self.metrics.buffered_limit.with_label_values::<&str>(&[]);
        limit.add(i64::try_from(bytes).unwrap_or(i64::MAX));
        let gauge = self.metrics.buffered.with_label_values::<&str>(&[]);
        Budget::new(bytes, gauge)
    }

    fn slots(&self, direction: Direction) -> Arc<Semaphore> {
        let exchanges = self.state.config.limits.exchanges;
        let limit = &self.metrics.in_flight_limit;
        let limit = limit.with_label_values(&[direction.as_str()]);
        limit.set(i64::try_from(exchanges).unwrap_or(i64::MAX));
        Arc::new(Semaphore::new(exchanges))
    }

    fn tunnels(&self) -> Arc<Semaphore> {
        let tunnels = self.state.config.limits.tunnels;
        let limit = self.metrics.tunnels_limit.with_label_values::<&str>(&[]);
        limit.set(i64::from(tunnels));
        Arc::new(Semaphore::new(tunnels as usize))
    }
}
