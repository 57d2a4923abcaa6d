//! Reads the dates of certificates.
//!
//! Refuses to judge them: what an expired certificate means is decided by the callers, which are the
//! listener's certificate here and the local CA.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::error::ErrorStack;
use openssl::x509::{X509, X509Ref};

/// The first and the last moment of a certificate in DER.
///
/// # Errors
/// When it is no certificate, or its dates are none.
pub fn dates(der: &[u8]) -> Result<(SystemTime, SystemTime), ErrorStack> {
    let certificate = X509::from_der(der)?;
    Ok((not_before(&certificate)?, not_after(&certificate)?))
}

/// The moment a certificate ends.
///
/// # Errors
/// When its date is none.
pub fn not_after(certificate: &X509Ref) -> Result<SystemTime, ErrorStack> {
    moment(certificate.not_after())
}

/// The moment a certificate begins.
///
/// # Errors
/// When its date is none.
pub fn not_before(certificate: &X509Ref) -> Result<SystemTime, ErrorStack> {
    moment(certificate.not_before())
}

fn moment(time: &Asn1TimeRef) -> Result<SystemTime, ErrorStack> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    let (days, seconds) = (u64::try_from(since.days), u64::try_from(since.secs));
    let since = Duration::from_secs(days.unwrap_or(0) * 86_400 + seconds.unwrap_or(0));
    Ok(UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH))
}
