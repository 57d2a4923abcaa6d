//! `:PORT` and `localhost:PORT` are every address of their kind that the pod has, whatever IP it speaks: the kubelet's
//! probes, Prometheus and callers reach it, and what is for loopback alone stays so.

use std::net::SocketAddr;
use std::process::Command;

use crate::support::Files;
use crate::support::netns::{Namespace, succeed};
use crate::support::process::{Sidecar, text};

const BINARY: &str = env!("CARGO_BIN_EXE_countersign");
const WITHOUT_IPV6: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/without_ipv6.py");
const INGRESS: &str = "ingress: { routes: [{ app: \"http://127.0.0.1:1\" }] }\n";

/// A pod of one kind.
struct Kind {
    label: &'static str,
    /// What makes its network so, on its own side.
    shell: &'static str,
    has_ipv6: bool,
    /// Whether the program runs as on a kernel that was built without IPv6.
    is_built_without: bool,
    /// Its addresses.
    reached: &'static [&'static str],
    /// From where the drain is ordered in the end.
    loopback: &'static str,
}

const KINDS: [Kind; 4] = [
    Kind {
        label: "v6only",
        shell: "ip address del 192.0.2.2/24 dev eth0",
        has_ipv6: true,
        is_built_without: false,
        reached: &["[2001:db8::2]"],
        loopback: "[::1]",
    },
    Kind {
        label: "dual",
        // The switch that keeps IPv4 away from a socket at `[::]`.
        shell: "echo 1 >/proc/sys/net/ipv6/bindv6only",
        has_ipv6: true,
        is_built_without: false,
        reached: &["192.0.2.2", "[2001:db8::2]"],
        loopback: "127.0.0.1",
    },
    Kind {
        label: "off",
        shell: "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6",
        has_ipv6: false,
        is_built_without: false,
        reached: &["192.0.2.2"],
        loopback: "127.0.0.1",
    },
    Kind {
        label: "v4only",
        shell: "ip -6 address flush dev eth0",
        has_ipv6: false,
        is_built_without: true,
        reached: &["192.0.2.2"],
        loopback: "127.0.0.1",
    },
];

/// The status `curl` gets.
fn status(mut curl: Command, method: &str, host: &str, port: u16, path: &str) -> String {
    let url = format!("http://{host}:{port}{path}");
    let line = ["-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}"];
    succeed(curl.args(line).args(["-g", "-X", method, &url]))
}

fn started(kind: &Kind, network: &Namespace, files: &Files) -> Sidecar {
    let rest = format!("{INGRESS}drain: {{ grace: 0s, deadline: 5s }}");
    let file = files.config("http://127.0.0.1:1", "", &rest);
    let mut run = if kind.is_built_without {
        let mut python = network.command("/usr/bin/python3");
        python.args([WITHOUT_IPV6, BINARY]);
        python
    } else {
        network.command(BINARY)
    };
    run.args(["run", "--config", text(&file)])
        .args(["--egress-listen=localhost:0", "--ingress-listen=:0"])
        .arg("--admin-listen=:0")
        .env_remove("COUNTERSIGN_CONFIG");
    Sidecar::start(run)
}

#[test]
fn a_sidecar_is_reached_at_every_address_its_pod_has() {
    for kind in KINDS {
        let (files, network) = (Files::new(), Namespace::new(kind.label));
        succeed(network.command("sh").args(["-c", kind.shell]));
        let mut sidecar = started(&kind, &network, &files);
        let (admin, ingress) = (sidecar.admin.port(), sidecar.ingress.port());
        let label = kind.label;
        for host in kind.reached {
            let outside = |method, port, path| {
                let curl = network.outside("curl");
                status(curl, method, host, port, path)
            };
            assert_eq!(outside("GET", admin, "/readyz"), "200", "{label} {host}");
            assert_eq!(outside("POST", admin, "/drain"), "403", "{label} {host}");
            assert_eq!(outside("POST", ingress, "/pay"), "401", "{label} {host}");
            // From the pod's own address, which is none of loopback.
            let own = status(network.command("curl"), "POST", host, admin, "/drain");
            assert_eq!(own, "403", "{label} {host}");
        }
        let loopback: &[_] = if kind.has_ipv6 {
            &["127.0.0.1", "[::1]"]
        } else {
            &["127.0.0.1"]
        };
        let egress: Vec<String> = loopback
            .iter()
            .map(|host| format!("{host}:{}", sidecar.egress.port()))
            .collect();
        assert_eq!(sidecar.log.last().unwrap()["egress"], egress.join(" "));
        for host in loopback {
            let inside = |port| status(network.command("curl"), "GET", host, port, "/readyz");
            assert_eq!(inside(admin), "200", "{label} {host}");
            // For the gateway, which is away.
            assert_eq!(inside(sidecar.egress.port()), "502", "{label} {host}");
        }
        let curl = network.command("curl");
        let drained = status(curl, "POST", kind.loopback, admin, "/drain");
        assert_eq!(drained, "202", "{label}");
        sidecar.wait_for(|line| line["message"] == "drained");
    }
}

/// A request that names the address it came to is for the sidecar, also where IPv4 came to a socket of IPv6.
#[test]
fn an_ipv4_address_of_the_sidecar_is_itself() {
    let (files, network) = (Files::new(), Namespace::new("itself"));
    let file = files.config("http://127.0.0.1:1", "", "");
    let mut run = network.command(BINARY);
    run.args(["run", "--config", text(&file), "--egress-listen=:0"])
        .env_remove("COUNTERSIGN_CONFIG");
    let sidecar = Sidecar::start(run);
    assert!(matches!(sidecar.egress, SocketAddr::V6(_)));
    let port = sidecar.egress.port();
    let mut curl = network.command("curl");
    let proxy = format!("http://192.0.2.2:{port}");
    let line = ["-s", "-m", "20", "-D", "-", "-o", "/dev/null", "-x", &proxy];
    let head = succeed(curl.args(line).arg(format!("{proxy}/pay")));
    // To the default host, whose gateway is away, and not in a circle to itself.
    assert!(head.contains("upstream_unreachable"), "{head}");
}

#[test]
fn a_port_that_is_taken_is_named_as_it_was_written() {
    let (files, network) = (Files::new(), Namespace::new("taken"));
    let file = files.config("http://127.0.0.1:1", "", "");
    let run = |flag: &str| {
        let mut run = network.command(BINARY);
        run.args(["run", "--config", text(&file), "--admin-listen=:0", flag])
            .env_remove("COUNTERSIGN_CONFIG");
        run
    };
    let first = Sidecar::start(run("--egress-listen=[::1]:0"));
    let port = first.egress.port();
    for place in [format!(":{port}"), format!("localhost:{port}")] {
        let second = run(&format!("--egress-listen={place}")).output().unwrap();
        let line = String::from_utf8(second.stderr).unwrap();
        let expected = format!("egress.listen: {place} is in use by another process");
        assert!(line.contains(&expected), "{line}");
    }
}
