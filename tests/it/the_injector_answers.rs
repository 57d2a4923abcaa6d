//! What the injector answers to reviews: whatever is one is allowed.

use countersign::kube::{self, Defaults, Outcome};
use serde_json::{Value, json};

use crate::support::manifests;
use crate::support::reviews::{World, patch, patched, pod, review};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_asks_gets_a_patch_that_makes_a_valid_pod() {
    let world = World::new().await;
    let mut session = world.session().await;
    for dry_run in [false, true] {
        let mut review = review(&pod());
        review["request"]["dryRun"] = json!(dry_run);
        let response = session.ask(&review).await;
        let whole = patched(&pod(), &response);
        let sidecars = whole["spec"]["initContainers"].as_array().unwrap();
        assert!(
            sidecars
                .iter()
                .any(|container| container["name"] == "countersign")
        );
        assert_eq!(
            whole["metadata"]["annotations"]["countersign.dev/status"],
            "injected"
        );
        // Once more, as a webhook is called again when another one changed the pod.
        let mut again = review.clone();
        again["request"]["object"] = whole;
        assert_eq!(session.ask(&again).await.get("patch"), None);
    }
    assert_eq!(
        (world.count("injected"), world.count("unasked")),
        (2.0, 2.0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhook_does_to_every_pod_of_the_corpus_what_the_command_does() {
    let world = World::new().await;
    let mut session = world.session().await;
    let (mut injected, mut left) = (Vec::new(), 0);
    let mut expected = Vec::new();
    for given in manifests::pods() {
        let response = session.ask(&review(&given)).await;
        match kube::inject(&given, &Defaults::default()) {
            Outcome::Injected { pod, warnings, .. } => {
                let said = response["warnings"].as_array().map_or(0, Vec::len);
                assert_eq!(said, warnings.len(), "{response}");
                injected.push((given, patch(&response)));
                expected.push(pod.to_string());
            }
            Outcome::Unasked(_) => assert_eq!(response.get("warnings"), None, "{response}"),
            Outcome::Refused(lines) => {
                left += 1;
                assert_eq!(response.get("patch"), None);
                let said = response["warnings"].as_array().unwrap();
                for (said, line) in said.iter().zip(&lines) {
                    let text = format!("countersign: not injected: {line}");
                    assert_eq!(said.as_str().unwrap(), text);
                }
                assert_eq!(said.len(), lines.len());
            }
        }
    }
    assert!(
        injected.len() > 10 && left > 0,
        "{} and {left}",
        injected.len()
    );
    assert_eq!(manifests::patched(&injected), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_posts_reviews_over_http_2_and_1() {
    let world = World::new().await;
    world.pki.write("review.json", review(&pod()).to_string());
    let url = format!(
        "https://localhost:{}/inject?timeout=10s",
        world.started.running.address.port()
    );
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let output = tokio::process::Command::new("curl")
            .args([
                "-sS",
                "--noproxy",
                "*",
                "--cacert",
                "ca.pem",
                flag,
                "--max-time",
                "20",
            ])
            .args(["-H", "Content-Type: application/json; charset=utf-8"])
            .args([
                "--data-binary",
                "@review.json",
                "-w",
                "\n%{http_code} %{http_version}",
                &url,
            ])
            .current_dir(&world.pki.folder)
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, end) = text.rsplit_once('\n').unwrap();
        assert_eq!(end, format!("200 {version}"), "{text}");
        let answer: Value = serde_json::from_str(body).unwrap();
        patched(&pod(), &answer["response"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_injected_is_admitted_as_it_is_and_a_person_is_told_why() {
    let world = World::new().await;
    let mut session = world.session().await;
    let with = |path: &str, value: Value| {
        let mut review = review(&pod());
        *review.pointer_mut(path).unwrap() = value;
        review
    };
    let mut no_object = review(&pod());
    no_object["request"]
        .as_object_mut()
        .unwrap()
        .remove("object");
    let deployment = json!({ "group": "apps", "version": "v1", "kind": "Deployment" });
    let annotations = json!({ "countersign.dev/inject": "enabled", "countersign.dev/kyes": "k" });
    for (review, told) in [
        (
            with("/request/object/metadata/annotations", annotations),
            "kyes",
        ),
        (with("/request/object", Value::Null), "no object"),
        (no_object, "no object"),
        (with("/request/kind", deployment), "this is a Deployment"),
        (with("/request/object/kind", json!("Job")), "this is a Job"),
        (with("/request/object/spec", json!("no spec")), "spec"),
        (
            with("/request/object/metadata/annotations", json!(7)),
            "annotations",
        ),
    ] {
        let response = session.ask(&review).await;
        assert_eq!(response.get("patch"), None, "{told}");
        let warnings = response["warnings"]
            .as_array()
            .unwrap_or_else(|| panic!("no warning: {told}"));
        let all: Vec<_> = warnings.iter().map(|text| text.as_str().unwrap()).collect();
        assert!(
            all.iter()
                .all(|text| text.starts_with("countersign: not injected: ")),
            "{all:?}"
        );
        assert!(
            all.iter().any(|text| text.contains(told)),
            "{told}: {all:?}"
        );
        assert!(
            all.iter().all(|text| text.chars().count() <= 256),
            "{all:?}"
        );
    }
    assert_eq!((world.count("refused"), world.count("failed")), (7.0, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_about_new_pods_passes_without_a_word() {
    let world = World::new().await;
    let mut session = world.session().await;
    for (field, value) in [
        ("operation", json!("UPDATE")),
        ("operation", json!("DELETE")),
        ("operation", json!("CONNECT")),
        ("operation", Value::Null),
        ("subResource", json!("ephemeralcontainers")),
        ("subResource", json!("exec")),
    ] {
        let mut review = review(&pod());
        review["request"][field] = value;
        let response = session.ask(&review).await;
        assert_eq!(
            (response.get("patch"), response.get("warnings")),
            (None, None),
            "{review}"
        );
    }
    assert_eq!(world.count("unasked"), 6.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_said_twice_in_a_pod_leaves_it_alone() {
    let world = World::new().await;
    let text = review(&pod()).to_string().replacen(
        "\"containers\":",
        "\"containers\":[],\"containers\":",
        1,
    );
    let request = format!(
        "POST /inject HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    );
    let response = world.send(request.as_bytes()).await.json()["response"].clone();
    assert_eq!(
        (&response["allowed"], response.get("patch")),
        (&json!(true), None)
    );
    let warning = response["warnings"][0].as_str().unwrap();
    assert!(
        warning.ends_with("the pod says spec.containers twice"),
        "{warning}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_metrics_are_answered_and_nothing_else() {
    let world = World::new().await;
    let admin = world.started.running.admin;
    for (line, status, text) in [
        ("GET /livez", 200, "ok"),
        ("GET /readyz", 200, "ready"),
        (
            "GET /metrics",
            200,
            "countersign_injections_total{result=\"refused\"} 0",
        ),
        ("POST /readyz", 405, "not allowed"),
        ("POST /drain", 404, "/readyz"),
        ("GET /keys", 404, "/readyz"),
    ] {
        let request = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = crate::support::raw::send(admin, request).await;
        assert_eq!(answer.status, status, "{line}");
        assert!(answer.text().contains(text), "{line}: {}", answer.text());
    }
}
