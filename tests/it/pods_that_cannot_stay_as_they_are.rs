//! What a pod asks for and cannot have is told by name with what would be right, and the pod stays as it is.

use countersign::kube::{Defaults, Outcome, inject};
use serde_json::{Value, json};

use crate::support::manifests::{container, pod, refused, warnings};

#[test]
#[expect(clippy::too_many_lines, reason = "one table of all obstacles")]
fn what_is_in_the_way_in_a_pod_is_named() {
    let ours = json!({ "runAsUser": 4343 });
    let windows = json!([{ "matchExpressions": [{ "key": "kubernetes.io/os", "operator": "In", "values": ["windows"] }] }]);
    let alias = |ip: &str| json!({ "hostAliases": [{ "ip": ip, "hostnames": ["Open-NA.alipayplus.com"] }] });
    let aliases = [("way-in", "hostAliases")];
    let redirect = [("way-in", "redirect")];
    for (annotations, spec, complaint) in [
        (
            &[] as &[_],
            json!({ "hostNetwork": true }),
            "spec.hostNetwork: ",
        ),
        (&[], json!({ "os": { "name": "windows" } }), "for Windows"),
        (
            &[],
            json!({ "nodeSelector": { "kubernetes.io/os": "windows" } }),
            "for Windows",
        ),
        (
            &[],
            json!({ "nodeSelector": { "beta.kubernetes.io/os": "windows" } }),
            "for Windows",
        ),
        (
            &[],
            json!({ "securityContext": { "windowsOptions": {} } }),
            "for Windows",
        ),
        (
            &[],
            json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": windows } } } }),
            "for Windows",
        ),
        (
            &[],
            json!({ "containers": [{ "name": "countersign" }] }),
            "spec.containers: has a container \"countersign\" already",
        ),
        (
            &[],
            json!({ "initContainers": [{ "name": "countersign-redirect" }] }),
            "spec.initContainers: has a container \"countersign-redirect\" already",
        ),
        (
            &[],
            json!({ "volumes": [{ "name": "countersign-keys" }] }),
            "spec.volumes: has a volume \"countersign-keys\" already",
        ),
        (
            &[],
            container(&json!({ "ports": [{ "containerPort": 18441 }] })),
            "container \"app\" has port 18441, and the sidecar needs it",
        ),
        (
            &[("app", "8080")],
            container(&json!({ "ports": [{ "containerPort": 18442 }] })),
            "has port 18442",
        ),
        (
            &aliases,
            container(&json!({ "ports": [{ "containerPort": 80 }] })),
            "has port 80, and way-in: hostAliases needs it",
        ),
        (
            &aliases,
            alias("10.0.0.1"),
            "spec.hostAliases: Open-NA.alipayplus.com is 10.0.0.1 already, and should be 127.0.0.1",
        ),
        (
            &aliases,
            json!({ "securityContext": { "sysctls": [{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "443" }] } }),
            "net.ipv4.ip_unprivileged_port_start is 443, and way-in: hostAliases needs at most 80",
        ),
        (
            &[],
            container(
                &json!({ "volumeMounts": [{ "name": "a", "mountPath": "/var/run/countersign/trust/a" }] }),
            ),
            "mounts /var/run/countersign/trust/a, where the trust files go",
        ),
        (
            &[("trust", "disabled")],
            container(
                &json!({ "volumeMounts": [{ "name": "countersign-keys", "mountPath": "/mine" }] }),
            ),
            "spec.containers: container \"app\" mounts the volume \"countersign-keys\", which is the sidecar's alone",
        ),
        (
            &[],
            json!({ "initContainers": [{ "name": "a", "volumeMounts": [{ "name": "countersign-ca", "mountPath": "/mine" }] }] }),
            "spec.initContainers: container \"a\" mounts the volume \"countersign-ca\"",
        ),
        (
            &aliases,
            container(&json!({ "volumeMounts": [{ "name": "a", "mountPath": "/etc/hosts" }] })),
            "container \"app\" mounts /etc/hosts itself, so its calls would go past the sidecar, unsigned",
        ),
        (
            &redirect,
            container(&json!({ "securityContext": ours })),
            "runs as user 4343, which is the sidecar's, so its calls would go out unsigned",
        ),
        (
            &redirect,
            json!({ "securityContext": ours }),
            "runs as user 4343, which is the sidecar's",
        ),
        (
            &[],
            json!({ "shareProcessNamespace": true, "securityContext": ours }),
            "spec.shareProcessNamespace: container \"app\" runs as the sidecar's user 4343 and could read its keys",
        ),
        (
            &[],
            json!({ "shareProcessNamespace": true, "securityContext": { "runAsUser": 0 } }),
            "spec.shareProcessNamespace: container \"app\" runs as root, so it could become the sidecar's user 4343 and read its keys when it starts",
        ),
        (
            &[],
            {
                let powers = json!({ "drop": ["ALL"], "add": ["SETUID"] });
                let security = json!({ "runAsUser": 0, "capabilities": powers });
                let mut spec = container(&json!({ "securityContext": security }));
                spec["hostPID"] = json!(true);
                spec
            },
            "spec.hostPID: container \"app\" runs as root",
        ),
        (
            &[],
            json!({ "hostPID": true, "securityContext": ours }),
            "spec.hostPID: ",
        ),
        (
            &[],
            {
                let mut spec = container(
                    &json!({ "securityContext": { "capabilities": { "add": ["SYS_PTRACE"] } } }),
                );
                spec["shareProcessNamespace"] = json!(true);
                spec
            },
            "may look into all processes and could read the sidecar's keys",
        ),
        (
            &[("sidecar", "classic"), ("containers", "first")],
            json!({ "initContainers": [{ "name": "first" }] }),
            "\"first\" is an init container, which runs before a classic sidecar",
        ),
        (
            &[],
            json!({ "containers": [] }),
            "spec.containers: is missing or empty",
        ),
        (
            &[],
            json!({ "containers": {} }),
            "spec.containers: is no list",
        ),
        (
            &[],
            json!({ "containers": [{ "image": "a" }] }),
            "spec.containers: a container has no name",
        ),
        (
            &[],
            json!({ "containers": vec![json!({ "name": "a" }); 99], "initContainers": [{ "name": "b" }, { "name": "c" }] }),
            "spec: has 101 containers; the sidecar is added to pods of at most 100",
        ),
        (
            &[],
            json!({ "containers": [{ "name": "x".repeat(64) }] }),
            "spec.containers: the name of a container has more than 63 characters",
        ),
        (
            &[],
            container(&json!({ "env": {} })),
            "spec.containers: env of a container is no list",
        ),
        (&[], json!({ "volumes": {} }), "spec.volumes: is no list"),
        (
            &aliases,
            json!({ "securityContext": [] }),
            "spec.securityContext: is no mapping",
        ),
    ] {
        let reasons = refused(&pod(annotations, &spec));
        assert!(reasons[0].contains(complaint), "{complaint}\n{reasons:#?}");
    }
    // Near to these, and no reason to refuse.
    for (annotations, spec) in [
        (
            &[] as &[_],
            container(&json!({ "ports": [{ "containerPort": 18442 }, { "containerPort": 443 }] })),
        ),
        (
            &[],
            container(&json!({ "ports": [{ "containerPort": 18441, "protocol": "UDP" }] })),
        ),
        (
            &[],
            json!({ "nodeSelector": { "kubernetes.io/os": "linux" } }),
        ),
        (&[], json!({ "securityContext": ours })),
        (&[], alias("10.0.0.1")),
        (
            &[],
            container(&json!({ "volumeMounts": [{ "name": "a", "mountPath": "/etc/hosts" }] })),
        ),
        (&aliases, alias("127.0.0.1")),
        (&redirect, json!({ "securityContext": { "runAsUser": 0 } })),
        (
            &[("trust", "disabled")],
            container(
                &json!({ "volumeMounts": [{ "name": "a", "mountPath": "/var/run/countersign/trust" }] }),
            ),
        ),
        (
            &[],
            container(
                &json!({ "volumeMounts": [{ "name": "a", "mountPath": "/var/run" }, { "name": "b", "mountPath": "/var/run/countersign/trusted" }] }),
            ),
        ),
        (
            &aliases,
            json!({ "securityContext": { "sysctls": [{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "80" }] } }),
        ),
    ] {
        assert_eq!(warnings(&pod(annotations, &spec)), [""; 0]);
    }
}

