//! A throw-away CA and a certificate under it, for the sandbox's TLS.
//!
//! Valid for the gateway's names and for loopback. Refuses to be anything a real client should trust:
//! the CA's key is gone when the process ends.

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// The names the sandbox's certificate is good for.
const NAMES: [&str; 8] = [
    "localhost",
    "*.alipayplus.com",
    "*.alipay.com",
    "open-sea-global.alipayplus.com",
    "open-na-global.alipayplus.com",
    "open-sea.alipayplus.com",
    "open-na.alipayplus.com",
    "gateway.test",
];

/// What a TLS listener needs, and what its clients must trust.
#[derive(Debug)]
pub struct Chain {
    /// The CA certificate as PEM, for clients.
    pub ca_pem: Vec<u8>,
    /// The server's certificate.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The server's key.
    pub key: PrivateKeyDer<'static>,
}

/// Makes a CA and a server certificate that live for a year.
///
/// # Errors
/// When OpenSSL cannot.
pub fn make() -> Result<Chain, ErrorStack> {
    let ca_key = new_key()?;
    let ca_name = name("Countersign sandbox CA")?;
    let ca = authority(&ca_key, &ca_name)?;
    let key = new_key()?;
    let leaf = server(&key, &ca, &ca_key)?;
    Ok(Chain {
        ca_pem: ca.to_pem()?,
        certificates: vec![CertificateDer::from(leaf.to_der()?)],
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.private_key_to_pkcs8()?)),
    })
}

fn authority(key: &PKey<Private>, own: &X509Name) -> Result<X509, ErrorStack> {
    let mut builder = begin(key, own, own)?;
    builder.append_extension(BasicConstraints::new().critical().ca().pathlen(0).build()?)?;
    builder.append_extension(
        KeyUsage::new()
            .critical()
            .key_cert_sign()
            .crl_sign()
            .build()?,
    )?;
    let identifier = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
    builder.append_extension(identifier)?;
    builder.sign(key, MessageDigest::sha256())?;
    Ok(builder.build())
}

fn server(key: &PKey<Private>, ca: &X509, ca_key: &PKey<Private>) -> Result<X509, ErrorStack> {
    let own = name("Countersign sandbox")?;
    let issuer = ca.subject_name().to_owned()?;
    let mut builder = begin(key, &own, &issuer)?;
    builder.append_extension(BasicConstraints::new().critical().build()?)?;
    builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
    builder.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
    let mut names = SubjectAlternativeName::new();
    for name in NAMES {
        names.dns(name);
    }
    names.ip("127.0.0.1").ip("::1");
    let names = names.build(&builder.x509v3_context(Some(ca), None))?;
    builder.append_extension(names)?;
    let mut issuer = AuthorityKeyIdentifier::new();
    let issuer = issuer
        .keyid(true)
        .build(&builder.x509v3_context(Some(ca), None))?;
    builder.append_extension(issuer)?;
    builder.sign(ca_key, MessageDigest::sha256())?;
    Ok(builder.build())
}

fn begin(
    key: &PKey<Private>,
    own: &X509Name,
    issuer: &X509Name,
) -> Result<X509Builder, ErrorStack> {
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
    let mut builder = X509Builder::new()?;
    builder.set_version(2)?;
    builder.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
    builder.set_subject_name(own)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    builder.set_not_before(Asn1Time::days_from_now(0)?.as_ref())?;
    builder.set_not_after(Asn1Time::days_from_now(365)?.as_ref())?;
    Ok(builder)
}

fn name(common: &str) -> Result<X509Name, ErrorStack> {
    let mut builder = X509NameBuilder::new()?;
    builder.append_entry_by_nid(Nid::COMMONNAME, common)?;
    Ok(builder.build())
}

fn new_key() -> Result<PKey<Private>, ErrorStack> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
    PKey::from_ec_key(EcKey::generate(group.as_ref())?)
}
