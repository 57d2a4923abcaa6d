//! The variables by which the app's containers trust the local CA and find the sidecar.
//!
//! What a container sets itself stays and is told as a warning, except Java's options, to which ours are added. Never
//! looks into `ConfigMaps` and Secrets: what a container takes from one by `envFrom` gives way to these variables.

use std::path::Path;

use serde_json::{Value, json};

use super::patch::{Patch, items, text};
use super::settings::{Settings, Way};
use super::sidecar::TRUST;
use super::values::Past;
use crate::ca::trust::{self, JAVA};

/// What never goes through the sidecar; the last is the API server's address, which Kubernetes puts in.
const PAST: [&str; 7] = [
    "localhost",
    "127.0.0.1",
    "::1",
    ".svc",
    ".cluster.local",
    "kubernetes.default",
    "$(KUBERNETES_SERVICE_HOST)",
];
/// Java 8 ignores longer options without a word.
const JAVA_LIMIT: usize = 1023;

/// Variables for the app's containers.
#[derive(Debug)]
pub(super) struct Environment {
    /// Of each group, all or none is set, as clients look at one or the other.
    groups: Vec<Group>,
    java: Vec<JavaOptions>,
    warnings: Vec<String>,
}

#[derive(Debug)]
struct Group {
    variables: Vec<(&'static str, String)>,
    /// What may happen where the container has set one itself.
    else_: &'static str,
}

/// Options of one purpose.
#[derive(Debug)]
struct JavaOptions {
    text: String,
    /// Who sets one of these has decided for itself.
    signs: &'static [&'static str],
    else_: &'static str,
}

const UNTRUSTED: &str = "may not trust the local CA";
const UNLED: &str = "may call past the sidecar, unsigned";

