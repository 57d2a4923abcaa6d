//! The whole way, with real parts: kubectl makes pods, an API server that trusts the caBundle alone asks the
//! injector, a process of its own, and stores what it makes of them.

use std::fs;
use std::os::unix::fs::symlink;

use countersign::kube::{self, Defaults, Outcome};
use serde_json::json;

use crate::support::charts::{at, documents, only};
use crate::support::cluster::{Cluster, NAMESPACE, POD, WEBHOOKS, created, has_sidecar, webhook};
use crate::support::injector::{address, defaults, start};
use crate::support::manifests;
use crate::support::pki::Pki;
use crate::support::process::{Sidecar, command, text};
use crate::support::raw::send;

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_creates_a_pod_and_finds_the_sidecar_in_it() {
    let cluster = Cluster::new();
    let mut injector = start(cluster.command(), &defaults(&cluster.pki));
    cluster.lead_to(address(&injector, "injector"));
    let output = cluster.create(POD);
    let pod = created(&output);
    assert!(has_sidecar(&pod), "{pod:#} {:?}", cluster.calls());
    let stored = cluster.get("/api/v1/namespaces/pay/pods/shop").unwrap();
    assert!(has_sidecar(&stored));
    let sidecar = &stored["spec"]["initContainers"][0];
    assert_eq!(sidecar["resources"]["limits"]["memory"], "96Mi");
    let line = injector.wait_for(|line| line["message"] == "review");
    for (field, value) in [
        ("namespace", "pay"),
        ("name", "shop"),
        ("result", "injected"),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    // One that nobody asked for, and one of a ReplicaSet, which has no name yet.
    let plain = POD
        .replace("inject: enabled", "inject: disabled")
        .replace("name: shop\n  namespace", "name: other\n  namespace");
    assert!(!has_sidecar(&created(&cluster.create(&plain))));
    let owned = POD.replace(
        "name: shop\n  namespace: pay",
        "generateName: web-7d4b9-\n  namespace: pay\n  ownerReferences: [{ apiVersion: apps/v1, kind: ReplicaSet, \
         name: web-7d4b9, uid: u, controller: true }]",
    );
    let pod = created(&cluster.create(&owned));
    assert!(
        has_sidecar(&pod)
            && pod["metadata"]["name"]
                .as_str()
                .unwrap()
                .starts_with("web-7d4b9-")
    );
    let line = injector.wait_for(|line| line["owner"] == "ReplicaSet/web-7d4b9");
    assert_eq!(line["name"], "web-7d4b9-*");
    // A dry run is looked at as any, and keeps nothing.
    let file = cluster.pki.path("pod.yaml");
    let dry = [
        "create",
        "--validate=false",
        "--dry-run=server",
        "-o",
        "json",
        "-f",
        text(&file),
    ];
    assert!(has_sidecar(&created(&cluster.kubectl(&dry))));
    assert_eq!(
        injector.wait_for(|line| line["dry_run"] == true)["result"],
        "injected"
    );
    let all = format!("{:?}", injector.log);
    for hidden in ["hunter2", "PASSWORD", "PRIVATE KEY", "the-first-token"] {
        assert!(!all.contains(hidden), "{hidden}: {all}");
    }
    let metrics = send(
        address(&injector, "admin"),
        "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    let metrics = metrics.await.text();
    for part in [
        "countersign_injections_total{result=\"injected\"} 3",
        "countersign_injections_total{result=\"unasked\"} 1",
        "countersign_handshakes_total{listener=\"injector\",result=\"ok\"} 4",
        "countersign_certificate_expiry_timestamp_seconds{listener=\"injector\"}",
        "countersign_cluster_requests_total{object=\"webhook\",result=\"ok\",verb=\"update\"} 1",
        "countersign_cluster_synced_timestamp_seconds",
    ] {
        assert!(metrics.contains(part), "{part}\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_creates_every_pod_of_the_corpus() {
    let cluster = Cluster::new();
    let injector = Sidecar::start(cluster.command());
    cluster.lead_to(address(&injector, "injector"));
    let mut pods = manifests::pods();
    for (number, pod) in pods.iter_mut().enumerate() {
        pod["metadata"]["name"] = json!(format!("pod-{number}"));
        pod["metadata"]["namespace"] = json!("pay");
    }
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": pods });
    let output = cluster.create(&list.to_string());
    assert!(output.status.success(), "{output:?}");
    let mut injected = 0;
    for (number, given) in pods.iter().enumerate() {
        let stored = cluster.get(&format!("/api/v1/namespaces/pay/pods/pod-{number}"));
        let stored = stored.unwrap();
        let expected = match kube::inject(given, &Defaults::default()) {
            Outcome::Injected { pod, .. } => pod,
            Outcome::Unasked(_) | Outcome::Refused(_) => given.clone(),
        };
        injected += usize::from(expected != *given);
        assert_eq!(
            stored["spec"],
            expected["spec"],
            "{number}: {:?}",
            cluster.calls()
        );
        let annotations = &expected["metadata"]["annotations"];
        assert_eq!(stored["metadata"]["annotations"], *annotations, "{number}");
    }
    assert!(injected > 10, "only {injected}");
}

/// No injector answers at all, and without one nothing may be created that it would be asked about.
#[test]
fn an_injector_that_is_away_holds_nobody_up_who_did_not_ask() {
    let cluster = Cluster::empty();
    let plain = fs::read_to_string(at("deploy/kubernetes/injector.yaml")).unwrap();
    let plain = documents(&plain);
    let installed = only(&plain, "MutatingWebhookConfiguration");
    let conditions = &installed["webhooks"][0]["matchConditions"];
    let mut hook = webhook();
    hook["webhooks"][0]["failurePolicy"] = json!("Fail");
    hook["webhooks"][0]["matchConditions"] = conditions.clone();
    created(&cluster.create(&hook.to_string()));
    let asks = cluster.create(POD);
    let told = String::from_utf8(asks.stderr).unwrap();
    assert!(
        told.contains("failed calling webhook inject.countersign.dev"),
        "{told}"
    );
    let bare = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "bare", "namespace": "pay" },
        "spec": { "containers": [{ "name": "app", "image": "shop:1" }] },
    });
    let mut others = bare.clone();
    others["metadata"]["name"] = json!("others");
    others["metadata"]["annotations"] = json!({ "built": "2026-11-24" });
    for pod in [bare, others] {
        created(&cluster.create(&pod.to_string()));
    }
    let calls = cluster.calls();
    assert!(
        calls.len() == 1 && calls[0].get("failed").is_some(),
        "{calls:?}"
    );
    // One that is no CEL is not installed at all.
    hook["metadata"]["name"] = json!("second");
    hook["webhooks"][0]["matchConditions"][0]["expression"] = json!("has(object)");
    let told = String::from_utf8(cluster.create(&hook.to_string()).stderr).unwrap();
    assert!(told.contains("matchConditions[].expression"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_shows_why_a_pod_was_not_injected() {
    let cluster = Cluster::new();
    let mut injector = start(cluster.command(), &defaults(&cluster.pki));
    cluster.lead_to(address(&injector, "injector"));
    let typo = POD.replace("client-id:", "clientid:");
    let output = cluster.create(&typo);
    assert!(!has_sidecar(&created(&output)));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("Warning: countersign: not injected: "),
        "{told}"
    );
    assert!(told.contains("countersign.dev/clientid"), "{told}");
    let line = injector.wait_for(|line| line["message"] == "review");
    assert_eq!(
        (&line["result"], &line["level"]),
        (&json!("refused"), &json!("WARN"))
    );
    assert!(line["why"].as_str().unwrap().contains("clientid"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_way_round_is_refused_where_the_bundle_does_not_vouch() {
    let mut cluster = Cluster::new();
    let injector = start(cluster.command(), &defaults(&cluster.pki));
    cluster.lead_to(address(&injector, "injector"));
    assert!(has_sidecar(&created(&cluster.create(POD))));
    // Another cluster's injector, whose CA this bundle does not know.
    let other = Cluster::new();
    let stranger = start(other.command(), &defaults(&other.pki));
    cluster.lead_to(address(&stranger, "injector"));
    let second = POD.replace("name: shop\n  namespace", "name: second\n  namespace");
    assert!(
        !has_sidecar(&created(&cluster.create(&second))),
        "failurePolicy: Ignore"
    );
    let failed = cluster.calls().pop().unwrap()["failed"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(failed.contains("certificate verify failed"), "{failed}");
    cluster.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_cert_manager_is_followed_through_the_swap_of_its_volume() {
    let cluster = Cluster::empty();
    let pki = &cluster.pki;
    // As the kubelet mounts a Secret: a link to a folder, which is exchanged.
    let volume = pki.path("volume");
    let fill = |version: &str, leaf: &str| {
        fs::create_dir_all(volume.join(version)).unwrap();
        for (from, to) in [("pem", "tls.crt"), ("key", "tls.key")] {
            fs::copy(
                pki.path(&format!("{leaf}.{from}")),
                volume.join(version).join(to),
            )
            .unwrap();
        }
        symlink(version, volume.join("..new")).unwrap();
        fs::rename(volume.join("..new"), volume.join("..data")).unwrap();
    };
    for name in ["first", "second"] {
        leaf_of_the_service(pki, name);
    }
    fill("..1", "first");
    for item in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{item}"), volume.join(item)).unwrap();
    }
    let arguments = [
        "injector",
        "--listen=127.0.0.1:0",
        "--admin-listen=127.0.0.1:0",
        "--interval=50ms",
    ];
    let mut process = command(&arguments);
    process.arg("--certificate-directory").arg(&volume);
    let mut injector = start(process, &defaults(pki));
    cluster.lead_to(address(&injector, "injector"));
    let mut hook = webhook();
    hook["webhooks"].as_array_mut().unwrap().truncate(1);
    hook["webhooks"][0]["failurePolicy"] = json!("Fail");
    hook["webhooks"][0]["clientConfig"]["caBundle"] = json!(base64_of(&pki.read("ca.pem")));
    cluster.post(WEBHOOKS, &hook);
    assert!(has_sidecar(&created(&cluster.create(POD))));
    fill("..2", "second");
    injector.wait_for(|line| line["message"] == "certificate reloaded");
    let second = POD.replace("name: shop\n  namespace", "name: second\n  namespace");
    assert!(has_sidecar(&created(&cluster.create(&second))));
    let serials: Vec<_> = cluster
        .calls()
        .iter()
        .map(|call| call["serial"].clone())
        .collect();
    assert!(
        serials.len() == 2 && serials[0] != serials[1],
        "{serials:?}"
    );
}

fn base64_of(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// A certificate for the service of the tests' webhook, as cert-manager makes it.
fn leaf_of_the_service(pki: &Pki, name: &str) {
    let key = format!("{name}.key");
    let (request, certificate) = (format!("{name}.csr"), format!("{name}.pem"));
    pki.write(
        "names",
        format!("subjectAltName=DNS:injector.{NAMESPACE}.svc\n"),
    );
    pki.openssl(&[
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        &key,
        "-subj",
        "/CN=injector",
        "-out",
        &request,
    ]);
    pki.openssl(&[
        "x509",
        "-req",
        "-in",
        &request,
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-extfile",
        "names",
        "-days",
        "30",
        "-out",
        &certificate,
    ]);
}
