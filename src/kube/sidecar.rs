//! The sidecar as Kubernetes sees it: its container, the one that sets the redirect rules, and their volumes.
//!
//! Both run without any right they do not need. Refuses nothing and reads no pod: settings are checked, and
//! everything here is made of them alone.

use serde_json::{Map, Value, json};

use super::settings::{Flags, Settings, Share, Source, Way};
use super::values::Kind;

/// The sidecar's container.
pub(super) const CONTAINER: &str = "countersign";
/// The init container that sets the redirect rules.
pub(super) const REDIRECT: &str = "countersign-redirect";
pub(super) const KEYS_VOLUME: &str = "countersign-keys";
pub(super) const CONFIG_VOLUME: &str = "countersign-config";
pub(super) const TRUST_VOLUME: &str = "countersign-trust";
pub(super) const CA_VOLUME: &str = "countersign-ca";
/// Where the trust files are, in the sidecar and in the app's containers.
pub(super) const TRUST: &str = "/var/run/countersign/trust";
const KEYS: &str = "/etc/countersign/keys";
const CONFIG: &str = "/etc/countersign/config";
/// Where the local CA is kept for as long as the pod lives: a sidecar that is restarted must not make another, which
/// an app that runs on would not trust.
const CA: &str = "/var/run/countersign/ca";
/// The names of ports; Kubernetes allows 15 characters.
const ADMIN_PORT: &str = "countersign-adm";
const INGRESS_PORT: &str = "countersign-in";
/// A file of a Secret can have no owner but root, and no group without changing the volumes of the whole pod; the
/// sidecar alone mounts it.
const KEY_MODE: u32 = 0o444;

impl Settings {
    /// Whether calls from Alipay+ may be served; a `ConfigMap` nobody here can read may say so.
    pub(super) fn has_ingress(&self) -> bool {
        match &self.source {
            Source::ConfigMap(_) => true,
            Source::Flags(flags) => flags.app.is_some(),
        }
    }

    /// Whether an app may speak TLS with the sidecar.
    fn needs_ca(&self) -> bool {
        self.trust || !matches!(self.way_in, Way::None)
    }

    /// The ports the sidecar listens on, in the pod's network.
    pub(super) fn ports(&self) -> Vec<u16> {
        let mut ports = vec![self.egress_port, self.admin_port];
        if self.has_ingress() {
            ports.push(self.ingress_port);
        }
        if matches!(self.way_in, Way::HostAliases(_)) {
            ports.extend([443, 80]);
        }
        ports
    }

    /// The sidecar's container.
    pub(super) fn container(&self) -> Value {
        let mut container = Map::new();
        let mut set = |name: &str, value| container.insert(name.to_owned(), value);
        set("name", json!(CONTAINER));
        set("image", json!(self.image));
        set("imagePullPolicy", json!(self.pull_policy));
        set("args", json!(self.arguments()));
        if self.kind == Kind::Native {
            set("restartPolicy", json!("Always"));
        }
        set("ports", self.container_ports());
        set("startupProbe", probe("/readyz", 1, 60));
        set("readinessProbe", probe("/readyz", 5, 3));
        set("livenessProbe", probe("/livez", 10, 3));
        if self.kind == Kind::Classic {
            // The kubelet starts the next container behind it.
            let admin = format!("--admin=127.0.0.1:{}", self.admin_port);
            let command = json!(["/countersign", "wait", admin]);
            set(
                "lifecycle",
                json!({ "postStart": { "exec": { "command": command } } }),
            );
        }
        set("resources", self.resources());
        let user = self.user;
        set(
            "securityContext",
            json!({
                "runAsNonRoot": true,
                "runAsUser": user,
                "runAsGroup": user,
                "readOnlyRootFilesystem": true,
                "allowPrivilegeEscalation": false,
                "capabilities": { "drop": ["ALL"] },
                "seccompProfile": { "type": "RuntimeDefault" },
            }),
        );
        set("volumeMounts", self.mounts());
        Value::Object(container)
    }

