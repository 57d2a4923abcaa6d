//! What in a pod makes it impossible or unsafe to add the sidecar.
//!
//! Everything is found in one go, each named by where it stands and what would be right. What only may go wrong is a
//! warning. What is in an image, a `ConfigMap` or the cluster cannot be seen from here.

use serde_json::Value;

use super::form::{containers, name};
use super::patch::{items, member, members, text};
use super::settings::{Settings, Way};
use super::sidecar::{
    CA_VOLUME, CONFIG_VOLUME, CONTAINER, KEYS_VOLUME, REDIRECT, TRUST, TRUST_VOLUME,
};
use super::values::Kind;

/// The kernel's setting by which everybody may listen on port 80 and 443.
pub(super) const PORT_START: &str = "net.ipv4.ip_unprivileged_port_start";
/// The first port that everybody must be allowed to listen on for `hostAliases`.
const LOWEST: u16 = 80;

const VOLUMES: [&str; 4] = [KEYS_VOLUME, CONFIG_VOLUME, CA_VOLUME, TRUST_VOLUME];
/// Where the kubelet puts `hostAliases`, unless the container mounts something there.
const HOSTS: &str = "/etc/hosts";

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Why it cannot be done.
    pub(super) problems: Vec<String>,
    /// What may go wrong.
    pub(super) warnings: Vec<String>,
}

/// Everything in the way of these settings.
pub(super) fn find(pod: &Value, settings: &Settings) -> Found {
    let mut found = Found::default();
    found.host(pod);
    found.names(pod);
    found.ports(pod, &settings.ports());
    found.mounts(pod, settings);
    found.chosen(pod, settings);
    found.users(pod, settings);
    match &settings.way_in {
        Way::HostAliases(hosts) => {
            let hosts: Vec<&str> = hosts.iter().map(crate::upstream::Host::as_str).collect();
            found.aliases(pod, &hosts);
            found.port_start(pod);
        }
        Way::Redirect { ports, .. } => {
            found.rule_breakers(pod);
            if !ports.contains(&443) {
                found.warn(
                    "annotation countersign.dev/redirect-ports: is without 443, so calls to the gateway go past the \
                     sidecar, unsigned; add 443",
                );
            }
        }
        Way::None | Way::Env(_) => {}
    }
    found.end(pod, settings);
    found
}

/// Whether a pod has what its annotation says it has.
pub(super) fn has_sidecar(pod: &Value) -> bool {
    containers(pod).any(|(_, container)| name(container) == CONTAINER)
}

fn is_true(value: &Value, path: &[&str]) -> bool {
    member(value, path).and_then(Value::as_bool) == Some(true)
}

impl Found {
    fn problem(&mut self, what: impl Into<String>) {
        self.problems.push(what.into());
    }

    fn warn(&mut self, what: impl Into<String>) {
        self.warnings.push(what.into());
    }

    fn host(&mut self, pod: &Value) {
        if is_true(pod, &["spec", "hostNetwork"]) {
            self.problem(
                "spec.hostNetwork: the pod uses the node's network, where the sidecar's ports would be \
                 open to others and rules would hold for the whole node; it must be false",
            );
        }
        if is_windows(pod) {
            self.problem("the pod is for Windows; the sidecar is a program for Linux");
        }
    }

    fn names(&mut self, pod: &Value) {
        for (list, container) in containers(pod) {
            if [CONTAINER, REDIRECT].contains(&name(container)) {
                let name = name(container);
                self.problem(format!(
                    "spec.{list}: has a container \"{name}\" already; take it out or rename it"
                ));
            }
        }
        for volume in items(pod, &["spec", "volumes"]) {
            let name = name(volume);
            if VOLUMES.contains(&name) {
                self.problem(format!(
                    "spec.volumes: has a volume \"{name}\" already; take it out or rename it"
                ));
            }
        }
    }

    /// All containers of a pod share its ports.
    fn ports(&mut self, pod: &Value, ours: &[u16]) {
        for (list, container) in containers(pod) {
            for port in items(container, &["ports"]) {
                let is_tcp = text(port, &["protocol"]).is_none_or(|protocol| protocol == "TCP");
                let number = member(port, &["containerPort"]).and_then(Value::as_u64);
                let number = number.and_then(|port| u16::try_from(port).ok());
                if let Some(port) = number.filter(|port| is_tcp && ours.contains(port)) {
                    let name = name(container);
                    let way = if matches!(port, 80 | 443) {
                        "way-in: hostAliases needs it; take another way in"
                    } else {
                        "the sidecar needs it; give the sidecar another by egress-port, ingress-port or admin-port"
                    };
                    self.problem(format!(
                        "spec.{list}: container \"{name}\" has port {port}, and {way}"
                    ));
                }
            }
        }
    }

