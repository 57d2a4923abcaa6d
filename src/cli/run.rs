//! `run`: the sidecar.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use countersign_protocol::{ClientId, KeyVersion, Offset};
use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::{info, warn};

use super::signals::{Hangup, Orders, Signals};
use super::supervisor::Line;
use super::{Failure, environment, hardening, output, runtime, variable};
use crate::app::{self, Prepared, Running};
use crate::clock::Clock;
use crate::config::{self, Config, Loaded, Placement, values};
use crate::keys::Environment;
use crate::net::drain::{self, Phase};
use crate::net::listener;
use crate::telemetry::log;
use crate::upstream::nameservers::Nameservers;
use crate::upstream::{self, Host, Origin};
use crate::{admin, ca, keys};

/// The configuration file used when none is named.
const DEFAULT_FILE: &str = "/etc/countersign/config.yaml";

/// Where `--help` tells of the log.
const LOG: &str = "Log";

/// Run the sidecar.
///
/// With --client-id, --private-key and --alipay-public-key no file is needed. Otherwise the file is
/// --config, the environment variable `COUNTERSIGN_CONFIG`, or /etc/countersign/config.yaml.
///
/// SIGHUP reloads routes, identities and keys, as a change of their files does by itself.
///
/// SIGTERM or POST /drain drains: readiness off, a grace, no new connections, in-flight finished,
/// exit 0. SIGINT skips the grace. A second signal ends at once.
#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    source: Source,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t, env = "COUNTERSIGN_LOG_FORMAT", hide_env_values = true, help_heading = LOG)]
    log_format: log::Format,
    /// What is logged: error, warn, info, debug, or a filter like countersign=debug.
    #[arg(long, default_value = "info", env = "COUNTERSIGN_LOG", hide_env_values = true, help_heading = LOG)]
    log_level: String,
}

/// Where the configuration comes from.
#[derive(Args, Debug)]
pub struct Source {
    /// The configuration file.
    #[arg(long, value_name = "FILE", conflicts_with = "without_file")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: Option<Flags>,
    #[command(flatten)]
    place: Place,
}

/// Where the sidecar stands: in place of what the file says.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Where it stands, with or without a file")]
struct Place {
    /// Where egress listens, if there is egress; may be repeated; localhost:18441 is 127.0.0.1 and `::1`
    /// [default without a file: 127.0.0.1:18441]
    #[arg(long, value_name = "ADDRESS", value_parser = values::place)]
    egress_listen: Vec<listener::Place>,
    /// Where ingress listens, if there is ingress; may be repeated; :18442 is every address
    /// [default without a file: 127.0.0.1:18442]
    #[arg(long, value_name = "ADDRESS", value_parser = values::place)]
    ingress_listen: Vec<listener::Place>,
    /// Where operators are answered; :18449 is every address [default without a file: 127.0.0.1:18449]
    #[arg(long, value_name = "ADDRESS", value_parser = values::place)]
    admin_listen: Option<listener::Place>,
    /// Where the files are written by which apps trust the local CA.
    #[arg(long, value_name = "FOLDER")]
    trust_directory: Option<PathBuf>,
    /// Where the local CA is kept.
    #[arg(long, value_name = "FOLDER")]
    ca_directory: Option<PathBuf>,
    /// Who is asked for names: addresses with commas between them, or `system` for the nameservers of
    /// /etc/resolv.conf without the hosts file.
    #[arg(long, value_name = "NAMESERVERS", value_parser = config::upstream::nameservers)]
    nameservers: Option<Nameservers>,
    /// Check every minute that the redirect rules (countersign redirect) are in force.
    #[arg(long)]
    redirect_self_check: bool,
}

impl From<Place> for Placement {
    fn from(place: Place) -> Self {
        Self {
            egress: place.egress_listen,
            ingress: place.ingress_listen,
            admin: place.admin_listen,
            trust_directory: place.trust_directory,
            ca_directory: place.ca_directory,
            nameservers: place.nameservers,
            redirect_self_check: place.redirect_self_check,
        }
    }
}

