//! Key files: what is read is long enough, and written forms are read as the same key.
//!
//! No passphrase is given: how long an encrypted key takes to open is written in it by its owner.

use countersign_protocol::{PrivateKey, PublicKey};

/// See the file's head.
pub fn check(data: &[u8]) {
    if let Ok(key) = PublicKey::parse(data) {
        assert!(key.bits() >= 2048);
        for form in [key.to_spki_pem(), key.to_spki_base64()] {
            let again = PublicKey::parse(form.as_bytes()).expect("our own form is read");
            assert_eq!(again.fingerprint(), key.fingerprint());
        }
    }
    if let Ok(key) = PrivateKey::parse(data, None) {
        assert!(key.bits() >= 2048);
        for form in [key.to_pkcs8_pem(), key.to_pkcs8_base64()] {
            let again = PrivateKey::parse(form.as_bytes(), None).expect("our own form is read");
            assert_eq!(
                again.public_key().fingerprint(),
                key.public_key().fingerprint()
            );
        }
    }
}
