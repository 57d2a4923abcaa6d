//! What is redirected, as data that no tool's syntax has touched.
//!
//! `Rules` are checked when they are made: without somebody exempt the sidecar's own connections
//! would come back to it, so there are no such rules. `Rules::steps` is the one place that says in
//! which order the kernel decides; `nft` and `iptables` only spell it out.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use ipnet::IpNet;
use thiserror::Error;

use crate::net::original::PROBES;

/// What somebody wants redirected; `Rules::new` checks it.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Users whose connections go out untouched, the sidecar's own among them.
    pub exempt_uids: Vec<u32>,
    /// Groups whose connections go out untouched.
    pub exempt_gids: Vec<u32>,
    /// The only users whose connections are redirected; empty for all.
    pub only_uids: Vec<u32>,
    /// The only destination ports that are redirected; empty for all.
    pub ports: Vec<NonZeroU16>,
    /// Destination ports that go out untouched.
    pub exempt_ports: Vec<NonZeroU16>,
    /// Destination networks that go out untouched.
    pub exempt_networks: Vec<IpNet>,
    /// Whether IPv6 is redirected, too.
    pub ipv6: bool,
}

/// Checked rules that lead to one port of this host.
#[derive(Clone, Debug)]
pub struct Rules {
    port: NonZeroU16,
    wanted: Wanted,
}

/// Why there can be no such rules.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RulesError {
    /// The sidecar's own connections would be redirected to itself.
    #[error(
        "nobody is exempt, so the sidecar's own connections would come back to it; name the user \
         it runs as with --exempt-uid, or its group with --exempt-gid"
    )]
    NobodyExempt,
    /// A user is in both lists.
    #[error("user {0} is in --only-uid and in --exempt-uid; it can be in one of them")]
    BothWaysUser(u32),
    /// A port is in both lists.
    #[error("port {0} is in --port and in --exempt-port; it can be in one of them")]
    BothWaysPort(NonZeroU16),
}

/// A version of IP; the kernel keeps rules for each apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// One decision; the first that fits a new connection holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// What stays on this host is not outbound: loopback, and the host's own addresses.
    PassLocal,
    /// To the sidecar, whoever connects: its self-check.
    Probe(IpAddr),
    PassUser(u32),
    PassGroup(u32),
    PassPort(NonZeroU16),
    PassNetwork(IpNet),
    /// To the sidecar; of one user and to one port only, where they are given.
    Redirect {
        user: Option<u32>,
        port: Option<NonZeroU16>,
    },
}

impl Rules {
    /// Checks; gives every problem at once.
    pub fn new(port: NonZeroU16, wanted: Wanted) -> Result<Self, Vec<RulesError>> {
        let mut problems = Vec::new();
        if wanted.exempt_uids.is_empty() && wanted.exempt_gids.is_empty() {
            problems.push(RulesError::NobodyExempt);
        }
        let both = |uid: &&u32| wanted.exempt_uids.contains(uid);
        let users = wanted.only_uids.iter().filter(both).copied();
        problems.extend(users.map(RulesError::BothWaysUser));
        let both = |port: &&NonZeroU16| wanted.exempt_ports.contains(port);
        let ports = wanted.ports.iter().filter(both).copied();
        problems.extend(ports.map(RulesError::BothWaysPort));
        if problems.is_empty() {
            Ok(Self { port, wanted })
        } else {
            Err(problems)
        }
    }

    /// The port of this host connections are redirected to.
    pub fn port(&self) -> NonZeroU16 {
        self.port
    }

    /// The versions of IP that are redirected.
    pub fn families(&self) -> &'static [Family] {
        if self.wanted.ipv6 {
            &[Family::V4, Family::V6]
        } else {
            &[Family::V4]
        }
    }

    pub(super) fn steps(&self, family: Family) -> Vec<Step> {
        let wanted = &self.wanted;
        let networks = wanted.exempt_networks.iter().copied();
        let mut steps = vec![Step::PassLocal];
        let probes = PROBES.into_iter().map(IpNet::from);
        let probe = probes
            .filter(|probe| family.has(probe))
            .map(|probe| probe.addr());
        steps.extend(probe.map(Step::Probe));
        steps.extend(wanted.exempt_uids.iter().copied().map(Step::PassUser));
        steps.extend(wanted.exempt_gids.iter().copied().map(Step::PassGroup));
        steps.extend(wanted.exempt_ports.iter().copied().map(Step::PassPort));
        steps.extend(
            networks
                .filter(|network| family.has(network))
                .map(Step::PassNetwork),
        );
        for user in any_or_each(&wanted.only_uids) {
            for port in any_or_each(&wanted.ports) {
                steps.push(Step::Redirect { user, port });
            }
        }
        steps
    }
}

impl Family {
    fn has(self, network: &IpNet) -> bool {
        matches!(
            (self, network),
            (Self::V4, IpNet::V4(_)) | (Self::V6, IpNet::V6(_))
        )
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// An empty list stands for everything.
fn any_or_each<T: Copy>(list: &[T]) -> Vec<Option<T>> {
    if list.is_empty() {
        vec![None]
    } else {
        list.iter().copied().map(Some).collect()
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    pub(in super::super) fn number(port: u16) -> NonZeroU16 {
        NonZeroU16::new(port).unwrap()
    }

    /// Rules with a step of every kind.
    pub(in super::super) fn every_kind() -> Rules {
        let wanted = Wanted {
            exempt_uids: vec![1337],
            exempt_gids: vec![1338],
            only_uids: vec![1000],
            ports: vec![number(443), number(80)],
            exempt_ports: vec![number(22)],
            exempt_networks: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            ipv6: true,
        };
        Rules::new(number(18441), wanted).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::number;
    use super::*;

    #[test]
    fn there_are_no_rules_without_somebody_exempt() {
        let problems = Rules::new(number(1), Wanted::default()).unwrap_err();
        assert_eq!(problems, [RulesError::NobodyExempt]);
        for (exempt_uids, exempt_gids) in [(vec![0], vec![]), (vec![], vec![0])] {
            let wanted = Wanted {
                exempt_uids,
                exempt_gids,
                ..Wanted::default()
            };
            assert!(Rules::new(number(1), wanted).is_ok());
        }
    }

    #[test]
    fn contradictions_are_all_named() {
        let wanted = Wanted {
            exempt_uids: vec![1, 2],
            only_uids: vec![2, 3],
            ports: vec![number(443)],
            exempt_ports: vec![number(443)],
            ..Wanted::default()
        };
        assert_eq!(
            Rules::new(number(1), wanted).unwrap_err(),
            [
                RulesError::BothWaysUser(2),
                RulesError::BothWaysPort(number(443))
            ]
        );
    }

    #[test]
    fn everything_is_redirected_where_nothing_is_named() {
        let wanted = Wanted {
            exempt_uids: vec![7],
            ..Wanted::default()
        };
        let rules = Rules::new(number(1), wanted).unwrap();
        let all = Step::Redirect {
            user: None,
            port: None,
        };
        assert_eq!(
            rules.steps(Family::V4),
            [
                Step::PassLocal,
                Step::Probe(PROBES[0]),
                Step::PassUser(7),
                all
            ]
        );
    }
}
