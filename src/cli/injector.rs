//! `injector`: the admission webhook that puts the sidecar into pods of a cluster.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tracing::{info, warn};

use super::run::order;
use super::signals::{Hangup, Signals};
use super::{Failure, environment, hardening, output, runtime};
use crate::app::injector::{self, Certificate, Injector as Parts, Running};
use crate::clock::Clock;
use crate::config::values::{duration, place};
use crate::kube::Defaults;
use crate::kube::cluster::{ACCOUNT, Cluster};
use crate::kube::serving;
use crate::net::certificate::{Config, Served, Source};
use crate::net::drain;
use crate::net::listener::Place;
use crate::telemetry::{Metrics, log};

/// Run the admission webhook that puts the sidecar into pods.
///
/// The API server posts reviews to /inject. A pod is never refused: what cannot be injected safely is admitted as
/// it is, with a warning.
///
/// The certificate is from --certificate-directory, where cert-manager or somebody else renews it; or it is made
/// here, kept in the Secret --secret that all replicas share, renewed, and vouched for in the caBundle of the
/// `MutatingWebhookConfiguration` --webhook.
///
/// SIGTERM drains: readiness off, a grace, no new connections, reviews answered, exit 0. SIGINT skips the
/// grace. A second signal ends at once.
#[derive(Args, Debug)]
pub struct Injector {
    /// A file with `defaults:` for pods that say nothing else.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where reviews arrive, with TLS.
    #[arg(long, value_name = "ADDRESS", default_value = ":8443", value_parser = place)]
    listen: Place,
    /// Where probes and Prometheus are answered.
    #[arg(long, value_name = "ADDRESS", default_value = ":18449", value_parser = place)]
    admin_listen: Place,
    /// A folder with tls.crt and tls.key, which are followed.
    #[arg(
        long,
        value_name = "FOLDER",
        required_unless_present = "secret",
        conflicts_with = "secret"
    )]
    certificate_directory: Option<PathBuf>,
    #[command(flatten)]
    kept: Option<Kept>,
    /// How often the certificate's files, or the Secret and the webhook configuration, are looked at.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    interval: Duration,
    /// How long connections are still accepted after readiness went off.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    drain_grace: Duration,
    /// When the process ends at the latest, from the start of the drain.
    #[arg(long, value_name = "DURATION", default_value = "25s", value_parser = duration)]
    drain_deadline: Duration,
    /// How log lines look.
    #[arg(
        long,
        value_enum,
        default_value_t,
        env = "COUNTERSIGN_LOG_FORMAT",
        hide_env_values = true
    )]
    log_format: log::Format,
    /// What is logged: error, warn, info, debug, or a filter like countersign=debug.
    #[arg(
        long,
        default_value = "info",
        env = "COUNTERSIGN_LOG",
        hide_env_values = true
    )]
    log_level: String,
}

/// A certificate that is made here.
#[derive(Args, Debug)]
#[group(multiple = true)]
struct Kept {
    /// The Secret with CA and certificate; made if it is missing.
    #[arg(long, value_name = "NAME", value_parser = name, required = false, requires_all = ["webhook", "service"])]
    secret: String,
    /// The `MutatingWebhookConfiguration` that calls this injector.
    #[arg(long, value_name = "NAME", value_parser = name, required = false, requires = "secret")]
    webhook: String,
    /// The Service by which it is called.
    #[arg(long, value_name = "NAME", value_parser = name, required = false, requires = "secret")]
    service: String,
    /// The namespace of Secret and Service [default: the service account's]
    #[arg(long, value_name = "NAME", value_parser = name, requires = "secret")]
    namespace: Option<String>,
    /// The folder of the service account.
    #[arg(long, value_name = "FOLDER", default_value = ACCOUNT, requires = "secret")]
    service_account: PathBuf,
}

impl Injector {
    /// Serves until drained.
    pub(super) fn execute(self) -> Result<(), Failure> {
        output::begin_serving();
        log::install(self.log_format, &self.log_level);
        let hangup = Hangup::catch().map_err(Failure::other)?;
        let metrics = Metrics::new().map_err(Failure::other)?;
        let reads = self.reads();
        let parts = self.prepare(&metrics)?;
        // Before the runtime starts the threads that must have inherited it.
        hardening::confine_to(&reads).announce();
        let runtime = runtime()?;
        let result = runtime.block_on(async {
            // Before the first connection: a signal must never find the default, which is to die.
            let signals = Signals::listen(hangup).map_err(Failure::other)?;
            let running = injector::start(parts, Clock::system(), metrics).await;
            let running = running.map_err(Failure::other)?;
            let (address, admin) = (running.address, running.admin);
            info!(injector = %address, admin = %admin, "listening");
            serve(running, signals).await;
            Ok(())
        });
        runtime.shutdown_background();
        result
    }

