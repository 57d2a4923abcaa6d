//! Values that make no sense are refused by both engines, with the name of the value: names that do not exist, what is none
//! of its type, and what contradicts itself.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::support::charts::{chart, helm, helm4, path, sets, template, told};

/// Each with the value that the message must name.
const NONSENSE: &[(&str, &str)] = &[
    ("injector: {replica: 3}", "injector.replica"),
    ("injectors: {}", "injectors"),
    ("injector: {replicas: 0}", "injector.replicas"),
    ("injector: {replicas: two}", "injector.replicas"),
    ("injector: {enabled: \"yes\"}", "injector.enabled"),
    (
        "injector: {replicas: 1, webhook: {failurePolicy: Fail}}",
        "injector.webhook.failurePolicy",
    ),
    (
        "injector: {webhook: {failurePolicy: Retry}}",
        "injector.webhook.failurePolicy",
    ),
    (
        "monitoring: {prometheusRule: {runbooks: docs.example}}",
        "monitoring.prometheusRule.runbooks",
    ),
    (
        "injector: {webhook: {timeoutSeconds: 31}}",
        "injector.webhook.timeoutSeconds",
    ),
    (
        "injector: {certificate: {mode: both}}",
        "injector.certificate.mode",
    ),
    (
        "injector: {certificate: {mode: own, issuer: {name: internal}}}",
        "injector.certificate.issuer.name",
    ),
    (
        "injector: {certificate: {mode: cert-manager, issuer: {kind: ClusterIssuer}}}",
        "injector.certificate.issuer.name",
    ),
    (
        "injector: {certificate: {mode: cert-manager, renewBeforeHours: 2160}}",
        "injector.certificate.renewBeforeHours",
    ),
    (
        "injector: {podDisruptionBudget: {maxUnavailable: 0}}",
        "injector.podDisruptionBudget.maxUnavailable",
    ),
    (
        "injector: {podDisruptionBudget: {maxUnavailable: 0%}}",
        "injector.podDisruptionBudget.maxUnavailable",
    ),
    (
        "injector: {resources: {limits: {memory: 64MB}}}",
        "injector.resources.limits.memory",
    ),
    (
        "injector: {resources: {limit: {memory: 64Mi}}}",
        "injector.resources.limit",
    ),
    ("injector: {spread: maybe}", "injector.spread"),
    (
        "injector: {defaults: {way-in: proxy}}",
        "injector.defaults.way-in",
    ),
    (
        "injector: {defaults: {way-out: env}}",
        "injector.defaults.way-out",
    ),
    (
        "injector: {defaults: {status: injected}}",
        "injector.defaults.status",
    ),
    (
        "injector: {defaults: {egress-port: 443}}",
        "injector.defaults.egress-port",
    ),
    (
        "injector: {defaults: {egress-port: \"70000\"}}",
        "injector.defaults.egress-port",
    ),
    (
        "injector: {defaults: {memory-limit: 128MB}}",
        "injector.defaults.memory-limit",
    ),
    (
        "injector: {defaults: {run-as-user: 0}}",
        "injector.defaults.run-as-user",
    ),
    (
        "injector: {defaults: {redirect-exempt-networks: \"10.0.0.0/8, ::/0\"}}",
        "injector.defaults.redirect-exempt-networks",
    ),
    (
        "injector: {defaults: {no-proxy: \"a.example,,b.example\"}}",
        "injector.defaults.no-proxy",
    ),
    (
        "injector: {defaults: {no-proxy: \".corp.example, 10.0.0.1/8\"}}",
        "injector.defaults.no-proxy",
    ),
    (
        "injector: {defaults: {no-proxy: .alipayplus.com}}",
        "injector.defaults.no-proxy",
    ),
    (
        "injector: {defaults: {hosts: \"open-na.alipayplus.com,open-na.alipayplus.com\"}}",
        "injector.defaults.hosts",
    ),
    (
        "injector: {defaults: {default-host: Open-NA.alipayplus.com}}",
        "injector.defaults.default-host",
    ),
    (
        "injector: {defaults: {upstream: \"https://me@sandbox.example\"}}",
        "injector.defaults.upstream",
    ),
    (
        "injector: {defaults: {redirect-ports: \"443,70000\"}}",
        "injector.defaults.redirect-ports",
    ),
    (
        "injector: {defaults: {redirect-exempt-networks: 10.0.0.0/33}}",
        "injector.defaults.redirect-exempt-networks",
    ),
    (
        "injector: {defaults: {containers: \"shop,Logs\"}}",
        "injector.defaults.containers",
    ),
    (
        "injector: {defaults: {ingress-port: 18449}}",
        "injector.defaults.admin-port",
    ),
    (
        "injector: {defaults: {memory-request: 1Gi}}",
        "injector.defaults.memory-request",
    ),
    ("image: {digest: sha256:abc}", "image.digest"),
    ("image: {repository: \"\"}", "image.repository"),
    ("image: {pullPolicy: Sometimes}", "image.pullPolicy"),
    ("listenHost: localhost", "listenHost"),
    ("fullnameOverride: Signing", "fullnameOverride"),
    ("imagePullSecrets: [mirror]", "imagePullSecrets"),
    ("labels: {team: 7}", "labels.team"),
    ("gateway: {enabled: true}", "gateway.keysSecret"),
    (
        "gateway: {enabled: true, keysSecret: keys}",
        "gateway.config",
    ),
    (
        "gateway: {enabled: true, keysSecret: keys, configMap: map, config: {identities: [{}]}}",
        "gateway.configMap",
    ),
    (
        "gateway: {enabled: true, keysSecret: keys, config: {egress: {}}}",
        "gateway.config.identities",
    ),
    (
        "gateway: {enabled: true, keysSecret: Keys}",
        "gateway.keysSecret",
    ),
    (
        "gateway: {enabled: true, keysSecret: keys, configMap: map}",
        "gateway.networkPolicy.clients",
    ),
    (
        "gateway: {enabled: true, keysSecret: keys, configMap: map, egress: {enabled: false}}",
        "gateway.egress.enabled",
    ),
    (
        "gateway: {enabled: true, keysSecret: keys, config: {identities: [{}]}}",
        "gateway.egress.enabled",
    ),
    (
        "gateway: {enabled: true, keysSecret: keys, config: {identities: [{}], egress: {}, ingress: {}}}",
        "gateway.ingress.enabled",
    ),
    (
        "gateway: {enabled: true, keysSecret: keys, config: {identities: [{}], egress: {}, drain: {}}}",
        "gateway.config.drain",
    ),
    (
        "gateway: {enabled: true, keysSecret: keys, configMap: map, networkPolicy: {clients: [{podSelector: {}}]}, \
         autoscaling: {enabled: true, minReplicas: 7}}",
        "gateway.autoscaling.minReplicas",
    ),
    (
        "gateway: {enabled: true, keysSecret: keys, configMap: map, networkPolicy: {clients: [{podSelector: {}}]}, \
         autoscaling: {enabled: true}, resources: {requests: {cpu: null}}}",
        "gateway.resources.requests.cpu",
    ),
    (
        "gateway: {enabled: true, keysSecret: keys, configMap: map, networkPolicy: {clients: [{podSelector: {}}]}, \
         ingress: {enabled: true, port: 18441}}",
        "gateway.ingress.port",
    ),
    (
        "gateway: {enabled: true, keysSecret: keys, configMap: map, networkPolicy: {clients: [{podSelector: {}}]}, \
         drain: {graceSeconds: 40}}",
        "gateway.drain.deadlineSeconds",
    ),
    ("gateway: {egress: {port: 443}}", "gateway.egress.port"),
    (
        "gateway: {ingress: {port: \"18442\"}}",
        "gateway.ingress.port",
    ),
    (
        "gateway: {ingress: {serviceType: ExternalName}}",
        "gateway.ingress.serviceType",
    ),
    (
        "gateway: {networkPolicy: {clients: [{}]}}",
        "gateway.networkPolicy.clients",
    ),
    (
        "gateway: {autoscaling: {cpuPercent: 150}}",
        "gateway.autoscaling.cpuPercent",
    ),
    (
        "gateway: {egress: {serviceType: LoadBalancer}}",
        "gateway.egress.serviceType",
    ),
    (
        "monitoring: {podMonitor: {interval: 30}}",
        "monitoring.podMonitor.interval",
    ),
    ("monitoring: {dashboards: {}}", "monitoring.dashboards"),
    ("sidecar: {inject: enabled}", "sidecar.inject"),
];

