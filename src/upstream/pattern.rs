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
    match (pattern, label) {
        ([], []) => true,
        ([b'*', rest @ ..], [_, more @ ..]) => glob(rest, more) || glob(pattern, more),
        ([a, rest @ ..], [b, more @ ..]) => a == b && glob(rest, more),
        _ => false,
    }
}

/// Whether some label fits both patterns.
fn intersect(a: &[u8], b: &[u8]) -> bool {
    match (a, b) {
        ([], []) => true,
        ([b'*', rest @ ..], [b'*', more @ ..]) => {
            intersect(rest, more) || intersect(rest, b) || intersect(a, more)
        }
        ([b'*', rest @ ..], [_, more @ ..]) => intersect(rest, more) || intersect(a, more),
        ([_, rest @ ..], [b'*', more @ ..]) => intersect(rest, more) || intersect(rest, b),
        ([x, rest @ ..], [y, more @ ..]) => x == y && intersect(rest, more),
        _ => false,
    }
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
