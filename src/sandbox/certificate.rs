//! A throw-away CA and a certificate under it, for the sandbox's TLS.
//!
//! Valid for the gateway's names and for loopback. Refuses to be anything a real client should trust:
//! the CA's key is gone when the process ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::ca::certificate::{IssueError, Issuer, Profile, Server, Validity, ec_key};

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

const YEAR: Duration = Duration::from_hours(365 * 24);

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
pub fn make(now: SystemTime) -> Result<Chain, IssueError> {
    let validity = Validity::starting(now, YEAR);
    let profile = Profile {
        name: "Countersign sandbox CA",
        depth: 0,
        constraints: None,
        validity,
    };
    let ca = Issuer::root(ec_key()?, profile)?;
    let server = Server {
        common_name: "Countersign sandbox",
        names: &NAMES,
        addresses: &[
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ],
    };
    let key = ec_key()?;
    let leaf = ca.server(&key, &server, validity)?;
    Ok(Chain {
        ca_pem: ca.certificate.to_pem()?,
        certificates: vec![CertificateDer::from(leaf.to_der()?)],
        key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.private_key_to_pkcs8()?)),
    })
}
