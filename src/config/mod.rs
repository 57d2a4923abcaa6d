//! The configuration: from a file or from flags to checked values for every room.
//!
//! Reports all problems of a file in one run, each with file, line and key. Refuses unknown keys,
//! unclear values, and routes that could both mean the same host. Does not read keys; `keys` does.

pub mod ca;
pub mod document;
pub mod egress;
mod files;
mod fixed;
pub mod identities;
pub mod ingress;
mod placement;
pub mod tls;
pub mod upstream;
pub mod values;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::placement::Placement;

use self::document::{Map, Problems};
use crate::confinement;
use crate::net::drain;
use crate::net::listener::Place;
use crate::net::watch::Watch;
use crate::{admin, keys};

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file, or what stands for it in messages.
    pub source: String,
    /// Whose keys.
    pub keys: keys::Config,
    /// The way out.
    pub egress: Option<crate::egress::Config>,
    /// The way in.
    pub ingress: Option<crate::ingress::Config>,
    /// The port for operators.
    pub admin: Option<admin::Config>,
    /// Certificates trusted upstream besides the system's.
    pub extra_roots: Option<PathBuf>,
    /// The CA whose certificates apps see.
    pub ca: crate::ca::Config,
    /// How destinations are reached.
    pub upstream: crate::upstream::Config,
    /// What the process may use.
    pub limits: Limits,
    /// How it stops.
    pub drain: drain::Config,
    /// How often the files it was read from, and those of keys, are looked at; only on SIGHUP when
    /// absent.
    pub reload_interval: Option<Duration>,
    /// What it denies itself.
    pub hardening: Hardening,
}

/// What the process denies itself beyond what is always denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardening {
    /// Whether Landlock confines it to the files it needs, where the kernel has it.
    pub landlock: bool,
}

impl Default for Hardening {
    fn default() -> Self {
        Self { landlock: true }
    }
}

/// What the whole process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections of each listener.
    pub connections: u32,
    /// Connections of egress that pass unread; fewer than all, so that payments find room.
    pub tunnels: u32,
    /// Exchanges under way in each direction.
    pub exchanges: usize,
    /// Bytes of bodies held in memory.
    pub buffered: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            tunnels: 768,
            exchanges: 512,
            buffered: 64 << 20,
        }
    }
}

/// Where the admin port is unless the configuration says otherwise.
pub const ADMIN: &str = "127.0.0.1:18449";
/// Where egress listens unless the configuration says otherwise.
pub const EGRESS: &str = "127.0.0.1:18441";
/// Where ingress listens that no file asked for.
pub const INGRESS: &str = "127.0.0.1:18442";

/// How often files are looked at unless the configuration says otherwise.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// A file as far as it could be read, and everything wrong with it.
#[derive(Debug)]
pub struct Loaded {
    /// What it says; with problems only good for finding more of them.
    pub config: Option<Config>,
    /// What is wrong, one line each.
    pub problems: Vec<String>,
    /// The file, to be read again; without one there is nothing but keys to reload.
    pub file: Option<File>,
    /// The file's text, to tell whether it changed.
    pub text: String,
    /// Looked at the file before it was read.
    pub watch: Watch,
}

impl From<Config> for Loaded {
    fn from(config: Config) -> Self {
        Self::placed(config, &Placement::default())
    }
}

impl Loaded {
    /// The same, whose keys may be variables of this environment.
    #[must_use]
    pub fn with_environment(mut self, environment: &keys::Environment) -> Self {
        if let Some(config) = &mut self.config {
            config.keys.environment = environment.clone();
        }
        self
    }

    /// What no file says, put in its place.
    pub fn placed(mut config: Config, placement: &Placement) -> Self {
        let mut problems = Problems::default();
        placement.apply(&mut config, &mut problems);
        Self {
            config: Some(config),
            problems: problems.into_lines(),
            file: None,
            text: String::new(),
            watch: Watch::default(),
        }
    }
}

/// A configuration's file, and what stands beside it; read again at a reload.
#[derive(Clone, Debug)]
pub struct File {
    /// The file.
    pub path: PathBuf,
    /// What takes the place of what it says.
    pub placement: Placement,
}

impl File {
    /// Reads and checks it.
    pub fn load(self) -> Loaded {
        let Self { path, placement } = &self;
        let name = path.display().to_string();
        let watch = Watch::new(vec![path.clone()]);
        let (config, problems, text) = match fs::read_to_string(path) {
            Ok(text) => {
                let folder = path.parent().unwrap_or(Path::new(""));
                let (config, problems) = read(&name, &text, folder, placement);
                (config, problems, text)
            }
            Err(error) => {
                let error = confinement::explain(path, error);
                (None, vec![unreadable(&name, &error)], String::new())
            }
        };
        Loaded {
            config,
            problems,
            file: Some(self),
            text,
            watch,
        }
    }
}

/// Reads and checks a file that says itself where the sidecar stands.
pub fn load(file: &Path) -> Loaded {
    let (path, placement) = (file.to_owned(), Placement::default());
    File { path, placement }.load()
}

/// Checks the text of a file of that name, in which paths are relative to `folder`; with it everything
/// that is wrong, one line each.
pub fn read(
    name: &str,
    text: &str,
    folder: &Path,
    placement: &Placement,
) -> (Option<Config>, Vec<String>) {
    let mut problems = Problems::default();
    let config = document::read(name, text, &mut problems).map(|map| {
        let mut config = whole(name, map, (folder, placement), &mut problems);
        placement.apply(&mut config, &mut problems);
        config
    });
    (config, problems.into_lines())
}