impl Environment {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut environment = Self {
            groups: Vec::new(),
            java: Vec::new(),
            warnings: Vec::new(),
        };
        if settings.trust {
            environment.trust();
        }
        if let Way::Env(past) = &settings.way_in {
            environment.proxy(settings.egress_port, past);
        }
        environment
    }

    fn trust(&mut self) {
        for variable in trust::variables(Path::new(TRUST)) {
            if variable.name == JAVA {
                self.java.push(JavaOptions {
                    text: variable.value,
                    signs: &["-Djavax.net.ssl.trustStore"],
                    else_: UNTRUSTED,
                });
            } else {
                self.groups.push(Group {
                    variables: vec![(variable.name, variable.value)],
                    else_: UNTRUSTED,
                });
            }
        }
    }

    fn proxy(&mut self, port: u16, past: &[Past]) {
        let url = format!("http://127.0.0.1:{port}");
        let own = past.iter().map(|past| match past {
            Past::Name(name) => name.clone(),
            Past::Network(network) => network.to_string(),
        });
        let all: Vec<String> = PAST.iter().map(ToString::to_string).chain(own).collect();
        let all = all.join(",");
        for (names, value, else_) in [
            (["HTTP_PROXY", "http_proxy"], &url, UNLED),
            (["HTTPS_PROXY", "https_proxy"], &url, UNLED),
            (
                ["NO_PROXY", "no_proxy"],
                &all,
                "may call itself and the cluster through the sidecar, or the gateway past it",
            ),
        ] {
            let variables = names.map(|name| (name, value.clone())).to_vec();
            self.groups.push(Group { variables, else_ });
        }
        let past = self.java_past(past);
        self.java.push(JavaOptions {
            text: format!(
                "-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort={port} -Dhttps.proxyHost=127.0.0.1 \
                 -Dhttps.proxyPort={port} -Dhttp.nonProxyHosts={past}"
            ),
            signs: &["-Dhttp.proxyHost", "-Dhttps.proxyHost"],
            else_: UNLED,
        });
    }

    /// The same hosts in Java's words, which know no networks but those that end at a dot.
    fn java_past(&mut self, past: &[Past]) -> String {
        let fixed = "localhost|127.*|[::1]|*.svc|*.cluster.local|kubernetes.default";
        let mut words = vec![fixed.to_owned()];
        for one in past {
            match one {
                Past::Name(name) => match name.strip_prefix('.') {
                    Some(name) => words.push(format!("*.{name}")),
                    None => words.push(format!("{name}|*.{name}")),
                },
                Past::Network(network) => match java_network(network) {
                    Some(word) => words.push(word),
                    None => self.warnings.push(format!(
                        "no-proxy: {network} cannot be left out for Java, which knows addresses \
                         and networks of /8, /16 and /24"
                    )),
                },
            }
        }
        words.join("|")
    }

    /// Whether there is anything to set.
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.java.is_empty()
    }

    /// What is to be known whatever the containers are.
    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Sets the variables of the container at a path; returns what is to be known of it.
    pub(super) fn put(&self, container: &Value, path: &[&str], patch: &mut Patch) -> Vec<String> {
        let name = text(container, &["name"]).unwrap_or_default();
        let mut warnings = Vec::new();
        let path: Vec<&str> = path.iter().copied().chain(["env"]).collect();
        for group in &self.groups {
            let own = group.variables.iter().find(|(variable, value)| {
                find(container, variable)
                    .is_some_and(|(_, own)| text(own, &["value"]) != Some(value))
            });
            if let Some((variable, _)) = own {
                let else_ = group.else_;
                warnings.push(format!(
                    "container {name}: sets {variable} itself, so it {else_}"
                ));
                continue;
            }
            for (variable, value) in &group.variables {
                if find(container, variable).is_none() {
                    patch.append(&path, json!({ "name": variable, "value": value }));
                }
            }
        }
        warnings.extend(self.put_java(container, name, &path, patch));
        if !items(container, &["envFrom"]).is_empty() && !self.is_empty() {
            warnings.push(format!(
                "container {name}: takes variables by envFrom, which is not looked into; where they \
                 have the names of the sidecar's, the sidecar's count"
            ));
        }
        warnings
    }

    fn put_java(
        &self,
        container: &Value,
        name: &str,
        path: &[&str],
        patch: &mut Patch,
    ) -> Vec<String> {
        let mut warnings = Vec::new();
        let own = find(container, JAVA);
        let before = match own {
            None => "",
            Some((_, own)) if own.get("valueFrom").is_none_or(Value::is_null) => {
                text(own, &["value"]).unwrap_or_default()
            }
            Some(_) if self.java.is_empty() => return warnings,
            Some(_) => {
                let else_ = self.java.iter().map(|options| options.else_);
                let else_ = else_.collect::<Vec<_>>().join(" and ");
                return vec![format!(
                    "container {name}: takes {JAVA} from elsewhere, so nothing is added to it; a Java \
                     app {else_}"
                )];
            }
        };
        let mut words: Vec<&str> = vec![before];
        for options in &self.java {
            if let Some(sign) = options.signs.iter().find(|sign| before.contains(**sign)) {
                let else_ = options.else_;
                warnings.push(format!(
                    "container {name}: sets {sign} in {JAVA} itself, so it {else_}"
                ));
            } else {
                words.push(&options.text);
            }
        }
        words.retain(|word| !word.is_empty());
        let value = words.join(" ");
        if value.len() > JAVA_LIMIT {
            warnings.push(format!(
                "container {name}: {JAVA} is longer than {JAVA_LIMIT} characters, which Java 8 ignores"
            ));
        }
        if value == before {
            return warnings;
        }
        match own {
            Some((index, _)) => {
                let index = index.to_string();
                let end = [index.as_str(), "value"];
                let path: Vec<&str> = path.iter().copied().chain(end).collect();
                patch.set(&path, json!(value));
            }
            None => patch.append(path, json!({ "name": JAVA, "value": value })),
        }
        warnings
    }
}

/// A variable of a container, and where: of several the last, which counts.
fn find<'a>(container: &'a Value, name: &str) -> Option<(usize, &'a Value)> {
    let variables = items(container, &["env"]).iter().enumerate();
    variables
        .rev()
        .find(|(_, variable)| text(variable, &["name"]) == Some(name))
}

/// A network as a beginning and a star, or an address alone.
fn java_network(network: &ipnet::IpNet) -> Option<String> {
    let address = network.network().to_string();
    if network.prefix_len() == network.max_prefix_len() {
        return Some(if network.addr().is_ipv6() {
            format!("[{address}]")
        } else {
            address
        });
    }
    let whole = match (network, network.prefix_len()) {
        (ipnet::IpNet::V4(_), length @ (8 | 16 | 24)) => usize::from(length / 8),
        _ => return None,
    };
    let parts: Vec<&str> = address.split('.').take(whole).collect();
    Some(format!("{}.*", parts.join(".")))
}
