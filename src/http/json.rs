//! Names of JSON members as the most lenient parser might read them.
//!
//! Only for decisions on the safe side: what might be the same name counts as the same. Never changes
//! a body. Called where a body's claims are read.

/// Whether a lenient parser might take one name for the other: some ignore case (Go's also by Unicode
/// folding), some ignore `_` and `-`.
pub fn means(key: &str, name: &str) -> bool {
    folded(key).eq(folded(name))
}

/// The characters that count, in lower case.
pub fn folded(text: &str) -> impl Iterator<Item = char> {
    let counts = |character: &char| !matches!(character, '_' | '-');
    text.chars().filter(counts).map(fold)
}

/// Lower case, with the two letters outside ASCII that fold into it.
fn fold(character: char) -> char {
    match character {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_only_where_every_parser_sees_a_difference() {
        for (key, expected) in [
            ("paymentRequestId", true),
            ("PaymentRequestID", true),
            ("payment_request_id", true),
            ("payment-Reque\u{17f}t-Id", true),
            ("paymentRequestIds", false),
            ("paymentRequest.Id", false),
            ("", false),
        ] {
            assert_eq!(means(key, "paymentRequestId"), expected, "{key}");
        }
    }
}