#[test]
fn nonsense_is_refused_by_the_name_of_the_value() {
    let folder = TempDir::new().unwrap();
    let files: Vec<_> = (0..NONSENSE.len())
        .map(|index| folder.path().join(format!("{index}.yaml")))
        .collect();
    for (file, (values, _)) in files.iter().zip(NONSENSE) {
        fs::write(file, values).unwrap();
    }
    let paths: Vec<&Path> = files.iter().map(AsRef::as_ref).collect();
    let four = helm4("render", &chart(), &paths);
    for (file, (values, value)) in files.iter().zip(NONSENSE) {
        let three = template(&chart(), Some(file));
        assert!(!three.status.success(), "Helm 3 takes {values}");
        assert_names(value, &String::from_utf8(three.stderr).unwrap());
        let four = &four[path(file)];
        let four = four["error"].as_str();
        assert_names(
            value,
            four.unwrap_or_else(|| panic!("Helm 4 takes {values}")),
        );
    }
}

/// What no annotation could hold is refused before a template sees it.
#[test]
fn values_longer_than_an_annotation_are_refused() {
    let folder = TempDir::new().unwrap();
    let names: String = (100..509)
        .map(|number| format!("n{number}.test,"))
        .collect();
    let (good, long) = (format!("{names}x.test"), format!("{names}xx.test"));
    assert_eq!((good.len(), long.len()), (4096, 4097));
    for (section, value) in [
        ("injector: {defaults: ", "injector.defaults.no-proxy"),
        ("{sidecar: ", "sidecar.no-proxy"),
    ] {
        let file = |name: &str, text: &str| {
            let file = folder.path().join(name);
            fs::write(&file, format!("{section}{{no-proxy: \"{text}\"}}}}")).unwrap();
            file
        };
        let (good, long) = (file("good.yaml", &good), file("long.yaml", &long));
        let four = helm4("render", &chart(), &[&good, &long]);
        told(&template(&chart(), Some(&good)));
        assert!(four[path(&good)]["manifests"].is_object(), "{four}");
        let three = template(&chart(), Some(&long));
        assert!(!three.status.success(), "Helm 3 takes it");
        assert_names(value, &String::from_utf8(three.stderr).unwrap());
        let four = four[path(&long)]["error"].as_str();
        assert_names(value, four.expect("Helm 4 takes it"));
    }
}