    /// The init container of redirect mode, if that is the way in.
    pub(super) fn redirect_container(&self) -> Option<Value> {
        let Way::Redirect { ports, exempt } = &self.way_in else {
            return None;
        };
        let mut arguments = vec![
            "redirect".to_owned(),
            "apply".to_owned(),
            format!("--to-port={}", self.egress_port),
            format!("--exempt-uid={}", self.user),
        ];
        arguments.extend(ports.iter().map(|port| format!("--port={port}")));
        arguments.extend(
            exempt
                .iter()
                .map(|network| format!("--exempt-network={network}")),
        );
        Some(json!({
            "name": REDIRECT,
            "image": self.redirect_image,
            "imagePullPolicy": self.pull_policy,
            "args": arguments,
            "resources": self.resources(),
            "securityContext": {
                "runAsNonRoot": false,
                "runAsUser": 0,
                "runAsGroup": 0,
                "readOnlyRootFilesystem": true,
                "allowPrivilegeEscalation": false,
                "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN"] },
                "seccompProfile": { "type": "RuntimeDefault" },
            },
        }))
    }

    /// The pod's volumes for it.
    pub(super) fn volumes(&self) -> Vec<Value> {
        let mut volumes = vec![json!({
            "name": KEYS_VOLUME,
            "secret": { "secretName": self.keys, "defaultMode": KEY_MODE },
        })];
        if let Source::ConfigMap(name) = &self.source {
            volumes.push(json!({ "name": CONFIG_VOLUME, "configMap": { "name": name } }));
        }
        if self.needs_ca() {
            let memory = json!({ "medium": "Memory", "sizeLimit": "1Mi" });
            volumes.push(json!({ "name": CA_VOLUME, "emptyDir": memory }));
        }
        if self.trust {
            volumes.push(json!({ "name": TRUST_VOLUME, "emptyDir": {} }));
        }
        volumes
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["run".to_owned()];
        match &self.source {
            Source::ConfigMap(_) => arguments.push(format!("--config={CONFIG}/config.yaml")),
            Source::Flags(flags) => arguments.extend(flags.arguments()),
        }
        arguments.push(format!("--egress-listen=localhost:{}", self.egress_port));
        if let Way::HostAliases(_) = self.way_in {
            arguments.push("--egress-listen=127.0.0.1:443".to_owned());
            arguments.push("--egress-listen=127.0.0.1:80".to_owned());
            // The hosts file leads the gateway's names back here.
            arguments.push("--nameservers=system".to_owned());
        }
        if let Way::Redirect { .. } = self.way_in {
            arguments.push("--redirect-self-check".to_owned());
        }
        if self.has_ingress() {
            arguments.push(format!("--ingress-listen=:{}", self.ingress_port));
        }
        arguments.push(format!("--admin-listen=:{}", self.admin_port));
        if self.needs_ca() {
            arguments.push(format!("--ca-directory={CA}"));
        }
        if self.trust {
            arguments.push(format!("--trust-directory={TRUST}"));
        }
        arguments.push(format!("--log-level={}", self.log_level));
        // Kubernetes takes $(NAME) for a variable of the container, and $$ for a dollar.
        arguments
            .iter()
            .map(|argument| argument.replace('$', "$$"))
            .collect()
    }

    fn container_ports(&self) -> Value {
        let port = |name, port| json!({ "name": name, "containerPort": port, "protocol": "TCP" });
        let mut ports = vec![port(ADMIN_PORT, self.admin_port)];
        if self.has_ingress() {
            ports.push(port(INGRESS_PORT, self.ingress_port));
        }
        Value::Array(ports)
    }

    fn resources(&self) -> Value {
        let amounts = |choose: fn(&Share) -> Option<&super::values::Quantity>| {
            let shares = [("cpu", &self.cpu), ("memory", &self.memory)];
            let given = shares
                .into_iter()
                .filter_map(|(name, share)| Some((name.to_owned(), json!(choose(share)?.text))));
            given.collect::<Map<_, _>>()
        };
        let mut resources = Map::new();
        for (name, amounts) in [
            ("requests", amounts(|share| share.request.as_ref())),
            ("limits", amounts(|share| share.limit.as_ref())),
        ] {
            if !amounts.is_empty() {
                resources.insert(name.to_owned(), Value::Object(amounts));
            }
        }
        Value::Object(resources)
    }

    fn mounts(&self) -> Value {
        let mut mounts = vec![mount(KEYS_VOLUME, KEYS, true)];
        if let Source::ConfigMap(_) = self.source {
            mounts.push(mount(CONFIG_VOLUME, CONFIG, true));
        }
        if self.needs_ca() {
            mounts.push(mount(CA_VOLUME, CA, false));
        }
        if self.trust {
            mounts.push(mount(TRUST_VOLUME, TRUST, false));
        }
        Value::Array(mounts)
    }
}

impl Flags {
    fn arguments(&self) -> Vec<String> {
        let key = |file| format!("{KEYS}/{file}");
        let mut arguments = vec![
            format!("--client-id={}", self.client_id),
            format!("--private-key={}", key(&self.private_key)),
            format!("--alipay-public-key={}", key(&self.alipay_public_key)),
            format!("--key-version={}", self.key_version),
        ];
        let optional = [
            (
                "default-host",
                self.default_host.as_ref().map(ToString::to_string),
            ),
            ("upstream", self.upstream.clone()),
            ("upstream-ca", self.upstream_ca.as_ref().map(key)),
            ("app", self.app.clone()),
        ];
        for (flag, value) in optional {
            arguments.extend(value.map(|value| format!("--{flag}={value}")));
        }
        arguments
    }
}

/// The mount of the trust files in a container of the app's.
pub(super) fn trust_mount() -> Value {
    mount(TRUST_VOLUME, TRUST, true)
}

fn mount(volume: &str, path: &str, read_only: bool) -> Value {
    if read_only {
        json!({ "name": volume, "mountPath": path, "readOnly": true })
    } else {
        json!({ "name": volume, "mountPath": path })
    }
}

fn probe(path: &str, period: u32, failures: u32) -> Value {
    json!({
        "httpGet": { "path": path, "port": ADMIN_PORT },
        "periodSeconds": period,
        "failureThreshold": failures,
    })
}
