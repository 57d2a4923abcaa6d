//! What the chart makes and what `deploy/kubernetes` holds is what Kubernetes takes.
//!
//! Validated strictly against the schemas of Kubernetes 1.30 and of the newest release `kubernetes-validate` knows. Objects that are
//! not Kubernetes' own have no schema there, so their members are looked at here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::charts_carry_the_sidecar::kustomized;
use crate::support::charts::{
    at, chart, documents, documents_by_name, golden, helm, matrix, only, path, rendered, sets,
    told, tool,
};

/// The lowest version that needs nothing said, and the newest that is known.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];
const FOREIGN: [&str; 4] = ["Certificate", "Issuer", "PodMonitor", "PrometheusRule"];

/// Everything that could be applied, by where it is from.
fn all() -> BTreeMap<String, String> {
    let texts = matrix()
        .iter()
        .map(|(name, made)| (name.clone(), made.text.clone()));
    let mut all: BTreeMap<String, String> = texts.collect();
    for name in [
        "injector.yaml",
        "examples/namespace.yaml",
        "examples/keys.yaml",
        "examples/deployment.yaml",
        "examples/job.yaml",
    ] {
        let text = fs::read_to_string(at("deploy/kubernetes").join(name)).unwrap();
        all.insert(name.to_owned(), text);
    }
    let kustomized = kustomized(&at("deploy/kubernetes/examples/kustomize"));
    all.insert("kustomize".to_owned(), kustomized);
    all.insert(
        "shop".to_owned(),
        fs::read_to_string(at("tests/it/charts/golden/shop.yaml")).unwrap(),
    );
    all
}

