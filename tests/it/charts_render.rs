//! The chart renders the same by Helm 3 and Helm 4, for every set of `charts/values`, and says what it takes.
//!
//! What comes out is compared with `charts/golden` where it is looked at as a whole; `COUNTERSIGN_BLESS=1` writes that
//! anew. Whether Kubernetes would take it is the matter of `manifests_are_valid`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::charts::{
    at, by_template, chart, copy, documents, documents_by_name, golden, helm, helm4, matrix, only,
    path, rendered, sets, told,
};

/// The renderings that are kept as a whole.
const GOLDEN: [&str; 6] = [
    "default",
    "gateway-autoscaled",
    "gateway-both",
    "injector-cert-manager-issuer",
    "injector-defaults",
    "injector-fail-closed",
];

#[test]
fn both_engines_find_nothing_to_complain_of() {
    for (name, file) in sets() {
        let output = helm(&["lint", "--strict", path(&chart()), "--values", path(&file)]);
        let text = told(&output);
        assert!(text.contains("0 chart(s) failed"), "{name}: {text}");
    }
    let files: Vec<_> = sets().into_values().collect();
    let files: Vec<&Path> = files.iter().map(AsRef::as_ref).collect();
    let report = helm4("lint", &chart(), &files);
    for (file, problems) in report.as_object().unwrap() {
        assert_eq!(problems, &Value::Array(Vec::new()), "{file}");
    }
    assert_eq!(report.as_object().unwrap().len(), files.len());
}

#[test]
fn both_engines_make_the_same() {
    let sets = sets();
    assert!(sets.len() >= 20, "only {} sets of values", sets.len());
    let files: Vec<&Path> = sets.values().map(AsRef::as_ref).collect();
    let four = helm4("render", &chart(), &files);
    for (name, made) in matrix() {
        let four = &four[path(&sets[name])]["manifests"];
        let four = four.as_object().unwrap_or_else(|| panic!("{name}: {four}"));
        let mut four: Vec<(&str, &str)> = four
            .iter()
            .map(|(template, text)| (template.as_str(), text.as_str().unwrap().trim()))
            .filter(|(template, text)| !template.ends_with("NOTES.txt") && !text.is_empty())
            .collect();
        four.sort_unstable();
        let three = by_template(&made.text);
        let three: Vec<(&str, &str)> = three
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        assert_eq!(three, four, "{name}");
    }
}

#[test]
fn the_main_renderings_are_as_they_were() {
    let sets = sets();
    for name in GOLDEN {
        let text = rendered(&chart(), Some(&sets[name]));
        golden(
            &at("tests/it/charts/golden").join(format!("{name}.yaml")),
            &text,
        );
    }
}

#[test]
fn nothing_in_it_is_left_to_chance_or_to_the_cluster() {
    for file in templates() {
        let text = fs::read_to_string(&file).unwrap();
        for name in [
            "lookup",
            "rand",
            "uuid",
            "genCA",
            "genSigned",
            "genSelf",
            "genPriv",
            "now",
            "env \"",
        ] {
            let calls = [format!(" {name}"), format!("({name}")];
            let actions = text
                .split("{{")
                .skip(1)
                .filter_map(|part| part.split("}}").next());
            for action in
                actions.filter(|action| !action.starts_with("/*") && !action.starts_with("- /*"))
            {
                let found = calls.iter().any(|call| action.contains(call.as_str()));
                assert!(!found, "{}: {name} in {action}", file.display());
            }
        }
    }
    let once = rendered(&chart(), Some(&sets()["everything"]));
    assert_eq!(once, rendered(&chart(), Some(&sets()["everything"])));
}

#[test]
fn defaults_are_what_the_injector_reads() {
    for (name, made) in matrix() {
        let mut maps = made
            .documents
            .iter()
            .filter(|one| one["kind"] == "ConfigMap");
        let Some(text) = maps.find_map(|map| map["data"]["injector.yaml"].as_str()) else {
            continue;
        };
        let read = countersign::kube::Defaults::read("injector.yaml", text);
        assert!(read.is_ok(), "{name}: {read:?}\n{text}");
    }
}

