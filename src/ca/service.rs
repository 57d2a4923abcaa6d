//! The CA and the certificate of a service that makes both for itself, as PEM to be kept by others.
//!
//! Says with a client's eyes what is due: nothing, a certificate, a CA, or both. A new CA stands before the
//! older ones, which stay until they end, so that whoever trusts all of them is never left with a certificate
//! it cannot verify. Refuses to put its keys into any text. Called by `kube`, for the admission webhook.

use std::fmt;
use std::time::{Duration, SystemTime};

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::sha::sha256;
use openssl::x509::X509;
use zeroize::Zeroizing;

use super::certificate::{self, IssueError, Issuer, Profile, Server, Validity};
use crate::clock::written;

/// How long a certificate is valid.
pub const LIFE: Duration = Duration::from_hours(90 * 24);
/// What is renewed has this part of its life left, or less.
const LEFT: u32 = 3;
/// At most so many CAs are kept; one more would be the third within its life.
const AUTHORITIES: usize = 3;

/// CA and certificate as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    /// The CAs that clients must trust: the one that signs, then older ones.
    pub authorities: Vec<u8>,
    /// The key of the first CA.
    pub authority_key: Zeroizing<Vec<u8>>,
    /// The server's certificate.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

/// What must be made anew, and why, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing, until the certificate ends at this time or later.
    Nothing(SystemTime),
    /// A certificate of the CA that is there.
    Certificate(String),
    /// A CA; the certificate is good and stays, so that clients learn to trust the new CA first.
    Authority(String),
    /// Both: there is nothing that could be shown.
    Both(String),
}

impl Kept {
    /// A new CA and a certificate of it for these names.
    ///
    /// # Errors
    /// When OpenSSL cannot.
    pub fn make(names: &[String], now: SystemTime) -> Result<Self, IssueError> {
        let authority = authority(now)?;
        let (certificate, key) = issue(&authority, names, now)?;
        Ok(Self {
            authorities: authority.certificate.to_pem()?,
            authority_key: Zeroizing::new(authority.key.private_key_to_pem_pkcs8()?),
            certificate,
            key,
        })
    }

    /// What is due for a server of these names.
    pub fn due(&self, names: &[String], now: SystemTime) -> Due {
        match (self.of_authority(now), self.of_certificate(names, now)) {
            (Ok(()), Ok(end)) => Due::Nothing(end),
            // One after the other: the certificate of a CA nobody trusts yet would be worth less.
            (Err(why), Ok(_) | Err(Fit::Ending(_))) => Due::Authority(why),
            (Ok(()), Err(Fit::Unusable(why))) => Due::Certificate(why),
            (Ok(()), Err(Fit::Ending(end))) => {
                Due::Certificate(format!("the certificate ends at {}", written(end)))
            }
            (Err(why), Err(Fit::Unusable(other))) => Due::Both(format!("{why}; {other}")),
        }
    }

    /// When the certificate ends, if clients accept it now.
    pub fn end(&self, names: &[String], now: SystemTime) -> Option<SystemTime> {
        match self.of_certificate(names, now) {
            Ok(end) | Err(Fit::Ending(end)) => Some(end),
            Err(Fit::Unusable(_)) => None,
        }
    }

    /// The same with what is due made anew.
    ///
    /// # Errors
    /// When OpenSSL cannot.
    pub fn renewed(
        &self,
        due: &Due,
        names: &[String],
        now: SystemTime,
    ) -> Result<Self, IssueError> {
        let mut new = self.clone();
        let authority = match due {
            Due::Nothing(_) => return Ok(new),
            Due::Certificate(_) => self.signer()?,
            Due::Authority(_) | Due::Both(_) => {
                let authority = authority(now)?;
                new.authorities = authority.certificate.to_pem()?;
                for older in self.not_ended(now).iter().take(AUTHORITIES - 1) {
                    new.authorities.extend(older.to_pem()?);
                }
                new.authority_key = Zeroizing::new(authority.key.private_key_to_pem_pkcs8()?);
                authority
            }
        };
        if !matches!(due, Due::Authority(_)) {
            (new.certificate, new.key) = issue(&authority, names, now)?;
        }
        Ok(new)
    }

    fn signer(&self) -> Result<Issuer, ErrorStack> {
        Ok(Issuer {
            certificate: X509::from_pem(&self.authorities)?,
            key: PKey::private_key_from_pem(&self.authority_key)?,
        })
    }

    /// The CAs that can still vouch for anything.
    fn not_ended(&self, now: SystemTime) -> Vec<X509> {
        let all = X509::stack_from_pem(&self.authorities).unwrap_or_default();
        let lasting = |ca: &X509| certificate::not_after(ca).is_ok_and(|end| end > now);
        all.into_iter().filter(lasting).collect()
    }

