//! Puts the rooms together and starts them in order.
//!
//! First everything that can be wrong is found ([`prepare`]), then all listeners are bound, and only
//! then is anything served; so a start either succeeds whole or leaves nothing behind. Called by
//! `cli` and by the tests.

mod listeners;
mod running;
mod summary;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub use self::running::Running;
pub use self::summary::WARNING;

use self::listeners::Bound;
use self::running::Side;
use crate::admin::Admin;
use crate::ca::trust::{self, TrustError};
use crate::ca::{Authority, AuthorityError, Permitted, directory};
use crate::clock::Clock;
use crate::config::{Config, Loaded};
use crate::egress::Egress;
use crate::exchange::Ids;
use crate::http::Budget;
use crate::ingress::{Guard, Ingress};
use crate::keys::Keyring;
use crate::net::certificate::Served;
use crate::net::drain::Drain;
use crate::net::handshake::Tls;
use crate::net::listener::BindError;
use crate::net::serve::{Server, Service, Settings};
use crate::net::tls;
use crate::task;
use crate::telemetry::Metrics;
use crate::upstream::{Connector, OwnAddresses, Proxy, Resolver, Upstream};

/// Everything that could be wrong was looked at and is right.
#[derive(Debug)]
pub struct Prepared {
    config: Config,
    keyring: Arc<Keyring>,
    tls: rustls::ClientConfig,
    resolver: Resolver,
    proxy: Option<Proxy>,
    served: Option<Served>,
    clock: Clock,
}

impl Prepared {
    /// What was loaded, one line each, nothing secret.
    pub fn summary(&self) -> Vec<String> {
        let mut lines = self.traffic();
        lines.extend(self.keyring.facts().iter().map(|key| format!("key: {key}")));
        lines
    }

    /// How many file descriptors can be in use at once: two for each connection, and some more.
    pub fn descriptors(&self) -> u64 {
        let egress = self
            .config
            .egress
            .iter()
            .flat_map(|section| &section.listen);
        let ingress = self
            .config
            .ingress
            .iter()
            .flat_map(|section| &section.listen);
        let listeners = egress.chain(ingress).count() as u64;
        let connections = u64::from(self.config.limits.connections);
        (2 * listeners + u64::from(self.config.admin.is_some())) * connections + 64
    }

    /// The same without the keys.
    fn traffic(&self) -> Vec<String> {
        let mut lines = summary::lines(&self.config);
        let served = self.served.iter();
        lines.extend(served.map(|tls| format!("ingress: TLS with {}", tls.summary())));
        lines
    }
}

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

/// Loads all a sidecar needs: keys, certificates, the proxy's credentials.
///
/// # Errors
/// Every problem of the configuration and of the files it names, one line each.
pub fn prepare(loaded: impl Into<Loaded>, clock: Clock) -> Result<Prepared, Vec<String>> {
    let Loaded {
        config,
        mut problems,
    } = loaded.into();
    let Some(config) = config else {
        return Err(problems);
    };
    let keyring = Keyring::load(&config.keys).map_err(|errors| {
        problems.extend(
            errors
                .iter()
                .map(|error| format!("{}: {error}", error.place())),
        );
    });
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
        (Ok(keyring), Ok(tls), Ok(resolver)) if problems.is_empty() => Ok(Prepared {
            config,
            keyring: Arc::new(keyring),
            tls,
            resolver,
            proxy,
            served,
            clock,
        }),
        _ => Err(problems),
    }
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

/// Binds all listeners and serves.
///
/// # Errors
/// [`StartError`]; nothing is left listening then.
pub async fn start(mut prepared: Prepared) -> Result<Running, StartError> {
    let summary = prepared.traffic();
    let served = prepared.served.take();
    let bound = Bound::bind(&prepared.config).await?;
    let common = Common::new(prepared, summary, &bound).await?;
    let egress = common.egress(bound.egress);
    let ingress = common.ingress(bound.ingress, served);
    let operators = bound.admin.map(|listener| common.operators(listener));
    Ok(Running {
        egress: bound.addresses.egress,
        ingress: bound.addresses.ingress,
        admin: bound.addresses.admin,
        drain: common.drain,
        metrics: common.metrics,
        sides: (ingress, egress),
        operators,
        times: common.config.drain,
    })
}

/// How long a connection from outside may be without a request: strangers can make many.
const STRANGERS: Duration = Duration::from_secs(30);

/// What the rooms share.
struct Common {
    config: Config,
    keyring: Arc<Keyring>,
    tls: rustls::ClientConfig,
    resolver: Resolver,
    proxy: Option<Proxy>,
    clock: Clock,
    metrics: Metrics,
    own: OwnAddresses,
    authority: Arc<Authority>,
    ids: Arc<Ids>,
    drain: Drain,
    summary: Vec<String>,
}