/// What `kubernetes-validate` says of some manifests.
fn validate(version: &str, manifests: &BTreeMap<String, String>) -> (bool, String) {
    let folder = TempDir::new().unwrap();
    let files: Vec<PathBuf> = manifests
        .iter()
        .map(|(name, text)| {
            let file = folder
                .path()
                .join(format!("{}.yaml", name.replace(['/', '.'], "-")));
            fs::write(&file, text).unwrap();
            file
        })
        .collect();
    let output = Command::new(tool("venv/bin/kubernetes-validate"))
        .args(["--strict", "-k", version])
        .args(&files)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn kubernetes_takes_everything() {
    let mut all = all();
    all.retain(|_, text| !text.trim().is_empty());
    assert!(all.len() > 25, "only {} manifests", all.len());
    let objects: Vec<Value> = documents_by_name(&all).into_values().flatten().collect();
    let foreign = objects
        .iter()
        .filter(|one| FOREIGN.iter().any(|kind| one["kind"] == **kind))
        .count();
    for version in VERSIONS {
        let (is_valid, text) = validate(version, &all);
        assert!(is_valid, "{version}: {text}");
        let passed = text
            .lines()
            .filter(|line| line.contains(" passed for resource "))
            .count();
        assert_eq!(passed, objects.len() - foreign, "{version}: {text}");
    }
}

#[test]
fn kubernetes_without_native_sidecars_takes_the_classic_one() {
    let file = &sets()["injector-classic"];
    let arguments = [
        "template",
        "countersign",
        path(&chart()),
        "--kube-version=1.25",
        "--values",
        path(file),
    ]
    .map(str::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let text = told(&helm(&arguments));
    assert!(!text.contains("matchConditions"), "unknown to it");
    let (is_valid, said) = validate("1.25", &BTreeMap::from([("classic".to_owned(), text)]));
    assert!(is_valid, "{said}");
}

/// As cert-manager.io/v1 and monitoring.coreos.com/v1 have them.
#[test]
fn objects_of_others_have_the_members_they_know() {
    let mut seen = 0;
    for document in matrix().values().flat_map(|made| &made.documents) {
        let (version, members, needed): (_, &[&str], &[&str]) =
            match document["kind"].as_str().unwrap() {
                "Certificate" => (
                    "cert-manager.io/v1",
                    &[
                        "secretName",
                        "dnsNames",
                        "duration",
                        "renewBefore",
                        "privateKey",
                        "usages",
                        "issuerRef",
                    ],
                    &["secretName", "dnsNames", "issuerRef"],
                ),
                "Issuer" => ("cert-manager.io/v1", &["selfSigned"], &["selfSigned"]),
                "PodMonitor" => (
                    "monitoring.coreos.com/v1",
                    &["selector", "namespaceSelector", "podMetricsEndpoints"],
                    &["selector", "podMetricsEndpoints"],
                ),
                "PrometheusRule" => ("monitoring.coreos.com/v1", &["groups"], &["groups"]),
                _ => continue,
            };
        seen += 1;
        assert_eq!(document["apiVersion"], version);
        let spec = document["spec"].as_object().unwrap();
        assert!(
            spec.keys().all(|name| members.contains(&name.as_str())),
            "{document}"
        );
        assert!(
            needed.iter().all(|name| spec.contains_key(*name)),
            "{document}"
        );
    }
    assert!(seen >= 8, "only {seen}");
}

#[test]
fn prometheus_takes_the_rules_of_the_chart() {
    let documents = documents(&rendered(&chart(), Some(&sets()["monitoring"])));
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("rules.json");
    fs::write(
        &file,
        only(&documents, "PrometheusRule")["spec"].to_string(),
    )
    .unwrap();
    let output = Command::new("promtool")
        .args(["check", "rules"])
        .arg(&file)
        .output();
    told(&output.expect("promtool is missing; run make deps"));
}

#[test]
fn the_plain_manifest_is_what_the_chart_makes() {
    let text = rendered(&chart(), None);
    let mut plain = "\
# The injector for those without Helm, in a namespace of its own: kubectl apply -f deploy/kubernetes/injector.yaml
# Made of helm/countersign with its default values; a test holds it current. Needs Kubernetes 1.29.
---
apiVersion: v1
kind: Namespace
metadata:
  name: countersign
"
    .to_owned();
    // What only Helm needs to know.
    let is_of_helm = |line: &&str| {
        line.starts_with("# Source: ")
            || line.trim_start().starts_with("helm.sh/chart: ")
            || line.trim_start() == "app.kubernetes.io/managed-by: Helm"
    };
    for line in text.lines().filter(|line| !is_of_helm(line)) {
        plain.push_str(line);
        plain.push('\n');
    }
    golden(&at("deploy/kubernetes/injector.yaml"), &plain);
}

#[test]
fn what_is_written_by_hand_is_written_neatly() {
    let folders = [
        "deploy/kubernetes",
        "helm/countersign/values.yaml",
        "helm/countersign/Chart.yaml",
        "tests/it/charts/values",
    ];
    let output = Command::new(tool("venv/bin/yamllint"))
        .args(["--strict", "-c", path(&at("tests/tools/yamllint.yaml"))])
        .args(folders.iter().map(|folder| at(folder)))
        .args(["Chart.yaml", "values.yaml"].map(|file| at("helm/examples/shop").join(file)))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    for image in all().values().flat_map(|text| images(text)) {
        let name = image.split(['/', ':']).next().unwrap();
        assert!(
            ["countersign", "mirror.example", "shop"].contains(&name),
            "{image} is somebody's"
        );
    }
}

fn images(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("image: "));
    lines
        .map(|image| image.trim_matches('"').to_owned())
        .collect()
}

/// A link in a document of this folder, such as of the chart's README, leads somewhere.
#[test]
fn files_that_are_named_exist() {
    let readme = fs::read_to_string(chart().join("README.md")).unwrap();
    let mut seen = 0;
    for word in readme.split(['`', ' ', '\n', ')', '(', ';', ',']) {
        let word = word.trim_end_matches('.');
        if ["docs/", "deploy/", "helm/"]
            .iter()
            .any(|folder| word.starts_with(folder))
        {
            seen += 1;
            assert!(Path::new(&at(word)).exists(), "{word}");
        }
    }
    assert!(seen >= 4, "only {seen}");
}
