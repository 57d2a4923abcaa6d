//! The rules in the language of nft: a table of our own for each version of IP.
//!
//! One script is one transaction of the kernel. A table is named, deleted and made, so that the
//! same script works whether it was there or not, and no moment is without rules.

use std::fmt::Write;

use super::rules::{Family, Rules, Step};
use crate::net::original::PROBE_PORT;

/// The name of our tables.
const TABLE: &str = "countersign";

/// A first packet only: a connection from before the kernel tracked any looks new, too.
const FIRST: &str = "tcp flags & (fin | syn | rst | ack) == syn";

/// Just before dstnat (-100), where meshes and iptables have their chains: of two NAT rules that fit a connection the first
/// holds, and of two chains with one priority the one that was made last comes first. A number, as old versions of nft know
/// the name in prerouting only.
const PRIORITY: i32 = -101;

/// A script that asks, when only checked, whether the kernel has NAT for this version of IP.
pub(super) fn probe(family: Family) -> String {
    let table = table(family);
    format!("table {table} {{ chain output {{ type nat hook output priority {PRIORITY}; }}; }}\n")
}

/// The script that sets the rules for some families, and drops the tables of others.
pub(super) fn script(rules: &Rules, set: &[Family], dropped: &[Family]) -> String {
    let mut script = "# countersign redirect: input of nft -f -\n".to_owned();
    script.push_str(&removal(dropped));
    for family in set {
        script.push_str(&removal(&[*family]));
        let _infallible = writeln!(script, "table {} {{\n\tchain output {{", table(*family));
        let _infallible = writeln!(
            script,
            "\t\ttype nat hook output priority {PRIORITY}; policy accept;"
        );
        for step in rules.steps(*family) {
            let _infallible = writeln!(script, "\t\t{}", line(step, *family, rules));
        }
        script.push_str("\t}\n}\n");
    }
    script
}

/// The script that drops the tables of these families, whether they are there or not.
pub(super) fn removal(families: &[Family]) -> String {
    let mut script = String::new();
    for table in families.iter().map(|family| table(*family)) {
        let _infallible = writeln!(script, "table {table}\ndelete table {table}");
    }
    script
}

/// Whether our table is in the output of `nft list tables`.
pub(super) fn is_listed(tables: &str, family: Family) -> bool {
    let line = format!("table {}", table(family));
    tables.lines().any(|listed| listed.trim_end() == line)
}

fn table(family: Family) -> String {
    format!("{} {TABLE}", keyword(family))
}

fn line(step: Step, family: Family, rules: &Rules) -> String {
    match step {
        Step::PassLocal => "oifname \"lo\" return".to_owned(),
        Step::Probe(address) => format!(
            "{} daddr {address} tcp dport {PROBE_PORT} {FIRST} redirect to :{}",
            keyword(family),
            rules.port()
        ),
        Step::PassUser(uid) => format!("meta skuid {uid} return"),
        Step::PassGroup(gid) => format!("meta skgid {gid} return"),
        Step::PassPort(port) => format!("tcp dport {port} return"),
        Step::PassNetwork(network) => format!("{} daddr {network} return", keyword(family)),
        Step::Redirect { user, port } => {
            let user = user.map_or_else(String::new, |uid| format!("meta skuid {uid} "));
            let port = port.map_or_else(String::new, |port| format!("tcp dport {port} "));
            format!("{user}{port}{FIRST} redirect to :{}", rules.port())
        }
    }
}

fn keyword(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::testing::every_kind;
    use super::*;

    const SCRIPT: &str = "\
# countersign redirect: input of nft -f -
table ip6 countersign
delete table ip6 countersign
table ip countersign
delete table ip countersign
table ip countersign {
\tchain output {
\t\ttype nat hook output priority -101; policy accept;
\t\toifname \"lo\" return
\t\tip daddr 192.0.2.254 tcp dport 443 tcp flags & (fin | syn | rst | ack) == syn redirect to :18441
\t\tmeta skuid 1337 return
\t\tmeta skgid 1338 return
\t\ttcp dport 22 return
\t\tip daddr 10.0.0.0/8 return
\t\tmeta skuid 1000 tcp dport 443 tcp flags & (fin | syn | rst | ack) == syn redirect to :18441
\t\tmeta skuid 1000 tcp dport 80 tcp flags & (fin | syn | rst | ack) == syn redirect to :18441
\t}
}
";

    #[test]
    fn every_step_has_its_line_and_no_other_familys() {
        let script = script(&every_kind(), &[Family::V4], &[Family::V6]);
        assert_eq!(script, SCRIPT);
        let v6 = line(every_kind().steps(Family::V6)[5], Family::V6, &every_kind());
        assert_eq!(v6, "ip6 daddr fd00::/8 return");
    }

    #[test]
    fn only_the_table_of_that_name_is_ours() {
        let tables = "table ip countersign2\ntable ip nat\ntable ip6 countersign\n";
        assert!(!is_listed(tables, Family::V4));
        assert!(is_listed(tables, Family::V6));
    }
}
