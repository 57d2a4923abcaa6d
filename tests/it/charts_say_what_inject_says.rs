//! What is wrong with settings of the named templates is refused by both engines in the very words of `countersign inject`.
//!
//! Compared are all complaints about a pod whose annotations say the same; only where the value stands is told in another
//! way. The settings come from a chart's own values, so that no schema refuses them first.

use std::collections::BTreeMap;
use std::fs;

use countersign::kube::{Defaults, Outcome, PREFIX, TABLE, inject};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::annotations_are_checked::BAD;
use super::charts_carry_the_sidecar::shop;
use crate::support::charts::{documents, helm4, path, rendered, template};
use crate::support::manifests::{self, pod};

/// Shows what is wrong with each row.
const SHOWN: &str = "kind: ConfigMap
data:
  {{- range $name, $settings := .Values.rows }}
  {{ $name }}: {{ include \"countersign.pod.problems\" $settings | quote }}
  {{- end }}
";

/// What only a pod says, or is said with a list of other names.
const OF_PODS: [&str; 5] = ["inject", "containers", "keyz", "injection", "egressPort"];

type Settings = Vec<(String, String)>;

fn row(settings: &[(&str, &str)]) -> Settings {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    settings.iter().map(own).collect()
}

/// Settings that are refused; an empty value takes the setting out.
fn rows() -> Vec<Settings> {
    let of_pods = |name: &str| OF_PODS.contains(&name);
    let bad = BAD
        .iter()
        .filter(|(name, ..)| !of_pods(name) && *name != "zzz");
    let mut rows: Vec<Settings> = bad.map(|(name, value, _)| row(&[(name, value)])).collect();
    // Of each setting there is, so that none is forgotten.
    let all = TABLE.iter().map(|annotation| annotation.text);
    rows.extend(
        all.filter(|name| !of_pods(name))
            .map(|name| row(&[(name, "a b")])),
    );
    let names: String = (1000..1500)
        .map(|number| format!("n{number}.test,"))
        .collect();
    rows.push(row(&[("no-proxy", &format!("{names}x"))]));
    for settings in [
        &[("client-id", "Ä")] as &[_],
        &[("client-id", "c".repeat(129).as_str())],
        &[("key-version", "4294967296")],
        &[("key-version", "99999999999999999999")],
        &[("keys", "k".repeat(254).as_str())],
        &[("upstream-ca", "..a")],
        &[("default-host", "192.0.2.1")],
        &[("default-host", "open_na.example")],
        &[("default-host", "a..example")],
        &[
            ("hosts", "open-na.alipayplus.com, "),
            ("way-in", "hostAliases"),
        ],
        &[("hosts", "a.example, b.example,a.example")],
        &[("upstream", "sandbox.example")],
        &[("upstream", "ftp://sandbox.example")],
        &[("upstream", "https://me:secret@sandbox.example")],
        &[("upstream", "https://sandbox.example?a")],
        &[("upstream", "https://sandbox.example:0")],
        &[("upstream", "https://sandbox.example:65536")],
        &[("upstream", "https://sandbox..example")],
        &[("upstream", "https://sandbox.example/$(HOME)")],
        &[("app", "70000")],
        &[("app", "ftp://127.0.0.1")],
        &[("redirect-ports", "443,80,443")],
        &[("redirect-ports", "443;80")],
        &[("redirect-exempt-networks", "10.0.0.0/33")],
        &[("redirect-exempt-networks", "10.0.0")],
        &[("redirect-exempt-networks", "256.0.0.0/8")],
        &[("redirect-exempt-networks", "fd00::/129")],
        &[("redirect-exempt-networks", "1::2::3")],
        &[("redirect-exempt-networks", "1:2:3:4:5:6:7::8")],
        &[("redirect-exempt-networks", "192.168.17.255/17")],
        &[("redirect-exempt-networks", "0.0.0.1/0")],
        &[("no-proxy", ".corp.example,..corp.example")],
        &[("no-proxy", "*.corp.example")],
        &[("no-proxy", "10.0.0.0/8,db.example:5432")],
        &[("no-proxy", "corp.example,open-na.alipayplus.com,.com")],
        &[
            ("no-proxy", "bank.example"),
            ("default-host", "pay.bank.example"),
        ],
        &[("no-proxy", ".com"), ("config", "c"), ("client-id", "")],
        &[("cpu-request", "1.5.1")],
        &[("memory-request", "64MiB")],
        &[("memory-request", "1Gi")],
        &[("memory-request", "600M"), ("memory-limit", "512Mi")],
        &[("cpu-request", "1.5"), ("cpu-limit", "1400m")],
        &[("run-as-user", "2147483648")],
        &[("egress-port", "65536")],
        &[("egress-port", "18449"), ("ingress-port", "18449")],
        &[("keys", "")],
        &[("client-id", "")],
        &[("keys", ""), ("client-id", "")],
        &[("config", "c"), ("app", "8080"), ("upstream-ca", "ca.pem")],
        &[("hosts", "a.example")],
        &[
            ("way-in", "redirect"),
            ("no-proxy", "a.example"),
            ("hosts", "a.example"),
        ],
        &[
            ("redirect-ports", "443"),
            ("redirect-exempt-networks", "::/0"),
            ("redirect-image", "a"),
        ],
    ] {
        rows.push(row(settings));
    }
    rows
}

/// What `countersign inject` says of a pod with them, sorted.
fn told_by_inject(settings: &Settings) -> Vec<String> {
    let annotations: Vec<(&str, &str)> = settings
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let reasons = match inject(&pod(&annotations, &json!({})), &Defaults::default()) {
        Outcome::Refused(reasons) => reasons,
        Outcome::Injected { .. } => Vec::new(),
        Outcome::Unasked(reason) => panic!("{reason}"),
    };
    let mut reasons: Vec<String> = reasons
        .into_iter()
        .map(|reason| {
            let reason = reason.strip_prefix("annotation ").unwrap().to_owned();
            reason.replace(PREFIX, "sidecar.")
        })
        .collect();
    reasons.sort();
    reasons
}

/// The settings as values of a chart, where the names stand without a prefix.
fn values(settings: &Settings) -> Value {
    let pairs: Vec<(&str, &str)> = settings
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let annotations = pod(&pairs, &json!({}))["metadata"]["annotations"].clone();
    let all = annotations.as_object().unwrap().iter();
    all.filter_map(|(name, value)| {
        let name = name.strip_prefix(PREFIX).unwrap();
        (name != "inject").then(|| (name.to_owned(), value.clone()))
    })
    .collect()
}

/// Settings that look odd and are good.
fn good() -> Vec<Settings> {
    let rows: &[&[(&str, &str)]] = &[
        &[],
        &[("client-id", "!$(b)~"), ("key-version", "007")],
        &[("private-key", ".partner_2.pem"), ("keys", "a.b-c.1")],
        &[(
            "no-proxy",
            "alipayplus.com.example,na.alipayplus.com,a-open-na.alipayplus.com",
        )],
        &[(
            "no-proxy",
            "10.0.0.0/8, 0.0.0.0/0,192.0.2.255,192.0.2.128/25,10.0.0.1/32,::/0,::1,fd00::/8,1:2:3:4:5:6:7:8,1::8",
        )],
        &[("no-proxy", "300.1.1.1,1.2.3,.local")],
        &[
            ("default-host", "pay.bank.example"),
            ("no-proxy", "ay.bank.example,x.pay.bank.example"),
        ],
        &[
            ("way-in", "hostAliases"),
            ("hosts", " a.example , b.example"),
        ],
        &[
            ("way-in", "redirect"),
            ("redirect-ports", "1, 65535"),
            ("redirect-exempt-networks", "198.51.100.64/26"),
        ],
        &[
            ("upstream", "http://[::1]:9443/"),
            ("app", "https://app_1.pay.svc.:1"),
        ],
        &[("config", "c"), ("client-id", "")],
        &[
            ("cpu-request", ".5"),
            ("cpu-limit", "500m"),
            ("memory-request", "536870912"),
            ("memory-limit", "512Mi"),
        ],
        &[
            ("memory-request", "1.Gi"),
            ("memory-limit", "1048576Ki"),
            ("log-level", "countersign=debug,info"),
        ],
        &[
            ("run-as-user", "2147483647"),
            ("image", "images.example:5000/a@sha256:0"),
        ],
        &[("egress-port", "18449"), ("admin-port", "18441")],
    ];
    rows.iter().map(|settings| row(settings)).collect()
}

#[test]
fn what_is_wrong_with_settings_is_told_as_by_inject() {
    let folder = TempDir::new().unwrap();
    let shop = shop(&folder);
    fs::write(shop.join("templates/shown.yaml"), SHOWN).unwrap();
    let rows = [rows(), good()].concat();
    let by_name: BTreeMap<String, Value> = rows
        .iter()
        .enumerate()
        .map(|(index, row)| (format!("row-{index:03}"), values(row)))
        .collect();
    let file = folder.path().join("rows.yaml");
    fs::write(&file, json!({ "rows": by_name }).to_string()).unwrap();
    let three = rendered(&shop, Some(&file));
    let four = helm4("render", &shop, &[&file]);
    let four = &four[path(&file)]["manifests"]["shop/templates/shown.yaml"];
    for (engine, text) in [
        ("Helm 3", three.as_str()),
        ("Helm 4", four.as_str().unwrap()),
    ] {
        let documents = documents(text);
        let shown = documents.iter().find(|one| one["kind"] == "ConfigMap");
        let shown = &shown.unwrap()["data"];
        for ((name, _), row) in by_name.iter().zip(&rows) {
            let told = shown[name.as_str()].as_str().unwrap();
            let mut told: Vec<&str> = told.lines().collect();
            told.sort_unstable();
            assert_eq!(told, told_by_inject(row), "{engine}: {row:?}");
        }
    }
    for row in good() {
        assert_eq!(told_by_inject(&row), Vec::<String>::new(), "{row:?}");
    }
}

/// All of it at once, whichever template is asked.
#[test]
fn settings_that_are_refused_make_no_manifest() {
    let folder = TempDir::new().unwrap();
    let shop = shop(&folder);
    let own = "own: {{ include \"countersign.pod.volumes\" .Values.own | quote }}\n";
    fs::write(shop.join("templates/own.yaml"), own).unwrap();
    let file = folder.path().join("own.yaml");
    fs::write(
        &file,
        "own: {keys: k, client-id: c, way-out: env, no-proxy: \"a.example,,\", egress-port: 443}\n",
    )
    .unwrap();
    let three = template(&shop, Some(&file));
    assert!(!three.status.success());
    let three = String::from_utf8(three.stderr).unwrap();
    let four = helm4("render", &shop, &[&file]);
    let four = four[path(&file)]["error"].as_str().unwrap();
    for error in [three.as_str(), four] {
        for part in [
            "sidecar.way-out: there is none of this name; there are admin-port, ",
            "sidecar.no-proxy: \"a.example,,\" has nothing between two commas or at an end",
            "sidecar.egress-port: \"443\" needs a privilege; take a port from 1024 to 65535",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}

/// The way the chart's README names to find what is in the way of the sidecar in the app's own containers.
#[test]
fn what_templates_cannot_see_is_told_by_inject_of_the_same_pods() {
    let folder = TempDir::new().unwrap();
    let shop = shop(&folder);
    let without = folder.path().join("without.yaml");
    fs::write(&without, "sidecar: false\n").unwrap();
    let arguments = [
        "--set=inject=enabled",
        "--set=keys=shop-countersign",
        "--set=client-id=SANDBOX_5X00000000000000",
    ];
    let said = manifests::inject(&arguments, &rendered(&shop, Some(&without)));
    assert_eq!(said.code, 0, "{}", said.err);
    let deployment = shop.join("templates/deployment.yaml");
    let good = fs::read_to_string(&deployment).unwrap();
    let taken = good.replace(
        "mountPath: /orders",
        "mountPath: /var/run/countersign/trust",
    );
    assert_ne!(good, taken);
    fs::write(&deployment, taken).unwrap();
    // The templates say nothing.
    rendered(&shop, None);
    let said = manifests::inject(&arguments, &rendered(&shop, Some(&without)));
    assert_eq!((said.code, said.out.as_str()), (64, ""));
    assert!(
        said.err.contains(
            "container \"shop\" mounts /var/run/countersign/trust, where the trust files go"
        ),
        "{}",
        said.err
    );
}