/// A schema can say that something must not be, and never why.
#[test]
fn who_exempts_every_address_is_told_why_not() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("values.yaml");
    let values = "injector: {defaults: {redirect-exempt-networks: \"10.0.0.0/8, ::/0\"}}";
    fs::write(&file, values).unwrap();
    let three = template(&chart(), Some(&file));
    let four = helm4("render", &chart(), &[&file]);
    let why = "injector.defaults.redirect-exempt-networks: \"::/0\" is every address: nothing would come to the sidecar";
    for error in [
        &*String::from_utf8(three.stderr).unwrap(),
        four[path(&file)]["error"].as_str().unwrap(),
    ] {
        assert!(error.contains(why), "{error}");
    }
}

/// One engine writes a.b and the other /a/b, and both tell of an unknown name behind that of its section.
fn assert_names(value: &str, message: &str) {
    let plain = message.replace('/', ".");
    let (section, name) = value.rsplit_once('.').unwrap_or(("", value));
    let lines = plain.lines();
    let mut named =
        lines.filter(|line| line.contains(value) || line.contains(section) && line.contains(name));
    assert!(named.next().is_some(), "{value} is not named in: {message}");
}

#[test]
fn a_cluster_without_native_sidecars_is_not_given_them() {
    let chart = chart();
    let old = [
        "template",
        "countersign",
        path(&chart),
        "--kube-version=1.28",
    ];
    let refused = helm(&old);
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success());
    assert!(error.contains("injector.defaults.sidecar"), "{error}");
    let classic = [&old[..], &["--set=injector.defaults.sidecar=classic"]].concat();
    told(&helm(&classic));
    let gateway = sets();
    let gateway = [&old[..], &["--values", path(&gateway["gateway"])]].concat();
    told(&helm(&gateway));
    let ancient = [
        "template",
        "countersign",
        path(&chart),
        "--kube-version=1.24",
        "--set=injector.enabled=false",
    ];
    assert!(!helm(&ancient).status.success());
}
