//! The two certificates of a local CA and the key they leave behind.
//!
//! The root is what apps trust; its key signs the issuing CA and is dropped. Refuses, by looking at it
//! with a client's eyes, a CA whose certificates clients would refuse. Called by the authority and by
//! the directory.

use std::slice;
use std::time::{Duration, SystemTime};

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sha::sha256;
use openssl::x509::X509;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::certificate::{self, Issuer, Profile, Server, Validity};
use super::constraints::Permitted;

/// A local CA.
#[derive(Debug)]
pub struct Local {
    /// What apps trust.
    pub root: X509,
    /// What signs the certificates of hosts.
    pub issuing: Issuer,
}

/// Why a client would refuse the CA's certificate for a host.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    /// The host is outside the name constraints.
    NotPermitted,
    /// Anything else, in OpenSSL's words.
    Other(&'static str),
}

impl Local {
    /// Makes one; takes some hundred milliseconds for its keys.
    ///
    /// # Errors
    /// When OpenSSL cannot.
    pub fn make(
        permitted: &Permitted,
        life: Duration,
        now: SystemTime,
    ) -> Result<Self, ErrorStack> {
        let key = certificate::rsa_key()?;
        // Tells two of them apart in a list of trusted CAs.
        let mark = hex(&sha256(&key.public_key_to_der()?)).replace(':', "");
        let mark = mark.get(..8).unwrap_or_default().to_lowercase();
        let validity = Validity::starting(now, life);
        let profile = |name, depth| Profile {
            name,
            depth,
            constraints: Some(permitted),
            validity,
        };
        let name = format!("Countersign local CA {mark}");
        let root = Issuer::root(key, profile(&name, 1))?;
        let name = format!("Countersign local issuing CA {mark}");
        let issuing = root.subordinate(certificate::rsa_key()?, profile(&name, 0))?;
        Ok(Self {
            root: root.certificate,
            issuing,
        })
    }

    /// A certificate for one host.
    ///
    /// # Errors
    /// When OpenSSL cannot.
    pub fn vouch(
        &self,
        host: &str,
        key: &PKey<Private>,
        validity: Validity,
    ) -> Result<X509, ErrorStack> {
        let server = Server {
            common_name: host,
            names: &[host],
            addresses: &[],
        };
        self.issuing.server(key, &server, validity)
    }

    /// Whose certificate apps trust.
    pub fn subject(&self) -> String {
        let entries = self.root.subject_name().entries();
        let parts = entries.filter_map(|entry| {
            let kind = entry.object().nid().short_name().ok()?;
            Some(format!("{kind}={}", entry.data().to_string().ok()?))
        });
        parts.collect::<Vec<_>>().join(", ")
    }

    /// The SHA-256 of the certificate apps trust, as other tools print it.
    ///
    /// # Errors
    /// When OpenSSL cannot.
    pub fn fingerprint(&self) -> Result<String, ErrorStack> {
        let digest = self.root.digest(MessageDigest::sha256())?;
        Ok(hex(&digest))
    }

    /// When it ends.
    ///
    /// # Errors
    /// When a certificate's date is none.
    pub fn end(&self) -> Result<SystemTime, ErrorStack> {
        let root = certificate::not_after(&self.root)?;
        Ok(root.min(certificate::not_after(&self.issuing.certificate)?))
    }

    /// The names apps accept from it; nothing when it may vouch for any.
    ///
    /// # Errors
    /// When OpenSSL cannot write the certificate.
    pub fn permitted(&self) -> Result<Option<Permitted>, ErrorStack> {
        for certificate in [&self.issuing.certificate, &self.root] {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates([CertificateDer::from(certificate.to_der()?)]);
            let constraints = store
                .roots
                .first()
                .and_then(|root| root.name_constraints.as_ref());
            if let Some(constraints) = constraints {
                let permitted = Permitted::in_constraints(constraints);
                return Ok(Some(permitted).filter(|permitted| !permitted.names().is_empty()));
            }
        }
        Ok(None)
    }

    /// Looks with a client's eyes at what the CA signs for a host.
    pub(super) fn accepted(
        &self,
        host: &str,
        now: SystemTime,
    ) -> Result<Result<(), Refusal>, ErrorStack> {
        let key = certificate::ec_key()?;
        let leaf = self.vouch(host, &key, Validity::starting(now, Duration::from_hours(1)))?;
        let sent = slice::from_ref(&self.issuing.certificate);
        let judged = certificate::judge(&leaf, slice::from_ref(&self.root), sent, host, now)?;
        Ok(judged.map_err(|why| match why.as_raw() {
            PERMITTED_VIOLATION | EXCLUDED_VIOLATION => Refusal::NotPermitted,
            _ => Refusal::Other(why.error_string()),
        }))
    }
}

// X509_V_ERR_… of openssl/x509_vfy.h.
const PERMITTED_VIOLATION: i32 = 47;
const EXCLUDED_VIOLATION: i32 = 48;

fn hex(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}
