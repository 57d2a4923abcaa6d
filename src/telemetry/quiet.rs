//! Lines for people that quote what others wrote.
//!
//! What is quoted may break no line and reach no terminal as an order. Called by whoever tells of a file.

use super::redact::redact;

/// The text with everything that is no plain character written as an escape, and without keys.
pub fn quiet(text: &str) -> String {
    let text = &*redact(text);
    let is_quiet = |one: &char| !one.is_control() && !matches!(one, '\u{2028}' | '\u{2029}');
    let mut clean = String::new();
    for one in text.chars() {
        if is_quiet(&one) {
            clean.push(one);
        } else {
            clean.extend(one.escape_default());
        }
    }
    clean
}
