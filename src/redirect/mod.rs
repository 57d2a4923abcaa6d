//! The kernel's rules of transparent mode: outbound TCP of an app is led to the sidecar's port.
//!
//! `apply`, `remove` and `print` are the whole story; `cli` calls them in an init container or on a
//! host, never in a running sidecar. Rules are set whole or not at all, and nobody else's is touched.
//! UDP is not: names are still looked up where they were.

mod iptables;
mod nft;
mod programs;
mod rules;
mod tool;

use std::path::Path;

use thiserror::Error;

pub use self::programs::{ProgramError, Programs};
pub use self::rules::{Family, Rules, RulesError, Wanted};

use self::iptables::Chain;
use self::programs::Capability;
use self::tool::Tool;

const NOWHERE: &str = "neither nft nor iptables is in PATH, /usr/sbin or /sbin";

/// What the tools quote when the kernel lacks a protocol, its table, or NAT for it.
const ABSENCE: [&str; 3] = ["not supported", "does not exist", "No such file"];

/// Which tool is to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// nft if it works, else iptables.
    Auto,
    /// nft.
    Nft,
    /// iptables, whichever of the two that is here.
    Iptables,
    /// The iptables from before `nf_tables`.
    IptablesLegacy,
}

/// Why nothing was changed, unless it says otherwise.
#[derive(Debug, Error)]
pub enum RedirectError {
    /// The kernel would refuse.
    #[error(
        "cannot change the rules of the kernel: this needs the capability NET_ADMIN, such as in an \
         init container"
    )]
    NotPermitted,
    /// The legacy tool talks to the kernel through a raw socket.
    #[error(
        "{0} needs the capability NET_RAW beside NET_ADMIN; give it, or use --tool nft, which does not"
    )]
    NoRawSocket(String),
    /// None of the tools works.
    #[error("no tool works here: {0}; install the package nftables or iptables")]
    NoTool(String),
    /// Rules made with another tool would work beside the new ones.
    #[error("{0} has made such rules already; take them away first: countersign redirect remove")]
    MadeByAnother(String),
    /// The kernel speaks IPv6 and would let it pass by.
    #[error("IPv6 cannot be redirected: {0}; with --no-ipv6 it goes out untouched")]
    NoIpv6(Box<RedirectError>),
    /// The tool failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The tool failed halfway and on the way back.
    #[error(
        "{cause}; the rules for {family} are set and could not be taken back: {second}; \
         try countersign redirect remove"
    )]
    Left {
        /// The first failure.
        cause: ProgramError,
        /// What is left.
        family: Family,
        /// The failure to take it back.
        second: ProgramError,
    },
}

/// What was done.
#[derive(Debug)]
pub struct Done {
    /// Tools by name, each with the families.
    pub by: Vec<(String, Vec<Family>)>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// What `apply` hands to the tool where there are no such rules yet. Needs no privilege.
pub fn print(rules: &Rules, choice: Choice, programs: &Programs) -> String {
    let by_nft = match choice {
        Choice::Auto => programs.has("nft") || !programs.has("iptables"),
        Choice::Nft => true,
        Choice::Iptables | Choice::IptablesLegacy => false,
    };
    if by_nft {
        return nft::script(rules, rules.families(), &[]);
    }
    let families = rules.families().iter();
    families
        .map(|family| iptables::change(None, Some(&Chain::wanted(rules, *family)), *family))
        .collect()
}

/// Sets the rules in place of those an earlier `apply` with the same tool has set.
pub fn apply(rules: &Rules, choice: Choice, programs: &Programs) -> Result<Done, RedirectError> {
    require_permission()?;
    let tool = choose(choice, programs)?;
    let mut notes = refuse_doubling(tool, programs)?;
    tool.try_out(Family::V4, programs)?;
    let mut families = rules.families().to_vec();
    if families.contains(&Family::V6)
        && let Some(why) = lack_of_ipv6(tool, programs)?
    {
        families.retain(|family| *family != Family::V6);
        notes.push(format!("IPv6 is not redirected: {why}"));
    }
    tool.set(rules, &families, programs)?;
    let by = vec![(tool.name(), families)];
    Ok(Done { by, notes })
}

/// Takes away such rules, whichever tool has made them; nothing to take away is no error.
pub fn remove(programs: &Programs) -> Result<Done, RedirectError> {
    require_permission()?;
    let (mut by, mut notes, mut failure) = (Vec::new(), Vec::new(), None);
    let tools = Tool::all(programs);
    if tools.is_empty() {
        return Err(RedirectError::NoTool(NOWHERE.to_owned()));
    }
    for tool in tools {
        if let Err(error) = tool.made(programs) {
            notes.push(unasked(tool, &error));
            continue;
        }
        match tool.clear(programs) {
            Ok(families) if families.is_empty() => {}
            Ok(families) => by.push((tool.name(), families)),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(Done { by, notes }), Err)
}

fn require_permission() -> Result<(), RedirectError> {
    if Capability::NetAdmin.is_held() {
        Ok(())
    } else {
        Err(RedirectError::NotPermitted)
    }
}

fn choose(choice: Choice, programs: &Programs) -> Result<Tool, RedirectError> {
    match choice {
        Choice::Nft => return Ok(Tool::Nft),
        Choice::Iptables => return Ok(Tool::iptables(programs)?),
        Choice::IptablesLegacy => return Ok(Tool::iptables_legacy(programs)?),
        Choice::Auto => {}
    }
    let mut failures = Vec::new();
    for tool in Tool::all(programs) {
        match tool.try_out(Family::V4, programs) {
            Ok(()) => return Ok(tool),
            Err(error) => failures.push(error.to_string()),
        }
    }
    if failures.is_empty() {
        failures.push(NOWHERE.to_owned());
    }
    Err(RedirectError::NoTool(failures.join("; ")))
}

/// Refuses when another tool has made such rules; notes who could not be asked.
fn refuse_doubling(chosen: Tool, programs: &Programs) -> Result<Vec<String>, RedirectError> {
    let mut notes = Vec::new();
    let others = Tool::all(programs).into_iter();
    for other in others.filter(|tool| *tool != chosen) {
        match other.made(programs) {
            Ok(families) if families.is_empty() => {}
            Ok(_) => return Err(RedirectError::MadeByAnother(other.name())),
            Err(error) => notes.push(unasked(other, &error)),
        }
    }
    Ok(notes)
}

fn unasked(tool: Tool, error: &ProgramError) -> String {
    format!(
        "whether {} has made such rules is unknown: {error}",
        tool.name()
    )
}

/// Why this kernel has no IPv6 to redirect, if it has none; other failures are errors, for traffic
/// that passes by the sidecar must be somebody's decision.
fn lack_of_ipv6(tool: Tool, programs: &Programs) -> Result<Option<String>, RedirectError> {
    if !Path::new("/proc/net/if_inet6").exists() {
        return Ok(Some("this kernel has none".to_owned()));
    }
    let Err(error) = tool.try_out(Family::V6, programs) else {
        return Ok(None);
    };
    let said = error.to_string();
    if ABSENCE.iter().any(|words| said.contains(words)) {
        return Ok(Some(format!("this kernel has no NAT for it: {said}")));
    }
    Err(RedirectError::NoIpv6(Box::new(error)))
}