    /// Whether the first CA can sign, and for long.
    fn of_authority(&self, now: SystemTime) -> Result<(), String> {
        let authorities = X509::stack_from_pem(&self.authorities);
        let authorities = authorities.map_err(|_damaged| "ca.crt is damaged".to_owned())?;
        let first = authorities.first().ok_or("ca.crt holds no certificate")?;
        let key = private(&self.authority_key, "ca.key")?;
        if !belongs(&key, first) {
            return Err("ca.key does not fit the first certificate of ca.crt".to_owned());
        }
        lasts(first, now).map_err(|end| format!("the CA ends at {}", written(end)))
    }

    /// Until when clients that trust the CAs accept the certificate for each of the names.
    fn of_certificate(&self, names: &[String], now: SystemTime) -> Result<SystemTime, Fit> {
        let unusable = |text: &str| Fit::Unusable(text.to_owned());
        let leaf = X509::from_pem(&self.certificate);
        let leaf = leaf.map_err(|_damaged| unusable("tls.crt holds no whole certificate"))?;
        let key = private(&self.key, "tls.key").map_err(Fit::Unusable)?;
        if !belongs(&key, &leaf) {
            return Err(unusable("tls.key does not fit tls.crt"));
        }
        let authorities = self.not_ended(now);
        for name in names {
            let accepted = accepted(&leaf, &authorities, name, now);
            let why = accepted.map_err(|_defect| unusable("tls.crt cannot be verified"))?;
            if let Some(why) = why {
                let text = format!("tls.crt is not accepted for {name}: {why}");
                return Err(Fit::Unusable(text));
            }
        }
        lasts(&leaf, now).map_err(Fit::Ending)?;
        certificate::not_after(&leaf).map_err(|_no_date| unusable("tls.crt has no end"))
    }
}

/// What is wrong with a certificate.
enum Fit {
    /// Clients accept it, but not for much longer: until then.
    Ending(SystemTime),
    /// They do not.
    Unusable(String),
}

/// A CA for one service. It knows the names it vouches for by what it signs; clients trust it for that
/// service alone.
fn authority(now: SystemTime) -> Result<Issuer, IssueError> {
    let key = certificate::ec_key()?;
    let digest = sha256(&key.public_key_to_der()?);
    // Two CAs of one name would be taken for each other while both are trusted.
    let mark = digest
        .first_chunk()
        .map_or(0, |four| u32::from_be_bytes(*four));
    let profile = Profile {
        name: &format!("Countersign injector CA {mark:08x}"),
        depth: 0,
        constraints: None,
        validity: Validity::starting(now, super::LIFE),
    };
    Issuer::root(key, profile)
}

fn issue(
    authority: &Issuer,
    names: &[String],
    now: SystemTime,
) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), IssueError> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let server = Server {
        common_name: names.last().copied().unwrap_or_default(),
        names: &names,
        addresses: &[],
    };
    let key = certificate::ec_key()?;
    let leaf = authority.server(&key, &server, Validity::starting(now, LIFE))?;
    let key = Zeroizing::new(key.private_key_to_pem_pkcs8()?);
    Ok((leaf.to_pem()?, key))
}

fn private(pem: &[u8], item: &str) -> Result<PKey<Private>, String> {
    PKey::private_key_from_pem(pem).map_err(|_damaged| format!("{item} holds no private key"))
}

fn belongs(key: &PKey<Private>, certificate: &X509) -> bool {
    let public = certificate.public_key();
    public.is_ok_and(|public| public.public_eq(key))
}

/// Whether more than a third of its life is left; else its end.
fn lasts(certificate: &X509, now: SystemTime) -> Result<(), SystemTime> {
    let ends = (
        certificate::not_before(certificate),
        certificate::not_after(certificate),
    );
    let (Ok(from), Ok(to)) = ends else {
        return Err(now);
    };
    let life = to.duration_since(from).unwrap_or_default();
    let left = to.duration_since(now).unwrap_or_default();
    if left > life / LEFT { Ok(()) } else { Err(to) }
}

