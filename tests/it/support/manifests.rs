//! Manifests for tests: the corpus of pods, `countersign inject` on them, and the tools of others that read them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use countersign::kube::{self, Defaults, Outcome};
use serde_json::{Value, json};

use super::clients::venv_python;
use super::process::{command, text};

/// Where the corpus is; what comes of it stands in its folder `golden`.
pub fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/pods")
}

/// The files of the corpus, by name.
pub fn files() -> Vec<PathBuf> {
    let entries = fs::read_dir(corpus()).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.is_file());
    files.sort();
    assert!(files.len() > 10, "only {files:?}");
    files
}

/// The templates of pods in an object.
pub fn templates(object: &Value) -> Vec<&Value> {
    match object["kind"].as_str().unwrap_or_default() {
        "List" => object["items"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(templates)
            .collect(),
        "Pod" => vec![object],
        "CronJob" => vec![&object["spec"]["jobTemplate"]["spec"]["template"]],
        _ => object["spec"].get("template").into_iter().collect(),
    }
}

/// The pods that the objects of the corpus would make.
pub fn pods() -> Vec<Value> {
    let read = |file: &PathBuf| python(&fs::read_to_string(file).unwrap());
    let objects: Vec<Value> = files().iter().flat_map(read).collect();
    let mut pods: Vec<Value> = objects.iter().flat_map(templates).cloned().collect();
    for pod in &mut pods {
        pod["apiVersion"] = Value::from("v1");
        pod["kind"] = Value::from("Pod");
    }
    pods
}

/// What a command ended with.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Hands a manifest to `countersign inject`.
pub fn inject(arguments: &[&str], manifest: &str) -> Said {
    let mut all = vec!["inject"];
    all.extend(arguments);
    run(command(&all), manifest)
}

/// The same for a file of the corpus, whose name comes out without its folder.
pub fn inject_file(file: &Path) -> Said {
    let name = file.file_name().unwrap().to_str().unwrap();
    let mut command = command(&["inject", name]);
    run(command.current_dir(corpus()), "")
}

/// Runs a command to its end with this on stdin.
pub fn run(mut command: impl std::borrow::BorrowMut<Command>, input: &str) -> Said {
    let mut child = command
        .borrow_mut()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // Whoever refuses its arguments does not read on.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _closed = writer.join().unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Asks the tools of others; see there.
fn tools(arguments: &[&str], input: &str) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/manifests.py");
    let mut command = Command::new(venv_python());
    let said = run(command.arg(script).args(arguments), input);
    assert_eq!(said.code, 0, "{}; run make deps", said.err);
    said.out.lines().map(str::to_owned).collect()
}

/// The documents of a manifest as `PyYAML` reads them, a reader of YAML 1.1.
pub fn python(manifest: &str) -> Vec<Value> {
    let lines = tools(&["read"], manifest);
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What the schemas of a version of Kubernetes refuse.
pub fn invalid(manifest: &str, version: &str) -> Vec<String> {
    tools(&["validate", version], manifest)
}

/// Pods with their patches applied by somebody else, as a line of JSON each.
pub fn patched(pods: &[(Value, Value)]) -> Vec<String> {
    let line =
        |(pod, patch): &(Value, Value)| format!("{}\n", json!({ "pod": pod, "patch": patch }));
    tools(&["patch"], &pods.iter().map(line).collect::<String>())
}

/// The objects of a manifest as the real kubectl reads them, which needs no cluster for that.
pub fn kubectl(manifest: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("manifest.yaml");
    fs::write(&file, manifest).unwrap();
    let mut kubectl = Command::new("kubectl");
    kubectl.args([
        "label",
        "--local",
        "-o",
        "json",
        "-f",
        text(&file),
        "read-by=kubectl",
    ]);
    kubectl.env("KUBECONFIG", "/nonexistent");
    let output = kubectl.output().expect("no kubectl: run make deps");
    assert!(output.status.success(), "{output:?}\n{manifest}");
    let objects = serde_json::Deserializer::from_slice(&output.stdout);
    objects.into_iter().map(Result::unwrap).collect()
}

/// A pod that gets the sidecar, with more annotations, or fewer where they are empty, and more in its spec.
pub fn pod(annotations: &[(&str, &str)], spec: &Value) -> Value {
    let mut pod = json!({
        "metadata": { "annotations": {
            "countersign.dev/inject": "enabled",
            "countersign.dev/keys": "partner-keys",
            "countersign.dev/client-id": "SANDBOX_5X00000000000000",
        }},
        "spec": { "containers": [{ "name": "app", "image": "shop:1" }] },
    });
    for (name, value) in annotations {
        let annotations = pod["metadata"]["annotations"].as_object_mut().unwrap();
        if value.is_empty() {
            annotations.remove(&format!("{}{name}", kube::PREFIX));
        } else {
            annotations.insert(format!("{}{name}", kube::PREFIX), json!(value));
        }
    }
    for (name, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][name] = value.clone();
    }
    pod
}

/// Why it does not get it.
pub fn refused(pod: &Value) -> Vec<String> {
    match kube::inject(pod, &Defaults::default()) {
        Outcome::Refused(reasons) => reasons,
        other => panic!("{other:?}"),
    }
}

/// What is said when it gets it.
pub fn warnings(pod: &Value) -> Vec<String> {
    match kube::inject(pod, &Defaults::default()) {
        Outcome::Injected { warnings, .. } => warnings,
        other => panic!("{other:?}"),
    }
}

/// A pod whose container is this, beside its name and image.
pub fn container(more: &Value) -> Value {
    let mut container = json!({ "name": "app", "image": "shop:1" });
    for (name, value) in more.as_object().unwrap() {
        container[name] = value.clone();
    }
    json!({ "containers": [container] })
}
