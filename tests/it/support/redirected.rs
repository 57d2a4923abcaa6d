//! The world around an app whose connections the kernel may redirect, and who answers a call in it.
//!
//! Three servers tell a caller who they are and where the caller meant to go: the sidecar's port, a
//! server of the app's own host, and one for every host outside.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use super::netns::{Namespace, succeed};

pub const TALK: &str = include_str!("talk.py");
/// Not the one of somebody's home directory: other users run it.
pub const PYTHON: &str = "/usr/bin/python3";
pub const COUNTERSIGN: &str = env!("CARGO_BIN_EXE_countersign");
pub const TOOLS: [&str; 3] = ["nft", "iptables", "iptables-legacy"];
pub const APP: u32 = 1000;
pub const SIDECAR: u32 = 1337;
pub const FAR: &str = "203.0.113.7";
pub const FAR6: &str = "2001:db8:5::7";

/// Serves and is ended when dropped.
pub struct Server(Child);

impl Server {
    /// Starts `talk.py serve` with the interpreter this command runs.
    pub fn start(mut python: Command, label: &str, places: &str) -> Self {
        python.args(["-c", TALK, "serve", label]);
        python.args(places.split(' '));
        let mut child = python.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        assert_eq!(line(&mut stdout), "ready");
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A connection that is open, with its greeting read.
pub struct Call {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Call {
    pub fn say(&mut self, text: &str) -> String {
        writeln!(self.to, "{text}").unwrap();
        line(&mut self.from)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// An app's network with a sidecar's port, a server of the host's own, and the world outside.
pub struct World {
    // Before the network, so that nothing runs inside when it goes.
    _servers: [Server; 3],
    pub network: Namespace,
}

impl World {
    pub fn new(label: &str) -> Self {
        let network = Namespace::new(label);
        let outside = "0.0.0.0 443 :: 443 0.0.0.0 8443 :: 8443";
        let own = "127.0.0.1 443 ::1 443 192.0.2.2 443 2001:db8::2 443";
        let sidecar = "127.0.0.1 18441 ::1 18441";
        Self {
            _servers: [
                Server::start(network.outside(PYTHON), "outside", outside),
                Server::start(network.command(PYTHON), "own", own),
                Server::start(
                    network.command_as(SIDECAR, SIDECAR, PYTHON),
                    "sidecar",
                    sidecar,
                ),
            ],
            network,
        }
    }

    /// Who answers a user, of the group of the same number, and what the call was for.
    pub fn call(&self, user: u32, address: &str, port: u16) -> String {
        self.call_as(user, user, address, port)
    }

    pub fn call_as(&self, user: u32, group: u32, address: &str, port: u16) -> String {
        let mut call = self.network.command_as(user, group, PYTHON);
        let said = succeed(call.args(["-c", TALK, "call", address, &port.to_string()]));
        said.trim_end().to_owned()
    }

    pub fn open_call(&self, user: u32, address: &str) -> (Call, String) {
        let mut call = self.network.command_as(user, user, PYTHON);
        call.args(["-c", TALK, "call", address, "443"]);
        let mut child = call
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut call = Call {
            to: child.stdin.take().unwrap(),
            from: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        let greeting = line(&mut call.from);
        (call, greeting)
    }

    /// `countersign redirect` with these words.
    pub fn redirect(&self, words: &str) -> Output {
        let mut command = self.network.command(COUNTERSIGN);
        command.arg("redirect").args(words.split(' '));
        command.output().unwrap()
    }

    /// The same, and it must succeed without a word on stderr; gives its stdout.
    pub fn done(&self, words: &str) -> String {
        said(&self.redirect(words), 0, "")
    }

    /// A line of shell in the app's network.
    pub fn shell(&self, line: &str) -> String {
        succeed(self.network.command("sh").args(["-e", "-c", line]))
    }

    /// What each tool shows of our rules and its table nat, without counters, chains in its order.
    pub fn rules(&self) -> String {
        self.shell(&format!(
            "for v in '' 6; do
                 nft -s list table ip$v countersign 2>/dev/null || echo none
                 ip${{v}}tables-nft -t nat -S 2>/dev/null
                 if {HAS_LEGACY}; then ip${{v}}tables-legacy -t nat -S; fi
             done"
        ))
    }

    /// Every rule there is, counters too.
    pub fn ruleset(&self) -> String {
        let rules = self.shell(&format!(
            "nft list ruleset
             for v in '' 6; do
                 if {HAS_LEGACY}; then ip${{v}}tables-legacy-save -c -t nat; fi
             done"
        ));
        // Lines with the time of day.
        let lines = rules.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| format!("{}\n", unpoliced(line))).collect()
    }
}

/// A line of the legacy tool without what a chain's policy has counted: every change with that tool,
/// whoever makes it, begins those counts anew.
fn unpoliced(line: &str) -> &str {
    match line.rsplit_once(" [") {
        Some((chain, _)) if chain.starts_with(':') => chain,
        _ => line,
    }
}

/// In shell; asking the legacy tool would make its table.
const HAS_LEGACY: &str = "grep -qx nat /proc/net/ip${v}_tables_names";

fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// The stdout of a command that ended with this code and had these words on stderr, or nothing.
pub fn said(output: &Output, code: i32, complaint: &str) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(stderr.contains(complaint), "{stderr}");
    assert_eq!(stderr.is_empty(), complaint.is_empty(), "{stderr}");
    String::from_utf8(output.stdout.clone()).unwrap()
}
