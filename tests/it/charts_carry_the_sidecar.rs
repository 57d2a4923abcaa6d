//! A chart that has this one as a dependency, and the kustomize component, put the very sidecar into a pod that
//! `countersign inject` does.
//!
//! The chart is `helm/examples/shop`, rendered by both engines; the pod without the sidecar is given the same settings as
//! annotations. Compared is everything but what has no order.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::support::charts::{
    at, by_template, canonical, chart, copy, documents, golden, helm, helm4, only, path, pod,
    rendered, template, told,
};
use crate::support::process::countersign;

/// Settings of the sidecar beside `keys`, each with what must be in the pod that has them.
const SETTINGS: &[(&str, &str)] = &[
    ("client-id: SANDBOX_5X00000000000000", "HTTPS_PROXY"),
    ("{client-id: a, sidecar: classic}", "postStart"),
    ("{client-id: a, way-in: none}", "SSL_CERT_FILE"),
    (
        "{client-id: a, way-in: none, trust: disabled}",
        "countersign-keys",
    ),
    ("{client-id: a, trust: disabled}", "HTTPS_PROXY"),
    (
        "{client-id: a, way-in: hostAliases}",
        "--nameservers=system",
    ),
    (
        "{client-id: a, way-in: hostAliases, sidecar: classic, hosts: \"open-na.alipayplus.com, open-sea.alipayplus.com\"}",
        "ip_unprivileged_port_start",
    ),
    ("{client-id: a, way-in: redirect}", "NET_ADMIN"),
    (
        "{client-id: a, way-in: redirect, sidecar: classic, redirect-ports: \"443, 8443\", \
         redirect-exempt-networks: \"10.0.0.0/8,192.0.2.1, 2001:db8::/32\", redirect-image: example/redirect:1}",
        "--exempt-network=192.0.2.1/32",
    ),
    ("{config: countersign}", "--config="),
    (
        "{config: countersign, way-in: redirect, egress-port: 16001, run-as-user: 1234567}",
        "--exempt-uid=1234567",
    ),
    (
        "{client-id: \"0012\", private-key: partner-2.pem, alipay-public-key: alipayplus-2.pub.pem, key-version: 2, \
         default-host: open-sea-global.alipayplus.com, upstream: \"https://sandbox.example:9443\", upstream-ca: ca.pem, \
         app: 8080, egress-port: 16001, ingress-port: 16002, admin-port: 16090}",
        "--app=http://127.0.0.1:8080",
    ),
    (
        "{client-id: a, app: \"http://127.0.0.1:9000\", image: example/countersign:1, image-pull-policy: Always, log-level: debug}",
        "Always",
    ),
    (
        "{client-id: a, cpu-request: none, cpu-limit: 2, memory-request: none, memory-limit: none}",
        "\"limits\":{\"cpu\":\"2\"}",
    ),
    (
        "{client-id: a, no-proxy: \".corp.example,db.example,10.0.0.0/8,172.16.0.0/16, 192.0.2.0/24,192.0.2.7,10.1.0.0/20,2001:db8::1\"}",
        "*.corp.example|db.example|*.db.example|10.*",
    ),
    // Names that look like addresses, and addresses with the length that they have anyway.
    (
        "{client-id: a, no-proxy: \"300.1.1.1,1.2.3,10.0.0.1/32,::1/128,fd00::/8,FD01::1,0.0.0.0/0\"}",
        "300.1.1.1|*.300.1.1.1",
    ),
    // Kubernetes would take it for a variable.
    ("{client-id: \"a$(b)c\"}", "a$$(b)c"),
];

/// The example beside the chart it depends on, as both stand in the repository, with the dependency in place.
pub(crate) fn shop(folder: &TempDir) -> PathBuf {
    copy(&chart(), &folder.path().join("helm/countersign"));
    let shop = folder.path().join("helm/examples/shop");
    copy(&at("helm/examples/shop"), &shop);
    told(&helm(&["dependency", "build", path(&shop)]));
    shop
}

fn values(settings: &Value, with: bool) -> String {
    json!({ "sidecar": with, "countersign": { "sidecar": settings } }).to_string()
}

/// The settings of a row, with the Secret.
fn settings(row: &str) -> Value {
    let mut settings = documents(row).remove(0);
    settings["keys"] = json!("shop-countersign");
    settings
}

/// What `countersign inject` makes of a Deployment whose pod has these annotations.
fn injected(mut deployment: Value, settings: &Value) -> Value {
    let annotations = &mut deployment["spec"]["template"]["metadata"]["annotations"];
    if annotations.is_null() {
        *annotations = Value::Object(Map::new());
    }
    annotations["countersign.dev/inject"] = json!("enabled");
    for (name, value) in settings.as_object().unwrap() {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        annotations[format!("countersign.dev/{name}")] = json!(text);
    }
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("deployment.json");
    fs::write(&file, deployment.to_string()).unwrap();
    let done = told(&countersign(&["inject", path(&file)]));
    documents(&done).remove(0)
}

