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
                refuse_public_suffix(&lower)?;
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

/// Refuses a pattern that matches hosts of many owners: one with a star in the label directly before a
/// public suffix, or in it, and a public suffix itself. A top-level domain that the Public Suffix List does
/// not have, such as `internal`, counts as one where there is a star, by the list's own default rule.
fn refuse_public_suffix(pattern: &str) -> Result<(), String> {
    let sample = pattern.replace('*', "x");
    let unicode = idna::domain_to_unicode(&sample).0;
    let Some(suffix) = psl::suffix(unicode.as_bytes()) else {
        return Ok(());
    };
    let labels = suffix.as_bytes().split(|byte| *byte == b'.').count();
    if !pattern.contains('*') {
        let is_suffix = suffix.is_known() && labels == pattern.split('.').count();
        return if is_suffix {
            Err(format!(
                "\"{pattern}\" is a public suffix: names below it belong to many owners; write the gateway's \
                 whole name, like open-na.alipayplus.com"
            ))
        } else {
            Ok(())
        };
    }
    // The registrable domain: the public suffix and one label.
    let of_owner: Vec<&str> = pattern.rsplit('.').take(labels + 1).collect();
    if !of_owner.iter().any(|label| label.contains('*')) {
        return Ok(());
    }
    let behind: Vec<&str> = pattern
        .rsplit('.')
        .take_while(|label| !label.contains('*'))
        .collect();
    let behind = behind.into_iter().rev().collect::<Vec<_>>().join(".");
    let below = match behind.as_str() {
        "" => String::new(),
        _ if suffix.is_known() => format!(" below {behind}, a public suffix"),
        _ => format!(" below the top-level domain {behind}"),
    };
    Err(format!(
        "\"{pattern}\" would match hosts of every owner{below}; the domain of one owner must stand behind the \
         last '*', as in open-*-global.alipayplus.com"
    ))
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
    fn the_domain_of_one_owner_stands_behind_the_last_star() {
        for good in [
            "open-*-global.alipayplus.com",
            "*.alipayplus.com",
            "*.*.partner.co.uk",
            "*.partner.github.io",
            "*.svc.cluster.local",
            "*.a.example",
            "*.www.ck",
            "localhost",
            "internal",
            "partner.com",
            "*.partner.xn--55qx5d.cn",
        ] {
            assert!(good.parse::<HostPattern>().is_ok(), "{good}");
        }
        for (bad, part) in [
            ("*", "every owner; "),
            ("*.*", "every owner; "),
            ("open-*", "every owner; "),
            ("partner.*", "every owner; "),
            ("*.com", "every owner below com, a public suffix"),
            ("*.COM.", "every owner below com, a public suffix"),
            ("open-*.com", "below com,"),
            ("www.*.com", "below com,"),
            ("*.*.com", "below com,"),
            ("*.co.uk", "below co.uk,"),
            ("co*.uk", "below uk,"),
            ("*.c*.uk", "below uk,"),
            ("*.github.io", "below github.io,"),
            ("*.ck", "below ck,"),
            ("*.partner.ck", "below partner.ck,"),
            ("*.xn--55qx5d.cn", "below xn--55qx5d.cn,"),
            ("*.xn--p1ai", "below xn--p1ai,"),
            ("*.internal", "below the top-level domain internal"),
            ("*.localhost", "below the top-level domain localhost"),
            ("com", "is a public suffix"),
            ("co.uk", "is a public suffix"),
            ("github.io.", "is a public suffix"),
            ("XN--P1AI", "is a public suffix"),
        ] {
            let error = bad.parse::<HostPattern>().unwrap_err();
            assert!(error.contains(part), "{bad}: {error}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let stars = "*".repeat(32) + "b.a.example";
        let pattern: HostPattern = stars.parse().unwrap();
        let letters = "a".repeat(63) + ".a.example";
        assert!(!pattern.matches(&letters.parse().unwrap()));
        assert!(pattern.matches(&("a".repeat(62) + "b.a.example").parse().unwrap()));
        assert!(!pattern.overlaps(&("*".repeat(32) + "c.a.example").parse().unwrap()));
        let other = "a".to_owned() + &"*".repeat(40) + ".a.example";
        assert!(pattern.overlaps(&other.parse().unwrap()));
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
