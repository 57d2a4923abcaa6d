//! Which bytes may stand where (RFC 9110 section 5.6.2, RFC 3986).

/// `tchar` of a method or a field's name.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What may stand in no line: below the blank all but the tab, and DEL.
pub(super) fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

/// `OWS`.
pub(super) fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Path and query as hyper takes them: RFC 3986, and the signs that apps leave unencoded all the same.
/// Never a fragment's `#`, and nothing outside ASCII.
pub(super) fn is_target(byte: u8, in_query: bool) -> bool {
    let unencoded = if in_query {
        b"`{}|^[]\\".as_slice()
    } else {
        b"\"{}|^[]\\".as_slice()
    };
    byte.is_ascii_alphanumeric()
        || b"-._~!$&'()*+,;=:@%/?".contains(&byte)
        || unencoded.contains(&byte)
}

/// `reg-name` without percent-encoding, and without the comma, which makes one host of two that an
/// intermediary has joined.
pub(super) fn is_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&byte)
}

/// Whether all bytes are such, and there is at least one.
pub(super) fn all(bytes: &[u8], are: impl Fn(u8) -> bool) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| are(*byte))
}

#[cfg(test)]
mod tests {
    use ::http::Uri;

    use super::*;

    #[test]
    fn what_may_stand_in_a_target_is_what_hyper_takes_of_ascii_but_no_fragment() {
        for byte in 0..=0x7f_u8 {
            for (before, in_query) in [("/a", false), ("/a?b", true)] {
                let text = format!("{before}{}c", char::from(byte));
                let taken = text.parse::<Uri>().is_ok() && byte != b'#';
                assert_eq!(is_target(byte, in_query), taken, "{byte} in {text:?}");
            }
        }
    }
}