/// Looks with a client's eyes; why it would refuse.
fn accepted(
    leaf: &X509,
    authorities: &[X509],
    name: &str,
    now: SystemTime,
) -> Result<Option<&'static str>, ErrorStack> {
    let judged = certificate::judge(leaf, authorities, &[], name, now)?;
    Ok(judged.err().map(|why| why.error_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn names() -> Vec<String> {
        ["injector", "injector.pay", "injector.pay.svc"]
            .map(str::to_owned)
            .into()
    }

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + 20_000 * DAY
    }

    fn kept() -> Kept {
        Kept::make(&names(), start()).unwrap()
    }

    fn authorities(kept: &Kept) -> usize {
        X509::stack_from_pem(&kept.authorities).unwrap().len()
    }

    #[test]
    fn nothing_is_due_until_a_third_of_the_certificates_life_is_left() {
        let kept = kept();
        let end = start() + LIFE;
        assert_eq!(kept.due(&names(), start()), Due::Nothing(end));
        assert_eq!(kept.due(&names(), start() + 59 * DAY), Due::Nothing(end));
        let later = start() + 61 * DAY;
        let due = kept.due(&names(), later);
        assert!(matches!(&due, Due::Certificate(why) if why.contains("ends at")));
        let renewed = kept.renewed(&due, &names(), later).unwrap();
        assert_eq!(renewed.due(&names(), later), Due::Nothing(later + LIFE));
        assert_eq!(renewed.authorities, kept.authorities);
        assert!(renewed.certificate != kept.certificate && renewed.key != kept.key);
    }

    #[test]
    fn a_new_ca_stands_beside_the_old_one_before_it_signs_anything() {
        let mut kept = kept();
        // Nobody looked for seven years: both are due, and still the CA comes first.
        let later = start() + 2500 * DAY;
        let leaf = kept.renewed(&Due::Certificate(String::new()), &names(), later - 80 * DAY);
        kept.certificate
            .clone_from(&leaf.as_ref().unwrap().certificate);
        kept.key.clone_from(&leaf.unwrap().key);
        let due = kept.due(&names(), later);
        assert!(
            matches!(&due, Due::Authority(why) if why.starts_with("the CA ends")),
            "{due:?}"
        );
        let both = kept.renewed(&due, &names(), later).unwrap();
        assert_eq!(
            (authorities(&both), &both.certificate),
            (2, &kept.certificate)
        );
        let due = both.due(&names(), later);
        assert!(matches!(&due, Due::Certificate(_)), "{due:?}");
        let last = both.renewed(&due, &names(), later).unwrap();
        assert_eq!(last.authorities, both.authorities);
        // The old CA vouches for the old certificate, the new CA for the new one.
        for (leaf, signer) in [(&both, 1), (&last, 0)] {
            let leaf = X509::from_pem(&leaf.certificate).unwrap();
            let all = X509::stack_from_pem(&both.authorities).unwrap();
            let refused = accepted(&leaf, &all[signer..=signer], "injector", later).unwrap();
            assert_eq!(refused, None);
        }
        // An ended CA is not kept for ever.
        let end = start() + 3700 * DAY;
        let due = last.due(&names(), end);
        assert_eq!(authorities(&last.renewed(&due, &names(), end).unwrap()), 2);
    }

    #[test]
    fn what_is_damaged_is_told_and_made_anew_and_good_cas_stay_trusted() {
        let (good, other) = (kept(), kept());
        for (why, damage) in [
            (
                "ca.crt holds no certificate",
                { |kept: &mut Kept, _: &Kept| kept.authorities.clear() } as fn(&mut Kept, &Kept),
            ),
            ("ca.key holds no private key", |kept, _| {
                kept.authority_key.truncate(99);
            }),
            (
                "ca.key does not fit the first certificate of ca.crt",
                |kept, other| {
                    kept.authority_key.clone_from(&other.authority_key);
                },
            ),
            ("tls.crt holds no whole certificate", |kept, _| {
                kept.certificate.truncate(99);
            }),
            ("tls.key holds no private key", |kept, _| kept.key.clear()),
            ("tls.key does not fit tls.crt", |kept, other| {
                kept.key.clone_from(&other.key);
            }),
            (
                "tls.crt is not accepted for injector: unable to get",
                |kept, other| {
                    kept.certificate.clone_from(&other.certificate);
                    kept.key.clone_from(&other.key);
                },
            ),
        ] {
            let mut kept = good.clone();
            damage(&mut kept, &other);
            let due = kept.due(&names(), start());
            let (Due::Certificate(told) | Due::Authority(told) | Due::Both(told)) = &due else {
                panic!("{why}: nothing is due");
            };
            assert!(told.starts_with(why), "{told}");
            let mended = kept.renewed(&due, &names(), start()).unwrap();
            assert!(
                matches!(mended.due(&names(), start()), Due::Nothing(_)),
                "{why}"
            );
            let trusted = String::from_utf8(mended.authorities).unwrap();
            let old = String::from_utf8(kept.authorities).unwrap();
            assert!(trusted.ends_with(&old), "{why}");
        }
        let more = [names(), vec!["another.pay.svc".to_owned()]].concat();
        assert!(matches!(good.due(&more, start()), Due::Certificate(_)));
    }

    #[test]
    fn no_text_shows_a_key() {
        assert_eq!(format!("{:?}", kept()), "Kept { .. }");
    }
}
