//! Names are resolved as configured: fixed addresses first, then the configured nameservers alone; and
//! a name that leads back to the sidecar is explained.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use countersign::clock::Clock;
use countersign::exchange::{Code, Delivery};
use countersign::sandbox::Started;
use countersign::upstream::nameservers::Nameservers;
use countersign::upstream::{Config, resolve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use crate::support::daemon::{ClosedPort, Nameserver, closed_port};
use crate::support::process::{Sidecar, command, text};
use crate::support::raw::{post, send};
use crate::support::upstream::WayOut;
use crate::support::world::{PAY, gateway, payment};
use crate::support::{Answer, Files, World};

const GATEWAY: &str = "open-sea-global.alipayplus.com";

fn asking(nameservers: &[SocketAddr]) -> WayOut {
    WayOut::by(&Config {
        resolve: resolve::Config {
            nameservers: Nameservers::Listed(nameservers.to_vec()),
            ..resolve::Config::default()
        },
        proxy: None,
    })
}

/// A server on every address of this machine that says its name to all who come.
async fn greeter() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let own = stream.local_addr().unwrap().ip().to_string();
            stream.write_all(own.as_bytes()).await.unwrap();
        }
    });
    port
}

async fn reached(way: &WayOut, name: &str, port: u16) -> String {
    let mut dialled = way.dial(&format!("{name}:{port}")).await.unwrap();
    let mut address = String::new();
    dialled.read_to_string(&mut address).await.unwrap();
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_finds_the_gateway_by_the_configured_nameserver() {
    let dns = Nameserver::with(&format!("host-record={GATEWAY},127.0.0.1,60"));
    let resolve = format!("resolve: {{ nameservers: [\"{}\"] }}", dns.address);
    let world = World::calling(GATEWAY, false, "", &resolve).await;
    assert_eq!(world.pay("").await.outcome(), "verdict verified");
    assert_eq!(dns.asked("A", GATEWAY), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn fixed_addresses_win_over_the_nameserver_and_the_system() {
    let dns = Nameserver::with(&format!("address=/{GATEWAY}/127.0.0.9"));
    let port = greeter().await;
    let fixed = |names: &[&str], nameservers: Vec<SocketAddr>| {
        let addresses = vec!["127.0.0.8".parse().unwrap()];
        let hosts = names
            .iter()
            .map(|name| (name.parse().unwrap(), addresses.clone()));
        WayOut::by(&Config {
            resolve: resolve::Config {
                nameservers: Nameservers::Listed(nameservers),
                hosts: hosts.collect(),
            },
            proxy: None,
        })
    };
    let names = [GATEWAY, "localhost"];
    let way = fixed(&names, vec![dns.address]);
    for name in names {
        assert_eq!(reached(&way, name, port).await, "127.0.0.8");
    }
    assert_eq!(dns.asked("A", GATEWAY), 0);
    let by_the_system = WayOut::by(&Config {
        resolve: resolve::Config {
            hosts: [(
                "localhost".parse().unwrap(),
                vec!["127.0.0.8".parse().unwrap()],
            )]
            .into(),
            ..resolve::Config::default()
        },
        proxy: None,
    });
    assert_eq!(
        reached(&by_the_system, "localhost", port).await,
        "127.0.0.8"
    );
    // Only the exact name.
    let way = fixed(&["alipayplus.com"], vec![dns.address]);
    assert_eq!(reached(&way, GATEWAY, port).await, "127.0.0.9");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_used_as_long_as_it_says() {
    let dns = Nameserver::with(
        "host-record=long.example,127.0.0.1,300\naddress=/short.example/127.0.0.1",
    );
    let (way, port) = (asking(&[dns.address]), greeter().await);
    for (name, questions) in [("long.example", 1), ("short.example", 2)] {
        for _ in 0..2 {
            reached(&way, name, port).await;
        }
        assert_eq!(dns.asked("A", name), questions, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_absolute() {
    let dns = Nameserver::with(
        "address=/gateway/127.0.0.1\naddress=/svc.cluster.local/127.0.0.2\n\
         address=/example/127.0.0.3",
    );
    let (way, port) = (asking(&[dns.address]), greeter().await);
    assert_eq!(reached(&way, "gateway", port).await, "127.0.0.1");
    assert_eq!(
        reached(&way, "a.svc.cluster.local", port).await,
        "127.0.0.2"
    );
    assert_eq!(dns.asked("A", "gateway"), 1);
    for name in ["xn--bcher-kva.example", "_a.b_c.example", "0.example"] {
        assert_eq!(reached(&way, name, port).await, "127.0.0.3", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_too_long_for_udp_comes_by_tcp() {
    let lines: String = (2..200)
        .map(|n| format!("127.0.7.{n} many.example\n"))
        .collect();
    let files = Files::new();
    let names = files.write("names", lines.as_bytes());
    let dns = Nameserver::with(&format!("user=root\naddn-hosts={}", names.display()));
    let (way, port) = (asking(&[dns.address]), greeter().await);
    let address = reached(&way, "many.example", port).await;
    assert!(address.starts_with("127.0.7."), "{address}");
    assert_eq!(
        dns.asked("A", "many.example"),
        2,
        "once by UDP, once by TCP"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_dead_nameserver_is_no_harm() {
    let dns = Nameserver::with("address=/a.example/127.0.0.1");
    let nobody = closed_port();
    let (way, port) = (asking(&[nobody.address, dns.address]), greeter().await);
    assert_eq!(reached(&way, "a.example", port).await, "127.0.0.1");
}

/// A nameserver that answers every question with an error.
async fn failing(code: u8) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut message = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut message).await.unwrap();
            // RFC 1035 section 4.1.1: QR, then RCODE in the low half of the next byte.
            message[2] |= 0x80;
            message[3] = 0x80 | code;
            socket.send_to(&message[..length], from).await.unwrap();
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_nobody_can_resolve_is_not_sent_and_soon_said() {
    let (unknown, nobody) = (Nameserver::with("address=/gone.example/"), closed_port());
    for (what, nameserver) in [
        ("the name does not exist", unknown.address),
        ("Server Failure", failing(2).await),
        ("Query Refused", failing(5).await),
        // Nobody listens.
        ("timed out", nobody.address),
    ] {
        let (way, start) = (asking(&[nameserver]), Instant::now());
        let fault = way.dial("gone.example:443").await.unwrap_err();
        assert_eq!(
            (fault.code(), fault.delivered()),
            (Code::UpstreamUnreachable, Delivery::NotSent),
            "{what}"
        );
        // One step of the connector is 5 s; the rest is for a loaded machine.
        assert!(
            start.elapsed().as_secs() < 10,
            "{what}: {:?}",
            start.elapsed()
        );
        let chain = fault.chain();
        assert!(
            chain.contains("cannot resolve gone.example: ") && chain.contains(what),
            "{what}: {chain}"
        );
        assert_eq!(way.connects("resolve_failed"), 1, "{what}");
    }
}

/// A sidecar in a mount namespace of its own, whose hosts file gives the gateway's name to itself.
fn aliased(files: &Files, config: &str) -> Sidecar {
    let hosts = aliases(files);
    let file = files.path(config);
    let sidecar = command(&["run", "--log-format", "json", "--config", text(&file)]);
    Sidecar::start(mounting(&[(&hosts, "/etc/hosts")], &sidecar))
}

/// A hosts file that gives the gateway's name to the sidecar.
fn aliases(files: &Files) -> PathBuf {
    let lines = format!("127.0.0.1 localhost {GATEWAY}\n");
    files.write("hosts", lines.as_bytes())
}

/// That command in a mount namespace of its own, in which other files or folders lie over the system's.
fn mounting(mounts: &[(&Path, &str)], program: &Command) -> Command {
    let mounts: Vec<_> = mounts
        .iter()
        .map(|(own, over)| format!("mount --bind '{}' {over} && ", text(own)))
        .collect();
    let mut unshared = Command::new("unshare");
    unshared
        .args(["--map-root-user", "--mount", "sh", "-c"])
        .arg(format!("{} exec \"$0\" \"$@\"", mounts.concat()))
        .arg(program.get_program())
        .args(program.get_args())
        .env_remove("COUNTERSIGN_CONFIG");
    unshared
}

/// A gateway and the configuration of a sidecar that share a port: only the address tells them apart. The
/// sidecar's is kept for it.
async fn beside_its_gateway(files: &Files) -> ((Started, ClosedPort), String) {
    let (kept, _of_the_gateway) = loop {
        let kept = closed_port();
        // What is free at one address somebody may have at the other.
        let other = SocketAddr::from(([127, 0, 0, 2], kept.address.port()));
        if let Ok(other) = ClosedPort::at(other) {
            break (kept, other);
        }
    };
    let port = kept.address.port();
    let gateway = gateway(files, &Clock::system(), false, &format!("127.0.0.2:{port}")).await;
    let file = files.config(
        &format!("https://{GATEWAY}:{port}"),
        "",
        "upstream_tls: { ca_file: ca.pem }",
    );
    let config = std::fs::read_to_string(file).unwrap();
    let config = config.replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1);
    ((gateway, kept), config)
}

async fn pay(sidecar: &Sidecar) -> Answer {
    let request = post(
        PAY,
        &sidecar.egress.to_string(),
        "",
        payment("R1").as_bytes(),
    );
    send(sidecar.egress, request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_to_the_sidecar_is_explained_and_a_nameserver_resolves_it() {
    let files = Files::new();
    let ((gateway, _kept), config) = beside_its_gateway(&files).await;
    let port = gateway.address.port();
    files.write("loop.yaml", config.as_bytes());

    let mut sidecar = aliased(&files, "loop.yaml");
    assert_eq!(pay(&sidecar).await.outcome(), "loop_detected not-sent 508");
    let line = sidecar.wait_for(|line| line["error"] == "loop_detected");
    let reason = line["reason"].as_str().unwrap();
    let expected = format!(
        "{GATEWAY} resolves to 127.0.0.1:{port}, this sidecar's own listener; set \
         resolve.nameservers or resolve.hosts so that the sidecar finds the real address"
    );
    assert!(reason.contains(&expected), "{reason}");
    drop(sidecar);

    let dns = Nameserver::with(&format!("address=/{GATEWAY}/127.0.0.2"));
    let resolve = format!("resolve: {{ nameservers: [\"{}\"] }}\n", dns.address);
    files.write("asks.yaml", (config + &resolve).as_bytes());
    let sidecar = aliased(&files, "asks.yaml");
    assert_eq!(pay(&sidecar).await.outcome(), "verdict verified");
}

/// A nameserver where `resolv.conf` can name it: at port 53, on a loopback address nobody else takes.
fn for_resolv_conf(lines: &str) -> (Nameserver, IpAddr) {
    let [.., high, low] = std::process::id().to_be_bytes();
    let ip = IpAddr::from([127, 53, high, low.clamp(1, 254)]);
    (Nameserver::at((ip, 53).into(), lines), ip)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nameservers_of_the_system_are_asked_and_never_the_hosts_file() {
    let files = Files::new();
    let (_gateway, config) = beside_its_gateway(&files).await;
    // In a search domain of its own the name leads elsewhere; a pod has such domains, and ndots:5.
    let (dns, ip) = for_resolv_conf(&format!(
        "address=/{GATEWAY}/127.0.0.2\naddress=/{GATEWAY}.trap.example/127.0.0.3"
    ));
    let conf = format!("nameserver {ip}\nsearch trap.example\noptions ndots:5\n");
    let conf = files.write("resolv.conf", conf.as_bytes());
    let (hosts, plain) = (
        aliases(&files),
        files.write("plain.yaml", config.as_bytes()),
    );
    let with_key = config + "resolve: { nameservers: system }\n";
    let with_key = files.write("system.yaml", with_key.as_bytes());
    for (file, flags) in [
        (&with_key, vec![]),
        (&plain, vec!["--nameservers", "system"]),
    ] {
        let arguments = ["run", "--log-format", "json", "--config", text(file)];
        let run = command(&[&arguments[..], &flags].concat());
        let mounts: [(&Path, &str); 2] = [(&hosts, "/etc/hosts"), (&conf, "/etc/resolv.conf")];
        let asked = dns.asked("A", GATEWAY);
        let mut sidecar = Sidecar::start(mounting(&mounts, &run));
        assert_eq!(pay(&sidecar).await.outcome(), "verdict verified");
        assert_eq!(dns.asked("A", GATEWAY), asked + 1);
        let line = sidecar.log.iter().find(|line| {
            let message = line["message"].as_str().unwrap();
            message
                .starts_with("upstream: names are resolved by the nameservers of /etc/resolv.conf")
        });
        assert!(line.is_some(), "{:#?}", sidecar.log);
        sidecar.signal("INT");
        sidecar.wait_for(|line| line["message"] == "drained");
    }
}

#[test]
fn a_system_that_names_no_nameserver_is_explained() {
    let files = Files::new();
    let file = files.config(
        "https://localhost:1",
        "",
        "resolve: { nameservers: system }",
    );
    let empty = files.write("empty", b"# nothing\nsearch example\n");
    let folder = tempfile::tempdir().unwrap();
    for (own, over, why) in [
        (empty.as_path(), "/etc/resolv.conf", "names no nameserver"),
        (folder.path(), "/etc", "no such file"),
    ] {
        let check = command(&["check", "--config", text(&file)]);
        let output = mounting(&[(own, over)], &check).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        let expected = format!(
            "resolve.nameservers: system: /etc/resolv.conf: {why}; list the nameservers' addresses \
             instead\n"
        );
        let shown = String::from_utf8(output.stderr).unwrap();
        assert!(shown.ends_with(&expected), "{shown}");
        assert_eq!(shown.lines().count(), 1, "{shown}");
    }
}
