//! What annotations and defaults may say, what they may not, and what counts where they disagree.

use countersign::admin;
use countersign::config::Limits;
use countersign::kube::{Defaults, Outcome, PREFIX, TABLE, inject};
use countersign::net::places::LEAVING;
use serde_json::{Value, json};

use crate::support::manifests::{pod, refused};

/// Name, value, and how what is said of it begins.
pub(crate) const BAD: &[(&str, &str, &str)] = &[
    ("inject", "true", "\"true\" is none of enabled, disabled"),
    (
        "keys",
        "Partner_Keys",
        "\"Partner_Keys\" is no name of an object; it has lower case letters, digits, - and .",
    ),
    ("client-id", "a.b", "\"a.b\": "),
    (
        "private-key",
        "../key.pem",
        "\"../key.pem\" is no file of a Secret; its key is needed, such as partner.pem",
    ),
    ("private-key", "..", "\"..\" is no file of a Secret"),
    ("key-version", "one", "\"one\": "),
    (
        "way-in",
        "proxy",
        "\"proxy\" is none of none, env, hostAliases, redirect",
    ),
    (
        "way-in",
        "hostaliases",
        "\"hostaliases\" is none of none, env, hostAliases, redirect",
    ),
    (
        "app",
        "shop",
        "\"shop\" is neither a port nor a URL; write it like 8080 or http://127.0.0.1:8080",
    ),
    ("app", "0", "\"0\" is no port from 1 to 65535"),
    ("upstream", "https://a/b", "\"https://a/b\""),
    (
        "default-host",
        "Open.Example",
        "\"Open.Example\" is no host name in lower case",
    ),
    (
        "egress-port",
        "443",
        "\"443\" needs a privilege; take a port from 1024 to 65535",
    ),
    (
        "egress-port",
        "+18441",
        "\"+18441\" is no port from 1 to 65535",
    ),
    (
        "no-proxy",
        "10.0.0.1/8",
        "\"10.0.0.1/8\" is neither a host name in lower case nor a network",
    ),
    (
        "redirect-exempt-networks",
        "10.0.0.1/8",
        "\"10.0.0.1/8\" has bits set behind its length; the network is 10.0.0.0/8",
    ),
    (
        "no-proxy",
        "a,,b",
        "\"a,,b\" has nothing between two commas or at an end",
    ),
    (
        "no-proxy",
        "a.example,a.example",
        "\"a.example\" is named twice",
    ),
    (
        "containers",
        "App",
        "\"App\" is no name of a container; it has lower case letters, digits and -",
    ),
    ("sidecar", "init", "\"init\" is none of native, classic"),
    (
        "image",
        "a b",
        "\"a b\" is no image; write it like countersign:0.1.0",
    ),
    (
        "image-pull-policy",
        "always",
        "\"always\" is none of Always, IfNotPresent, Never",
    ),
    (
        "cpu-request",
        "half",
        "\"half\" is no quantity; write it like 250m, 1 or 64Mi, or none",
    ),
    ("memory-limit", "0", "\"0\" is no quantity"),
    (
        "run-as-user",
        "0",
        "\"0\" is no number of a user but root, from 1 to 2147483647",
    ),
    (
        "log-level",
        "info $(HOME)",
        "\"info $(HOME)\" has a space, a $ or something that is no ASCII in it",
    ),
    (
        "keyz",
        "a",
        "there is none of this name; \"keys\" may be meant",
    ),
    (
        "injection",
        "enabled",
        "there is none of this name; \"inject\" may be meant",
    ),
    (
        "egressPort",
        "1",
        "there is none of this name; \"egress-port\" may be meant",
    ),
    (
        "zzz",
        "1",
        "there is none of this name; there are inject, keys, client-id, ",
    ),
];