#[test]
fn what_is_packaged_is_the_chart_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let copied = folder.path().join("countersign");
    copy(&chart(), &copied);
    let mut expected = BTreeSet::new();
    names(&copied, "countersign", &mut expected);
    expected.remove("countersign/.helmignore");
    for junk in [
        ".DS_Store",
        "values.yaml.orig",
        "templates/x.yaml~",
        "countersign-0.0.9.tgz",
        ".git",
    ] {
        fs::write(copied.join(junk), "junk").unwrap();
    }
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    told(&helm(&[
        "package",
        path(&copied),
        "--destination",
        path(&out),
    ]));
    assert_eq!(packaged(&out.join("countersign-0.1.0.tgz")), expected);
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let archive = helm4("package", &copied, &[&other]);
    assert_eq!(packaged(Path::new(archive.as_str().unwrap())), expected);
}

/// The files below a folder, without links.
fn names(folder: &Path, prefix: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap().path();
        let name = format!("{prefix}/{}", entry.file_name().unwrap().to_str().unwrap());
        if entry.is_dir() {
            names(&entry, &name, found);
        } else {
            found.insert(name);
        }
    }
}

fn packaged(archive: &Path) -> BTreeSet<String> {
    let output = std::process::Command::new("tar")
        .arg("tzf")
        .arg(archive)
        .output();
    told(&output.unwrap()).lines().map(str::to_owned).collect()
}

fn templates() -> Vec<std::path::PathBuf> {
    let mut found = BTreeSet::new();
    names(
        &chart().join("templates"),
        path(&chart().join("templates")),
        &mut found,
    );
    found.into_iter().map(Into::into).collect()
}

/// Values whose members are the user's own, or Kubernetes'.
const WHOLE: [&str; 5] = [
    "gateway.nodeSelector",
    "gateway.resources",
    "injector.nodeSelector",
    "injector.resources",
    "monitoring.dashboard.labels",
];

#[test]
fn every_value_stands_in_the_readme_with_its_default() {
    let values = documents(&fs::read_to_string(chart().join("values.yaml")).unwrap());
    let mut expected = Vec::new();
    leaves(&values[0], "", &mut expected);
    let readme = fs::read_to_string(chart().join("README.md")).unwrap();
    let rows = readme.split("\n## Values\n").nth(1).unwrap().lines();
    let rows = rows.filter_map(|row| {
        let mut cells = row.strip_prefix("| `")?.split('|');
        let name = cells.next()?.trim().trim_end_matches('`');
        let default = cells.next()?.trim().trim_matches('`');
        Some((name.to_owned(), default.to_owned()))
    });
    let rows: Vec<(String, String)> = rows.collect();
    let texts: BTreeMap<String, String> = rows.iter().cloned().collect();
    assert_eq!(texts.len(), rows.len(), "a value stands there twice");
    let defaults = documents_by_name(&texts);
    let mut told: Vec<(String, Value)> = defaults
        .into_iter()
        .map(|(name, mut default)| (name, default.pop().unwrap()))
        .collect();
    expected.sort_by(|one, other| one.0.cmp(&other.0));
    told.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(told, expected);
}

fn leaves(value: &Value, name: &str, found: &mut Vec<(String, Value)>) {
    match value.as_object() {
        Some(members) if !members.is_empty() && !WHOLE.contains(&name) => {
            for (member, value) in members {
                let name = if name.is_empty() {
                    member.clone()
                } else {
                    format!("{name}.{member}")
                };
                leaves(value, &name, found);
            }
        }
        _ => found.push((name.to_owned(), value.clone())),
    }
}

