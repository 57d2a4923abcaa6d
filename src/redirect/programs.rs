//! Finds and runs the system's programs, and knows what this process may do.
//!
//! Nothing here knows a rule. A program that fails is quoted in its own words.

use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use thiserror::Error;

/// Where the programs lie that a plain user's PATH may lack.
const SYSTEM: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The folders programs are looked up in.
#[derive(Clone, Debug)]
pub struct Programs {
    folders: Vec<PathBuf>,
}

/// Why a program did not do its work.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// It is nowhere.
    #[error("{program}: not found in PATH, /usr/sbin and /sbin; install the package {package}")]
    Missing {
        /// Its name.
        program: String,
        /// Where it usually comes from.
        package: &'static str,
    },
    /// It could not be started or talked to.
    #[error("{program}: cannot be run: {cause}")]
    Unstarted {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It ran and failed.
    #[error("{program}: {said}")]
    Failed {
        /// Its name.
        program: String,
        /// Its own words on one line, or its exit status when it had none.
        said: String,
    },
}

/// What a process may be allowed to do, by its number in `capability.h`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Capability {
    NetAdmin = 12,
    NetRaw = 13,
}

impl Programs {
    /// Looks in these folders, written as in PATH, and in the system's own.
    pub fn new(path: &str) -> Self {
        let folders = std::env::split_paths(path).filter(|folder| folder.is_absolute());
        let folders = folders.chain(SYSTEM.map(PathBuf::from)).collect();
        Self { folders }
    }

    /// Whether there is such a program.
    pub(super) fn has(&self, program: &str) -> bool {
        self.find(program).is_some()
    }

    /// Runs a program to its end and gives its stdout.
    pub(super) fn run(
        &self,
        program: &str,
        arguments: &[&str],
        input: &str,
    ) -> Result<String, ProgramError> {
        let file = self.find(program).ok_or_else(|| missing(program))?;
        let unstarted = |cause| ProgramError::Unstarted {
            program: program.to_owned(),
            cause,
        };
        let mut child = Command::new(file)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(unstarted)?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that fails early closes its input; what it says counts then, not the pipe.
            let _closed = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(unstarted)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let mut said = one_line(&String::from_utf8_lossy(&output.stderr));
        if said.is_empty() {
            said = output.status.to_string();
        }
        let program = program.to_owned();
        Err(ProgramError::Failed { program, said })
    }

    fn find(&self, program: &str) -> Option<PathBuf> {
        let executable =
            |facts: Metadata| facts.is_file() && facts.permissions().mode() & 0o111 != 0;
        let mut files = self.folders.iter().map(|folder| folder.join(program));
        files.find(|file| fs::metadata(file).is_ok_and(executable))
    }
}

impl Capability {
    /// Whether this process has it; yes, where the kernel does not tell.
    pub(super) fn is_held(self) -> bool {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let held = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        held.is_none_or(|set| set & (1 << self as u32) != 0)
    }
}

pub(super) fn missing(program: &str) -> ProgramError {
    let package = if program == "nft" {
        "nftables"
    } else {
        "iptables"
    };
    ProgramError::Missing {
        program: program.to_owned(),
        package,
    }
}

/// What a program said, without its hints about tables of others.
fn one_line(stderr: &str) -> String {
    let lines = stderr.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("# Warning:"));
    lines.collect::<Vec<_>>().join("; ")
}
