//! Which names a local CA may vouch for, from the patterns of the hosts that are signed for.
//!
//! Everything below the fixed labels of a pattern is permitted, any IP address is excluded; clients
//! refuse what is outside (RFC 5280 section 4.2.1.10). So a stolen CA key is worth nothing against
//! other sites. Refuses patterns that end in a star: they would permit the whole Internet.

use openssl::asn1::{Asn1Object, Asn1OctetString};
use openssl::error::ErrorStack;
use openssl::x509::X509Extension;

use super::{AuthorityError, der};

/// The DNS names that are permitted, each with all names below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permitted(Vec<String>);

impl Permitted {
    /// The names behind the last star of each pattern, or a pattern without star itself.
    ///
    /// # Errors
    /// When there is no pattern, or one whose last label has a star.
    pub fn of(patterns: &[String]) -> Result<Self, AuthorityError> {
        if patterns.is_empty() {
            return Err(AuthorityError::NoHosts);
        }
        let mut names = Vec::new();
        for pattern in patterns {
            let name = match pattern.rsplit_once('*') {
                Some((_, behind)) => behind.split_once('.').map_or("", |(_, labels)| labels),
                None => pattern,
            };
            if name.is_empty() {
                return Err(AuthorityError::Pattern(pattern.clone()));
            }
            names.push(name.to_ascii_lowercase());
        }
        // A name below another one adds nothing.
        let all = Self(names);
        let mut kept: Vec<String> = Vec::new();
        for name in &all.0 {
            let above = all
                .0
                .iter()
                .any(|other| other != name && is_within(name, other));
            if !above && !kept.contains(name) {
                kept.push(name.clone());
            }
        }
        kept.sort();
        Ok(Self(kept))
    }

    /// What a CA's name constraints permit, from their content as rustls keeps it.
    pub(super) fn in_constraints(content: &[u8]) -> Self {
        let values = der::values(content).into_iter();
        let permitted = values.filter(|(tag, _)| *tag == der::constructed(PERMITTED));
        let subtrees = permitted.flat_map(|(_, subtrees)| der::values(subtrees));
        let bases = subtrees.flat_map(|(_, subtree)| der::values(subtree));
        let names = bases.filter(|(tag, _)| *tag == der::primitive(DNS_NAME));
        Self(
            names
                .map(|(_, name)| String::from_utf8_lossy(name).into_owned())
                .collect(),
        )
    }

    /// The names.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Whether the host, in lower case, is one of the names or below one.
    pub fn covers(&self, host: &str) -> bool {
        self.0.iter().any(|name| is_within(host, name))
    }

    /// The critical extension for a CA certificate.
    pub(super) fn to_extension(&self) -> Result<X509Extension, ErrorStack> {
        let subtree = |tag, base: &[u8]| der::value(der::SEQUENCE, &[&der::value(tag, &[base])]);
        let names: Vec<u8> = self
            .0
            .iter()
            .flat_map(|name| subtree(der::primitive(DNS_NAME), name.as_bytes()))
            .collect();
        // Address and mask of nothing but zeros: every address there is.
        let addresses = [
            subtree(der::primitive(IP_ADDRESS), &[0; 8]),
            subtree(der::primitive(IP_ADDRESS), &[0; 32]),
        ]
        .concat();
        let permitted = der::value(der::constructed(PERMITTED), &[&names]);
        let excluded = der::value(der::constructed(EXCLUDED), &[&addresses]);
        let constraints = der::value(der::SEQUENCE, &[&permitted, &excluded]);
        X509Extension::new_from_der(
            Asn1Object::from_str(NAME_CONSTRAINTS)?.as_ref(),
            true,
            Asn1OctetString::new_from_bytes(&constraints)?.as_ref(),
        )
    }
}

const NAME_CONSTRAINTS: &str = "2.5.29.30";
const PERMITTED: u8 = 0;
const EXCLUDED: u8 = 1;
const DNS_NAME: u8 = 2;
const IP_ADDRESS: u8 = 7;

/// Whether a name is another one or below it.
fn is_within(name: &str, above: &str) -> bool {
    name.strip_suffix(above)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(patterns: &[&str]) -> Result<Vec<String>, AuthorityError> {
        let patterns: Vec<String> = patterns.iter().map(|text| (*text).to_owned()).collect();
        Permitted::of(&patterns).map(|permitted| permitted.names().to_vec())
    }

    #[test]
    fn permits_what_stands_behind_the_last_star_and_nothing_twice() {
        for (patterns, expected) in [
            (
                &["open-*-global.alipayplus.com"][..],
                &["alipayplus.com"][..],
            ),
            (&["open-na.alipayplus.com"], &["open-na.alipayplus.com"]),
            (&["*.*.a.example"], &["a.example"]),
            (&["x.*y.a.example"], &["a.example"]),
            (&["a.example", "A.example"], &["a.example"]),
            (
                &["na.a.example", "*.a.example", "ba.example"],
                &["a.example", "ba.example"],
            ),
        ] {
            assert_eq!(names(patterns).unwrap(), expected, "{patterns:?}");
        }
    }

    #[test]
    fn a_pattern_that_would_permit_every_host_is_refused() {
        for bad in ["*", "a.*", "open-*"] {
            let text = names(&[bad]).unwrap_err().to_string();
            assert!(text.contains(bad), "{text}");
        }
        assert!(names(&[]).is_err());
    }

    #[test]
    fn covers_names_below_and_no_look_alikes() {
        let permitted = Permitted::of(&["open-*.a.example".to_owned()]).unwrap();
        assert!(permitted.covers("a.example") && permitted.covers("x.y.a.example"));
        assert!(!permitted.covers("ba.example") && !permitted.covers("a.example.com"));
    }
}
