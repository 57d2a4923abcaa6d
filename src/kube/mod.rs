//! What Kubernetes runs beside an app: the sidecar, patched into pods by their annotations.
//!
//! [`inject`] is the whole of it, for `countersign inject` and the admission webhook alike: it looks at a pod and says what
//! it would be with the sidecar, or why it stays as it is. It never asks the cluster, and never changes half of a
//! pod: whatever is wrong with it or its annotations leaves it alone. Of the files, `annotations` is the table of
//! what can be said, `settings` what one pod says, `form` and `obstacles` what is in the way, `sidecar` and `environment` what
//! is added, `patch` how. `manifest` and `yaml` serve the command; `webhook`, `review`, `request`, `bounded`,
//! `serving` and `cluster` the injector.

mod annotations;
mod bounded;
pub mod cluster;
mod defaults;
mod environment;
mod form;
pub mod manifest;
mod obstacles;
mod patch;
mod request;
mod review;
pub mod serving;
mod settings;
mod sidecar;
mod values;
pub mod webhook;
mod yaml;

use serde_json::{Value, json};

pub use annotations::{Annotation, Name, PREFIX, TABLE};
use annotations::{Layers, STATUS, Texts};
pub use defaults::Defaults;
use environment::Environment;
use obstacles::{LOOPBACK, PORT_START};
use patch::{Patch, items, member, members, text};
use settings::{Settings, Way};
use values::Kind;

use crate::telemetry::quiet;

/// So many problems of annotations are told.
const MOST: usize = 100;
/// The annotation by which kubectl knows the container that is meant.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// What became of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It gets the sidecar.
    Injected {
        /// The pod with the sidecar.
        pod: Value,
        /// A JSON patch (RFC 6902) that makes it of the pod that was given.
        patch: Value,
        /// What is allowed but may surprise, one line each.
        warnings: Vec<String>,
    },
    /// It is left alone, and nobody asked for more; with the reason.
    Unasked(String),
    /// It was asked for and cannot be done safely, so the pod stays as it is; every reason, one line each.
    Refused(Vec<String>),
}

/// Adds the sidecar to a pod, or to the template of one: a mapping with `metadata` and `spec`.
///
/// A pod that has it already is left alone, so doing it twice changes nothing.
pub fn inject(pod: &Value, defaults: &Defaults) -> Outcome {
    match decide(pod, defaults) {
        Outcome::Injected {
            pod,
            patch,
            warnings,
        } => Outcome::Injected {
            pod,
            patch,
            warnings: all_quiet(&warnings),
        },
        Outcome::Unasked(reason) => Outcome::Unasked(quiet(&reason)),
        Outcome::Refused(reasons) => Outcome::Refused(all_quiet(&reasons)),
    }
}

fn decide(pod: &Value, defaults: &Defaults) -> Outcome {
    let malformed = form::malformed(pod);
    let said = match Said::read(pod) {
        Ok(said) => said,
        Err(problems) => return Outcome::Refused(problems),
    };
    if said.is_injected && !said.is_disabled() && !obstacles::has_sidecar(pod) {
        return Outcome::Refused(vec![format!(
            "annotation {PREFIX}{STATUS}: says that the pod has the sidecar, but it has no container \
             \"{}\"; take the annotation out",
            sidecar::CONTAINER
        )]);
    }
    let layers = Layers {
        pod: &said.texts,
        defaults: &defaults.texts,
    };
    if let Some(reason) = said.unasked(pod, &layers) {
        return Outcome::Unasked(reason);
    }
    if !malformed.is_empty() {
        return Outcome::Refused(malformed);
    }
    let settings = match Settings::new(&layers) {
        Ok(settings) => settings,
        Err(problems) => return Outcome::Refused(problems),
    };
    let found = obstacles::find(pod, &settings);
    if !found.problems.is_empty() {
        return Outcome::Refused(found.problems);
    }
    let mut warnings = found.warnings;
    let (pod, patch) = patched(pod, &settings, &mut warnings);
    Outcome::Injected {
        pod,
        patch,
        warnings,
    }
}

/// Lines that quote what strangers wrote.
fn all_quiet(lines: &[String]) -> Vec<String> {
    lines.iter().map(|line| quiet(line)).collect()
}

/// What the annotations of a pod say.
#[derive(Debug, Default)]
struct Said {
    texts: Texts,
    is_injected: bool,
}

impl Said {
    fn read(pod: &Value) -> Result<Self, Vec<String>> {
        let annotations = ["metadata", "annotations"];
        if member(pod, &annotations).is_some_and(|all| !all.is_object()) {
            return Err(vec!["metadata.annotations: is no mapping".to_owned()]);
        }
        let mut said = Self::default();
        let mut problems = Vec::new();
        for (name, value) in members(pod, &annotations) {
            let Some(short) = name.strip_prefix(PREFIX) else {
                continue;
            };
            if short == STATUS {
                said.is_injected = true;
                continue;
            }
            let taken = match value {
                Value::String(value) => annotations::take(&mut said.texts, short, value),
                other => Err(format!("{other} is no text; put it between quotes")),
            };
            // The rest of a hundred would help nobody.
            if let Err(problem) = taken
                && problems.len() < MOST
            {
                problems.push(format!("annotation {name}: {problem}"));
            }
        }
        // What was injected was good, perhaps by other rules than these.
        if said.is_injected || problems.is_empty() {
            Ok(said)
        } else {
            Err(problems)
        }
    }

