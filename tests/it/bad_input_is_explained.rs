//! Bad input is named with one clear line each, exit 64, and nothing is started.

use std::net::TcpListener;
use std::process::Output;

use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;

use crate::support::process::{countersign, text};
use crate::support::{CLIENT_ID, Files};

fn complaints(output: &Output) -> Vec<String> {
    String::from_utf8(output.stderr.clone())
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Checks and runs the file; both must say the same single line and exit 64.
pub fn one_line(files: &Files, file: &str) -> String {
    let path = files.path(file);
    let check = countersign(&["check", "--config", text(&path)]);
    // Before `run`, which would serve for ever if the file were good.
    assert_eq!(check.status.code(), Some(64), "{check:?}");
    let run = countersign(&["run", "--config", text(&path)]);
    assert_eq!(run.status.code(), Some(64), "{run:?}");
    assert!(
        check.stdout.is_empty() && run.stdout.is_empty(),
        "nothing may start"
    );
    let lines = complaints(&check);
    assert_eq!(lines, complaints(&run));
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines[0].clone()
}

#[test]
fn every_mistake_has_its_line_with_file_key_and_what_would_be_right() {
    let files = Files::new();
    let file = files.config("https://localhost:1", "", "");
    let good = std::fs::read_to_string(file).unwrap();
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let ec = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    files.write("ec.pem", &ec.private_key_to_pem_pkcs8().unwrap());
    files.write(
        "short.pem",
        &Rsa::generate(1024).unwrap().private_key_to_pem().unwrap(),
    );
    for (name, from, to, expected) in [
        (
            "missing key file",
            "partner.pem",
            "absent.pem",
            "absent.pem: no such file",
        ),
        (
            "more tunnels than connections",
            "admin:",
            "limits: { connections: 5, tunnels: 6 }\nadmin:",
            "limits.tunnels: is more than limits.connections",
        ),
        ("EC key", "partner.pem", "ec.pem", "EC"),
        ("1024 bits", "partner.pem", "short.pem", "1024 bits"),
        (
            "public as private",
            "partner.pem",
            "partner.pub.pem",
            "public key",
        ),
        (
            "private as public",
            "alipayplus.pem",
            "partner.pem",
            "private key",
        ),
        (
            "own public key",
            "alipayplus.pem",
            "partner.pub.pem",
            "own public key",
        ),
        ("directory", "partner.pem", ".", "directory"),
        (
            "unknown key",
            "  listen: 127",
            "  lisen: 127",
            "unknown key \"lisen\"; known here: listen",
        ),
        ("dot in client id", CLIENT_ID, "SANDBOX.5X", "'.'"),
        (
            "no address",
            "127.0.0.1:0\n  routes",
            "localhost\n  routes",
            "127.0.0.1:18441",
        ),
        (
            "upstream path",
            "https://localhost:1",
            "https://localhost/x",
            "https://host:443",
        ),
        (
            "host as url",
            "[open-*-",
            "[https://open-*-",
            "no host name",
        ),
        (
            "bad version",
            "key_version: 1 }\n",
            "key_version: one }\n",
            "\"one\" is no decimal number",
        ),
        ("twice", "\nadmin:", "\nadmin: {}\nadmin:", "duplicate"),
        (
            "default host unsigned",
            "  routes:",
            "  default_host: open-sea.alipay.com\n  routes:",
            "open-sea.alipay.com is in no route",
        ),
        (
            "grace",
            "\nadmin:",
            "\ndrain: { grace: 9s, deadline: 8s }\nadmin:",
            "longer",
        ),
        ("bad yaml", "egress:\n", "egress: [\n", "not valid YAML"),
    ] {
        assert!(good.contains(from), "{name}: {from}");
        files.write("bad.yaml", good.replacen(from, to, 1).as_bytes());
        let line = one_line(&files, "bad.yaml");
        assert!(
            line.starts_with("countersign: ") && line.contains("bad.yaml"),
            "{name}: {line}"
        );
        assert!(line.contains(expected), "{name}: {line}");
    }
}

#[test]
fn mistakes_in_the_section_ca_have_their_line() {
    let files = Files::new();
    for (section, expected) in [
        (
            "{ life: 1d }",
            "ca.life: \"1d\" is out of range; 30d to 36500d are allowed",
        ),
        (
            "{ dir: x }",
            "unknown key \"dir\"; known here: directory, life, trust_directory",
        ),
        ("{ directory: }", "ca.directory: is empty"),
    ] {
        files.config("https://localhost:1", "", &format!("ca: {section}"));
        let line = one_line(&files, "config.yaml");
        assert!(line.contains(expected), "{section}: {line}");
    }
    files.config(
        "https://localhost:1",
        "",
        "ca: { directory: ca, life: 90d, trust_directory: /trust }",
    );
    let loaded = countersign::config::load(&files.path("config.yaml"));
    let ca = loaded.config.unwrap().ca;
    assert_eq!(ca.directory, Some(files.path("ca")));
    assert_eq!(ca.life, std::time::Duration::from_hours(90 * 24));
    assert_eq!(ca.trust_directory, Some("/trust".into()));
}

#[test]
fn two_routes_for_one_host_are_refused() {
    let files = Files::new();
    for second in [
        "open-*-global.alipayplus.com",
        "open-sea-global.alipayplus.com",
    ] {
        let route = format!("    - hosts: [{second}]");
        files.config("https://localhost:1", &route, "");
        let line = one_line(&files, "config.yaml");
        assert!(
            line.contains("two routes") && line.contains("config.yaml:"),
            "{line}"
        );
    }
}

#[test]
fn all_problems_of_a_file_are_reported_in_one_run() {
    let files = Files::new();
    let file = files.write(
        "bad.yaml",
        b"identities:\n  - client_id: A.B\n    signing_key: { file: a, key_version: x }\n  \
          - { client_id: A, signing_key: { file: gone.pem }, verification_keys: [{ file: b }] }\n\
          egress:\n  listen: nowhere\n  unmatched: perhaps\n  typo: 1\nlimits: { buffered: much }\n",
    );
    let output = countersign(&["check", "--config", text(&file)]);
    let lines = complaints(&output);
    for (line, what) in [
        (2, "'.'"),
        (3, "\"x\""),
        (2, "verification_keys"),
        (4, "gone.pem: no such file"),
        (6, "nowhere"),
        (7, "perhaps"),
        (8, "typo"),
        (9, "much"),
    ] {
        let place = format!("bad.yaml:{line}");
        assert!(
            lines
                .iter()
                .any(|text| text.contains(&place) && text.contains(what)),
            "{place} {what}: {lines:#?}"
        );
    }
}

#[test]
fn a_missing_file_says_how_to_run_without_one() {
    let output = countersign(&["run", "--config", "/no/such/file.yaml"]);
    assert_eq!(output.status.code(), Some(64));
    let lines = complaints(&output);
    assert!(
        lines[0].contains("/no/such/file.yaml: no such file"),
        "{lines:?}"
    );
    assert_eq!(lines.len(), 1);
}

#[test]
fn a_port_in_use_ends_with_exit_1_and_names_key_and_address() {
    let files = Files::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let file = files.config("https://localhost:1", "", "");
    let text_of_file = std::fs::read_to_string(&file).unwrap();
    let file = files.write(
        "taken.yaml",
        text_of_file.replace("127.0.0.1:0", &address).as_bytes(),
    );
    let other = std::fs::read_to_string(&file).unwrap();
    let other = other.replace(&format!("listen: \"{address}\""), "listen: \"127.0.0.1:0\"");
    let file = files.write("taken.yaml", other.as_bytes());
    let output = countersign(&["run", "--config", text(&file)]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let lines = complaints(&output);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains("egress.listen") && lines[0].contains(&address),
        "{lines:?}"
    );
}

#[test]
fn wrong_usage_exits_64_and_help_exits_0() {
    assert_eq!(countersign(&["nonsense"]).status.code(), Some(64));
    assert_eq!(
        countersign(&["run", "--client-id", "A"]).status.code(),
        Some(64)
    );
    assert_eq!(
        countersign(&["run", "--client-id", "A.B"]).status.code(),
        Some(64)
    );
    assert_eq!(countersign(&["--help"]).status.code(), Some(0));
    assert_eq!(countersign(&["--version"]).status.code(), Some(0));
}

#[test]
fn check_shows_clients_routes_and_fingerprints_and_no_secret() {
    let files = Files::new();
    let file = files.config("https://localhost:1", "", "");
    let output = countersign(&["check", "--config", text(&file)]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = String::from_utf8(output.stdout).unwrap();
    let fingerprint = files.partner.public_key().fingerprint().to_string();
    for part in [
        CLIENT_ID,
        &fingerprint,
        "open-*-global.alipayplus.com",
        "enforce",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let secret = files.partner.to_pkcs8_base64();
    assert!(!shown.contains(&secret[100..140]), "{shown}");
}

const INGRESS: &str = "ingress:\n  listen: 127.0.0.1:18442\n  routes:\n    - path_prefix: /alipayplus\n      \
                       app: http://127.0.0.1:8080\n      max_skew: 5m\n      prefix_rewrite: /";

#[test]
fn check_shows_the_way_in() {
    let files = Files::new();
    let file = files.config("https://localhost:1", "", INGRESS);
    let output = countersign(&["check", "--config", text(&file)]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = String::from_utf8(output.stdout).unwrap();
    let line = "ingress route /alipayplus: any host /alipayplus as / to http://127.0.0.1:8080, \
                answers signed as the client the caller names, verify enforce, replay report";
    assert!(shown.contains(line), "{shown}");
}

#[test]
fn mistakes_in_the_section_ingress_have_their_line() {
    let files = Files::new();
    let good = std::fs::read_to_string(files.config("https://localhost:1", "", INGRESS)).unwrap();
    for (from, to, expected) in [
        (
            "  listen: 127.0.0.1:18442\n",
            "",
            "ingress: the key \"listen\" is missing",
        ),
        (
            "app: http://127.0.0.1:8080",
            "app: 127.0.0.1:8080",
            "must begin with https:// or http://",
        ),
        (
            "path_prefix: /alipayplus",
            "path_prefix: alipayplus",
            "\"alipayplus\" is no path; it must begin with / and have no query",
        ),
        (
            "max_skew: 5m",
            "replay: yes",
            "\"yes\" is none of off, report, enforce",
        ),
        (
            "max_skew: 5m",
            "timeouts: { pay: 8 }",
            "\"8\" is no duration",
        ),
        (
            "max_skew: 5m",
            "identity: NOBODY",
            "no identity has the client_id NOBODY",
        ),
        (
            "max_skew: 5m",
            "hosts: []",
            "at least one host is needed; without the key all are meant",
        ),
        ("max_skew: 5m", "skew: 5m", "unknown key \"skew\""),
        (
            "listen: 127.0.0.1:18442",
            "listen: 127.0.0.1:18442\n  tls: { certificate_file: absent.pem }",
            "ingress.tls: the key \"key_file\" is missing",
        ),
        (
            "listen: 127.0.0.1:18442",
            "listen: 127.0.0.1:18442\n  tls: { certificate_file: absent.pem, key_file: absent.pem }",
            "ingress.tls.certificate_file: ",
        ),
        (
            "prefix_rewrite: /",
            "prefix_rewrite: /\n    - { name: b, path_prefix: /alipayplus/, app: \"http://a\" }",
            "/alipayplus/ is in two routes",
        ),
        (
            "listen: 127.0.0.1:18442",
            "listen: [127.0.0.1:18442, 127.0.0.1:18442]",
            "127.0.0.1:18442 is given twice",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        files.write("bad.yaml", good.replace(from, to).as_bytes());
        let line = one_line(&files, "bad.yaml");
        assert!(line.contains(expected), "{to}: {line}");
    }
}

#[test]
fn ids_that_cannot_be_compared_have_their_line() {
    let files = Files::new();
    let many = vec!["id"; 33].join(", ");
    for (bind, expected) in [
        (
            "[paymentRequestId, order.id]",
            "bind[1]: \"order.id\" is no name of a top-level member",
        ),
        ("on", "bind: \"on\" is neither a list of names nor off"),
        (&format!("[{many}]"), "bind: at most 32 names are compared"),
    ] {
        files.config("https://localhost:1", &format!("      bind: {bind}"), "");
        let line = one_line(&files, "config.yaml");
        let place = "egress.routes[0].";
        assert!(line.contains(&format!("{place}{expected}")), "{line}");
    }
}

#[test]
fn policies_of_retries_that_do_not_exist_have_their_line() {
    let files = Files::new();
    let route = "      proxy_retries: never\n      repeated_requests: enforce";
    let file = files.config("https://localhost:1", route, "");
    let output = countersign(&["check", "--config", text(&file)]);
    assert_eq!(output.status.code(), Some(64));
    let errors = String::from_utf8(output.stderr).unwrap();
    for line in [
        "egress.routes[0].proxy_retries: \"never\" is none of refuse, report, allow",
        "egress.routes[0].repeated_requests: \"enforce\" is none of refuse, report, allow",
    ] {
        assert!(errors.contains(line), "{errors}");
    }
}
