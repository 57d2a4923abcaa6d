//! `redirect`: the kernel's rules of transparent mode, for an init container or a host.

use std::num::NonZeroU16;

use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;

use super::output::{complain, say};
use super::{Failure, environment};
use crate::net::network;
use crate::redirect::{self, Choice, Done, Family, Programs, Rules, Wanted};

/// Lead the app's outbound TCP to the sidecar by rules of the kernel.
///
/// For transparent mode: the app needs no setting, and the sidecar learns from the kernel where each
/// connection was meant to go. Connections that are open when the rules come stay as they are, and
/// so does what never leaves this host: loopback and the host's own addresses. UDP is not touched,
/// DNS neither.
///
/// IPv4 is led to 127.0.0.1 and IPv6 to its own loopback address; the sidecar must listen on both: egress.listen takes
/// a list. There must be a default route, or the kernel refuses a connection before it comes to the
/// rules.
///
/// Needs the capability `NET_ADMIN`, with iptables-legacy `NET_RAW` too, and the package nftables or
/// iptables.
#[derive(Args, Debug)]
pub struct Redirect {
    #[command(subcommand)]
    action: Action,
}

const REPEATED: &str = "--port, --only-uid and all --exempt-… may be given several times.";

#[derive(Debug, Subcommand)]
enum Action {
    /// Print what `apply` would hand to the tool; needs no privilege.
    #[command(after_help = REPEATED)]
    Print(Flags),
    /// Set the rules, in place of those an earlier `apply` has set.
    #[command(after_help = REPEATED)]
    Apply(Flags),
    /// Take the rules away, whichever tool has made them.
    ///
    /// Redirected connections that are open then may break.
    Remove,
}

#[derive(Args, Debug)]
struct Flags {
    /// The sidecar's port on 127.0.0.1 and `::1`.
    #[arg(long, value_name = "PORT", default_value = "18441", value_parser = port)]
    to_port: NonZeroU16,
    /// A user whose connections go out untouched; the one the sidecar runs as must be exempt.
    #[arg(long, value_name = "UID", value_parser = id)]
    exempt_uid: Vec<u32>,
    /// A group whose connections go out untouched; may stand for the sidecar's user.
    #[arg(long, value_name = "GID", value_parser = id)]
    exempt_gid: Vec<u32>,
    /// Redirect only this user's connections, as on a host with other users.
    #[arg(long, value_name = "UID", value_parser = id)]
    only_uid: Vec<u32>,
    /// Redirect only connections to this port [default: all]
    #[arg(long, value_name = "PORT", value_parser = port)]
    port: Vec<NonZeroU16>,
    /// A destination port that goes out untouched.
    #[arg(long, value_name = "PORT", value_parser = port)]
    exempt_port: Vec<NonZeroU16>,
    /// A destination network that goes out untouched, such as `10.0.0.0/8` or `fd00::/8`.
    #[arg(long, value_name = "CIDR", value_parser = network::parse_exempt)]
    exempt_network: Vec<IpNet>,
    /// Leave IPv6 alone.
    #[arg(long)]
    no_ipv6: bool,
    /// What to set the rules with; auto is nft if it works, else iptables.
    #[arg(long, value_enum, default_value = "auto")]
    tool: Tool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Tool {
    Auto,
    Nft,
    Iptables,
    IptablesLegacy,
}

impl Redirect {
    /// Prints, sets or takes away.
    pub(super) fn execute(self) -> Result<(), Failure> {
        let programs = Programs::new(&environment("PATH").unwrap_or_default());
        match self.action {
            Action::Print(flags) => {
                let rules = flags.rules()?;
                let script = redirect::print(&rules, flags.tool.into(), &programs);
                say(script.trim_end());
            }
            Action::Apply(flags) => {
                let rules = flags.rules()?;
                let done = redirect::apply(&rules, flags.tool.into(), &programs);
                let done = done.map_err(Failure::other)?;
                let port = rules.port();
                report(&done, &format!("outbound TCP now goes to port {port}"));
            }
            Action::Remove => {
                let done = redirect::remove(&programs).map_err(Failure::other)?;
                if done.by.is_empty() {
                    say("there are no rules to take away");
                }
                report(&done, "rules are taken away");
            }
        }
        Ok(())
    }
}

impl Flags {
    /// The rules these flags describe; with a word on stderr about what is allowed but odd.
    fn rules(&self) -> Result<Rules, Failure> {
        let wanted = Wanted {
            exempt_uids: self.exempt_uid.clone(),
            exempt_gids: self.exempt_gid.clone(),
            only_uids: self.only_uid.clone(),
            ports: self.port.clone(),
            exempt_ports: self.exempt_port.clone(),
            exempt_networks: self.exempt_network.clone(),
            ipv6: !self.no_ipv6,
        };
        let rules = Rules::new(self.to_port, wanted).map_err(|problems| {
            let lines = problems.iter().map(ToString::to_string);
            Failure::Usage(lines.collect())
        })?;
        for (flag, ids) in [
            ("--exempt-uid", &self.exempt_uid),
            ("--exempt-gid", &self.exempt_gid),
        ] {
            if ids.contains(&0) {
                complain(format_args!(
                    "warning: with {flag} 0 everything root sends goes out untouched, an app that \
                     runs as root too; give the sidecar a user of its own"
                ));
            }
        }
        let https = NonZeroU16::new(443);
        let leads = |port: &NonZeroU16| Some(*port) == https;
        if !self.port.is_empty() && !self.port.iter().any(leads)
            || self.exempt_port.iter().any(leads)
        {
            complain("warning: port 443 is not redirected: calls to the gateway go out unsigned");
        }
        Ok(rules)
    }
}

impl From<Tool> for Choice {
    fn from(tool: Tool) -> Self {
        match tool {
            Tool::Auto => Self::Auto,
            Tool::Nft => Self::Nft,
            Tool::Iptables => Self::Iptables,
            Tool::IptablesLegacy => Self::IptablesLegacy,
        }
    }
}

fn report(done: &Done, what: &str) {
    for (tool, families) in &done.by {
        let families: Vec<String> = families.iter().map(Family::to_string).collect();
        say(format_args!("{what} ({tool}, {})", families.join(" and ")));
    }
    done.notes.iter().for_each(say);
}

fn port(text: &str) -> Result<NonZeroU16, String> {
    let port = text.parse();
    port.map_err(|_syntax| format!("\"{text}\" is no port from 1 to 65535"))
}

fn id(text: &str) -> Result<u32, String> {
    // The kernel's own sign for nobody at all.
    let id = text.parse().ok().filter(|id| *id != u32::MAX);
    id.ok_or_else(|| format!("\"{text}\" is no number of a user or group; `id` shows it"))
}
