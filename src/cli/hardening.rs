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
use crate::confinement;

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
    // Of any file in them: a folder may be reached by links, too.
    let reads = folders
        .iter()
        .flat_map(|folder| confinement::folders_of(&folder.join("file")));
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
        .flat_map(confinement::folders_of)
        .chain(root_folder)
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
    if status.ruleset != RulesetStatus::NotEnforced {
        let system = SYSTEM.iter().map(PathBuf::from);
        let readable = reads.iter().chain(writes).cloned().chain(system);
        confinement::confined_to(readable.collect());
    }
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
