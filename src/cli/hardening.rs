//! What the process denies itself, so that who gets into it or at it finds little.
//!
//! No core dumps, as a dump holds the keys; no new privileges; and with Landlock no file that it does
//! not need. Best effort: a kernel that lacks something is no reason not to serve, and the log says what
//! is in force. Network access is left alone. Called by the commands, before they start a thread.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags, path_beneath_rules,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::set_no_new_privs;
use tracing::{info, warn};

use super::environment;
use crate::config::Config;

/// What every process of a system may need to read while it runs: names and how they are resolved,
/// root certificates, libraries that the C library loads late, the process itself for its metrics, and
/// how much of the machine it may use.
const SYSTEM: &[&str] = &[
    "/etc",
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/var/lib/ca-certificates",
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/proc",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
    "/dev/null",
    "/dev/random",
    "/dev/urandom",
];

/// The newest kernel interface whose rights are denied; older kernels deny what they know of them.
/// Newer ones would deny the sockets by which names are resolved.
const KNOWN: ABI = ABI::V6;

/// What is in force.
#[derive(Debug)]
pub(super) struct Confinement {
    new_privileges: bool,
    landlock: Landlock,
    reads: BTreeSet<PathBuf>,
    writes: BTreeSet<PathBuf>,
}

#[derive(Debug)]
enum Landlock {
    Full,
    /// The kernel knows an older interface.
    Part,
    Missing(LandlockStatus),
    Off,
    /// A module of somebody else reads and writes what it needs.
    Module,
    Failed(RulesetError),
}

/// Sees to it that no crash leaves the memory in a file, and that other processes of the same user
/// cannot read it.
pub(super) fn forbid_core_dumps() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Lowering one's own limit cannot fail, and neither can the other; a core that is piped to a
    // program knows no limit, so both are needed.
    let _limited = setrlimit(Resource::Core, none);
    let _undumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Confines this thread, and all it starts, to reading these folders and the system's.
pub(super) fn confine_to(folders: &BTreeSet<PathBuf>) -> Confinement {
    let reads = folders
        .iter()
        .filter_map(|folder| std::path::absolute(folder).ok());
    let reads = reads.collect();
    let new_privileges = set_no_new_privs(true).is_err();
    let writes = BTreeSet::new();
    Confinement {
        new_privileges,
        landlock: restrict(&reads, &writes).unwrap_or_else(Landlock::Failed),
        reads,
        writes,
    }
}

/// Confines this thread, and all it starts, to what the configuration needs.
pub(super) fn confine(config: &Config, file: Option<&Path>) -> Confinement {
    let new_privileges = set_no_new_privs(true).is_err();
    let writes: BTreeSet<_> = config
        .ca
        .make_directories()
        .into_iter()
        .map(Path::to_owned)
        .collect();
    let reads = readable(config, file);
    let landlock = match config.hardening.landlock {
        false => Landlock::Off,
        true if config.keys.has_token() => Landlock::Module,
        true => restrict(&reads, &writes).unwrap_or_else(Landlock::Failed),
    };
    Confinement {
        new_privileges,
        landlock,
        reads,
        writes,
    }
}

/// The folders of everything that is named, so that what is exchanged in them can be read again.
fn readable(config: &Config, file: Option<&Path>) -> BTreeSet<PathBuf> {
    let certificates = ["SSL_CERT_FILE", "SSL_CERT_DIR"].map(environment);
    let [root_file, root_folder] = certificates.map(|value| value.map(PathBuf::from));
    let named = config.files();
    let named = named.iter().map(PathBuf::as_path).chain(file);
    named
        .chain(root_file.as_deref())
        .flat_map(folders)
        .chain(root_folder)
        .collect()
}

/// Where a file is named and, behind links, where it is. Of a file in the root folder itself only the
/// file: its folder would be everything.
fn folders(file: &Path) -> Vec<PathBuf> {
    let whole = std::path::absolute(file);
    let named = whole.unwrap_or_else(|_no_folder| file.to_owned());
    let is = file.canonicalize().ok();
    let folder = |file: PathBuf| match file.parent() {
        Some(folder) if folder.parent().is_some() => folder.to_owned(),
        _ => file,
    };
    [Some(named), is]
        .into_iter()
        .flatten()
        .map(folder)
        .collect()
}

fn restrict(
    reads: &BTreeSet<PathBuf>,
    writes: &BTreeSet<PathBuf>,
) -> Result<Landlock, RulesetError> {
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    // Files there are made under another name and renamed.
    let write =
        read | make_bitflags!(AccessFs::{WriteFile | MakeReg | RemoveFile | Truncate | Refer});
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?
        .add_rules(rules(SYSTEM, read))?
        .add_rules(rules(reads, read))?
        .add_rules(rules(writes, write))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Landlock::Full,
        RulesetStatus::PartiallyEnforced => Landlock::Part,
        RulesetStatus::NotEnforced => Landlock::Missing(status.landlock),
    })
}

/// Rules for what is there of these.
fn rules<P: AsRef<Path>>(
    paths: impl IntoIterator<Item = P>,
    access: BitFlags<AccessFs>,
) -> impl Iterator<Item = Result<PathBeneath<PathFd>, RulesetError>> {
    path_beneath_rules(paths, access)
}

impl Confinement {
    /// One line for the log.
    pub(super) fn announce(&self) {
        let all = |paths: &BTreeSet<PathBuf>| {
            let paths: Vec<_> = paths
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            paths.join(" ")
        };
        let landlock = self.landlock.to_string();
        let new_privileges = if self.new_privileges {
            "possible"
        } else {
            "none"
        };
        let in_force = matches!(self.landlock, Landlock::Full | Landlock::Part);
        let reads = in_force.then(|| all(&self.reads));
        let writes = in_force.then(|| all(&self.writes));
        if let Landlock::Failed(_) = self.landlock {
            warn!(
                landlock,
                new_privileges,
                core_dumps = "off",
                "hardened, but for Landlock"
            );
        } else {
            info!(
                landlock,
                reads,
                writes,
                new_privileges,
                core_dumps = "off",
                "hardened"
            );
        }
    }
}

impl fmt::Display for Landlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("on"),
            Self::Part => f.write_str("on, as far as this kernel knows it"),
            Self::Missing(LandlockStatus::NotEnabled) => {
                f.write_str("not available: this kernel has it and does not enable it (lsm=)")
            }
            Self::Missing(_) => f.write_str("not available: this kernel does not have it"),
            Self::Off => f.write_str("off (hardening.landlock)"),
            Self::Module => f.write_str("off: nobody knows which files a PKCS#11 module needs"),
            Self::Failed(error) => write!(f, "off: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_opens_its_folder_and_the_one_behind_its_link_but_never_everything() {
        let folder = tempfile::tempdir().unwrap();
        let (here, there) = (folder.path().join("here"), folder.path().join("there"));
        std::fs::create_dir(&here).unwrap();
        std::fs::create_dir(&there).unwrap();
        std::fs::write(there.join("key.pem"), "").unwrap();
        std::os::unix::fs::symlink(there.join("key.pem"), here.join("key.pem")).unwrap();
        assert_eq!(folders(&here.join("key.pem")), [here, there]);
        let alone = PathBuf::from("/key.pem");
        assert_eq!(folders(&alone), [alone]);
        let own = std::env::current_dir().unwrap();
        assert_eq!(folders(Path::new("Cargo.toml")), [own.clone(), own]);
    }
}