#[test]
fn the_named_templates_make_what_is_injected() {
    let folder = TempDir::new().unwrap();
    let shop = shop(&folder);
    // What the example itself sets would be among the settings of every row.
    fs::write(
        shop.join("values.yaml"),
        "countersign: {injector: {enabled: false}}\n",
    )
    .unwrap();
    let with: Vec<PathBuf> = (0..SETTINGS.len())
        .map(|row| folder.path().join(format!("{row}.yaml")))
        .collect();
    for (file, (row, _)) in with.iter().zip(SETTINGS) {
        fs::write(file, values(&settings(row), true)).unwrap();
    }
    let files: Vec<&Path> = with.iter().map(AsRef::as_ref).collect();
    let four = helm4("render", &shop, &files);
    let without = folder.path().join("without.yaml");
    fs::write(&without, json!({ "sidecar": false }).to_string()).unwrap();
    let without = documents(&rendered(&shop, Some(&without)));
    for (file, (row, sign)) in with.iter().zip(SETTINGS) {
        let text = rendered(&shop, Some(file));
        let made = documents(&text);
        let expected = injected(only(&without, "Deployment").clone(), &settings(row));
        let made = canonical(pod(only(&made, "Deployment")));
        assert_eq!(made, canonical(pod(&expected)), "{row}");
        assert!(
            made.to_string().contains(sign),
            "{row}: {sign} is not in {made}"
        );
        let four = &four[path(file)]["manifests"]["shop/templates/deployment.yaml"];
        let three = by_template(&text);
        assert_eq!(
            four.as_str().unwrap().trim(),
            three["shop/templates/deployment.yaml"],
            "{row}"
        );
    }
}

#[test]
fn the_example_is_as_it_was() {
    let folder = TempDir::new().unwrap();
    let shop = shop(&folder);
    told(&helm(&["lint", "--strict", path(&shop)]));
    let file = at("tests/it/charts/golden/shop.yaml");
    golden(&file, &rendered(&shop, None));
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let shop = shop(&folder);
    let file = folder.path().join("values.yaml");
    fs::write(
        shop.join("values.yaml"),
        "countersign: {injector: {enabled: false}}\n",
    )
    .unwrap();
    for (row, name) in [
        ("keys: k", "sidecar.client-id"),
        ("client-id: c", "sidecar.keys"),
        (
            "{keys: k, client-id: c, config: countersign}",
            "sidecar.client-id",
        ),
        ("{keys: k, config: countersign, app: 8080}", "sidecar.app"),
        (
            "{keys: k, client-id: c, hosts: open-na.alipayplus.com}",
            "sidecar.hosts",
        ),
        (
            "{keys: k, client-id: c, way-in: redirect, no-proxy: .corp.example}",
            "sidecar.no-proxy",
        ),
        (
            "{keys: k, client-id: c, redirect-ports: 443}",
            "sidecar.redirect-ports",
        ),
        (
            "{keys: k, client-id: c, way-in: redirect, redirect-exempt-networks: \"10.0.0.0/8, ::/0\"}",
            "redirect-exempt-networks",
        ),
        ("{keys: k, client-id: c, way-out: env}", "way-out"),
    ] {
        fs::write(&file, values(&documents(row)[0], true)).unwrap();
        let output = template(&shop, Some(&file));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{row} is taken");
        assert!(error.contains(name), "{row}: {error}");
        let four = helm4("render", &shop, &[&file]);
        let error = four[path(&file)]["error"].as_str().unwrap();
        assert!(error.contains(name), "{row}: {error}");
    }
}

/// Maps that do not come from the section of the dependency are not looked at by its schema.
#[test]
fn settings_of_ones_own_are_checked_as_well() {
    let folder = TempDir::new().unwrap();
    let shop = shop(&folder);
    let own = "own: {{ include \"countersign.pod.env\" (dict \"keys\" \"k\" \"client-id\" \"c\" \"way-out\" \"env\") }}";
    fs::write(shop.join("templates/own.yaml"), own).unwrap();
    let error = String::from_utf8(template(&shop, None).stderr).unwrap();
    assert!(
        error.contains("sidecar.way-out: there is none of this name"),
        "{error}"
    );
}

/// What kustomize makes of a folder.
pub(crate) fn kustomized(folder: &Path) -> String {
    let output = Command::new("kubectl")
        .arg("kustomize")
        .arg(folder)
        .output();
    told(&output.expect("kubectl is missing; run make deps"))
}

#[test]
fn the_kustomize_component_makes_what_is_injected() {
    let example = at("deploy/kubernetes/examples/kustomize");
    let made = documents(&kustomized(&example));
    let map = only(&made, "ConfigMap")["metadata"]["name"]
        .as_str()
        .unwrap();
    assert!(
        map.starts_with("countersign-"),
        "{map} does not change with its text"
    );
    let without = fs::read_to_string(example.join("deployment.yaml")).unwrap();
    let settings = json!({ "keys": "countersign", "config": map });
    let expected = injected(documents(&without).remove(0), &settings);
    let made = canonical(pod(only(&made, "Deployment")));
    assert_eq!(made, canonical(pod(&expected)));
}

/// A Deployment beside it that asks for nothing.
#[test]
fn the_kustomize_component_leaves_others_alone() {
    let folder = TempDir::new().unwrap();
    copy(&at("deploy/kubernetes"), folder.path());
    let example = folder.path().join("examples/kustomize");
    let other = fs::read_to_string(example.join("deployment.yaml")).unwrap();
    let other = other.replace(
        "countersign.dev/sidecar: component",
        "example.com/owner: payments",
    );
    let other = other.replace("name: shop", "name: other");
    fs::write(example.join("other.yaml"), &other).unwrap();
    let kustomization = fs::read_to_string(example.join("kustomization.yaml")).unwrap();
    let both = kustomization.replace("[deployment.yaml]", "[deployment.yaml, other.yaml]");
    assert_ne!(kustomization, both);
    fs::write(example.join("kustomization.yaml"), both).unwrap();
    let made = documents(&kustomized(&example));
    let mut deployments = made.iter().filter(|one| one["kind"] == "Deployment");
    let found = deployments
        .find(|one| one["metadata"]["name"] == "other")
        .unwrap();
    assert_eq!(pod(found), pod(&documents(&other)[0]));
}