    fn mounts(&mut self, pod: &Value, settings: &Settings) {
        let inside = |outer: &str, inner: &str| {
            let rest = inner.strip_prefix(outer.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let aliases = matches!(settings.way_in, Way::HostAliases(_));
        for (list, container) in containers(pod) {
            let of = name(container);
            for mount in items(container, &["volumeMounts"]) {
                let (volume, path) = (name(mount), text(mount, &["mountPath"]).unwrap_or_default());
                // Before the sidecar is added there is no such volume, and nobody else has complained.
                if VOLUMES.contains(&volume) {
                    self.problem(format!(
                        "spec.{list}: container \"{of}\" mounts the volume \"{volume}\", which is the sidecar's \
                         alone; take the mount out"
                    ));
                }
                if aliases && path == HOSTS {
                    self.problem(format!(
                        "spec.{list}: container \"{of}\" mounts {HOSTS} itself, so its calls would go past the \
                         sidecar, unsigned; take the mount out, or another way in"
                    ));
                }
                // What is mounted above is fine: the kubelet mounts the outer one first.
                if settings.trust && inside(TRUST, path) {
                    self.problem(format!(
                        "spec.{list}: container \"{of}\" mounts {path}, where the trust files go; \
                         mount it elsewhere, or set trust: disabled"
                    ));
                }
            }
        }
    }

    /// Whether the containers that were named are there.
    fn chosen(&mut self, pod: &Value, settings: &Settings) {
        let of = |list| {
            items(pod, &["spec", list])
                .iter()
                .map(name)
                .collect::<Vec<_>>()
        };
        let (usual, init) = (of("containers"), of("initContainers"));
        for chosen in settings.containers.iter().flatten() {
            let is_init = init.contains(&chosen.as_str());
            if is_init && settings.kind == Kind::Classic {
                self.problem(format!(
                    "annotation countersign.dev/containers: \"{chosen}\" is an init container, which runs \
                     before a classic sidecar; take sidecar: native"
                ));
            } else if !is_init && !usual.contains(&chosen.as_str()) {
                let known = usual.join(", ");
                self.problem(format!(
                    "annotation countersign.dev/containers: there is no container \"{chosen}\"; there are {known}"
                ));
            }
        }
    }

    /// Who has the sidecar's user may be taken for it, and where processes are shared read its memory.
    fn users(&mut self, pod: &Value, settings: &Settings) {
        let redirected = matches!(settings.way_in, Way::Redirect { .. });
        let host = is_true(pod, &["spec", "hostPID"]);
        let shared = host || is_true(pod, &["spec", "shareProcessNamespace"]);
        let field = if host {
            "hostPID"
        } else {
            "shareProcessNamespace"
        };
        let ours = u64::from(settings.user);
        for (list, container) in containers(pod) {
            let user = |value, path: &[&str]| member(value, path).and_then(Value::as_u64);
            let own = user(container, &["securityContext", "runAsUser"]);
            let user = own.or_else(|| user(pod, &["spec", "securityContext", "runAsUser"]));
            let name = name(container);
            if user == Some(ours) && redirected {
                self.problem(format!(
                    "spec.{list}: container \"{name}\" runs as user {ours}, which is the sidecar's, so its \
                     calls would go out unsigned; give it another, or the sidecar by run-as-user"
                ));
            }
            if user == Some(ours) && shared {
                self.problem(format!(
                    "spec.{field}: container \"{name}\" runs as the sidecar's user {ours} and could read its \
                     keys; give it another user, or let {field} be false"
                ));
            }
            // A program that starts is open to its user until it has closed itself.
            if shared && user == Some(0) && may_change_user(container) {
                self.problem(format!(
                    "spec.{field}: container \"{name}\" runs as root, so it could become the sidecar's user {ours} \
                     and read its keys when it starts; give it a user, drop SETUID, or let {field} be false"
                ));
            }
            if shared && has_power(container, "SYS_PTRACE") {
                self.problem(format!(
                    "spec.{field}: container \"{name}\" may look into all processes and could read the \
                     sidecar's keys; take privileged or SYS_PTRACE away, or let {field} be false"
                ));
            }
        }
        if shared {
            self.warn(format!(
                "spec.{field}: the app sees the sidecar's processes; only another user than root, and than the sidecar's, \
                 keeps it from its keys"
            ));
        }
    }

    fn aliases(&mut self, pod: &Value, hosts: &[&str]) {
        for alias in items(pod, &["spec", "hostAliases"]) {
            let address = text(alias, &["ip"]).unwrap_or_default();
            for host in items(alias, &["hostnames"])
                .iter()
                .filter_map(Value::as_str)
            {
                if address != LOOPBACK && hosts.contains(&host.to_ascii_lowercase().as_str()) {
                    self.problem(format!(
                        "spec.hostAliases: {host} is {address} already, and should be {LOOPBACK}; take it \
                         out, or name other hosts"
                    ));
                }
            }
        }
    }

    fn port_start(&mut self, pod: &Value) {
        if let Some(value) = sysctl(pod) {
            let start = value.parse::<u16>().ok();
            if start.is_none_or(|start| start > LOWEST) {
                self.problem(format!(
                    "spec.securityContext.sysctls: {PORT_START} is {value}, and way-in: hostAliases needs at \
                     most {LOWEST}"
                ));
            }
        }
    }

    /// Containers that could take the rules away.
    fn rule_breakers(&mut self, pod: &Value) {
        for (_, container) in containers(pod) {
            if has_power(container, "NET_ADMIN") {
                let name = name(container);
                self.warn(format!(
                    "container {name}: is privileged or has NET_ADMIN, so it can take away the rules that \
                     lead its calls to the sidecar"
                ));
            }
        }
    }

    fn end(&mut self, pod: &Value, settings: &Settings) {
        let restart = text(pod, &["spec", "restartPolicy"]).unwrap_or("Always");
        if settings.kind == Kind::Classic && restart != "Always" {
            self.warn(format!(
                "spec.restartPolicy: {restart} means that the pod should end, but a classic sidecar runs on \
                 until it is told: POST /drain to its admin port, or take sidecar: native"
            ));
        }
        let grace = member(pod, &["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_u64);
        if let Some(grace) = grace.filter(|grace| *grace < 30) {
            self.warn(format!(
                "spec.terminationGracePeriodSeconds: {grace} may be too short: the sidecar ends what is under \
                 way within 25s after the app; 30 or more is right"
            ));
        }
    }
}

/// Where the gateway's names lead.
pub(super) const LOOPBACK: &str = "127.0.0.1";

/// The value of [`PORT_START`] in the pod.
pub(super) fn sysctl(pod: &Value) -> Option<&str> {
    let sysctls = items(pod, &["spec", "securityContext", "sysctls"]).iter();
    let mut ours = sysctls.filter(|one| name(one) == PORT_START);
    ours.next()
        .map(|one| text(one, &["value"]).unwrap_or_default())
}

fn has_power(container: &Value, capability: &str) -> bool {
    let added = items(container, &["securityContext", "capabilities", "add"]).iter();
    let mut added = added.filter_map(Value::as_str);
    is_true(container, &["securityContext", "privileged"])
        || added.any(|one| one.trim_start_matches("CAP_") == capability || one == "ALL")
}

/// Whether root in this container may become any other user, as it usually may.
fn may_change_user(container: &Value) -> bool {
    let dropped = items(container, &["securityContext", "capabilities", "drop"]).iter();
    let mut dropped = dropped.filter_map(Value::as_str);
    let is_dropped = dropped.any(|one| matches!(one.trim_start_matches("CAP_"), "SETUID" | "ALL"));
    !is_dropped || has_power(container, "SETUID")
}

/// Whether a pod says that it is for Windows, in one of the ways it can.
fn is_windows(pod: &Value) -> bool {
    let windows = |value: Option<&str>| value == Some("windows");
    let selector = members(pod, &["spec", "nodeSelector"]);
    let mut selected = selector.filter(|(key, _)| key.ends_with("kubernetes.io/os"));
    let terms = items(
        pod,
        &[
            "spec",
            "affinity",
            "nodeAffinity",
            REQUIRED,
            "nodeSelectorTerms",
        ],
    );
    let demands = |term: &Value| {
        items(term, &["matchExpressions"]).iter().any(|one| {
            let values = items(one, &["values"]);
            text(one, &["key"]).is_some_and(|key| key.ends_with("kubernetes.io/os"))
                && text(one, &["operator"]) == Some("In")
                && !values.is_empty()
                && values.iter().all(|value| windows(value.as_str()))
        })
    };
    windows(text(pod, &["spec", "os", "name"]))
        || selected.any(|(_, value)| windows(value.as_str()))
        || !terms.is_empty() && terms.iter().all(demands)
        || member(pod, &["spec", "securityContext", "windowsOptions"]).is_some()
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
