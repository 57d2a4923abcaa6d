//! A Java key store of type JKS with trusted certificates, for every Java since 1.2.
//!
//! The format is what `sun.security.provider.JavaKeyStore` reads: numbers in network order, then a
//! SHA-1 digest over the password, a fixed phrase and all before it. The digest guards against
//! accidents only; there is nothing secret in here. Called by the trust material.

use openssl::sha::Sha1;

use super::trust::Trusted;

const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
const TRUSTED_CERTIFICATE: u32 = 2;
/// Part of the format.
const PHRASE: &[u8] = b"Mighty Aphrodite";

/// The file's content; `milliseconds` since 1970 is the date shown for the entries.
pub(super) fn write(entries: &[Trusted], password: &str, milliseconds: u64) -> Vec<u8> {
    let mut store = Vec::new();
    store.extend(MAGIC.to_be_bytes());
    store.extend(VERSION.to_be_bytes());
    store.extend(length(entries.len()).to_be_bytes());
    for entry in entries {
        store.extend(TRUSTED_CERTIFICATE.to_be_bytes());
        text(&mut store, &entry.alias);
        store.extend(milliseconds.to_be_bytes());
        text(&mut store, "X.509");
        store.extend(length(entry.der.len()).to_be_bytes());
        store.extend(&entry.der);
    }
    let mut digest = Sha1::new();
    password
        .encode_utf16()
        .for_each(|unit| digest.update(&unit.to_be_bytes()));
    digest.update(PHRASE);
    digest.update(&store);
    store.extend(digest.finish());
    store
}

/// A text of ASCII, for which Java's modified UTF-8 is the same.
fn text(store: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    store.extend(length.to_be_bytes());
    store.extend(text.bytes().take(usize::from(length)));
}

fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
