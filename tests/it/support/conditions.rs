//! The `matchConditions` of webhooks, evaluated by an implementation of CEL that is not ours: `tests/tools/conditions.py`.

use std::process::Command;

use serde_json::{Value, json};

use super::charts::at;
use super::clients::venv_python;
use super::manifests::run;

/// What a condition says of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Says {
    Holds(bool),
    /// A webhook with `failurePolicy: Ignore` is then skipped without a word.
    Error(String),
}

/// What each condition says of the creation of each pod; a line a pod.
pub fn evaluate(conditions: &[Value], pods: &[Value]) -> Vec<Vec<Says>> {
    let requests: Vec<Value> = pods.iter().map(creation).collect();
    let input = json!({ "conditions": conditions, "requests": requests });
    let mut command = Command::new(venv_python());
    let said = run(
        command.arg(at("tests/tools/conditions.py")),
        &input.to_string(),
    );
    assert_eq!(said.code, 0, "{}; run make deps", said.err);
    let told: Vec<Vec<Value>> = serde_json::from_str(&said.out).unwrap();
    let says = |one: Value| match one {
        Value::Bool(holds) => Says::Holds(holds),
        other => Says::Error(other.as_str().unwrap().to_owned()),
    };
    told.into_iter()
        .map(|line| line.into_iter().map(says).collect())
        .collect()
}

/// What an API server knows when somebody creates a pod: an `AdmissionRequest` of admission.k8s.io/v1.
fn creation(pod: &Value) -> Value {
    let kind = json!({ "group": "", "version": "v1", "kind": "Pod" });
    let resource = json!({ "group": "", "version": "v1", "resource": "pods" });
    json!({
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": kind, "requestKind": kind,
        "resource": resource, "requestResource": resource,
        "name": pod["metadata"]["name"].as_str().unwrap_or_default(),
        "namespace": "pay",
        "operation": "CREATE",
        "userInfo": { "username": "system:serviceaccount:kube-system:replicaset-controller" },
        "object": pod, "oldObject": null,
        "dryRun": false,
        "options": { "apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions" },
    })
}
