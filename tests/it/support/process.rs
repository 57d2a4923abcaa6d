//! The real binary as a process of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::Value;

use super::netns::succeed;

/// How long a test waits for something that must happen; far more than it takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a command of the binary to its end.
pub fn countersign(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command
        .args(arguments)
        .env_remove("COUNTERSIGN_CONFIG")
        .stdin(Stdio::null());
    command
}

/// A `run` that is ready; killed when dropped.
pub struct Sidecar {
    child: Child,
    lines: Receiver<String>,
    pub log: Vec<Value>,
    pub egress: SocketAddr,
    pub ingress: SocketAddr,
    pub admin: SocketAddr,
}

impl Sidecar {
    /// Starts `run` and waits for its line `ready`.
    pub fn run(arguments: &[&str]) -> Self {
        Self::start(command(arguments))
    }

    /// The same for a command that becomes `run` in the end.
    pub fn start(command: Command) -> Self {
        let mut sidecar = Self::spawn(command);
        sidecar.until_ready();
        sidecar
    }

    /// The same before it is ready; its addresses are not known yet.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            stdout
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let log = Vec::new();
        Self {
            child,
            lines,
            log,
            egress: nowhere,
            ingress: nowhere,
            admin: nowhere,
        }
    }

    /// Waits for its line `ready`.
    pub fn until_ready(&mut self) {
        let ready = self.wait_for(|line| line["message"] == "ready");
        // The first of several.
        let address = |name: &str| {
            let addresses = ready[name].as_str()?;
            addresses.split(' ').next().map(|one| one.parse().unwrap())
        };
        self.egress = address("egress").unwrap_or(self.egress);
        self.ingress = address("ingress").unwrap_or(self.ingress);
        self.admin = address("admin").unwrap_or(self.admin);
    }

    /// Reads log lines until one fits.
    pub fn wait_for(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                panic!("the line never came; log so far: {:#?}", self.log);
            });
            let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
            self.log.push(line.clone());
            if fits(&line) {
                return line;
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// How it ended, which it must do soon.
    pub fn exit(mut self) -> ExitStatus {
        // Its end of the pipe is closed with the process.
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(_last_line) => {}
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
                Err(RecvTimeoutError::Timeout) => panic!("it does not end"),
            }
        }
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Copies the binary to a place that another user can see.
///
/// By a program: were it open for writing here, a process that another test starts just now would have it
/// open, too, and the kernel runs no file that is (ETXTBSY).
pub fn copy_of_binary(to: &Path) {
    let mut copy = Command::new("cp");
    succeed(copy.arg(env!("CARGO_BIN_EXE_countersign")).arg(to));
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
