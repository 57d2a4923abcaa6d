//! Which pods an API server shows to the injector, by the `matchConditions` of the chart and of the plain manifest: all that
//! might get the sidecar or are to be told why not, and no other. An expression that fails of a pod is a webhook that is
//! skipped in silence, and payments that nobody signs.

use std::collections::BTreeMap;
use std::fs;

use countersign::kube::{self, Defaults, Outcome};
use serde_json::{Value, json};

use crate::support::charts::{at, documents, matrix};
use crate::support::conditions::{Says, evaluate};
use crate::support::manifests::pods;

/// What Kubernetes takes of one webhook.
const MOST: usize = 64;

/// Every list of conditions that is rendered or kept, with where it is from.
fn conditions() -> BTreeMap<String, Vec<Value>> {
    let plain = fs::read_to_string(at("deploy/kubernetes/injector.yaml")).unwrap();
    let plain = documents(&plain);
    let rendered = matrix()
        .iter()
        .map(|(name, made)| (name.as_str(), &made.documents));
    let all = rendered.chain([("deploy/kubernetes/injector.yaml", &plain)]);
    let mut found = BTreeMap::new();
    for (from, documents) in all {
        let webhooks = documents
            .iter()
            .filter(|one| one["kind"] == "MutatingWebhookConfiguration")
            .flat_map(|one| one["webhooks"].as_array().unwrap());
        for webhook in webhooks {
            let conditions = webhook["matchConditions"].as_array().cloned();
            found.insert(from.to_owned(), conditions.unwrap_or_default());
        }
    }
    found
}

/// Whether a pod is shown, as all conditions must hold. None may fail.
fn is_shown(says: &[Says]) -> bool {
    says.iter().all(|one| match one {
        Says::Holds(holds) => *holds,
        Says::Error(error) => panic!("{error}"),
    })
}

/// A pod with this metadata.
fn with(metadata: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        // A pod of a controller has no name yet, and older API servers write what they have not filled in.
        "metadata": { "generateName": "shop-", "namespace": "pay", "creationTimestamp": null },
        "spec": { "containers": [{ "name": "app", "image": "shop:1" }] },
    });
    let more = metadata.as_object().unwrap().clone();
    pod["metadata"].as_object_mut().unwrap().extend(more);
    pod
}

/// Pods beside the corpus, and whether docs/KUBERNETES.md says that they are shown.
fn table() -> Vec<(Value, bool)> {
    let annotated = |annotations: Value| with(&json!({ "annotations": annotations }));
    vec![
        (with(&json!({})), false),
        (annotated(json!({})), false),
        (annotated(json!({ "built": "2026-11-24" })), false),
        // A label is none.
        (
            with(&json!({ "labels": { "countersign.dev/inject": "enabled" } })),
            false,
        ),
        // Names that only look like ours.
        (
            annotated(json!({
                "countersign.dev": "a", "countersign.development/inject": "enabled",
                "www.countersign.dev/inject": "enabled", "inject": "countersign.dev/",
            })),
            false,
        ),
        // These are left alone, by the injector.
        (
            annotated(json!({ "countersign.dev/inject": "disabled" })),
            true,
        ),
        (
            annotated(json!({ "countersign.dev/status": "injected" })),
            true,
        ),
        (
            annotated(json!({ "countersign.dev/keys": "partner-keys" })),
            true,
        ),
        // These are told why not.
        (annotated(json!({ "countersign.dev/kyes": "a" })), true),
        (annotated(json!({ "countersign.dev/": "" })), true),
        (
            annotated(json!({
                "a": "", "zz": "", "countersign.dev/inject": "enabled",
                "kubectl.kubernetes.io/default-container": "app",
            })),
            true,
        ),
    ]
}