#[test]
fn every_bad_value_is_refused_by_name_with_what_would_be_right() {
    for (name, value, complaint) in BAD {
        let reasons = refused(&pod(&[(name, value)], &json!({})));
        assert_eq!(reasons.len(), 1, "{reasons:#?}");
        let named = reasons[0].strip_prefix(&format!("annotation {PREFIX}{name}: "));
        assert!(
            named.is_some_and(|reason| reason.starts_with(complaint)),
            "{complaint}
{reasons:#?}"
        );
        // The same as a default.
        let mut defaults = Defaults::default();
        let problem = defaults.set(name, value).unwrap_err();
        assert!(reasons[0].ends_with(&problem), "{problem}");
    }
    // What would be multiplied by the containers it goes to, or looked at for hours.
    let names: Vec<String> = (0..1000).map(|number| format!("n{number}")).collect();
    let (long, much) = ("x".repeat(64), names.join(","));
    for (name, value, complaint) in [
        (
            "no-proxy",
            much.as_str(),
            "has 4889 characters, and at most 4096 may stand here",
        ),
        (
            &long,
            "a",
            "there is none of this name, and none is as long",
        ),
    ] {
        let reasons = refused(&pod(&[(name, value)], &json!({})));
        assert_eq!(reasons, [format!("annotation {PREFIX}{name}: {complaint}")]);
    }
    // What is quoted breaks no line and orders no terminal.
    let reasons = refused(&pod(&[("way-in", "a\n\u{1b}[2Jb")], &json!({})));
    assert!(
        reasons[0].contains("\"a\\n\\u{1b}[2Jb\" is none of"),
        "{reasons:?}"
    );
    // Text where Kubernetes wants text.
    let mut number = pod(&[], &json!({}));
    number["metadata"]["annotations"]["countersign.dev/egress-port"] = json!(18441);
    assert_eq!(
        refused(&number),
        ["annotation countersign.dev/egress-port: 18441 is no text; put it between quotes"]
    );
}

#[test]
fn wishes_that_contradict_each_other_are_refused() {
    for (annotations, complaints) in [
        (
            &[("keys", "")] as &[_],
            &["keys: is missing; it names the Secret with the key files"] as &[_],
        ),
        (
            &[("client-id", "")],
            &[
                "client-id: is missing; it names the partner's client id, or config with the name of a ConfigMap",
            ],
        ),
        (
            &[("config", "c"), ("app", "8080")],
            &[
                "client-id: goes without countersign.dev/config only, which is here, too; config.yaml says this",
                "app: goes without countersign.dev/config only, which is here, too; config.yaml says this",
            ],
        ),
        (
            &[("hosts", "a.example")],
            &["hosts: goes with countersign.dev/way-in: hostAliases only"],
        ),
        (
            &[
                ("way-in", "redirect"),
                ("no-proxy", "a.example"),
                ("hosts", "a.example"),
            ],
            &[
                "hosts: goes with countersign.dev/way-in: hostAliases only",
                "no-proxy: goes with countersign.dev/way-in: env only",
            ],
        ),
        (
            &[
                ("way-in", "redirect"),
                ("redirect-exempt-networks", "10.0.0.0/8,0.0.0.0/0"),
            ],
            &[
                "redirect-exempt-networks: \"0.0.0.0/0\" is every address: nothing would come to the sidecar, and all would go out unsigned; name the networks that are meant",
            ],
        ),
        (
            &[("no-proxy", "corp.example,open-na.alipayplus.com,.com")],
            &[
                "no-proxy: open-na.alipayplus.com would lead calls to open-na.alipayplus.com past the sidecar, unsigned",
                "no-proxy: .com would lead calls to open-na.alipayplus.com past the sidecar, unsigned",
            ],
        ),
        (
            &[
                ("no-proxy", "bank.example"),
                ("default-host", "pay.bank.example"),
            ],
            &[
                "no-proxy: bank.example would lead calls to pay.bank.example past the sidecar, unsigned",
            ],
        ),
        (
            &[
                ("redirect-ports", "443"),
                ("redirect-exempt-networks", "fd00::/8"),
                ("redirect-image", "a"),
            ],
            &[
                "redirect-ports: goes with countersign.dev/way-in: redirect only",
                "redirect-exempt-networks: goes with countersign.dev/way-in: redirect only",
                "redirect-image: goes with countersign.dev/way-in: redirect only",
            ],
        ),
        (
            &[("egress-port", "18449"), ("ingress-port", "18449")],
            &[
                "ingress-port: 18449 is another port of the sidecar already",
                "admin-port: 18449 is another port of the sidecar already",
            ],
        ),
        (
            &[("memory-request", "1Gi")],
            &["memory-request: 1Gi is more than memory-limit, 512Mi"],
        ),
        (
            &[("cpu-request", "1.5"), ("cpu-limit", "1400m")],
            &["cpu-request: 1.5 is more than cpu-limit, 1400m"],
        ),
        (
            &[("containers", "shop")],
            &["containers: there is no container \"shop\"; there are app"],
        ),
    ] {
        let reasons = refused(&pod(annotations, &json!({})));
        let expected: Vec<_> = complaints
            .iter()
            .map(|complaint| format!("annotation {PREFIX}{complaint}"))
            .collect();
        assert_eq!(reasons, expected);
    }
}

#[test]
fn defaults_hold_where_a_pod_says_nothing_and_are_read_with_their_lines() {
    let text = "defaults:\n  inject: enabled\n  keys: all-keys\n  config: all\n  egress-port: 16001\n  hosts: a.example\n";
    let defaults = Defaults::read("injector.yaml", text).unwrap();
    let arguments = |pod: &Value| match inject(pod, &defaults) {
        Outcome::Injected { pod, .. } => pod["spec"]["initContainers"][0]["args"].to_string(),
        other => panic!("{other:?}"),
    };
    let spec = json!({ "containers": [{ "name": "app" }] });
    let plain = arguments(&json!({ "spec": spec }));
    assert!(
        plain.contains("--config=/etc/countersign/config/config.yaml")
            && plain.contains("localhost:16001"),
        "{plain}"
    );
    // A pod with a client id of its own takes no file of the defaults.
    let own = arguments(&pod(&[("egress-port", "17001")], &json!({})));
    assert!(
        own.contains("--client-id=")
            && !own.contains("--config")
            && own.contains("localhost:17001"),
        "{own}"
    );
    let Outcome::Refused(reasons) = inject(
        &pod(&[("client-id", ""), ("app", "8080")], &json!({})),
        &defaults,
    ) else {
        panic!("app goes without a file");
    };
    assert!(
        reasons[0]
            .contains("app: goes without countersign.dev/config only, which is among the defaults"),
        "{reasons:?}"
    );
    assert!(Defaults::read("f", "").is_ok() && Defaults::read("f", "defaults:\n").is_ok());
    let problems = Defaults::read(
        "f",
        "defaults:\n  way-in: proxy\n  keyz: a\n  keys: [a]\nother: {}\n",
    )
    .unwrap_err();
    assert_eq!(
        problems,
        [
            "f:2: defaults.way-in: \"proxy\" is none of none, env, hostAliases, redirect",
            "f:3: defaults.keyz: there is none of this name; \"keys\" may be meant",
            "f:4: defaults.keys: must be a single value",
            "f:5: unknown key \"other\"; known here: defaults",
        ]
    );
    assert_eq!(
        Defaults::read("f", "- a\n").unwrap_err(),
        ["f:1: must be a mapping of names to values"]
    );
    assert!(
        Defaults::read("f", "a: 1\na: 2\n").unwrap_err()[0]
            .starts_with("f:2: the key \"a\" is given twice")
    );
}

#[test]
fn every_default_of_the_table_is_a_good_value() {
    for annotation in TABLE {
        if let Some(default) = annotation.default {
            Defaults::default().set(annotation.text, default).unwrap();
        }
    }
}

#[test]
fn a_sidecar_may_take_what_its_limits_let_strangers_fill() {
    let limits = Limits::default();
    // Bodies of both directions and answers of the app; unfinished heads on ingress, for each of which 150 KiB were
    // measured, and on the admin port, for whose smaller ones 53 KiB were, and up to 82 while thousands took each other's places.
    let bodies = 3 * limits.buffered;
    let admin = admin::connections(limits.connections) + LEAVING + 1;
    let heads = limits.connections as usize * (150 << 10) + admin as usize * (100 << 10);
    let limit = TABLE.iter().find(|row| row.text == "memory-limit");
    let limit = limit.and_then(|row| row.default?.strip_suffix("Mi"));
    let limit = limit.unwrap().parse::<usize>().unwrap() << 20;
    assert!(bodies + heads < limit, "{bodies} + {heads} >= {limit}");
}
