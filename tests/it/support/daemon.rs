//! Real servers of the network around the sidecar: a nameserver and a corporate proxy, as processes
//! of their own on loopback, ended with the test.

use std::fs;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::process::PATIENCE;

/// A process that is killed when dropped.
struct Daemon {
    child: Child,
    folder: TempDir,
}

impl Daemon {
    /// Starts a program whose configuration is `config`, and waits until it takes connections.
    fn start(program: &str, flag: &str, config: &str, address: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        fs::write(&file, config).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut child = Command::new(program)
            .arg(format!("{flag}{}", file.display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; run scripts/test-deps.sh"));
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            let log = || fs::read_to_string(folder.path().join("log")).unwrap();
            assert!(child.try_wait().unwrap().is_none(), "{program}: {}", log());
            assert!(
                start.elapsed() < PATIENCE,
                "{program} is not there: {}",
                log()
            );
            std::thread::yield_now();
        }
        Self { child, folder }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A port nobody listens on, so that who connects is refused. While this lives the kernel gives it to
/// nobody who asks for any port; who names it may listen there.
pub struct ClosedPort {
    pub address: SocketAddr,
    _kept: Socket,
}

impl ClosedPort {
    fn any() -> Self {
        Self::at(([127, 0, 0, 1], 0).into()).unwrap()
    }

    /// This one, unless somebody has it.
    pub fn at(address: SocketAddr) -> std::io::Result<Self> {
        let kept = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // As every server does: two who do may have one port while neither listens.
        kept.set_reuse_address(true)?;
        kept.bind(&address.into())?;
        let address = kept.local_addr()?.as_socket().unwrap();
        Ok(Self {
            address,
            _kept: kept,
        })
    }
}

/// A port nobody listens on, for UDP neither, of which only that for TCP is kept.
pub fn closed_port() -> ClosedPort {
    loop {
        let port = ClosedPort::any();
        if UdpSocket::bind(port.address).is_ok() {
            return port;
        }
    }
}

/// dnsmasq that knows only what it is told.
pub struct Nameserver {
    pub address: SocketAddr,
    daemon: Daemon,
}

impl Nameserver {
    /// One with these lines of configuration.
    pub fn with(lines: &str) -> Self {
        let port = closed_port();
        Self::at(port.address, lines)
    }

    /// One at that address, such as the one another had before.
    pub fn at(address: SocketAddr, lines: &str) -> Self {
        let config = format!(
            "keep-in-foreground\npid-file=\nport={}\nlisten-address={}\nbind-interfaces\nno-resolv\nno-hosts\nlog-queries\n\
             log-facility=-\n{lines}\n",
            address.port(),
            address.ip()
        );
        let daemon = Daemon::start("/usr/sbin/dnsmasq", "--conf-file=", &config, address);
        Self { address, daemon }
    }

    /// How often a kind of record was asked for.
    pub fn asked(&self, kind: &str, name: &str) -> usize {
        let log = self.daemon.log();
        log.matches(&format!("query[{kind}] {name} ")).count()
    }
}

/// tinyproxy.
pub struct ForwardProxy {
    pub address: SocketAddr,
    daemon: Daemon,
}

impl ForwardProxy {
    /// One with these lines of configuration.
    pub fn with(lines: &str) -> Self {
        let port = closed_port();
        let address = port.address;
        let config = format!(
            "Port {}\nListen 127.0.0.1\nTimeout 60\nLogLevel Connect\n{lines}\n",
            address.port()
        );
        let daemon = Daemon::start("tinyproxy", "-dc", &config, address);
        Self { address, daemon }
    }

    /// Whether it was asked for a tunnel to there.
    pub fn was_asked(&self, destination: &str) -> bool {
        self.daemon
            .log()
            .contains(&format!("CONNECT {destination} HTTP/1.1"))
    }
}
