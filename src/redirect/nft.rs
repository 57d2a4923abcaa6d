//! The rules in the language of nft: a table of our own for each version of IP.
//!
//! One script is one transaction of the kernel. A table is named, deleted and made, so that the
//! same script works whether it was there or not, and no moment is without rules.

use std::fmt::Write;

use super::rules::{Family, Rules, Step};

/// The name of our tables.
const TABLE: &str = "countersign";

/// A script that asks, when only checked, whether the kernel has NAT for this version of IP.
pub(super) fn probe(family: Family) -> String {
    let table = table(family);
    format!("table {table} {{ chain output {{ type nat hook output priority -100; }}; }}\n")
}

/// The script that sets the rules for some families, and drops the tables of others.
pub(super) fn script(rules: &Rules, set: &[Family], dropped: &[Family]) -> String {
    let mut script = "# countersign redirect: input of nft -f -\n".to_owned();
    script.push_str(&removal(dropped));
    for family in set {
        script.push_str(&removal(&[*family]));
        // -100 is dstnat by its number; old versions of nft know the name in prerouting only.
        let head = "\tchain output {\n\t\ttype nat hook output priority -100; policy accept;\n";
        let steps: String = rules
            .steps(*family)
            .into_iter()
            .map(|step| format!("\t\t{}\n", line(step, *family, rules)))
            .collect();
        let table = table(*family);
        let _infallible = write!(script, "table {table} {{\n{head}{steps}\t}}\n}}\n");
    }
    script
}

/// The script that drops the tables of these families, whether they are there or not.
pub(super) fn removal(families: &[Family]) -> String {
    families
        .iter()
        .map(|family| table(*family))
        .map(|table| format!("table {table}\ndelete table {table}\n"))
        .collect()
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
        Step::PassUser(uid) => format!("meta skuid {uid} return"),
        Step::PassGroup(gid) => format!("meta skgid {gid} return"),
        Step::PassPort(port) => format!("tcp dport {port} return"),
        Step::PassNetwork(network) => format!("{} daddr {network} return", keyword(family)),
        Step::Redirect { user, port } => {
            let user = user.map_or_else(String::new, |uid| format!("meta skuid {uid} "));
            let port = port.map_or_else(String::new, |port| format!("tcp dport {port} "));
            // A first packet only: a connection from before the kernel tracked any looks new, too.
            let first = "tcp flags & (fin | syn | rst | ack) == syn";
            format!("{user}{port}{first} redirect to :{}", rules.port())
        }
    }
}

fn keyword(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}
