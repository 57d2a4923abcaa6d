//! Who is asked where a name is.
//!
//! Of `/etc/resolv.conf` only the nameservers are taken: search domains could make one name another, and
//! a signed request must go where it says. It is read once, when the sidecar starts. Refuses a file that
//! names nobody who could be asked. Called by the resolver.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};

use resolv_conf::ScopedIp;

/// Where a system says who resolves its names.
const FILE: &str = "/etc/resolv.conf";
/// The port of DNS.
pub const DNS: u16 = 53;

/// Who is asked for names that have no fixed address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Nameservers {
    /// The system's resolver, which looks into the hosts file and follows search domains.
    #[default]
    Resolver,
    /// Those that `/etc/resolv.conf` names, and never the hosts file.
    System,
    /// These, and never the hosts file.
    Listed(Vec<SocketAddr>),
}

impl Nameservers {
    /// Their addresses, at least one; none where the system's resolver is asked.
    pub(super) fn addresses(&self) -> io::Result<Option<Vec<SocketAddr>>> {
        match self {
            Self::Resolver => Ok(None),
            Self::System => of_the_system().map(Some),
            Self::Listed(addresses) => Ok(Some(addresses.clone())),
        }
    }

    /// In words; nothing for what is usual.
    pub(super) fn sentence(&self) -> Option<String> {
        match self {
            Self::Resolver => None,
            Self::System => Some(format!(
                "names are resolved by the nameservers of {FILE}, never by the hosts file"
            )),
            Self::Listed(addresses) => {
                let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                Some(format!("names are resolved by {}", all.join(" ")))
            }
        }
    }
}

fn of_the_system() -> io::Result<Vec<SocketAddr>> {
    let text = fs::read(FILE).map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "no such file".to_owned(),
            _ => format!("cannot be read: {error}"),
        };
        io::Error::new(error.kind(), format!("system: {FILE}: {why}; {INSTEAD}"))
    })?;
    named(&text).map_err(|why| io::Error::other(format!("system: {FILE}: {why}; {INSTEAD}")))
}

const INSTEAD: &str = "list the nameservers' addresses instead";

/// The nameservers of such a file.
fn named(text: &[u8]) -> Result<Vec<SocketAddr>, &'static str> {
    // As the C library does, lines that cannot be read are left out.
    let (parsed, _errors) = resolv_conf::Config::parse_with_errors(text);
    let reachable = |named: &ScopedIp| match named {
        ScopedIp::V4(ip) => Some(IpAddr::V4(*ip)),
        ScopedIp::V6(ip, None) => Some(IpAddr::V6(*ip)),
        // On one link alone, and the client of DNS keeps no link.
        ScopedIp::V6(_, Some(_)) => None,
    };
    let found: Vec<SocketAddr> = parsed
        .nameservers
        .iter()
        .filter_map(reachable)
        .map(|ip| SocketAddr::new(ip, DNS))
        .collect();
    match (parsed.nameservers.is_empty(), found.is_empty()) {
        (true, _) => Err("names no nameserver"),
        (false, true) => {
            Err("names only nameservers of one link (fe80::…%eth0), which cannot be asked")
        }
        (false, false) => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_are_taken_and_all_else_is_left() {
        for (text, expected) in [
            (
                "nameserver 10.96.0.10\nsearch a.svc.cluster.local\noptions ndots:5\n",
                Ok("10.96.0.10:53"),
            ),
            (
                "# made by hand\nnameserver 10.0.0.1 # near\nnameserver 2001:db8::1\n",
                Ok("10.0.0.1:53 [2001:db8::1]:53"),
            ),
            ("nameserver nobody\nnameserver 10.0.0.2", Ok("10.0.0.2:53")),
            (
                "nameserver fe80::1%eth0\nnameserver 10.0.0.3\n",
                Ok("10.0.0.3:53"),
            ),
            (
                "nameserver fe80::1%eth0\n",
                Err("names only nameservers of one link"),
            ),
            ("search example\n", Err("names no nameserver")),
            ("", Err("names no nameserver")),
            ("\u{fe}nameserver\n\0", Err("names no nameserver")),
        ] {
            let found = named(text.as_bytes()).map(|all| {
                let all: Vec<_> = all.iter().map(ToString::to_string).collect();
                all.join(" ")
            });
            match (&found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(found), Err(expected)) => {
                    assert!(found.starts_with(expected), "{text}: {found}");
                }
                _ => panic!("{text}: {found:?}"),
            }
        }
    }
}
