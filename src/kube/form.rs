//! The form of a pod that everything else here relies on.
//!
//! Only lists and mappings that are looked into, and how many there may be; what Kubernetes refuses by itself is left to
//! it. Called before anything else is asked of a pod.

use serde_json::Value;

use super::patch::{items, member, text};

/// A node runs some hundred; each gets variables, which a webhook for strangers must not multiply without end.
const CONTAINERS: usize = 100;
/// The longest name of a container that Kubernetes takes.
const LONGEST_NAME: usize = 63;
const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Whether a pod has the form that everything else relies on.
pub(super) fn malformed(pod: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let mut demand = |holds: bool, what: &str| {
        if !holds {
            problems.push(what.to_owned());
        }
    };
    for (path, is_right, what) in FORM {
        demand(member(pod, path).is_none_or(is_right), what);
    }
    demand(
        !items(pod, &["spec", "containers"]).is_empty(),
        "spec.containers: is missing or empty; a pod has at least one container",
    );
    let count = containers(pod).count();
    demand(
        count <= CONTAINERS,
        &format!(
            "spec: has {count} containers; the sidecar is added to pods of at most {CONTAINERS}"
        ),
    );
    for (list, container) in containers(pod).take(CONTAINERS) {
        demand(
            text(container, &["name"]).is_some(),
            &format!("spec.{list}: a container has no name"),
        );
        demand(
            name(container).len() <= LONGEST_NAME,
            &format!(
                "spec.{list}: the name of a container has more than {LONGEST_NAME} characters"
            ),
        );
        for name in ["env", "envFrom", "ports", "volumeMounts"] {
            demand(
                member(container, &[name]).is_none_or(Value::is_array),
                &format!("spec.{list}: {name} of a container is no list"),
            );
        }
    }
    problems
}

type Form = (&'static [&'static str], fn(&Value) -> bool, &'static str);

const FORM: [Form; 8] = [
    (&["metadata"], Value::is_object, "metadata: is no mapping"),
    (&["spec"], Value::is_object, "spec: is no mapping"),
    (
        &["spec", "containers"],
        Value::is_array,
        "spec.containers: is no list",
    ),
    (
        &["spec", "initContainers"],
        Value::is_array,
        "spec.initContainers: is no list",
    ),
    (
        &["spec", "volumes"],
        Value::is_array,
        "spec.volumes: is no list",
    ),
    (
        &["spec", "hostAliases"],
        Value::is_array,
        "spec.hostAliases: is no list",
    ),
    (
        &["spec", "securityContext"],
        Value::is_object,
        "spec.securityContext: is no mapping",
    ),
    (
        &["spec", "securityContext", "sysctls"],
        Value::is_array,
        "spec.securityContext.sysctls: is no list",
    ),
];

/// All containers, with the list they stand in.
pub(super) fn containers(pod: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    let list = |name| {
        items(pod, &["spec", name])
            .iter()
            .map(move |one| (name, one))
    };
    CONTAINER_LISTS.into_iter().flat_map(list)
}

pub(super) fn name(container: &Value) -> &str {
    text(container, &["name"]).unwrap_or_default()
}
