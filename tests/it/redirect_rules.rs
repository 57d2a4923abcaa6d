//! What `countersign redirect` promises, tried on the kernel with every tool, in networks of our own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::netns::{Namespace, succeed};

const TALK: &str = include_str!("support/talk.py");

/// Serves and is ended when dropped.
struct Server(Child);

impl Server {
    /// Starts `talk.py serve` in a command that ends with the interpreter.
    fn start(mut python: Command, label: &str, places: &[&str]) -> Self {
        let words = places.iter().flat_map(|place| place.split(' '));
        python.args(["-c", TALK, "serve", label]).args(words);
        let mut child = python.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

const PYTHON: &str = "/usr/bin/python3";

#[test]
fn a_network_of_our_own_has_the_outside_its_hosts_and_leaves_nothing() {
    let network = Namespace::new("own");
    let _outside = Server::start(
        network.outside(PYTHON),
        "outside",
        &["0.0.0.0 443", ":: 443"],
    );
    network.hosts("203.0.113.9 gateway.example");
    for (to, address) in [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:5::7", "2001:db8:5::7"),
        ("gateway.example", "203.0.113.9"),
    ] {
        let mut call = network.command_as(1000, PYTHON);
        let said = succeed(call.args(["-c", TALK, "call", to, "443"]));
        assert_eq!(said, format!("outside {address} port 443\n"));
    }
    let traces = ["/run/netns/", "/etc/netns/"].map(|folder| folder.to_owned() + network.name());
    assert!(traces.iter().all(|trace| Path::new(trace).exists()));
    drop(network);
    assert!(!traces.iter().any(|trace| Path::new(trace).exists()));
}