#[test]
fn rules_and_dashboard_are_those_of_deploy() {
    for (copy, original) in [
        (
            "files/countersign-rules.yaml",
            "deploy/prometheus/countersign-rules.yaml",
        ),
        (
            "files/countersign-injector-rules.yaml",
            "deploy/prometheus/countersign-injector-rules.yaml",
        ),
        ("files/countersign.json", "deploy/grafana/countersign.json"),
    ] {
        let original = fs::read_to_string(at(original)).unwrap();
        golden(&chart().join(copy), &original);
    }
    let groups = |name: &str| {
        let text = fs::read_to_string(at(&format!("deploy/prometheus/{name}"))).unwrap();
        documents(&text)[0]["groups"].as_array().unwrap().clone()
    };
    let rules = groups("countersign-rules.yaml");
    let with_presence = |expression: &str| {
        let mut group = groups("countersign-injector-rules.yaml");
        group[0]["rules"][0]["expr"] = format!("{expression}\n").into();
        [rules.clone(), group].concat()
    };
    let named = "absent(countersign_injections_total{namespace=\"countersign\"})";
    // One that is not installed is not missed, and another release's is none of ours.
    for (injector, scraped, expected) in [
        ("true", "true", with_presence(named)),
        (
            "true",
            "false",
            with_presence("absent(countersign_injections_total)"),
        ),
        ("false", "true", rules.clone()),
    ] {
        let values = format!(
            "injector: {{enabled: {injector}}}\ngateway: {{enabled: false}}\nmonitoring:\n  \
             podMonitor: {{enabled: {scraped}}}\n  prometheusRule: {{enabled: true}}\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("values.yaml");
        fs::write(&file, values).unwrap();
        let documents = documents(&rendered(&chart(), Some(&file)));
        let spec = &only(&documents, "PrometheusRule")["spec"];
        assert_eq!(spec["groups"].as_array().unwrap(), &expected, "{injector}");
    }
    let everything = rendered(&chart(), Some(&sets()["everything"]));
    let addresses =
        everything.matches("runbook_url: https://docs.example/countersign/docs/OPERATIONS.md#");
    assert_eq!(
        addresses.count(),
        everything.matches("runbook_url: ").count()
    );
    let dashboard = fs::read_to_string(at("deploy/grafana/countersign.json")).unwrap();
    let documents = documents(&rendered(&chart(), Some(&sets()["monitoring"])));
    let mut maps = documents
        .iter()
        .filter_map(|one| one["data"]["countersign.json"].as_str());
    assert_eq!(maps.next().unwrap().trim_end(), dashboard.trim_end());
}

#[test]
fn the_notes_tell_what_to_do_next() {
    let sets = sets();
    let files: Vec<&Path> = sets.values().map(AsRef::as_ref).collect();
    let four = helm4("render", &chart(), &files);
    for (set, words) in [
        (
            "default",
            &[
                "kubectl label namespace",
                "countersign.dev/injection=enabled",
                "create secret generic",
                "countersign.dev/keys",
                // Of all replicas: any of them may have been asked about a pod.
                "-l app.kubernetes.io/instance=countersign,app.kubernetes.io/component=injector",
                "is Ignore",
            ][..],
        ),
        ("injector-fail-closed", &["do not start", "is Fail"]),
        (
            "gateway",
            &[
                "http://countersign-gateway.countersign.svc:18441",
                "Secret countersign",
                "NetworkPolicies",
            ],
        ),
        ("gateway-no-policy", &["WARNING", "signs as you"]),
        ("gateway-both", &["countersign-gateway-ingress"]),
        ("monitoring-alone", &["Neither injector nor gateway"]),
    ] {
        let notes = &four[path(&sets[set])]["manifests"]["countersign/templates/NOTES.txt"];
        let notes = notes.as_str().unwrap();
        for word in words {
            assert!(notes.contains(word), "{set} lacks {word}: {notes}");
        }
    }
}
