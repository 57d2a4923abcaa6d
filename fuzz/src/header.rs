//! The `Signature` header: what is read is written in the one form, and read again as the same.

use countersign_protocol::Signature;

/// See the file's head.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(signature) = Signature::parse(text) {
        let written = signature.to_string();
        assert_eq!(Signature::parse(&written).as_ref(), Ok(&signature));
        assert_eq!(
            Signature::parse(&written).expect("read").to_string(),
            written
        );
        assert!(!signature.value.is_empty());
    }
}
