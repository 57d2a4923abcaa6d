//! Host names with `*` in them, as routes name their hosts.
//!
//! A star stands for one or more characters of one label and never crosses a dot, so a pattern cannot
//! match a host under somebody else's domain. Refuses addresses, schemes, ports and paths.

use std::fmt;
use std::str::FromStr;

use super::Host;

/// A host name in which `*` stands for one or more characters of one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern(Box<str>);

impl HostPattern {
    /// Whether the host is one of these.
    pub fn matches(&self, host: &Host) -> bool {
        let (mut patterns, mut labels) = (self.0.split('.'), host.as_str().split('.'));
        loop {
            match (patterns.next(), labels.next()) {
                (Some(pattern), Some(label)) if glob(pattern.as_bytes(), label.as_bytes()) => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }

    /// Whether some host is one of both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mut mine, mut theirs) = (self.0.split('.'), other.0.split('.'));
        loop {
            match (mine.next(), theirs.next()) {
                (Some(a), Some(b)) if intersect(a.as_bytes(), b.as_bytes()) => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }

    /// The pattern as written, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // With every star filled in, what is left must be a host name.
        match text.replace('*', "x").parse::<Host>() {
            Ok(host) if host.ip().is_none() => {
                let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
                Ok(Self(lower.into()))
            }
            Ok(_) => Err(format!("\"{text}\" is an address; Alipay+ hosts are names")),
            Err(_) => Err(format!(
                "\"{text}\" is no host name; no scheme, port or path belongs here, and '*' stands \
                 for a part of one label, like open-*-global.alipayplus.com"
            )),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a label fits a pattern.
fn glob(pattern: &[u8], label: &[u8]) -> bool {
    if pattern.contains(&b'*') {
        intersect(pattern, label)
    } else {
        pattern == label
    }
}

/// Whether some label fits both patterns.
///
/// Asked of each pair of their ends once, the shortest first: a stranger chooses the host, and trying
/// every way of several stars would take for ever.
fn intersect(a: &[u8], b: &[u8]) -> bool {
    // Of each end of `b` from the empty one on: whether it shares a label with this end of `a`.
    let mut shorter = vec![false; b.len()];
    shorter.insert(0, true);
    for x in a.iter().rev() {
        let mut now = vec![false];
        let mut last = false;
        for (y, (both, without_x)) in b.iter().rev().zip(pairs(&shorter)) {
            last = match (x, y) {
                (b'*', b'*') => both || without_x || last,
                (b'*', _) => both || last,
                (_, b'*') => both || without_x,
                (x, y) => x == y && both,
            };
            now.push(last);
        }
        shorter = now;
    }
    shorter.last() == Some(&true)
}

/// Each value with the next one.
fn pairs(values: &[bool]) -> impl Iterator<Item = (bool, bool)> {
    values.iter().copied().zip(values.iter().copied().skip(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_its_label() {
        let pattern: HostPattern = "open-*-global.alipayplus.com".parse().unwrap();
        let matches = |host: &str| pattern.matches(&host.parse().unwrap());
        assert!(matches("open-sea-global.alipayplus.com"));
        assert!(!matches("open--global.alipayplus.com"));
        assert!(!matches("open-sea.x-global.alipayplus.com"));
        for bad in [
            "",
            "https://a",
            "a:443",
            "a/b",
            "127.0.0.1",
            "[::1]",
            "a..b",
        ] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let stars = "*".repeat(32) + "b";
        let pattern: HostPattern = stars.parse().unwrap();
        let letters = "a".repeat(63);
        assert!(!pattern.matches(&letters.parse().unwrap()));
        assert!(pattern.matches(&("a".repeat(62) + "b").parse().unwrap()));
        assert!(!pattern.overlaps(&("*".repeat(32) + "c").parse().unwrap()));
        assert!(pattern.overlaps(&("a".to_owned() + &"*".repeat(40)).parse().unwrap()));
    }

    #[test]
    fn finds_patterns_that_share_a_host() {
        let overlap = |a: &str, b: &str| {
            a.parse::<HostPattern>()
                .unwrap()
                .overlaps(&b.parse().unwrap())
        };
        assert!(overlap(
            "open-*-global.alipayplus.com",
            "open-sea-global.alipayplus.com"
        ));
        assert!(overlap("open-*.a.com", "*-global.a.com"));
        assert!(!overlap(
            "open-*-global.alipayplus.com",
            "open-na.alipayplus.com"
        ));
        assert!(!overlap(
            "open-*-global.alipayplus.com",
            "open-*-global.alipay.com"
        ));
    }
}
