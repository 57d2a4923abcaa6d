//! What the chart makes gives nobody more than is needed: rights in the cluster, rights of processes, and who may use the
//! port that signs.

use std::fs;

use serde_json::Value;

use crate::support::charts::{Rendering, at, matrix, only, pod};

#[test]
fn the_injector_may_touch_its_own_secret_and_webhook_only() {
    for (name, Rendering { documents, .. }) in matrix() {
        let own = documents
            .iter()
            .any(|one| one["kind"] == "MutatingWebhookConfiguration")
            && !documents.iter().any(|one| one["kind"] == "Certificate");
        let mut rules = Vec::new();
        for document in documents {
            if matches!(document["kind"].as_str(), Some("Role" | "ClusterRole")) {
                rules.extend(document["rules"].as_array().unwrap().iter());
            }
        }
        assert_eq!(rules.len(), if own { 2 } else { 0 }, "{name}");
        for rule in rules {
            assert_eq!(
                rule["resourceNames"].as_array().unwrap().len(),
                1,
                "{name}: {rule}"
            );
            assert_eq!(
                rule["verbs"],
                serde_json::json!(["get", "update"]),
                "{name}: {rule}"
            );
            let what = rule["resources"][0].as_str().unwrap();
            let kind = if what == "secrets" {
                "Secret"
            } else {
                "MutatingWebhookConfiguration"
            };
            let object = only(documents, kind);
            assert_eq!(
                rule["resourceNames"][0], object["metadata"]["name"],
                "{name}"
            );
        }
        for pod in pods(documents) {
            let token = &pod["spec"]["automountServiceAccountToken"];
            let is_injector =
                pod["metadata"]["labels"]["app.kubernetes.io/component"] == "injector";
            assert_eq!(token, &Value::Bool(own && is_injector), "{name}");
        }
    }
}

/// The pods of Deployments in some documents.
fn pods(documents: &[Value]) -> impl Iterator<Item = &Value> {
    documents
        .iter()
        .filter(|one| one["kind"] == "Deployment")
        .map(pod)
}

#[test]
fn no_secret_that_is_made_holds_anything() {
    for (name, Rendering { documents, .. }) in matrix() {
        for secret in documents.iter().filter(|one| one["kind"] == "Secret") {
            assert!(
                secret.get("data").is_none() && secret.get("stringData").is_none(),
                "{name}"
            );
            // What the injector asks for before it writes there.
            let service = secret["metadata"]["name"]
                .as_str()
                .unwrap()
                .trim_end_matches("-certificate");
            assert_eq!(
                secret["metadata"]["labels"]["countersign.dev/injector"], service,
                "{name}"
            );
        }
    }
    for file in [
        "keys.yaml",
        "kustomize/config.yaml",
        "deployment.yaml",
        "job.yaml",
    ] {
        let text = fs::read_to_string(at("deploy/kubernetes/examples").join(file)).unwrap();
        assert!(
            !text.contains("-----BEGIN") && !text.contains("MII"),
            "{file} has a key"
        );
    }
}

#[test]
fn nothing_runs_with_more_than_it_needs() {
    let mut seen = 0;
    for (name, Rendering { documents, .. }) in matrix() {
        for pod in pods(documents) {
            let of_pod = &pod["spec"]["securityContext"];
            assert_eq!(of_pod["runAsNonRoot"], true, "{name}");
            assert_eq!(of_pod["runAsUser"], 4343, "{name}");
            assert_eq!(of_pod["seccompProfile"]["type"], "RuntimeDefault", "{name}");
            for container in pod["spec"]["containers"].as_array().unwrap() {
                seen += 1;
                let own = &container["securityContext"];
                assert_eq!(own["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(own["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(
                    own["capabilities"],
                    serde_json::json!({ "drop": ["ALL"] }),
                    "{name}"
                );
                assert!(
                    container["resources"]["requests"]["cpu"].is_string(),
                    "{name}"
                );
                assert!(
                    container["resources"]["limits"]["memory"].is_string(),
                    "{name}"
                );
                for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
                    assert!(container[probe]["httpGet"].is_object(), "{name}: {probe}");
                }
            }
        }
    }
    assert!(seen > 20, "only {seen} containers");
}

/// A rule of a `NetworkPolicy` without `from`, or with an empty one, lets everybody in.
#[test]
fn who_may_sign_by_the_gateway_is_named() {
    let mut seen = 0;
    for (name, Rendering { documents, .. }) in matrix() {
        let egress = |ports: &Value| {
            ports
                .as_array()
                .unwrap()
                .iter()
                .any(|one| one["port"] == "egress")
        };
        for policy in documents
            .iter()
            .filter(|one| one["kind"] == "NetworkPolicy")
        {
            assert!(
                policy["spec"]["policyTypes"]
                    .as_array()
                    .unwrap()
                    .contains(&"Ingress".into())
            );
            for rule in policy["spec"]["ingress"].as_array().into_iter().flatten() {
                assert!(
                    rule.get("ports").is_some(),
                    "{name}: a rule opens all ports"
                );
                if egress(&rule["ports"]) {
                    seen += 1;
                    assert!(!rule["from"].as_array().unwrap().is_empty(), "{name}");
                }
            }
        }
        for service in documents.iter().filter(|one| one["kind"] == "Service") {
            let ports = service["spec"]["ports"].as_array().unwrap();
            if ports.iter().any(|port| port["targetPort"] == "egress") {
                assert_eq!(service["spec"]["type"], "ClusterIP", "{name}");
                assert_eq!(ports.len(), 1, "{name}");
            }
        }
    }
    assert!(seen >= 6, "only {seen}");
}

#[test]
fn a_gateway_is_not_killed_before_its_drain_is_over() {
    let mut seen = 0;
    for (name, Rendering { documents, .. }) in matrix() {
        let config = documents
            .iter()
            .find_map(|one| one["data"]["config.yaml"].as_str());
        let Some(config) = config else { continue };
        seen += 1;
        let config = crate::support::charts::documents(config).remove(0);
        let deadline = config["drain"]["deadline"]
            .as_str()
            .unwrap()
            .trim_end_matches('s');
        let gateway = pods(documents)
            .find(|pod| pod["metadata"]["labels"]["app.kubernetes.io/component"] == "gateway");
        let patience = gateway.unwrap()["spec"]["terminationGracePeriodSeconds"]
            .as_u64()
            .unwrap();
        assert!(patience > deadline.parse().unwrap(), "{name}");
    }
    assert!(seen >= 5, "only {seen}");
}
