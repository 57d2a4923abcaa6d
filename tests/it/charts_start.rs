//! What the chart makes starts: the real binary, with the very arguments and files of the manifests, and no more rights
//! than these give.
//!
//! Files stand in a folder in place of /etc/countersign, and ports are 0.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::charts::{matrix, only, path, pod, told};
use crate::support::cluster::{Cluster, SECRETS, WEBHOOKS};
use crate::support::pki::Pki;
use crate::support::process::{Sidecar, command, countersign};

const FILES: &str = "/etc/countersign";

/// The arguments of a Deployment's container, for files in this folder.
fn arguments(documents: &[Value], folder: &Path) -> Vec<String> {
    let deployment = only(documents, "Deployment");
    let arguments = pod(deployment)["spec"]["containers"][0]["args"].as_array();
    let arguments = arguments.unwrap().iter().map(|one| one.as_str().unwrap());
    let moved = |argument: &str| {
        let argument = argument.replace(FILES, path(folder));
        match argument.split_once("listen=") {
            Some((flag, address)) => {
                let (host, _) = address.rsplit_once(':').unwrap();
                let host = match host {
                    "" | "0.0.0.0" => "127.0.0.1",
                    other => other,
                };
                format!("{flag}listen={host}:0")
            }
            None => argument,
        }
    };
    arguments.map(moved).collect()
}

/// The item of a `ConfigMap`, wherever it is.
fn item<'a>(documents: &'a [Value], name: &str) -> Option<&'a str> {
    let mut maps = documents.iter().filter(|one| one["kind"] == "ConfigMap");
    maps.find_map(|map| map["data"][name].as_str())
}

#[test]
fn gateways_start_with_what_the_chart_gives_them() {
    let folder = TempDir::new().unwrap();
    let keys = folder.path().join("keys");
    for name in ["partner", "alipayplus"] {
        told(&countersign(&[
            "keygen",
            "--out",
            path(&keys),
            "--name",
            name,
        ]));
    }
    let public = |name: &str| keys.join(format!("alipayplus.pub.{name}"));
    fs::rename(public("txt"), public("pem")).unwrap();
    let ca = folder.path().join("ca");
    told(&countersign(&["ca", "create", "--directory", path(&ca)]));
    fs::create_dir(folder.path().join("config")).unwrap();
    let mut seen = 0;
    for (name, made) in matrix() {
        let documents: Vec<Value> = made
            .documents
            .iter()
            .filter(|one| is_of_gateway(one))
            .cloned()
            .collect();
        let Some(config) = item(&documents, "config.yaml") else {
            continue;
        };
        seen += 1;
        let config = config.replace(FILES, path(folder.path()));
        fs::write(folder.path().join("config/config.yaml"), &config).unwrap();
        let arguments = arguments(&documents, folder.path());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let sidecar = Sidecar::run(&arguments);
        let has = |section: &str| config.lines().any(|line| line.starts_with(section));
        assert_eq!(sidecar.egress.port() != 0, has("egress:"), "{name}");
        assert_eq!(sidecar.ingress.port() != 0, has("ingress:"), "{name}");
        assert_ne!(sidecar.admin.port(), 0, "{name}");
    }
    assert!(seen >= 6, "only {seen}");
}

fn is_of_gateway(document: &Value) -> bool {
    document["metadata"]["labels"]["app.kubernetes.io/component"] == "gateway"
}

/// What the service account may not do, nobody may in that cluster.
#[test]
fn the_injector_needs_no_more_rights_than_it_is_given() {
    let documents = &matrix()["default"].documents;
    let cluster = Cluster::empty();
    let (secret, webhook) = (
        only(documents, "Secret"),
        only(documents, "MutatingWebhookConfiguration"),
    );
    cluster.post(SECRETS, secret);
    cluster.post(WEBHOOKS, webhook);
    let mut forbidden = String::new();
    for role in ["Role", "ClusterRole"] {
        let rule = &only(documents, role)["rules"][0];
        let allowed = rule["verbs"].as_array().unwrap();
        for verb in ["create", "delete", "get", "list", "update"] {
            if !allowed.contains(&verb.into()) {
                let resource = rule["resources"][0].as_str().unwrap();
                forbidden.extend([
                    verb, " ", resource, "
",
                ]);
            }
        }
    }
    cluster.forbid(&forbidden);
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("injector")).unwrap();
    let defaults = item(documents, "injector.yaml").unwrap();
    fs::write(folder.path().join("injector/injector.yaml"), defaults).unwrap();
    let mut arguments = arguments(documents, folder.path());
    arguments.push(format!(
        "--service-account={}",
        path(cluster.pki.folder.path())
    ));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = command(&arguments);
    command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1");
    command.env("KUBERNETES_SERVICE_PORT", cluster.port.to_string());
    let _injector = Sidecar::start(command);
    let bundle = || {
        let value = cluster.get(&format!(
            "{WEBHOOKS}/{}",
            webhook["metadata"]["name"].as_str().unwrap()
        ));
        value.unwrap()["webhooks"][0]["clientConfig"]["caBundle"].clone()
    };
    assert!(bundle().is_string());
    let value = cluster.get(&format!(
        "{SECRETS}/{}",
        secret["metadata"]["name"].as_str().unwrap()
    ));
    let value = value.unwrap();
    assert_eq!(value["type"], secret["type"]);
    assert!(value["data"]["tls.key"].is_string() && value["data"]["ca.key"].is_string());
}

/// With a certificate that somebody else made, nobody is asked at all.
#[test]
fn the_injector_takes_the_certificate_it_is_given() {
    let documents = &matrix()["injector-cert-manager"].documents;
    let folder = TempDir::new().unwrap();
    let pki = Pki::new();
    for (item, file) in [("tls.crt", "one.pem"), ("tls.key", "one.key")] {
        fs::create_dir_all(folder.path().join("certificate")).unwrap();
        let target = folder.path().join("certificate").join(item);
        fs::copy(pki.path(file), target).unwrap();
    }
    fs::create_dir(folder.path().join("injector")).unwrap();
    let defaults = item(documents, "injector.yaml").unwrap();
    fs::write(folder.path().join("injector/injector.yaml"), defaults).unwrap();
    let arguments = arguments(documents, folder.path());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = command(&arguments);
    command.env_remove("KUBERNETES_SERVICE_HOST");
    Sidecar::start(command);
}