impl Common {
    async fn new(
        prepared: Prepared,
        summary: Vec<String>,
        bound: &Bound,
    ) -> Result<Self, StartError> {
        let Prepared {
            config,
            keyring,
            tls,
            resolver,
            proxy,
            clock,
            served: _,
        } = prepared;
        let metrics = Metrics::new()?;
        keyring.publish(&metrics, &clock);
        let authority = Authority::new(&config.ca, &signed_hosts(&config), clock.clone())?;
        if let Some(directory) = &config.ca.trust_directory {
            trust::write(directory, &authority.ca_pem().await?, clock.now())?;
        }
        Ok(Self {
            config,
            keyring,
            tls,
            resolver,
            proxy,
            clock,
            metrics,
            own: bound.own(),
            authority: Arc::new(authority),
            ids: Arc::new(Ids::new()),
            drain: Drain::new(),
            summary,
        })
    }

    fn egress(&self, listeners: Vec<TcpListener>) -> Side {
        let Some(section) = &self.config.egress else {
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
        let service = Egress {
            config: section.clone(),
            keyring: Arc::clone(&self.keyring),
            upstream: Upstream::new(connector, budget.clone()),
            authority: Arc::clone(&self.authority),
            own: self.own.clone(),
            clock: self.clock.clone(),
            budget,
            slots: self.slots(),
            tunnels: Arc::new(Semaphore::new(self.config.limits.tunnels as usize)),
            metrics: self.metrics.clone(),
            pseudonym,
            ids: Arc::clone(&self.ids),
            drain: drain.clone(),
        };
        self.serve("egress", service, listeners, drain, None)
    }

    fn ingress(&self, listeners: Vec<TcpListener>, served: Option<Served>) -> Side {
        let Some(section) = &self.config.ingress else {
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
            config: section.clone(),
            keyring: Arc::clone(&self.keyring),
            // Apart from what strangers may send: an app that has acted must be heard.
            upstream: Upstream::new(connector, self.budget()),
            clock: self.clock.clone(),
            budget,
            slots: self.slots(),
            guard: Guard::new(section.routes.window(), self.clock.now()),
            metrics: self.metrics.clone(),
            // Another name than egress has: an app may call its own public address.
            pseudonym: format!("countersign-in-{}", self.ids.instance()),
            ids: Arc::clone(&self.ids),
            drain: drain.clone(),
        };
        let tls = served.map(|served| served.follow("ingress", &self.metrics, drain.clone()));
        self.serve("ingress", service, listeners, drain, tls.as_ref())
    }

    fn operators(&self, listener: TcpListener) -> Side {
        let service = Admin {
            metrics: self.metrics.clone(),
            keyring: Arc::clone(&self.keyring),
            authority: self.signs_for_apps().then(|| Arc::clone(&self.authority)),
            drain: self.drain.clone(),
            summary: self.summary.clone(),
        };
        // Its own drain: operators can still ask while the traffic ends.
        self.serve("admin", service, vec![listener], Drain::new(), None)
    }

    fn serve<S: Service>(
        &self,
        name: &str,
        service: S,
        listeners: Vec<TcpListener>,
        drain: Drain,
        tls: Option<&Tls>,
    ) -> Side {
        let service = Arc::new(service);
        let servers = listeners.into_iter().map(|listener| {
            let open = self.metrics.connections.with_label_values(&[name]);
            let usual = Settings::plain(open);
            let settings = Settings {
                connections: self.config.limits.connections,
                tls: tls.cloned(),
                head_timeout: if name == "ingress" {
                    STRANGERS
                } else {
                    usual.head_timeout
                },
                ..usual
            };
            let server = Server::new(listener, settings);
            task::spawn(server.run(Arc::clone(&service), drain.clone()))
        });
        let servers = servers.collect();
        Side { drain, servers }
    }

    fn signs_for_apps(&self) -> bool {
        !signed_hosts(&self.config).is_empty()
    }

    /// Each direction has memory and places of its own, so that neither can starve the other.
    fn budget(&self) -> Budget {
        let gauge = self.metrics.buffered.with_label_values::<&str>(&[]);
        Budget::new(self.config.limits.buffered, gauge)
    }

    fn slots(&self) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(self.config.limits.exchanges))
    }
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
    let hosts = signed_hosts(config);
    if hosts.is_empty() && config.ca.trust_directory.is_none() {
        return Ok(());
    }
    Permitted::of(&hosts)?;
    if let Some(directory) = &config.ca.directory {
        directory::find(directory, &hosts, clock.now())?;
    }
    Ok(())
}

/// The patterns of all hosts whose TLS is looked into.
fn signed_hosts(config: &Config) -> Vec<String> {
    let routes = config
        .egress
        .iter()
        .flat_map(|egress| &egress.routes.routes);
    routes
        .flat_map(|route| &route.hosts)
        .map(ToString::to_string)
        .collect()
}
