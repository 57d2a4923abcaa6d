//! A network of the test's own: one namespace for the app's side, one that plays the outside world.
//!
//! ```text
//! NAME: lo, eth0 192.0.2.2 2001:db8::2 ── eth0 192.0.2.1 2001:db8::1, every other address :NAME-out
//! ```
//!
//! The default route of the first leads to the second, where **every** address is local: a server
//! there that listens at `0.0.0.0` or `[::]` answers as any host a test dials. Nothing reaches the
//! machine's own network. Needs root and iproute2; both are removed on drop, as are the files of
//! `/etc/netns`. End what runs inside before, or the kernel keeps the network until it ends.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{self, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Two namespaces joined by a wire; see the file's head.
pub struct Namespace {
    name: String,
    outside: String,
}

impl Namespace {
    /// Makes both; the name is unique to this process and call.
    pub fn new(label: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cs-{label}-{}-{count}", process::id());
        let outside = format!("{name}-out");
        // Made before the namespaces, so that Drop clears up what a failing step leaves.
        let made = Self { name, outside };
        made.build();
        made
    }

    /// The name `ip netns` knows it by, for tools that enter namespaces by themselves.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A program on the app's side. `ip netns exec` turns into it, so `Child::id` is its own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        inside(&self.name, program)
    }

    /// A program on the app's side that runs as this user and group, with no other groups.
    pub fn command_as(&self, user: u32, group: u32, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.command("setpriv");
        let (user, group) = (user.to_string(), group.to_string());
        command
            .args(["--reuid", &user, "--regid", &group, "--clear-groups"])
            .arg(program);
        command
    }

    /// A program in the outside world.
    pub fn outside(&self, program: impl AsRef<OsStr>) -> Command {
        inside(&self.outside, program)
    }

    /// Gives the app's side an `/etc/hosts` of its own, for programs started from now on.
    pub fn hosts(&self, lines: &str) {
        let folder = self.files();
        fs::create_dir_all(&folder).unwrap();
        let own = "127.0.0.1 localhost\n::1 localhost\n";
        fs::write(folder.join("hosts"), format!("{own}{lines}\n")).unwrap();
    }

    fn files(&self) -> PathBuf {
        PathBuf::from("/etc/netns").join(&self.name)
    }

    fn build(&self) {
        let Self { name, outside } = self;
        for line in [
            format!("netns add {name}"),
            format!("netns add {outside}"),
            format!("-n {name} link add eth0 type veth peer name eth0 netns {outside}"),
        ] {
            succeed(Command::new("ip").args(line.split(' ')));
        }
        for (side, address) in [(name, 2), (outside, 1)] {
            // No addresses of the kernel's choice and no duplicate detection: ready at once.
            for line in [
                "link set lo up".to_owned(),
                "link set eth0 addrgenmode none".to_owned(),
                "link set eth0 up".to_owned(),
                format!("address add 192.0.2.{address}/24 dev eth0"),
                format!("address add 2001:db8::{address}/64 dev eth0 nodad"),
            ] {
                succeed(Command::new("ip").args(["-n", side]).args(line.split(' ')));
            }
        }
        for (side, line) in [
            (name, "route add default via 192.0.2.1"),
            (name, "route add default via 2001:db8::1"),
            // In the table main, behind the wire's own network, so that answers find back.
            (outside, "route add local default dev lo table main"),
            (outside, "-6 route add local default dev lo table main"),
        ] {
            succeed(Command::new("ip").args(["-n", side]).args(line.split(' ')));
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for name in [&self.name, &self.outside] {
            let mut ip = Command::new("ip");
            // One that was never made is no loss, and a panic here would hide the test's own.
            let _gone = ip
                .args(["netns", "delete", name])
                .stderr(Stdio::null())
                .status();
        }
        let _never_written = fs::remove_dir_all(self.files());
    }
}

/// Runs a command to its end and gives its stdout; it must succeed.
pub fn succeed(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {stderr}");
    String::from_utf8(stdout).unwrap()
}

fn inside(namespace: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}
