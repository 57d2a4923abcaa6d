//! Puts the rooms together and starts them in order.
//!
//! First everything that can be wrong is found ([`prepare`]), then all listeners are bound, and only
//! then is anything served; so a start either succeeds whole or leaves nothing behind. Called by
//! `cli` and by the tests.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::admin::Admin;
use crate::ca::trust::{self, TrustError};
use crate::ca::{Authority, AuthorityError, Permitted, directory};
use crate::clock::Clock;
use crate::config::{Config, Limits, Loaded};
use crate::egress::Egress;
use crate::exchange::Ids;
use crate::http::Budget;
use crate::keys::Keyring;
use crate::net::drain::{self, Drain, Phase};
use crate::net::listener::{BindError, bind};
use crate::net::serve::{Server, Settings};
use crate::net::{task, tls};
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
    clock: Clock,
}

impl Prepared {
    /// What was loaded, one line each, nothing secret.
    pub fn summary(&self) -> Vec<String> {
        let mut lines = traffic(&self.config);
        lines.extend(self.keyring.facts().iter().map(|key| format!("key: {key}")));
        lines
    }
}

/// A sidecar that runs.
#[derive(Debug)]
pub struct Running {
    /// Where egress listens.
    pub egress: Vec<SocketAddr>,
    /// Where operators are answered.
    pub admin: Option<SocketAddr>,
    /// Begins and watches its end.
    pub drain: Drain,
    /// The metrics it counts in.
    pub metrics: Metrics,
    traffic: Vec<JoinHandle<()>>,
    operators: Option<(Drain, JoinHandle<()>)>,
    times: drain::Config,
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
    match (keyring, tls, resolver) {
        (Ok(keyring), Ok(tls), Ok(resolver)) if problems.is_empty() => Ok(Prepared {
            config,
            keyring: Arc::new(keyring),
            tls,
            resolver,
            proxy,
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
pub async fn start(prepared: Prepared) -> Result<Running, StartError> {
    let Prepared {
        config,
        keyring,
        tls,
        resolver,
        proxy,
        clock,
    } = prepared;
    let metrics = Metrics::new()?;
    keyring.publish(&metrics, &clock);
    let listen = config
        .egress
        .as_ref()
        .map_or(&[][..], |egress| &egress.listen);
    let mut egress = Vec::new();
    for address in listen {
        egress.push(bind("egress.listen", *address).await?);
    }
    let admin = match &config.admin {
        Some(admin) => Some(bind("admin.listen", admin.listen).await?),
        None => None,
    };
    let egress_addresses: Vec<_> = egress.iter().filter_map(address).collect();
    let admin_address = admin.as_ref().and_then(address);
    let own = OwnAddresses::default();
    own.set(
        egress_addresses
            .iter()
            .copied()
            .chain(admin_address)
            .collect(),
    );

    let authority = Authority::new(&config.ca, &signed_hosts(&config), clock.clone())?;
    let authority = Arc::new(authority);
    if let Some(directory) = &config.ca.trust_directory {
        trust::write(directory, &authority.ca_pem().await?, clock.now())?;
    }
    let drain = Drain::new();
    let settings = |name, limits: Limits| {
        let open = metrics.connections.with_label_values(&[name]);
        Settings {
            connections: limits.connections,
            ..Settings::plain(open)
        }
    };
    let mut traffic_tasks = Vec::new();
    if let Some(section) = &config.egress {
        let gauge = metrics.buffered.with_label_values::<&str>(&[]);
        let budget = Budget::new(config.limits.buffered, gauge);
        let ids = Arc::new(Ids::new());
        let connector = Connector::new(tls, resolver, proxy, own.clone(), metrics.clone());
        let service = Arc::new(Egress {
            config: section.clone(),
            keyring: Arc::clone(&keyring),
            upstream: Upstream::new(connector, budget.clone()),
            authority: Arc::clone(&authority),
            own,
            clock,
            budget,
            slots: Arc::new(Semaphore::new(config.limits.exchanges)),
            metrics: metrics.clone(),
            pseudonym: format!("countersign-{}", ids.instance()),
            ids,
            drain: drain.clone(),
        });
        for listener in egress {
            let server = Server::new(listener, settings("egress", config.limits));
            traffic_tasks.push(task::spawn(server.run(Arc::clone(&service), drain.clone())));
        }
    }
    let operators = admin.map(|listener| {
        let service = Arc::new(Admin {
            metrics: metrics.clone(),
            keyring,
            authority,
            drain: drain.clone(),
            summary: traffic(&config),
        });
        // Its own drain: operators can still ask while the traffic ends.
        let own_drain = Drain::new();
        let server = Server::new(listener, settings("admin", config.limits));
        (
            own_drain.clone(),
            task::spawn(server.run(service, own_drain)),
        )
    });
    Ok(Running {
        egress: egress_addresses,
        admin: admin_address,
        drain,
        metrics,
        traffic: traffic_tasks,
        operators,
        times: config.drain,
    })
}

impl Running {
    /// Takes a drain that has begun to its end. Returns whether everything in flight was finished
    /// before the deadline.
    pub async fn finish(self) -> bool {
        let traffic = self.traffic;
        let finished = async move {
            for server in traffic {
                // A server task that panicked has nothing left to finish.
                let _ended = server.await;
            }
        };
        let in_time = self.drain.run(self.times, finished).await;
        if let Some((drain, server)) = self.operators {
            drain.enter(Phase::Closing);
            server.abort();
        }
        in_time
    }
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

fn address(listener: &TcpListener) -> Option<SocketAddr> {
    listener.local_addr().ok()
}

/// The routes in words.
fn traffic(config: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(egress) = &config.egress {
        let listen: Vec<_> = egress.listen.iter().map(ToString::to_string).collect();
        lines.push(format!("egress: listens on {}", listen.join(" ")));
        for route in &egress.routes.routes {
            let hosts: Vec<_> = route.hosts.iter().map(ToString::to_string).collect();
            let upstream = match &route.upstream {
                Some(origin) => origin.to_string(),
                None if route.accelerate => "the accelerated host over https".to_owned(),
                None => "the host asked for over https".to_owned(),
            };
            lines.push(format!(
                "egress route {}: {} signed as {}, sent to {upstream}, verify {}",
                route.name,
                hosts.join(" "),
                route.identity,
                route.verify
            ));
        }
        let default_host = egress.routes.default_host.as_ref().map(ToString::to_string);
        lines.push(format!(
            "egress: requests addressed to the sidecar itself go to {}; other hosts: {}",
            default_host
                .as_deref()
                .unwrap_or("nowhere (egress.default_host is not set)"),
            egress.routes.unmatched
        ));
        lines.push(match &config.ca.directory {
            Some(directory) => format!("ca: kept in {}", directory.display()),
            None => {
                "ca: made in memory at the first need; apps find it at /ca.pem of the admin port"
                    .to_owned()
            }
        });
    }
    if let Some(directory) = &config.ca.trust_directory {
        let directory = directory.display();
        lines.push(format!("ca: what apps need to trust it is in {directory}"));
    }
    lines.extend(config.upstream.lines());
    if config.ingress {
        lines.push("ingress: CONFIGURED BUT NOT SERVED by this version".to_owned());
    }
    if let Some(admin) = &config.admin {
        lines.push(format!("admin: listens on {}", admin.listen));
    }
    lines
}