    /// The folders it goes on to read while it serves.
    fn reads(&self) -> BTreeSet<PathBuf> {
        let account = self.kept.iter().map(|kept| &kept.service_account);
        let folders = self.certificate_directory.iter().chain(account);
        folders.cloned().collect()
    }

    fn prepare(self, metrics: &Metrics) -> Result<Parts, Failure> {
        let defaults = match &self.config {
            Some(file) => defaults(file)?,
            None => Defaults::default(),
        };
        let certificate = match (self.certificate_directory, self.kept) {
            (Some(folder), _) => files(&folder, self.interval)?,
            (None, Some(kept)) => kept.into_certificate(self.interval, metrics)?,
            (None, None) => {
                let text =
                    "--certificate-directory or --secret, --webhook and --service are needed";
                return Err(Failure::usage(text));
            }
        };
        Ok(Parts {
            defaults,
            listen: self.listen,
            admin_listen: self.admin_listen,
            certificate,
            drain: drain::Config {
                grace: self.drain_grace,
                deadline: self.drain_deadline,
            },
        })
    }
}

impl Kept {
    fn into_certificate(
        self,
        interval: Duration,
        metrics: &Metrics,
    ) -> Result<Certificate, Failure> {
        let variable = |name| {
            environment(name).filter(|value| !value.is_empty()).ok_or_else(|| {
                let text = "is not set: --secret needs the API server of the cluster this runs in; outside \
                            of one use --certificate-directory";
                Failure::usage(format!("{name}: {text}"))
            })
        };
        let host = variable("KUBERNETES_SERVICE_HOST")?;
        let port = variable("KUBERNETES_SERVICE_PORT")?;
        let port = port.parse();
        let port =
            port.map_err(|_no_number| Failure::usage("KUBERNETES_SERVICE_PORT: is no port"))?;
        let namespace = match self.namespace {
            Some(namespace) => namespace,
            None => own_namespace(&self.service_account)?,
        };
        let config = serving::Config {
            namespace,
            secret: self.secret,
            webhook: self.webhook,
            service: self.service,
            interval,
        };
        let cluster = Cluster {
            host,
            port,
            account: self.service_account,
            metrics: metrics.clone(),
        };
        Ok(Certificate::Kept(config, Box::new(cluster)))
    }
}

fn defaults(file: &Path) -> Result<Defaults, Failure> {
    let place = file.display().to_string();
    let text = fs::read_to_string(file);
    let text = text.map_err(|error| Failure::usage(format!("{place}: {error}")))?;
    Defaults::read(&place, &text).map_err(Failure::Usage)
}

fn files(folder: &Path, interval: Duration) -> Result<Certificate, Failure> {
    let source = |name: &str| Source {
        file: folder.join(name),
        place: "--certificate-directory".to_owned(),
    };
    let config = Config {
        certificate: source("tls.crt"),
        key: source("tls.key"),
        clients: None,
        reload_interval: interval,
    };
    let served = Served::load(&config, &Clock::system());
    let served = served.map_err(|error| Failure::usage(format!("{}: {error}", error.place())))?;
    Ok(Certificate::Files(Box::new(served)))
}

fn own_namespace(account: &Path) -> Result<String, Failure> {
    let file = account.join("namespace");
    let text = fs::read_to_string(&file).map_err(|error| {
        let file = file.display();
        Failure::usage(format!("{file}: {error}; name the namespace (--namespace)"))
    })?;
    name(text.trim()).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))
}

/// A name as objects have: it becomes a part of paths and host names.
fn name(text: &str) -> Result<String, String> {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    let ends = [text.bytes().next(), text.bytes().last()];
    let is_name = (1..=253).contains(&text.len())
        && text.bytes().all(allowed)
        && ends.iter().flatten().all(u8::is_ascii_alphanumeric);
    is_name.then(|| text.to_owned()).ok_or_else(|| {
        "is no name of an object: lower case letters, digits, - and . are allowed".to_owned()
    })
}

/// Waits for the order to stop, then drains; a second signal ends at once.
async fn serve(running: Running, mut signals: Signals) {
    let drain = running.drain.clone();
    let first = tokio::select! {
        signal = signals.end() => signal,
        () = ready(&running) => signals.end().await,
    };
    drain.enter(order(first));
    info!(cause = first, "draining");
    let in_time = tokio::select! {
        in_time = running.finish() => in_time,
        _second = signals.end() => false,
    };
    if in_time {
        info!("drained");
    } else {
        warn!(
            "stopped with connections still open: the deadline was over, or a second signal came"
        );
    }
}

async fn ready(running: &Running) {
    running.ready().await;
    info!("ready");
}