/// A configuration without a file.
#[derive(Args, Debug)]
#[group(id = "without_file", multiple = true)]
struct Flags {
    /// The client id Alipay+ gave the partner.
    #[arg(long, required = false, requires_all = ["private_key", "alipay_public_key"])]
    client_id: ClientId,
    /// The partner's private key.
    #[arg(long, value_name = "FILE", required = false, requires = "client_id")]
    private_key: PathBuf,
    /// Alipay+'s public key.
    #[arg(long, value_name = "FILE", required = false, requires = "client_id")]
    alipay_public_key: PathBuf,
    /// The version of both keys.
    #[arg(long, default_value = "1", requires = "client_id")]
    key_version: KeyVersion,
    /// The app for calls from Alipay+, as a URL or a port of 127.0.0.1; without it there is no ingress.
    #[arg(long, value_name = "URL", value_parser = values::app, requires = "client_id")]
    app: Option<Origin>,
    /// The gateway for requests addressed to the sidecar itself
    /// [default: open-sea-global.alipayplus.com]
    #[arg(long, value_name = "HOST", requires = "client_id")]
    default_host: Option<Host>,
    /// Send signed requests here instead, such as to a sandbox.
    #[arg(long, value_name = "URL", requires = "client_id")]
    upstream: Option<Origin>,
    /// A file with CA certificates trusted besides the system's.
    #[arg(long, value_name = "FILE", requires = "client_id")]
    upstream_ca: Option<PathBuf>,
}

impl Run {
    /// Runs until drained.
    pub(super) fn execute(self) -> Result<(), Failure> {
        output::begin_serving();
        log::install(self.log_format, &self.log_level);
        // First of all: a signal that only reloads must never find the default, which is to die.
        let hangup = Hangup::catch().map_err(Failure::other)?;
        let line = Line::open();
        let file = self.source.file();
        let prepared = self.source.prepare()?;
        // Before the runtime starts the threads that must have inherited it.
        hardening::confine(prepared.config(), file.as_deref()).announce();
        let runtime = runtime()?;
        let result = runtime.block_on(async {
            // Before the first connection, for the same reason.
            let signals = Signals::listen(hangup).map_err(Failure::other)?;
            let supervisor = line.speak();
            let summary = prepared.summary();
            raise_descriptors(prepared.descriptors());
            let running = app::start(prepared).await.map_err(Failure::other)?;
            let mut orders = signals.obey(running.trigger.clone(), supervisor);
            orders.supervisor.ready(announce(&running, &summary));
            serve(running, orders).await;
            Ok(())
        });
        // A reload may be reading a file that never answers, as of a server that is gone.
        runtime.shutdown_background();
        result
    }
}

/// Allows itself as many open files as it may, and says when these are too few.
fn raise_descriptors(needed: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What cannot be raised stays; then the line below says so, if it matters.
    let _refused = setrlimit(Resource::Nofile, limit);
    let allowed = getrlimit(Resource::Nofile).current;
    if let Some(allowed) = allowed.filter(|allowed| *allowed < needed) {
        warn!(
            "only {allowed} files may be open, and limits.connections allows for {needed}; lower it, \
             or raise the limit (ulimit -n)"
        );
    }
}

impl Source {
    /// That file.
    pub(super) fn of(file: PathBuf) -> Self {
        Self {
            config: Some(file),
            flags: None,
            place: Place::default(),
        }
    }

    /// The configuration file, if there is one.
    fn file(&self) -> Option<PathBuf> {
        let without = self.flags.is_some();
        (!without).then(|| named_file(self.config.clone()))
    }

    /// Loads everything `run` needs.
    pub(super) fn prepare(self) -> Result<Prepared, Failure> {
        let placement = self.place.into();
        let loaded = if let Some(flags) = self.flags {
            Loaded::placed(flags.into_config()?, &placement)
        } else {
            let path = named_file(self.config);
            let environment = Environment::new(variable);
            config::File { path, placement }
                .load()
                .with_environment(&environment)
        };
        app::prepare(loaded, Clock::system()).map_err(Failure::Usage)
    }
}

