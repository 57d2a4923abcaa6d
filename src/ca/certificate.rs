//! The one place that issues certificates: CAs and server certificates under them.
//!
//! Version 3, SHA-256, random serial numbers. Refuses nothing a caller asks for: who may be vouched
//! for is decided above. Called by the local CA and by the sandbox.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
pub use openssl::error::ErrorStack as IssueError;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::stack::Stack;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::verify::X509VerifyParam;
use openssl::x509::{
    X509, X509Builder, X509Name, X509NameBuilder, X509NameRef, X509PurposeId, X509StoreContext,
    X509VerifyResult,
};

use super::constraints::Permitted;
pub use crate::net::x509::{not_after, not_before};

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// The first moment.
    pub from: SystemTime,
    /// The last moment.
    pub to: SystemTime,
}

impl Validity {
    /// Valid for that long from now on, and for the day before: clocks in a cluster differ.
    pub fn starting(now: SystemTime, life: Duration) -> Self {
        Self {
            from: now.checked_sub(SKEW).unwrap_or(now),
            to: now.checked_add(life).unwrap_or(now),
        }
    }

    /// The same, but ending with the issuer at the latest.
    #[must_use]
    pub fn within(self, issuer: &X509) -> Self {
        Self {
            to: not_after(issuer).map_or(self.to, |end| self.to.min(end)),
            ..self
        }
    }
}

const SKEW: Duration = Duration::from_hours(24);
/// RFC 5280 appendix A: the longest common name there may be.
const LONGEST_COMMON_NAME: usize = 64;

/// A certificate whose key signs other certificates.
#[derive(Debug)]
pub struct Issuer {
    /// The CA's certificate.
    pub certificate: X509,
    /// Its private key.
    pub key: PKey<Private>,
}

/// What kind of CA is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Profile<'a> {
    /// Its common name.
    pub name: &'a str,
    /// How many CAs may stand between it and a server's certificate.
    pub depth: u32,
    /// The only names it may vouch for, if not all.
    pub constraints: Option<&'a Permitted>,
    /// How long it is valid.
    pub validity: Validity,
}

/// Whom a server's certificate is for.
#[derive(Debug, Default)]
pub struct Server<'a> {
    /// The common name; a DNS name too long for it is in `names` alone.
    pub common_name: &'a str,
    /// DNS names.
    pub names: &'a [&'a str],
    /// Addresses.
    pub addresses: &'a [IpAddr],
}

impl Issuer {
    /// A CA that signs itself.
    ///
    /// # Errors
    /// When OpenSSL cannot.
    pub fn root(key: PKey<Private>, profile: Profile<'_>) -> Result<Self, IssueError> {
        let own = name(profile.name)?;
        let mut builder = begin(&key, &own, &own, profile.validity)?;
        authority(&mut builder, profile)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(Self {
            certificate: builder.build(),
            key,
        })
    }

    /// A CA below this one, ending with it at the latest.
    ///
    /// # Errors
    /// When OpenSSL cannot.
    pub fn subordinate(
        &self,
        key: PKey<Private>,
        profile: Profile<'_>,
    ) -> Result<Self, IssueError> {
        let validity = profile.validity.within(&self.certificate);
        let own = name(profile.name)?;
        let mut builder = begin(&key, &own, self.certificate.subject_name(), validity)?;
        authority(&mut builder, profile)?;
        self.sign(builder)
            .map(|certificate| Self { certificate, key })
    }

    /// A server's certificate, ending with this CA at the latest.
    ///
    /// # Errors
    /// When OpenSSL cannot.
    pub fn server(
        &self,
        key: &PKey<Private>,
        server: &Server<'_>,
        validity: Validity,
    ) -> Result<X509, IssueError> {
        let fits = server.common_name.len() <= LONGEST_COMMON_NAME;
        let own = name(if fits { server.common_name } else { "" })?;
        let issuer = self.certificate.subject_name();
        let mut builder = begin(key, &own, issuer, validity.within(&self.certificate))?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        builder.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
        let mut names = SubjectAlternativeName::new();
        if !fits {
            // RFC 5280 section 4.2.1.6: without a subject this is all there is.
            names.critical();
        }
        for dns in server.names {
            names.dns(dns);
        }
        for address in server.addresses {
            names.ip(&address.to_string());
        }
        let names = names.build(&builder.x509v3_context(Some(&self.certificate), None))?;
        builder.append_extension(names)?;
        let identifier = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
        builder.append_extension(identifier)?;
        self.sign(builder)
    }

