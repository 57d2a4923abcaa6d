//! Which objects hold pods, where in them, and what is said about each.
//!
//! What Kubernetes itself runs is known: `Pod`, `Deployment` and their like, and lists of them. Everything else passes, and
//! is told only if it seems to ask for the sidecar.

use std::fmt::Display;

use serde_json::Value;

use super::super::annotations::{Name, PREFIX, STATUS};
use super::super::defaults::Defaults;
use super::super::patch::{at_mut, members, text};
use super::super::{Outcome, inject};

const TEMPLATE: &[&str] = &["spec", "template"];

/// Where in an object of this kind its pod is.
fn path(api_version: &str, kind: &str) -> Option<&'static [&'static str]> {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    match (group, kind) {
        ("", "Pod") => Some(&[]),
        ("", "ReplicationController")
        | ("apps" | "extensions", "Deployment" | "DaemonSet" | "ReplicaSet")
        | ("apps", "StatefulSet")
        | ("batch", "Job") => Some(TEMPLATE),
        ("batch", "CronJob") => Some(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}

/// Whether such an object may hold a pod.
pub(super) fn is_known(api_version: &str, kind: &str) -> bool {
    is_list(api_version, kind) || path(api_version, kind).is_some()
}

fn is_list(api_version: &str, kind: &str) -> bool {
    (api_version, kind) == ("v1", "List")
}

/// What is to be said in the end.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) notes: Vec<String>,
    pub(super) problems: Vec<String>,
}

/// A look at one document.
#[derive(Debug)]
pub(super) struct Visit<'a> {
    pub(super) file: &'a str,
    pub(super) line: usize,
    pub(super) defaults: &'a Defaults,
    pub(super) report: &'a mut Report,
}

impl Visit<'_> {
    /// Adds the sidecar wherever it is asked for; nothing if the document stays as it is.
    pub(super) fn document(mut self, mut object: Value) -> Option<Value> {
        self.object(&mut object).then_some(object)
    }

    /// The same in place; says whether anything changed.
    fn object(&mut self, object: &mut Value) -> bool {
        let word = |name| text(object, &[name]).unwrap_or_default().to_owned();
        let (api_version, kind) = (word("apiVersion"), word("kind"));
        if is_list(&api_version, &kind) {
            let items = object.get_mut("items").and_then(Value::as_array_mut);
            let mut changed = false;
            for item in items.into_iter().flatten() {
                changed |= self.object(item);
            }
            return changed;
        }
        let called = called(object, &kind);
        let Some(path) = path(&api_version, &kind) else {
            self.pass(&called, &object.to_string());
            return false;
        };
        let asks = asks(object);
        let Some(pod) = at_mut(object, path) else {
            let path = path.join(".");
            self.note(&called, format_args!("nothing is added: it has no {path}"));
            return false;
        };
        if asks && !decides(pod) {
            let (name, path) = (inject_name(), path.join("."));
            self.refuse(
                &called,
                &format!("{name} stands on the {kind} itself; it belongs into {path}.metadata.annotations"),
            );
            return false;
        }
        self.pod(&called, pod)
    }

    fn pod(&mut self, called: &str, pod: &mut Value) -> bool {
        match inject(pod, self.defaults) {
            Outcome::Injected {
                pod: injected,
                warnings,
                ..
            } => {
                for warning in warnings {
                    self.note(called, format_args!("warning: {warning}"));
                }
                *pod = injected;
                return true;
            }
            Outcome::Unasked(reason) => {
                self.note(called, format_args!("nothing is added: {reason}"));
            }
            Outcome::Refused(reasons) => {
                for reason in reasons {
                    self.refuse(called, &reason);
                }
            }
        }
        false
    }

    /// Says of what passes that it seems to ask for what it does not get.
    pub(super) fn pass(&mut self, called: &str, whole: &str) {
        let name = inject_name();
        // Not of `countersign.dev/injection`, the label of namespaces.
        let is_whole = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_alphanumeric());
        if whole.split(&name).skip(1).any(is_whole) {
            let why = "nothing is added: what pods it makes is not known here; the injector in the cluster sees them";
            self.note(called, why);
        }
    }

    fn note(&mut self, called: &str, what: impl Display) {
        self.report.notes.push(format!("{called}: {what}"));
    }

    fn refuse(&mut self, called: &str, reason: &str) {
        let Self { file, line, .. } = self;
        let problem = format!("{file}:{line}: {called}: {reason}");
        self.report.problems.push(problem);
    }
}

/// Whether an object asks for the sidecar, or decides about it, by its own annotations.
fn asks(object: &Value) -> bool {
    text(object, &["metadata", "annotations", &inject_name()]) == Some("enabled")
}

fn decides(pod: &Value) -> bool {
    let mut annotations = members(pod, &["metadata", "annotations"]);
    annotations.any(|(name, _)| *name == inject_name() || *name == format!("{PREFIX}{STATUS}"))
}

fn inject_name() -> String {
    format!("{PREFIX}{}", Name::Inject.as_str())
}

/// `Deployment shop/app`.
fn called(object: &Value, kind: &str) -> String {
    let part = |name| text(object, &["metadata", name]);
    let name = part("name")
        .or_else(|| part("generateName"))
        .unwrap_or("without a name");
    match part("namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}
