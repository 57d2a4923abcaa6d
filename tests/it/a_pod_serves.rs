//! The images in a pod: a legacy app beside the static image, as `countersign inject` puts it there, in each
//! way in; how the pod starts and ends, and what the sidecar may do in it.
//!
//! Podman runs the containers, the test does what a kubelet does; see `support/kubelet.rs`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::kubelet::Kubelet;

/// Starts the pod as a kubelet does, and the app finds all it needs at its first try.
fn started(label: &str, way_in: &str) -> Kubelet {
    let pod = Kubelet::new(label, &[("way-in", way_in)]);
    pod.run_init_containers();
    pod.start_native_sidecar();
    pod.start("app");
    let seen = pod.line("app", |line| line["ready"] != Value::Null);
    assert_eq!(seen["ready"], 200, "one network for both");
    assert_eq!(seen["keys"], serde_json::json!([]), "the app sees no key");
    pays(&pod, "at the start");
    pod
}

/// The app's payment of that name went through, and its answer was verified.
fn pays(pod: &Kubelet, name: &str) {
    let paid = pod.line("app", |line| line["pays"] == name);
    assert_eq!(paid["verdict"], "verified", "{paid}");
    let body: Value = serde_json::from_str(paid["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["result"]["resultStatus"], "S", "{paid}");
}

/// Ends the pod as a kubelet does that knows native sidecars: the app, and then the sidecar.
fn ended(pod: &Kubelet) {
    pod.stop("app");
    pays(pod, "at the end");
    assert_eq!(pod.exit("app"), 0);
    pod.stop("countersign");
    assert_eq!(pod.exit("countersign"), 0);
    pod.line("countersign", |line| line["message"] == "drained");
}

#[test]
fn an_app_pays_by_the_variables_of_a_proxy() {
    ended(&started("env", "env"));
}

#[test]
fn an_app_pays_when_the_pods_hosts_file_names_the_sidecar() {
    ended(&started("alias", "hostAliases"));
}

#[test]
fn an_app_pays_when_the_init_container_redirects_it() {
    ended(&started("redirect", "redirect"));
}

#[test]
fn a_classic_sidecar_serves_an_app_that_ends_after_it_was_told_to() {
    let pod = Kubelet::new("classic", &[("sidecar", "classic")]);
    pod.run_init_containers();
    pod.start_classic_sidecar();
    pod.start("app");
    pays(&pod, "at the start");
    // All containers of a pod are told at once, so the sidecar may well hear it first.
    pod.signal("countersign", "TERM");
    pod.line("countersign", |line| line["message"] == "draining");
    pod.stop("app");
    pays(&pod, "at the end");
    assert_eq!(pod.exit("app"), 0);
    assert_eq!(pod.exit("countersign"), 0);
}

#[test]
fn the_sidecar_may_do_nothing_but_its_work() {
    let pod = started("rights", "env");
    let sidecar = pod.process("countersign");
    let status = fs::read_to_string(sidecar.join("status")).unwrap();
    for line in [
        "Uid:\t4343\t4343\t4343\t4343",
        "Gid:\t4343\t4343\t4343\t4343",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(
            status.lines().any(|found| found == line),
            "{line}: {status}"
        );
    }
    let namespace = |process: &Path| fs::read_link(process.join("ns/net")).unwrap();
    assert_eq!(namespace(&sidecar), namespace(&pod.process("app")));

    // All that is mounted for writing, besides what the kernel keeps there.
    let mounts = fs::read_to_string(sidecar.join("mountinfo")).unwrap();
    let mut writable: Vec<_> = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| !fields[5].split(',').any(|option| option == "ro"))
        .map(|fields| fields[4])
        .filter(|place| {
            !["/proc", "/dev", "/sys"]
                .iter()
                .any(|root| place.starts_with(root))
        })
        .collect();
    writable.sort_unstable();
    let folders = ["/var/run/countersign/ca", "/var/run/countersign/trust"];
    assert_eq!(writable, folders, "{mounts}");

    // The app has the second of them, and cannot write to it.
    let app = fs::read_to_string(pod.process("app").join("mountinfo")).unwrap();
    let trust = app
        .lines()
        .find(|line| line.contains(" /var/run/countersign/trust "));
    let options = trust.unwrap().split(' ').nth(5).unwrap();
    assert!(options.split(',').any(|option| option == "ro"), "{app}");
    for secret in ["/etc/countersign", "/var/run/countersign/ca "] {
        assert!(!app.contains(secret), "{app}");
    }
}