#[test]
fn what_may_surprise_is_a_warning() {
    let of =
        |name: &str, value: &str| container(&json!({ "env": [{ "name": name, "value": value }] }));
    let long = format!("-Dlong={}", "x".repeat(800));
    for (annotations, spec, warning) in [
        (
            &[] as &[_],
            of("HTTPS_PROXY", "http://a"),
            "container app: sets HTTPS_PROXY itself, so it may call past the sidecar, unsigned",
        ),
        (
            &[],
            of("https_proxy", ""),
            "container app: sets https_proxy itself, so it may call past",
        ),
        (
            &[],
            of("no_proxy", "*"),
            "container app: sets no_proxy itself, so it may call itself",
        ),
        (
            &[],
            of("SSL_CERT_FILE", "/ca.pem"),
            "container app: sets SSL_CERT_FILE itself, so it may not trust the local CA",
        ),
        (
            &[],
            of("JAVA_TOOL_OPTIONS", "-Djavax.net.ssl.trustStore=/a"),
            "sets -Djavax.net.ssl.trustStore in JAVA_TOOL_OPTIONS itself, so it may not trust",
        ),
        (
            &[],
            of("JAVA_TOOL_OPTIONS", "-Dhttps.proxyHost=a"),
            "sets -Dhttps.proxyHost in JAVA_TOOL_OPTIONS itself, so it may call past",
        ),
        (
            &[],
            of("JAVA_TOOL_OPTIONS", &long),
            "JAVA_TOOL_OPTIONS is longer than 1023 characters, which Java 8 ignores",
        ),
        (
            &[],
            container(&json!({ "envFrom": [{ "configMapRef": { "name": "a" } }] })),
            "container app: takes variables by envFrom",
        ),
        (
            &[("no-proxy", "10.0.0.0/9")],
            json!({}),
            "no-proxy: 10.0.0.0/9 cannot be left out for Java",
        ),
        (
            &[("sidecar", "classic")],
            json!({ "restartPolicy": "Never" }),
            "spec.restartPolicy: Never means that the pod should end",
        ),
        (
            &[],
            json!({ "terminationGracePeriodSeconds": 5 }),
            "spec.terminationGracePeriodSeconds: 5 may be too short",
        ),
        (
            &[],
            json!({ "shareProcessNamespace": true }),
            "spec.shareProcessNamespace: the app sees the sidecar's processes",
        ),
        (
            &[("way-in", "redirect")],
            container(&json!({ "securityContext": { "privileged": true } })),
            "container app: is privileged or has NET_ADMIN",
        ),
        (
            &[("way-in", "redirect"), ("redirect-ports", "80,8443")],
            json!({}),
            "annotation countersign.dev/redirect-ports: is without 443",
        ),
    ] {
        let warnings = warnings(&pod(annotations, &spec));
        assert!(
            warnings.len() == 1 && warnings[0].contains(warning),
            "{warning}\n{warnings:#?}"
        );
    }
}