fn unreadable(name: &str, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => format!(
            "{name}: no such file; give --config FILE, or --client-id, --private-key and \
             --alipay-public-key to run without one"
        ),
        std::io::ErrorKind::InvalidData => format!("{name}: is not UTF-8 text"),
        _ => format!("{name}: cannot be read: {error}"),
    }
}

fn whole(
    source: &str,
    mut map: Map,
    (folder, placement): (&Path, &Placement),
    problems: &mut Problems,
) -> Config {
    let keys = identities::read(&mut map, folder, problems);
    let egress = map
        .take("egress")
        .and_then(|node| node.map(problems))
        .map(|section| egress::read(section, &keys, problems));
    let ingress = map
        .take("ingress")
        .and_then(|node| node.map(problems))
        .map(|section| ingress::read(section, &keys, (folder, placement), problems));
    let admin = map
        .take("admin")
        .and_then(|node| node.map(problems))
        .map(|section| admin_section(section, problems));
    let extra_roots = map
        .take("upstream_tls")
        .and_then(|node| node.map(problems))
        .and_then(|section| upstream_tls(section, folder, problems));
    let ca = map
        .take("ca")
        .and_then(|node| node.map(problems))
        .map(|section| ca::read(section, folder, problems));
    let upstream = upstream::read(&mut map, folder, problems);
    let limits = limits(&mut map, problems);
    let drain = drain_section(&mut map, problems);
    let reload_interval = match map.take("reload_interval") {
        Some(node) => node.parse_with(problems, values::interval_or_off).flatten(),
        None => Some(RELOAD_INTERVAL),
    };
    let hardening = hardening(&mut map, problems);
    map.finish(problems);
    if egress.is_none() && ingress.is_none() {
        problems.add(format!(
            "{source}: the sections egress and ingress are both missing; one is needed"
        ));
    }
    Config {
        source: source.to_owned(),
        keys,
        egress: egress.flatten(),
        ingress: ingress.flatten(),
        admin: admin.flatten(),
        extra_roots,
        ca: ca.unwrap_or_default(),
        upstream,
        limits,
        drain,
        reload_interval,
        hardening,
    }
}

fn admin_section(mut section: Map, problems: &mut Problems) -> Option<admin::Config> {
    let listen = listen(&mut section, ADMIN, problems);
    section.finish(problems);
    Some(admin::Config { listen: listen? })
}

/// The `listen` key of a section.
fn listen(section: &mut Map, default: &str, problems: &mut Problems) -> Option<Place> {
    match section.take("listen") {
        Some(node) => node.parse_with(problems, values::place),
        None => default.parse().ok(),
    }
}

/// One address or several.
fn listens(node: document::Node, problems: &mut Problems) -> Vec<Place> {
    let nodes = if node.is_list() {
        let place = node.place.clone();
        let nodes = node.list(problems);
        if nodes.is_empty() {
            problems.add(format!("{place}: at least one address is needed"));
        }
        nodes
    } else {
        vec![node]
    };
    let mut found = Vec::new();
    for node in nodes {
        match node.parse_with(problems, values::place) {
            Some(place) if place.port() != 0 && found.contains(&place) => {
                node.problem(format!("{place} is given twice"), problems);
            }
            place => found.extend(place),
        }
    }
    found
}

fn upstream_tls(mut section: Map, folder: &Path, problems: &mut Problems) -> Option<PathBuf> {
    let file = section
        .take("ca_file")
        .and_then(|node| path(&node, folder, problems));
    section.finish(problems);
    file
}

/// A file name, relative to the configuration's folder.
fn path(node: &document::Node, folder: &Path, problems: &mut Problems) -> Option<PathBuf> {
    node.text(problems).map(|text| folder.join(text))
}

fn limits(map: &mut Map, problems: &mut Problems) -> Limits {
    let mut limits = Limits::default();
    if let Some(mut section) = map.take("limits").and_then(|node| node.map(problems)) {
        if let Some(node) = section.take("connections") {
            let found = node.parse_with(problems, values::count);
            let most = found.and_then(|count| u32::try_from(count).ok());
            limits.connections = most.unwrap_or(limits.connections);
            limits.tunnels = (limits.connections.saturating_mul(3) / 4).max(1);
        }
        if let Some(node) = section.take("tunnels") {
            let found = node.parse_with(problems, values::count);
            let most = found.and_then(|count| u32::try_from(count).ok());
            limits.tunnels = most.unwrap_or(limits.tunnels);
            if limits.tunnels > limits.connections {
                node.problem("is more than limits.connections", problems);
            }
        }
        section.set("exchanges", &mut limits.exchanges, values::count, problems);
        section.set("buffered", &mut limits.buffered, values::size, problems);
        section.finish(problems);
    }
    limits
}

fn drain_section(map: &mut Map, problems: &mut Problems) -> drain::Config {
    let mut config = drain::Config::default();
    if let Some(mut section) = map.take("drain").and_then(|node| node.map(problems)) {
        section.set(
            "grace",
            &mut config.grace,
            values::duration_or_zero,
            problems,
        );
        section.set("deadline", &mut config.deadline, values::duration, problems);
        if config.grace > config.deadline {
            problems.add(format!(
                "{}: grace is longer than deadline",
                section.place()
            ));
        }
        section.finish(problems);
    }
    config
}

fn hardening(map: &mut Map, problems: &mut Problems) -> Hardening {
    let mut config = Hardening::default();
    if let Some(mut section) = map.take("hardening").and_then(|node| node.map(problems)) {
        section.set(
            "landlock",
            &mut config.landlock,
            values::auto_or_off,
            problems,
        );
        section.finish(problems);
    }
    config
}
