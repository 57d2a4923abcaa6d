//! Names are resolved as configured: fixed addresses first, then the configured nameservers alone; and
//! a name that leads back to the sidecar is explained.

use std::net::SocketAddr;
use std::time::Instant;

use countersign::clock::Clock;
use countersign::exchange::{Code, Delivery};
use countersign::upstream::{Config, resolve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use crate::support::daemon::{Nameserver, closed_port};
use crate::support::process::{Sidecar, command, text};
use crate::support::raw::{post, send};
use crate::support::upstream::WayOut;
use crate::support::world::{PAY, gateway, payment};
use crate::support::{Files, World};

const GATEWAY: &str = "open-sea-global.alipayplus.com";

fn asking(nameservers: &[SocketAddr]) -> WayOut {
    WayOut::by(&Config {
        resolve: resolve::Config {
            nameservers: nameservers.to_vec(),
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
                nameservers,
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
    assert_eq!(
        reached(&fixed(&names, vec![]), "localhost", port).await,
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
    let (way, port) = (asking(&[closed_port(), dns.address]), greeter().await);
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
    let unknown = Nameserver::with("address=/gone.example/");
    for (what, nameserver) in [
        ("the name does not exist", unknown.address),
        ("Server Failure", failing(2).await),
        ("Query Refused", failing(5).await),
        // Nobody listens.
        ("timed out", closed_port()),
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
    let hosts = files.write(
        "hosts",
        format!("127.0.0.1 localhost {GATEWAY}\n").as_bytes(),
    );
    let file = files.path(config);
    let sidecar = command(&["run", "--log-format", "json", "--config", text(&file)]);
    let mut unshared = std::process::Command::new("unshare");
    unshared
        .args(["--map-root-user", "--mount", "sh", "-c"])
        .arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"")
        .arg(hosts)
        .arg(sidecar.get_program())
        .args(sidecar.get_args())
        .env_remove("COUNTERSIGN_CONFIG");
    Sidecar::start(unshared)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_to_the_sidecar_is_explained_and_a_nameserver_resolves_it() {
    let files = Files::new();
    // The gateway and the sidecar share a port, so only the address tells them apart.
    let gateway = gateway(&files, &Clock::system(), false, "127.0.0.2:0").await;
    let port = gateway.address.port();
    let file = files.config(
        &format!("https://{GATEWAY}:{port}"),
        "",
        "upstream_tls: { ca_file: ca.pem }",
    );
    let config = std::fs::read_to_string(file).unwrap();
    let config = config.replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1);
    files.write("loop.yaml", config.as_bytes());
    let pay = |sidecar: &Sidecar| {
        let request = post(
            PAY,
            &sidecar.egress.to_string(),
            "",
            payment("R1").as_bytes(),
        );
        send(sidecar.egress, request)
    };

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