    fn is_disabled(&self) -> bool {
        self.texts
            .get(&Name::Inject)
            .is_some_and(|inject| inject == "disabled")
    }

    /// Why the pod does not get the sidecar, if nobody asks for it.
    fn unasked(&self, pod: &Value, layers: &Layers<'_>) -> Option<String> {
        if self.is_injected && !self.is_disabled() {
            return Some("it has the sidecar already".to_owned());
        }
        if layers.value(Name::Inject) == Some("enabled") {
            return None;
        }
        let needed = format!("{PREFIX}inject: enabled");
        let labels = members(pod, &["metadata", "labels"]);
        let label = labels
            .map(|(name, _)| name)
            .find(|name| name.starts_with(PREFIX));
        Some(if self.texts.contains_key(&Name::Inject) {
            format!("the annotation {PREFIX}inject is disabled")
        } else if let Some(label) = label {
            format!("{label} is a label; what counts is the annotation {needed}")
        } else if let Some(name) = self.texts.keys().next() {
            let name = name.as_str();
            format!("it has {PREFIX}{name}, but not the annotation {needed}")
        } else {
            format!("it does not have the annotation {needed}")
        })
    }
}

/// The pod with everything, and the patch that makes it.
fn patched(pod: &Value, settings: &Settings, warnings: &mut Vec<String>) -> (Value, Value) {
    let mut patch = Patch::new(pod);
    // The app's containers first: their places count from the front.
    let environment = Environment::new(settings);
    warnings.extend(environment.warnings().iter().cloned());
    for (list, index, container) in chosen(pod, settings) {
        let index = index.to_string();
        let path = ["spec", list, index.as_str()];
        if settings.trust {
            let mounts = ["spec", list, index.as_str(), "volumeMounts"];
            patch.append(&mounts, sidecar::trust_mount());
        }
        warnings.extend(environment.put(container, &path, &mut patch));
    }
    lead(pod, settings, &mut patch);
    for volume in settings.volumes() {
        patch.append(&["spec", "volumes"], volume);
    }
    place(settings, &mut patch);
    let annotation = |patch: &mut Patch, name: &str, value: &str| {
        patch.set(&["metadata", "annotations", name], json!(value));
    };
    let has_default = member(pod, &["metadata", "annotations", DEFAULT_CONTAINER]).is_some();
    let first = items(pod, &["spec", "containers"]).first();
    if let Some(first) = first.and_then(|first| text(first, &["name"]))
        && settings.kind == Kind::Classic
        && !has_default
    {
        annotation(&mut patch, DEFAULT_CONTAINER, first);
    }
    annotation(&mut patch, &format!("{PREFIX}{STATUS}"), "injected");
    patch.finish()
}

/// The app's containers that get variables: all of the usual ones, or those that were named.
fn chosen<'a>(
    pod: &'a Value,
    settings: &'a Settings,
) -> impl Iterator<Item = (&'static str, usize, &'a Value)> {
    let of = |list| {
        let all = items(pod, &["spec", list]).iter().enumerate();
        all.map(move |(index, container)| (list, index, container))
    };
    let is_chosen = |list: &str, container: &Value| match &settings.containers {
        None => list == "containers",
        Some(names) => names
            .iter()
            .any(|name| text(container, &["name"]) == Some(name)),
    };
    let all = of("initContainers").chain(of("containers"));
    all.filter(move |(list, _, container)| is_chosen(list, container))
}

/// What leads the app's calls to the sidecar beside its variables.
fn lead(pod: &Value, settings: &Settings, patch: &mut Patch) {
    let Way::HostAliases(hosts) = &settings.way_in else {
        return;
    };
    let path = ["spec", "hostAliases"];
    // The API knows an alias by its address, so there must be one for each.
    let mut aliases = items(pod, &path).iter().enumerate();
    let own = aliases.find(|(_, alias)| text(alias, &["ip"]) == Some(LOOPBACK));
    let known = own.map_or(&[] as &[Value], |(_, alias)| items(alias, &["hostnames"]));
    let hosts = hosts.iter().map(crate::upstream::Host::as_str);
    let hosts: Vec<&str> = hosts
        .filter(|host| !known.iter().any(|known| known == host))
        .collect();
    match own {
        None => patch.append(&path, json!({ "ip": LOOPBACK, "hostnames": hosts })),
        Some((index, _)) => {
            let index = index.to_string();
            for host in hosts {
                patch.append(&["spec", "hostAliases", &index, "hostnames"], json!(host));
            }
        }
    }
    if obstacles::sysctl(pod).is_none() {
        let sysctl = json!({ "name": PORT_START, "value": "0" });
        patch.append(&["spec", "securityContext", "sysctls"], sysctl);
    }
}

/// Puts the containers where they start in the right order.
fn place(settings: &Settings, patch: &mut Patch) {
    let init = ["spec", "initContainers"];
    match settings.kind {
        Kind::Native => {
            // The sidecar before the app's own init containers, and the rules before the sidecar.
            patch.prepend(&init, settings.container());
            if let Some(redirect) = settings.redirect_container() {
                patch.prepend(&init, redirect);
            }
        }
        Kind::Classic => {
            // Init containers run before the sidecar: with rules they would reach nobody.
            if let Some(redirect) = settings.redirect_container() {
                patch.append(&init, redirect);
            }
            patch.prepend(&["spec", "containers"], settings.container());
        }
    }
}
