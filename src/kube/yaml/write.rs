//! JSON values as YAML in blocks, as kubectl writes them.
//!
//! A text stands without quotes only where no reader of YAML 1.1 or 1.2 could take it for something else; saphyr's own
//! emitter leaves `1_000`, `0b11` and `y` bare, which kubectl reads as numbers and a boolean. Writes no anchors, tags
//! or comments.

use std::fmt::Write;

use serde_json::{Map, Value};

/// How many bytes of a key may stand before its colon in one line; readers look no further than 1024 characters.
const LONGEST_KEY: usize = 128;

/// A value as a document, a line end at its end.
pub(crate) fn write(value: &Value) -> String {
    let mut writer = Writer::default();
    match value {
        Value::Object(members) if !members.is_empty() => writer.members(members, 0),
        Value::Array(items) if !items.is_empty() => writer.items(items, 0),
        other => writer.scalar(other, 0),
    }
    if !writer.text.ends_with('\n') {
        writer.text.push('\n');
    }
    writer.text
}

#[derive(Debug, Default)]
struct Writer {
    text: String,
}

impl Writer {
    /// The first key stands where the text ends, the others on lines of their own.
    fn members(&mut self, members: &Map<String, Value>, indent: usize) {
        for (index, (key, value)) in members.iter().enumerate() {
            if index > 0 {
                self.line(indent);
            }
            let is_long = self.key(key, indent);
            match value {
                Value::Object(members) if !members.is_empty() => {
                    self.line(indent + 2);
                    self.members(members, indent + 2);
                }
                Value::Array(items) if !items.is_empty() => {
                    let indent = if is_long { indent + 2 } else { indent };
                    self.line(indent);
                    self.items(items, indent);
                }
                scalar => {
                    self.text.push(' ');
                    self.scalar(scalar, indent);
                }
            }
        }
    }

    /// A key and its colon; says whether it needed a line of its own.
    fn key(&mut self, key: &str, indent: usize) -> bool {
        let begin = self.text.len();
        self.string(key);
        let is_long = self.text.len() - begin > LONGEST_KEY;
        if is_long {
            self.text.insert_str(begin, "? ");
            self.line(indent);
        }
        self.text.push(':');
        is_long
    }

    fn items(&mut self, items: &[Value], indent: usize) {
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.line(indent);
            }
            self.text.push_str("- ");
            match item {
                Value::Object(members) if !members.is_empty() => self.members(members, indent + 2),
                Value::Array(items) if !items.is_empty() => self.items(items, indent + 2),
                scalar => self.scalar(scalar, indent),
            }
        }
    }

    fn line(&mut self, indent: usize) {
        if !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        self.text.extend(std::iter::repeat_n(' ', indent));
    }

    fn scalar(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Null => self.text.push_str("null"),
            Value::Bool(value) => self.text.push_str(if *value { "true" } else { "false" }),
            Value::Number(number) => self.text.push_str(&spelled(&number.to_string())),
            Value::String(text) if is_block(text) => self.block(text, indent + 2),
            Value::String(text) => self.string(text),
            Value::Array(_) => self.text.push_str("[]"),
            Value::Object(_) => self.text.push_str("{}"),
        }
    }

    fn string(&mut self, text: &str) {
        if is_plain(text) {
            self.text.push_str(text);
            return;
        }
        self.text.push('"');
        for one in text.chars() {
            match one {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\t' => self.text.push_str("\\t"),
                '\r' => self.text.push_str("\\r"),
                one if is_printable(one) => self.text.push(one),
                one => {
                    let _a_string_takes_all = write!(self.text, "\\u{:04x}", u32::from(one));
                }
            }
        }
        self.text.push('"');
    }

    /// Several lines as they are.
    fn block(&mut self, text: &str, indent: usize) {
        self.text
            .push_str(if text.ends_with('\n') { "|" } else { "|-" });
        for line in text.lines() {
            self.text.push('\n');
            if !line.is_empty() {
                self.text.extend(std::iter::repeat_n(' ', indent));
                self.text.push_str(line);
            }
        }
        self.text.push('\n');
    }
}

/// Readers of YAML 1.1 want a point and a sign before they take an exponent for one.
fn spelled(number: &str) -> String {
    let Some((mantissa, exponent)) = number.split_once('e') else {
        return number.to_owned();
    };
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with(['+', '-']) {
        ""
    } else {
        "+"
    };
    format!("{mantissa}{point}e{sign}{exponent}")
}

/// What every reader takes as it stands in a double-quoted scalar or a block.
fn is_printable(one: char) -> bool {
    // Of what is above ASCII, control characters, separators, the byte order mark and what is no character.
    !matches!(one,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fffe}'..='\u{ffff}')
}

/// Whether a text needs no quotes: it begins like a word, a path or a flag, and is no word with a meaning.
fn is_plain(text: &str) -> bool {
    const MEANINGFUL: [&str; 12] = [
        "y", "n", "yes", "no", "true", "false", "on", "off", "null", "nan", "inf", "infinity",
    ];
    let bare = text.strip_prefix("--").unwrap_or(text);
    let begins = bare.starts_with(|one: char| one.is_ascii_alphabetic() || "/_".contains(one));
    let inner = |one: char| one.is_ascii_alphanumeric() || " _./@+=~-:,;()".contains(one);
    begins
        && text.chars().all(inner)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !MEANINGFUL.contains(&text.to_ascii_lowercase().as_str())
}

/// Whether a text is readable as a block of lines, and comes back as it was.
fn is_block(text: &str) -> bool {
    let ends_once = !text.ends_with("\n\n");
    let begins = text.starts_with(|one: char| one != '\n' && one != ' ' && one != '\t');
    let inner = |one: char| one == '\n' || one == '\t' || is_printable(one);
    let tidy = text.lines().all(|line| !line.ends_with([' ', '\t']));
    text.trim_end_matches('\n').contains('\n')
        && begins
        && ends_once
        && tidy
        && text.chars().all(inner)
}
