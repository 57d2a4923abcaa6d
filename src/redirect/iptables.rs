//! The rules in the language of iptables: a chain of our own in the table nat, and one jump to it.
//!
//! `change` writes what `iptables-restore --noflush` reads to go from the chain that is there to the
//! one that is wanted; the same in reverse takes it back. Only lines with our chain's name occur.

use super::rules::{Family, Rules, Step};
use crate::net::original::PROBE_PORT;

/// The name of our chain.
const CHAIN: &str = "COUNTERSIGN";

/// Our chain as it is, or is to be, in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// The lines in the built-in chains that lead to ours, as `-A OUTPUT …`.
    jumps: Vec<String>,
    /// The lines in ours, as `-A COUNTERSIGN …`.
    rules: Vec<String>,
}

impl Chain {
    /// The chain these rules want.
    pub(super) fn wanted(rules: &Rules, family: Family) -> Self {
        let steps = rules.steps(family).into_iter();
        Self {
            jumps: vec![format!("-A OUTPUT -p tcp -j {CHAIN}")],
            rules: steps
                .map(|step| format!("-A {CHAIN} {}", line(step, rules)))
                .collect(),
        }
    }

    /// The chain in the output of `iptables -t nat -S`, if it is there.
    pub(super) fn listed(table: &str) -> Option<Self> {
        let new = format!("-N {CHAIN}");
        table.lines().find(|line| line.trim_end() == new)?;
        let (own, jump) = (format!("-A {CHAIN} "), format!(" -j {CHAIN}"));
        let lines = |fits: &dyn Fn(&&str) -> bool| {
            let lines = table.lines().map(str::trim_end).filter(fits);
            lines.map(str::to_owned).collect()
        };
        Some(Self {
            jumps: lines(&|line| line.starts_with("-A ") && line.ends_with(&jump)),
            rules: lines(&|line| line.starts_with(&own)),
        })
    }
}

/// The input of `iptables-restore --noflush` that makes `after` of `before`; one transaction.
pub(super) fn change(before: Option<&Chain>, after: Option<&Chain>, family: Family) -> String {
    let mut lines = vec![
        format!(
            "# countersign redirect: input of {}-restore --noflush",
            program(family)
        ),
        "*nat".to_owned(),
    ];
    if let Some(chain) = after {
        // Makes the chain, or empties it.
        lines.push(format!(":{CHAIN} - [0:0]"));
        lines.extend(chain.rules.iter().cloned());
    }
    let old = before.iter().flat_map(|chain| &chain.jumps);
    lines.extend(old.map(|jump| jump.replacen("-A", "-D", 1)));
    // First in its chain, whatever others have put there: the first rule that fits holds.
    let new = after.iter().flat_map(|chain| &chain.jumps);
    lines.extend(new.map(|jump| jump.replacen("-A OUTPUT", "-I OUTPUT 1", 1)));
    if before.is_some() && after.is_none() {
        lines.push(format!("-F {CHAIN}"));
        lines.push(format!("-X {CHAIN}"));
    }
    lines.push("COMMIT\n".to_owned());
    lines.join("\n")
}

/// The program's usual name for a family.
pub(super) fn program(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

fn line(step: Step, rules: &Rules) -> String {
    match step {
        Step::PassLocal => "-o lo -j RETURN".to_owned(),
        Step::Probe(address) => {
            let to = rules.port();
            format!("-d {address} -p tcp --syn --dport {PROBE_PORT} -j REDIRECT --to-ports {to}")
        }
        Step::PassUser(uid) => format!("-m owner --uid-owner {uid} -j RETURN"),
        Step::PassGroup(gid) => format!("-m owner --gid-owner {gid} -j RETURN"),
        Step::PassPort(port) => format!("-p tcp --dport {port} -j RETURN"),
        Step::PassNetwork(network) => format!("-d {network} -j RETURN"),
        Step::Redirect { user, port } => {
            let user = user.map_or_else(String::new, |uid| format!("-m owner --uid-owner {uid} "));
            let port = port.map_or_else(String::new, |port| format!("--dport {port} "));
            // --syn: a connection from before the kernel tracked any looks new, too.
            let to = rules.port();
            format!("-p tcp --syn {port}{user}-j REDIRECT --to-ports {to}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::testing::every_kind;
    use super::*;

    const FRESH: &str = "\
# countersign redirect: input of ip6tables-restore --noflush
*nat
:COUNTERSIGN - [0:0]
-A COUNTERSIGN -o lo -j RETURN
-A COUNTERSIGN -d 2001:db8::fe -p tcp --syn --dport 443 -j REDIRECT --to-ports 18441
-A COUNTERSIGN -m owner --uid-owner 1337 -j RETURN
-A COUNTERSIGN -m owner --gid-owner 1338 -j RETURN
-A COUNTERSIGN -p tcp --dport 22 -j RETURN
-A COUNTERSIGN -d fd00::/8 -j RETURN
-A COUNTERSIGN -p tcp --syn --dport 443 -m owner --uid-owner 1000 -j REDIRECT --to-ports 18441
-A COUNTERSIGN -p tcp --syn --dport 80 -m owner --uid-owner 1000 -j REDIRECT --to-ports 18441
-I OUTPUT 1 -p tcp -j COUNTERSIGN
COMMIT
";

    const TABLE: &str = "\
-P OUTPUT ACCEPT
-N COUNTERSIGN
-N COUNTERSIGN2
-A OUTPUT -d 198.51.100.1/32 -j COUNTERSIGN
-A OUTPUT -p tcp -j COUNTERSIGN
-A OUTPUT -p tcp -j COUNTERSIGN2
-A OUTPUT -p tcp -j COUNTERSIGN
-A COUNTERSIGN -o lo -j RETURN
-A COUNTERSIGN2 -j RETURN
";

    fn lines(input: &str) -> Vec<&str> {
        input.lines().skip(1).collect()
    }

    #[test]
    fn every_step_has_its_line_and_no_other_familys() {
        let wanted = Chain::wanted(&every_kind(), Family::V6);
        assert_eq!(change(None, Some(&wanted), Family::V6), FRESH);
    }

    #[test]
    fn one_jump_is_left_and_it_is_the_first() {
        let (before, after) = (
            Chain::listed(TABLE).unwrap(),
            Chain {
                jumps: vec!["-A OUTPUT -p tcp -j COUNTERSIGN".to_owned()],
                rules: Vec::new(),
            },
        );
        assert_eq!(
            lines(&change(Some(&before), Some(&after), Family::V4)),
            [
                "*nat",
                ":COUNTERSIGN - [0:0]",
                "-D OUTPUT -d 198.51.100.1/32 -j COUNTERSIGN",
                "-D OUTPUT -p tcp -j COUNTERSIGN",
                "-D OUTPUT -p tcp -j COUNTERSIGN",
                "-I OUTPUT 1 -p tcp -j COUNTERSIGN",
                "COMMIT"
            ]
        );
    }

    #[test]
    fn removal_names_our_jumps_and_our_chain_only() {
        let before = Chain::listed(TABLE).unwrap();
        assert_eq!(
            lines(&change(Some(&before), None, Family::V4)),
            [
                "*nat",
                "-D OUTPUT -d 198.51.100.1/32 -j COUNTERSIGN",
                "-D OUTPUT -p tcp -j COUNTERSIGN",
                "-D OUTPUT -p tcp -j COUNTERSIGN",
                "-F COUNTERSIGN",
                "-X COUNTERSIGN",
                "COMMIT"
            ]
        );
        assert_eq!(Chain::listed("-N COUNTERSIGN2\n-P OUTPUT ACCEPT\n"), None);
    }
}
