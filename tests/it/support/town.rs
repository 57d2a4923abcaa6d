//! A whole town in networks of its own: apps, a sidecar with a user of its own, and outside the real
//! address of a gateway and of other servers.
//!
//! The sidecar is the real binary, run as a user that owns nothing. Needs root.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::clients::Surroundings;
use super::netns::{Namespace, succeed};
use super::process::{Sidecar, copy_of_binary};

/// The sidecar's user.
pub const SIDECAR: u32 = 4343;
/// Where the gateway is outside; nobody else has that address.
pub const GATEWAY: &str = "203.0.113.10";
/// The same for IPv6.
pub const GATEWAY6: &str = "2001:db8:113::10";

/// See the file's head.
pub struct Town {
    pub sidecar: Sidecar,
    pub network: Namespace,
    folder: TempDir,
    _servers: Vec<Server>,
}

/// Serves until it is dropped.
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Town {
    /// A town whose sidecar listens at these addresses; `rest` is further YAML for `egress`.
    pub fn new(label: &str, listen: &str, rest: &str) -> Self {
        let network = Namespace::new(label);
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        // The sidecar's user must get in, and to a binary that no closed folder hides.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let binary = path("countersign");
        copy_of_binary(&binary);
        let mut gateway = network.outside(&binary);
        gateway
            .args(["sandbox", "--listen", "[::]:443", "--folder"])
            .arg(path("gateway"));
        let gateway = serve(&mut gateway, "the simulated gateway listens");
        let mut others = network.outside("/usr/bin/python3");
        others.args(["-c", include_str!("outside.py")]);
        let others = serve(&mut others, "ready");
        for name in ["partner.pem", "alipayplus.pub.pem", "ca.pem"] {
            fs::copy(path("gateway").join(name), path(name)).unwrap();
        }
        own(&path("partner.pem"));
        fs::create_dir(path("trust")).unwrap();
        own(&path("trust"));
        let config = format!(
            "identities:\n  - client_id: SANDBOX_5X00000000000000\n    \
             signing_key: {{ file: partner.pem }}\n    \
             verification_keys: [{{ file: alipayplus.pub.pem }}]\n\
             egress:\n  listen: [{listen}]\n{rest}\n\
             resolve: {{ hosts: {{ open-sea-global.alipayplus.com: [{GATEWAY}] }} }}\n\
             ca: {{ trust_directory: trust }}\nupstream_tls: {{ ca_file: ca.pem }}\n"
        );
        fs::write(path("config.yaml"), config).unwrap();
        // A pod says so in its securityContext, a host by a capability.
        let mut low_ports = network.command("sh");
        low_ports.args([
            "-c",
            "echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start",
        ]);
        succeed(&mut low_ports);
        let mut sidecar = network.command_as(SIDECAR, SIDECAR, &binary);
        sidecar
            .args(["run", "--config"])
            .arg(path("config.yaml"))
            .env_remove("COUNTERSIGN_CONFIG")
            .stdin(Stdio::null());
        Self {
            sidecar: Sidecar::start(sidecar),
            network,
            folder,
            _servers: vec![gateway, others],
        }
    }

    /// Runs `countersign redirect` on the apps' side.
    pub fn redirect(&self, arguments: &[&str]) {
        let mut command = self.network.command(self.path("countersign"));
        succeed(command.arg("redirect").args(arguments));
    }

    /// A program on the apps' side, as root.
    pub fn app(&self, program: &str) -> Command {
        self.network.command(program)
    }

    /// What runs on the apps' side, without a proxy.
    pub fn surroundings(&self) -> Surroundings {
        Surroundings {
            proxy: None,
            trust: self.path("trust"),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Reads the sidecar's log up to the line of a tunnel.
    pub fn tunnel(&mut self, destination: &str) -> Value {
        self.sidecar
            .wait_for(|line| line["message"] == "tunnel" && line["destination"] == destination)
    }
}

/// Starts a server and waits for the line that says it serves.
pub fn serve(command: &mut Command, ready: &str) -> Server {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let server = Server(child);
    let found = lines.any(|line| line.unwrap().starts_with(ready));
    assert!(found, "{command:?} ended");
    // It may go on writing; nobody reads, and a closed pipe must not end it.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    server
}

fn own(path: &Path) {
    std::os::unix::fs::chown(path, Some(SIDECAR), Some(SIDECAR)).unwrap();
}
