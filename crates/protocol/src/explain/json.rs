//! The ways JSON libraries write the same document again, found without understanding it.
//!
//! Only blanks outside strings and escapes inside them are touched; what is no JSON comes out changed
//! in some harmless way, and its hash matches nothing.

use std::fmt::Write;

use super::Mistake;

pub(super) fn rewritings(text: &str) -> impl Iterator<Item = (Mistake, String)> {
    let compact = compacted(text);
    let slashes = escaped(&compact, slash);
    let ascii = escaped(&compact, beyond_ascii);
    let spaced = spaced(&compact);
    let spaced_ascii = escaped(&spaced, beyond_ascii);
    let kept = [
        (Mistake::JsonSlashes, escaped(text, slash)),
        (Mistake::JsonSlashes, text.replace("\\/", "/")),
        (Mistake::JsonAscii, escaped(text, beyond_ascii)),
    ];
    let anew = [
        (Mistake::JsonCompacted, compact),
        (Mistake::JsonSpaced, spaced),
        (Mistake::JsonSlashes, slashes),
        (Mistake::JsonAscii, ascii),
        (Mistake::JsonAscii, spaced_ascii),
    ];
    anew.into_iter().chain(kept)
}

fn compacted(text: &str) -> String {
    outside(text)
        .filter(|(c, quoted)| *quoted || !c.is_ascii_whitespace())
        .map(|(c, _)| c)
        .collect()
}

/// From compact JSON, as `json.dumps` of Python writes by default.
fn spaced(compact: &str) -> String {
    let mut spaced = String::with_capacity(compact.len() * 2);
    for (character, quoted) in outside(compact) {
        spaced.push(character);
        if !quoted && matches!(character, ':' | ',') {
            spaced.push(' ');
        }
    }
    spaced
}

fn escaped(text: &str, escape: fn(char, &mut String) -> bool) -> String {
    let mut written = String::with_capacity(text.len());
    for character in text.chars() {
        if !escape(character, &mut written) {
            written.push(character);
        }
    }
    written
}

fn slash(character: char, written: &mut String) -> bool {
    let bare = character == '/' && !written.ends_with('\\');
    if bare {
        written.push_str("\\/");
    }
    bare
}

fn beyond_ascii(character: char, written: &mut String) -> bool {
    for unit in character.encode_utf16(&mut [0; 2]) {
        if !character.is_ascii() {
            // Writing to a string cannot fail.
            let _ = write!(written, "\\u{unit:04x}");
        }
    }
    !character.is_ascii()
}

/// Each character with whether it belongs to a string, quotes included.
fn outside(text: &str) -> impl Iterator<Item = (char, bool)> {
    let (mut quoted, mut escaped) = (false, false);
    text.chars().map(move |character| {
        let belongs = quoted || character == '"';
        if character == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && character == '\\' && !escaped;
        (character, belongs)
    })
}
