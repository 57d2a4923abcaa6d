//! The tools that hand rules to the kernel: which there are, whether one works, what each has made.
//!
//! nft takes both families in one transaction. iptables takes them one after the other, so here the
//! first is taken back when the second fails. No rule of anybody else is touched.

use std::fs;

use super::RedirectError;
use super::iptables::{self, Chain};
use super::nft;
use super::programs::{Capability, ProgramError, Programs, missing};
use super::rules::{Family, Rules};

/// Both families, in the order they are set.
pub(super) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// One tool of this system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Nft,
    Iptables(Flavour),
}

/// One of the two programs called iptables, whose rules do not see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flavour {
    /// What follows `iptables` in the program's name.
    suffix: &'static str,
    legacy: bool,
}

impl Tool {
    /// All there are, the preferred first; `iptables` is one of the two after it by another name.
    pub(super) fn all(programs: &Programs) -> Vec<Self> {
        let mut tools = Vec::new();
        if programs.has("nft") {
            tools.push(Self::Nft);
        }
        let mut flavours: Vec<Flavour> = Vec::new();
        for suffix in ["", "-nft", "-legacy"] {
            let Ok(flavour) = Flavour::of(suffix, programs) else {
                continue;
            };
            if flavours.iter().all(|known| known.legacy != flavour.legacy) {
                flavours.push(flavour);
            }
        }
        tools.extend(flavours.into_iter().map(Self::Iptables));
        tools
    }

    pub(super) fn iptables(programs: &Programs) -> Result<Self, ProgramError> {
        Flavour::of("", programs).map(Self::Iptables)
    }

    pub(super) fn iptables_legacy(programs: &Programs) -> Result<Self, ProgramError> {
        let legacy = |tool: &Self| matches!(tool, Self::Iptables(flavour) if flavour.legacy);
        let found = Self::all(programs).into_iter().find(legacy);
        found.ok_or_else(|| missing("iptables-legacy"))
    }

    /// The name people know it by.
    pub(super) fn name(self) -> String {
        match self {
            Self::Nft => "nft".to_owned(),
            Self::Iptables(flavour) => flavour.program(Family::V4),
        }
    }

    /// Asks the kernel, through the tool, whether it has NAT for this family.
    pub(super) fn try_out(self, family: Family, programs: &Programs) -> Result<(), RedirectError> {
        match self {
            Self::Nft => programs.run("nft", &["-c", "-f", "-"], &nft::probe(family))?,
            Self::Iptables(flavour) if flavour.legacy && !Capability::NetRaw.is_held() => {
                return Err(RedirectError::NoRawSocket(self.name()));
            }
            Self::Iptables(flavour) => flavour.list(family, programs)?,
        };
        Ok(())
    }

    /// The families in which rules of this tool's making are there.
    pub(super) fn made(self, programs: &Programs) -> Result<Vec<Family>, ProgramError> {
        let mut made = Vec::new();
        match self {
            Self::Nft => {
                let tables = programs.run("nft", &["list", "tables"], "")?;
                made.extend(FAMILIES.into_iter().filter(|f| nft::is_listed(&tables, *f)));
            }
            Self::Iptables(flavour) => {
                for family in FAMILIES {
                    if flavour.chain(family, programs)?.is_some() {
                        made.push(family);
                    }
                }
            }
        }
        Ok(made)
    }

    /// Sets the rules for these families and takes away what it made before for others.
    pub(super) fn set(
        self,
        rules: &Rules,
        families: &[Family],
        programs: &Programs,
    ) -> Result<(), RedirectError> {
        match self {
            Self::Nft => {
                let made = self.made(programs)?;
                let dropped: Vec<Family> = made
                    .into_iter()
                    .filter(|family| !families.contains(family))
                    .collect();
                let script = nft::script(rules, families, &dropped);
                programs.run("nft", &["-f", "-"], &script)?;
                Ok(())
            }
            Self::Iptables(flavour) => {
                let wanted = |family| {
                    let is_wanted = families.contains(&family);
                    is_wanted.then(|| Chain::wanted(rules, family))
                };
                flavour.change(wanted, programs)
            }
        }
    }

    /// Takes away what this tool made, and says for which families.
    pub(super) fn clear(self, programs: &Programs) -> Result<Vec<Family>, RedirectError> {
        let made = self.made(programs)?;
        if !made.is_empty() {
            match self {
                Self::Nft => {
                    programs.run("nft", &["-f", "-"], &nft::removal(&made))?;
                }
                Self::Iptables(flavour) => flavour.change(|_| None, programs)?,
            }
        }
        Ok(made)
    }
}

impl Flavour {
    fn of(suffix: &'static str, programs: &Programs) -> Result<Self, ProgramError> {
        let version = programs.run(&format!("iptables{suffix}"), &["--version"], "")?;
        // Before there were two, a version named none.
        let legacy = !version.contains("nf_tables");
        Ok(Self { suffix, legacy })
    }

    fn program(self, family: Family) -> String {
        format!("{}{}", iptables::program(family), self.suffix)
    }

    fn list(self, family: Family, programs: &Programs) -> Result<String, ProgramError> {
        let arguments = ["-w", "10", "-t", "nat", "-S"];
        programs.run(&self.program(family), &arguments, "")
    }

    /// Our chain as it is now.
    fn chain(self, family: Family, programs: &Programs) -> Result<Option<Chain>, ProgramError> {
        // Asking the legacy tool would load its table into the kernel.
        if (self.legacy && !has_legacy_nat(family)) || !programs.has(&self.program(family)) {
            return Ok(None);
        }
        Ok(Chain::listed(&self.list(family, programs)?))
    }

    /// Leads every family to what is wanted of it, or leaves all as they were.
    fn change(
        self,
        wanted: impl Fn(Family) -> Option<Chain>,
        programs: &Programs,
    ) -> Result<(), RedirectError> {
        let mut done: Vec<(Family, String)> = Vec::new();
        for family in FAMILIES {
            let after = wanted(family);
            let before = match self.chain(family, programs) {
                // A kernel without IPv6 has none of it to take away.
                Err(_) if after.is_none() => None,
                chain => chain?,
            };
            if before.is_none() && after.is_none() {
                continue;
            }
            let there = iptables::change(before.as_ref(), after.as_ref(), family);
            let back = iptables::change(after.as_ref(), before.as_ref(), family);
            match self.restore(family, &there, programs) {
                Ok(_) => done.push((family, back)),
                Err(cause) => return Err(self.take_back(cause, done, programs)),
            }
        }
        Ok(())
    }

    fn take_back(
        self,
        cause: ProgramError,
        done: Vec<(Family, String)>,
        programs: &Programs,
    ) -> RedirectError {
        for (family, back) in done {
            if let Err(second) = self.restore(family, &back, programs) {
                return RedirectError::Left {
                    cause,
                    family,
                    second,
                };
            }
        }
        cause.into()
    }

    fn restore(
        self,
        family: Family,
        input: &str,
        programs: &Programs,
    ) -> Result<String, ProgramError> {
        let program = format!("{}-restore", self.program(family));
        programs.run(&program, &["-w", "10", "--noflush"], input)
    }
}

/// Whether the table nat of the legacy tool is loaded in this network.
fn has_legacy_nat(family: Family) -> bool {
    let file = match family {
        Family::V4 => "/proc/net/ip_tables_names",
        Family::V6 => "/proc/net/ip6_tables_names",
    };
    fs::read_to_string(file).is_ok_and(|names| names.lines().any(|name| name == "nat"))
}