    fn sign(&self, mut builder: X509Builder) -> Result<X509, IssueError> {
        let issuer = AuthorityKeyIdentifier::new()
            .keyid(true)
            .build(&builder.x509v3_context(Some(&self.certificate), None))?;
        builder.append_extension(issuer)?;
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok(builder.build())
    }
}

/// A new RSA key: what every client can verify.
///
/// # Errors
/// When OpenSSL cannot.
pub fn rsa_key() -> Result<PKey<Private>, IssueError> {
    PKey::from_rsa(Rsa::generate(2048)?)
}

/// A new key on P-256: what new clients verify, for a tenth of the server's work.
///
/// # Errors
/// When OpenSSL cannot.
pub fn ec_key() -> Result<PKey<Private>, IssueError> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    PKey::from_ec_key(EcKey::generate(group.as_ref())?)
}

/// What a client that trusts these CAs says to a server's certificate, sent with others, for a host at that time.
///
/// # Errors
/// When OpenSSL cannot look at them.
pub(super) fn judge(
    leaf: &X509,
    trusted: &[X509],
    sent: &[X509],
    host: &str,
    now: SystemTime,
) -> Result<Result<(), X509VerifyResult>, IssueError> {
    let mut parameters = X509VerifyParam::new()?;
    parameters.set_time(unix(now));
    parameters.set_purpose(X509PurposeId::SSL_SERVER)?;
    parameters.set_host(host)?;
    let mut store = X509StoreBuilder::new()?;
    for authority in trusted {
        store.add_cert(authority.clone())?;
    }
    store.set_param(parameters.as_ref())?;
    let mut chain = Stack::new()?;
    for certificate in sent {
        chain.push(certificate.clone())?;
    }
    let mut context = X509StoreContext::new()?;
    context.init(
        store.build().as_ref(),
        leaf.as_ref(),
        chain.as_ref(),
        |context| {
            let accepted = context.verify_cert()?;
            Ok(accepted.then_some(()).ok_or(context.error()))
        },
    )
}

fn authority(builder: &mut X509Builder, profile: Profile<'_>) -> Result<(), IssueError> {
    let mut basic = BasicConstraints::new();
    builder.append_extension(basic.critical().ca().pathlen(profile.depth).build()?)?;
    let mut usage = KeyUsage::new();
    builder.append_extension(usage.critical().key_cert_sign().crl_sign().build()?)?;
    let identifier = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
    builder.append_extension(identifier)?;
    if let Some(constraints) = profile.constraints {
        builder.append_extension(constraints.to_extension()?)?;
    }
    Ok(())
}

fn begin(
    key: &PKey<Private>,
    own: &X509Name,
    issuer: &X509NameRef,
    validity: Validity,
) -> Result<X509Builder, IssueError> {
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
    let mut builder = X509Builder::new()?;
    // Counted from 0: version 3.
    builder.set_version(2)?;
    builder.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
    builder.set_subject_name(own)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    builder.set_not_before(asn1(validity.from)?.as_ref())?;
    builder.set_not_after(asn1(validity.to)?.as_ref())?;
    Ok(builder)
}

fn asn1(time: SystemTime) -> Result<Asn1Time, IssueError> {
    Asn1Time::from_unix(unix(time))
}

/// Seconds since 1970.
pub(super) fn unix(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn name(common: &str) -> Result<X509Name, IssueError> {
    let mut builder = X509NameBuilder::new()?;
    if !common.is_empty() {
        builder.append_entry_by_nid(Nid::COMMONNAME, common)?;
    }
    Ok(builder.build())
}