fn named_file(argument: Option<PathBuf>) -> PathBuf {
    argument
        .or_else(|| environment("COUNTERSIGN_CONFIG").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from(DEFAULT_FILE))
}

impl Flags {
    fn into_config(self) -> Result<Config, Failure> {
        let key = |file, flag: &str| keys::KeyConfig {
            source: keys::Source::File(file),
            key_version: self.key_version,
            passphrase_file: None,
            strict_permissions: false,
            place: flag.to_owned(),
        };
        let identity = keys::IdentityConfig {
            client_id: self.client_id.clone(),
            signing_key: key(self.private_key, "--private-key"),
            verification_keys: vec![key(self.alipay_public_key, "--alipay-public-key")],
            try_all_keys: false,
            time_offset: Offset::default(),
        };
        let mut egress = config::egress::without_file(self.default_host, &self.client_id)
            .ok_or_else(|| {
                Failure::usage("--default-host: is no Alipay+ host; use a configuration file")
            })?;
        for route in &mut egress.routes.routes {
            route.upstream.clone_from(&self.upstream);
        }
        Ok(Config {
            source: "arguments".to_owned(),
            keys: keys::Config {
                identities: vec![identity],
                environment: Environment::default(),
            },
            egress: Some(egress),
            ingress: self.app.map(config::ingress::without_file),
            admin: config::ADMIN
                .parse()
                .ok()
                .map(|listen| admin::Config { listen }),
            extra_roots: self.upstream_ca,
            ca: ca::Config::default(),
            upstream: upstream::Config::default(),
            limits: config::Limits::default(),
            drain: drain::Config::default(),
            reload_interval: Some(config::RELOAD_INTERVAL),
            hardening: config::Hardening::default(),
        })
    }
}

/// Logs what runs, and where; returns the latter in a line for people.
fn announce(running: &Running, summary: &[String]) -> String {
    for line in summary {
        if let Some(warning) = line.strip_prefix(app::WARNING) {
            warn!("{}", warning.trim_start());
        } else {
            info!("{line}");
        }
    }
    let addresses = |of: &[SocketAddr]| {
        let of: Vec<_> = of.iter().map(ToString::to_string).collect();
        (!of.is_empty()).then(|| of.join(" "))
    };
    let admin = running.admin.map(|address| address.to_string());
    let (egress, ingress) = (addresses(&running.egress), addresses(&running.ingress));
    info!(egress, ingress, admin, "ready");
    let places = [("egress", egress), ("ingress", ingress), ("admin", admin)];
    let places = places
        .into_iter()
        .filter_map(|(name, at)| Some(format!("{name} {}", at?)));
    format!("ready: {}", places.collect::<Vec<_>>().join(", "))
}

/// Waits for the order to stop, then drains. A signal after `POST /drain` is the same order once more
/// (a preStop hook, then SIGTERM); only a second signal ends at once.
async fn serve(running: Running, mut orders: Orders) {
    let drain = running.drain.clone();
    let first = tokio::select! {
        signal = orders.next() => Some(signal),
        () = drain.reached(Phase::Draining) => None,
    };
    drain.enter(first.map_or(Phase::Draining, order));
    let cause = first.unwrap_or("POST /drain");
    info!(cause, "draining");
    orders.supervisor.stopping(cause);
    let second = async {
        if first.is_none() {
            drain.enter(order(orders.next().await));
        }
        orders.next().await
    };
    let in_time = tokio::select! {
        in_time = running.finish() => in_time,
        _ = second => false,
    };
    if in_time {
        info!("drained");
    } else {
        warn!(
            "stopped with connections still open: the deadline was over, or a second signal came"
        );
    }
}

/// SIGINT comes from a terminal: nobody else has to be given time to notice.
pub(super) fn order(signal: &str) -> Phase {
    if signal == "SIGINT" {
        Phase::Closing
    } else {
        Phase::Draining
    }
}
