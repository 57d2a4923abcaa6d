//! Puts the admission webhook together: its listener with a certificate, the port for operators, and the drain.
//!
//! Everything that can be wrong with files is found before anything listens; a cluster that does not answer is
//! waited for. Called by `cli` and by the tests.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::listeners::serve;
use crate::admin;
use crate::admin::probes::Probes;
use crate::clock::Clock;
use crate::kube::Defaults;
use crate::kube::cluster::Cluster;
use crate::kube::serving::{self, Keeper};
use crate::kube::webhook::Webhook;
use crate::net::certificate::Served;
use crate::net::drain::{self, Drain};
use crate::net::handshake::Tls;
use crate::net::linger::Linger;
use crate::net::listener::{BindError, Place};
use crate::net::serve::Settings;
use crate::net::tls::{self, TlsError};
use crate::task;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::Reload;

/// An API server keeps an unused connection for 90 s; who closes first should be the one that knows.
const HEAD_TIMEOUT: Duration = Duration::from_mins(2);
/// How long an answer may be left untaken; an API server waits ten seconds by default from its question on.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Everybody in a cluster can connect, and few need to: API servers ask on one connection each, with small heads.
const CONNECTIONS: u32 = 256;
const HEAD_LIMIT: usize = 16 * 1024;
const NAME: &str = "injector";

/// What an injector is made of.
#[derive(Debug)]
pub struct Injector {
    /// What holds for pods that say nothing else.
    pub defaults: Defaults,
    /// Where reviews arrive.
    pub listen: Place,
    /// Where operators are answered.
    pub admin_listen: Place,
    /// What it shows to the API server.
    pub certificate: Certificate,
    /// How it ends.
    pub drain: drain::Config,
}

/// Where the certificate is from.
#[derive(Debug)]
pub enum Certificate {
    /// Somebody writes it into files.
    Files(Box<Served>),
    /// It is kept in this cluster.
    Kept(serving::Config, Box<Cluster>),
}

/// Why an injector did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener could not be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// An injector that runs.
#[derive(Debug)]
pub struct Running {
    /// Where reviews arrive.
    pub address: SocketAddr,
    /// Where operators are answered.
    pub admin: SocketAddr,
    /// Begins the end.
    pub drain: Drain,
    waiting: watch::Receiver<Option<String>>,
    webhook: Vec<JoinHandle<()>>,
    operators: Vec<JoinHandle<()>>,
    times: drain::Config,
}

/// Binds both listeners and serves.
///
/// # Errors
/// [`StartError`]; nothing is left listening then.
pub async fn start(
    injector: Injector,
    clock: Clock,
    metrics: Metrics,
) -> Result<Running, StartError> {
    let listeners = injector.listen.bind("--listen").await?;
    let operators = injector.admin_listen.bind("--admin-listen").await?;
    let (address, admin) = (local(&listeners), local(&operators));
    let drain = Drain::new();
    let (tls, waiting) = certificate(injector.certificate, clock, &metrics, &drain)?;
    let webhook = Webhook::new(injector.defaults, &metrics);
    let settings = Settings {
        connections: CONNECTIONS,
        quiet_give_way: true,
        head_timeout: HEAD_TIMEOUT,
        write_timeout: WRITE_TIMEOUT,
        head_limit: HEAD_LIMIT,
        tls: Some(tls),
        counted: Some((metrics.clone(), NAME)),
        linger: Linger::unauthenticated(),
        ..Settings::plain(metrics.connections.with_label_values(&[NAME]))
    };
    let webhook = serve(listeners, webhook, &settings, &drain);
    let probes = Probes {
        metrics: metrics.clone(),
        waiting: waiting.clone(),
        drain: drain.clone(),
    };
    // A drain of its own: operators can ask to the end.
    let settings = admin::settings(&metrics, CONNECTIONS);
    let operators = serve(operators, probes, &settings, &Drain::new());
    Ok(Running {
        address,
        admin,
        drain,
        waiting,
        webhook,
        operators,
        times: injector.drain,
    })
}

impl Running {
    /// Waits until there is a certificate to show.
    pub async fn ready(&self) {
        let mut waiting = self.waiting.clone();
        // Closed only where the certificate is from files, and then there was one from the beginning.
        let _closed = waiting.wait_for(Option::is_none).await.is_err();
    }

    /// Takes a drain that has begun to its end. Returns whether every review was answered before the
    /// deadline.
    pub async fn finish(self) -> bool {
        let Self { webhook, .. } = self;
        let finished = async {
            for server in webhook {
                // A server that panicked has nothing left to finish.
                let _ended = server.await;
            }
        };
        let in_time = self.drain.run(self.times, finished).await;
        self.operators.iter().for_each(JoinHandle::abort);
        in_time
    }
}

fn certificate(
    certificate: Certificate,
    clock: Clock,
    metrics: &Metrics,
    drain: &Drain,
) -> Result<(Tls, watch::Receiver<Option<String>>), StartError> {
    match certificate {
        Certificate::Files(served) => {
            let what = Reload::InjectorCertificate;
            let tls = served.follow(NAME, what, metrics, drain.clone());
            Ok((tls, watch::channel(None).1))
        }
        Certificate::Kept(config, cluster) => {
            let tls = Tls::new(tls::nothing_to_show()?).counted(NAME, metrics);
            let keeper = Keeper::new(config, *cluster, clock, tls.clone());
            let waiting = keeper.waiting();
            drop(task::spawn(keeper.run(drain.clone())));
            Ok((tls, waiting))
        }
    }
}

/// The first, for messages.
fn local(listeners: &[TcpListener]) -> SocketAddr {
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let first = listeners.first().map(TcpListener::local_addr);
    // A socket that listens has an address.
    first.and_then(Result::ok).unwrap_or(nowhere)
}
