//! Podman with all it keeps in a temporary folder, for containers of one test; and what images are made of.
//!
//! Needs root. Whoever starts containers removes them before this is dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::netns::{Namespace, succeed};

/// See the file's head.
pub struct Podman {
    folder: TempDir,
    network: Option<String>,
}

impl Podman {
    /// One whose containers have no network but what a command gives them; for those with tokens.
    #[cfg(feature = "pkcs11")]
    pub fn new() -> Self {
        Self::with(None)
    }

    /// One whose networks are in that of the test. Names are asked of who is at the other end of it.
    pub fn inside(network: &Namespace) -> Self {
        Self::with(Some(network.name().to_owned()))
    }

    fn with(network: Option<String>) -> Self {
        let podman = Self {
            folder: tempfile::tempdir().unwrap(),
            network,
        };
        let networks = podman.path("networks");
        // More open files than root may have are refused, and so is a journal where there is none.
        let files = succeed(Command::new("sh").args(["-c", "ulimit -Hn"]));
        let files = files.trim();
        let config = format!(
            "[containers]\ndefault_ulimits = [\"nofile={files}:{files}\", \"nproc=4096:4096\"]\n\
             dns_servers = [\"192.0.2.1\"]\n\
             [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
             [network]\nnetwork_backend = \"netavark\"\nnetwork_config_dir = \"{}\"\n",
            networks.display()
        );
        fs::create_dir(networks).unwrap();
        fs::write(podman.path("containers.conf"), config).unwrap();
        podman
    }

    /// Runs a command to its end and gives its stdout; it must succeed.
    pub fn run(&self, line: &[&str]) -> String {
        succeed(&mut self.command(line))
    }

    /// A command that ends within a minute.
    pub fn command(&self, line: &[&str]) -> Command {
        let podman = ["60", "podman", "--log-level", "error"];
        let mut command = match &self.network {
            Some(network) => {
                // `ip netns exec` would hide /sys of the machine, which podman needs.
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{network}"));
                command.arg("timeout");
                command
            }
            None => Command::new("timeout"),
        };
        command
            .args(podman)
            .args(["--storage-driver", "vfs", "--root"])
            .arg(self.path("storage"))
            .arg("--runroot")
            .arg(self.path("run"))
            .args(line)
            .env("CONTAINERS_CONF", self.path("containers.conf"));
        command
    }

    /// Makes an image of a folder.
    pub fn import(&self, root: &Path, image: &str) {
        let archive = self.path("import.tar");
        let mut tar = Command::new("tar");
        tar.args(["--exclude=__pycache__", "-cf"]).arg(&archive);
        succeed(tar.arg("-C").args([root, Path::new(".")]));
        self.run(&["import", "--quiet", archive.to_str().unwrap(), image]);
        fs::remove_file(archive).unwrap();
    }

    /// A file or folder of the test's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Programs and libraries of this machine, as the root of a container.
pub fn root_folder(root: &Path, programs: &[&str]) {
    let mut script = Command::new(repository().join("scripts/root-folder.sh"));
    succeed(script.arg(root).args(programs));
}

/// What `make image` makes.
pub fn made(archive: &str) -> PathBuf {
    let file = repository().join("target/image").join(archive);
    assert!(file.exists(), "{}: missing; run make image", file.display());
    file
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