#[test]
fn every_pod_that_asks_is_shown_and_no_condition_fails_of_any() {
    let table = table();
    let mut all = pods();
    let asking = all
        .iter()
        .filter(|pod| pod["metadata"]["annotations"]["countersign.dev/inject"] == "enabled")
        .count();
    assert!(asking > 12, "only {asking} pods of the corpus ask");
    let of_corpus = all.len();
    all.extend(table.iter().map(|(pod, _)| pod.clone()));
    // What they are shown as when other webhooks changed them once more.
    let injected: Vec<Value> = all.iter().filter_map(injected).collect();
    assert!(injected.len() > 10, "only {}", injected.len());
    all.extend(injected);
    let mut seen = 0;
    for (from, conditions) in conditions() {
        if conditions.is_empty() {
            continue;
        }
        seen += 1;
        assert!(conditions.len() <= MOST, "{from}");
        let said = evaluate(&conditions, &all);
        assert_eq!(said.len(), all.len());
        for (index, (pod, says)) in all.iter().zip(&said).enumerate() {
            let shown = is_shown(says);
            let annotations = &pod["metadata"]["annotations"];
            // What is not shown would have been left alone without a word.
            let outcome = kube::inject(pod, &Defaults::default());
            assert!(
                shown || matches!(outcome, Outcome::Unasked(_)),
                "{from}: a pod with {annotations} is not shown, and would be {outcome:?}"
            );
            let expected = index
                .checked_sub(of_corpus)
                .and_then(|index| table.get(index));
            let expected = expected.map_or_else(|| carries_ours(pod), |(_, shown)| *shown);
            assert_eq!(shown, expected, "{from}: {annotations}");
        }
    }
    assert!(seen > 5, "only {seen}");
}

/// A pod with the sidecar, if it gets it.
fn injected(pod: &Value) -> Option<Value> {
    match kube::inject(pod, &Defaults::default()) {
        Outcome::Injected { pod, .. } => Some(pod),
        Outcome::Unasked(_) | Outcome::Refused(_) => None,
    }
}

/// Whether a pod has an annotation of ours, whichever.
fn carries_ours(pod: &Value) -> bool {
    let annotations = pod["metadata"]["annotations"].as_object();
    annotations.is_some_and(|all| all.keys().any(|name| name.starts_with(kube::PREFIX)))
}

/// Where every pod gets the sidecar, one without annotations does, too.
#[test]
fn nothing_is_demanded_of_pods_where_all_are_injected() {
    let mut by_default = 0;
    for (from, conditions) in conditions() {
        let of_chart = matrix().get(&from);
        let config = of_chart.and_then(|made| {
            let maps = made
                .documents
                .iter()
                .filter(|one| one["kind"] == "ConfigMap");
            let mut texts = maps.filter_map(|one| one["data"]["injector.yaml"].as_str());
            texts.next()
        });
        let everybody = config.is_some_and(|text| {
            documents(text)
                .first()
                .is_some_and(|one| one["defaults"]["inject"] == "enabled")
        });
        by_default += usize::from(everybody);
        assert_eq!(conditions.is_empty(), everybody, "{from}");
    }
    assert!(by_default >= 1, "no set of values injects by default");
}

/// The evaluator refuses what an API server would, so silence of it means something.
#[test]
fn a_condition_that_fails_is_noticed() {
    let pods = [
        with(&json!({})),
        with(&json!({ "annotations": { "a": "b" } })),
    ];
    for (expression, complaint) in [
        (
            "object.metadata.annotations.exists(name, name.startsWith('a'))",
            "Key not found in map : \"annotations\"",
        ),
        ("object.metadata.name", "must evaluate to bool"),
        ("has(object.metadata.annotations) &&", "Syntax error"),
        ("pod.metadata.name == 'a'", "undeclared reference to 'pod."),
        (
            "namespaceObject.metadata.name == 'pay'",
            "undeclared reference to 'namespaceObject.",
        ),
        (
            "oldObject.metadata.name == 'shop'",
            "Applying SELECT to non-message type",
        ),
    ] {
        let conditions = [json!({ "name": "wrong", "expression": expression })];
        let said = evaluate(&conditions, &pods);
        let Says::Error(error) = &said[0][0] else {
            panic!("{expression} is taken: {said:?}")
        };
        assert!(error.contains(complaint), "{expression}: {error}");
    }
    let conditions = [
        json!({ "name": "right", "expression": "request.operation == 'CREATE' && oldObject == null" }),
    ];
    assert_eq!(evaluate(&conditions, &pods)[1], [Says::Holds(true)]);
}