#[test]
fn a_pod_that_does_not_ask_is_left_alone_with_a_word_why() {
    let bare = |metadata: Value| json!({ "metadata": metadata, "spec": { "containers": [{ "name": "a" }] } });
    let annotated = |name: &str, value: &str| bare(json!({ "annotations": { name: value } }));
    let mut defaults = Defaults::default();
    defaults.set("inject", "disabled").unwrap();
    for (pod, reason) in [
        (
            bare(json!({})),
            "it does not have the annotation countersign.dev/inject: enabled",
        ),
        (
            bare(Value::Null),
            "it does not have the annotation countersign.dev/inject: enabled",
        ),
        (
            annotated("countersign.dev/inject", "disabled"),
            "the annotation countersign.dev/inject is disabled",
        ),
        (
            annotated("countersign.dev/keys", "a"),
            "it has countersign.dev/keys, but not the annotation countersign.dev/inject: enabled",
        ),
        (
            json!({
                "metadata": { "annotations": { "countersign.dev/status": "injected" } },
                "spec": { "containers": [{ "name": "countersign" }, { "name": "a" }] },
            }),
            "it has the sidecar already",
        ),
        (
            bare(
                json!({ "annotations": { "countersign.dev/status": "injected", "countersign.dev/inject": "disabled" } }),
            ),
            "the annotation countersign.dev/inject is disabled",
        ),
        (
            bare(json!({ "labels": { "countersign.dev/inject": "enabled" } })),
            "countersign.dev/inject is a label; what counts is the annotation countersign.dev/inject: enabled",
        ),
    ] {
        assert_eq!(inject(&pod, &defaults), Outcome::Unasked(reason.to_owned()));
    }
    // Who copies annotations of another pod copies no sidecar.
    assert_eq!(
        refused(&annotated("countersign.dev/status", "injected")),
        [
            "annotation countersign.dev/status: says that the pod has the sidecar, but it has no container \
             \"countersign\"; take the annotation out"
        ]
    );
    // A misspelt wish is a wish.
    let Outcome::Refused(reasons) =
        inject(&annotated("countersign.dev/injct", "enabled"), &defaults)
    else {
        panic!("nobody heard of it");
    };
    assert_eq!(
        reasons,
        ["annotation countersign.dev/injct: there is none of this name; \"inject\" may be meant"]
    );
    defaults.set("inject", "enabled").unwrap();
    assert!(matches!(
        inject(&bare(json!({})), &defaults),
        Outcome::Refused(_)
    ));
    assert!(matches!(
        inject(&annotated("countersign.dev/inject", "disabled"), &defaults),
        Outcome::Unasked(_)
    ));
}
