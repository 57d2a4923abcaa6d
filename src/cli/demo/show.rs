//! How the demo shows messages, and how it checks what it shows. Called by its two halves.

use std::fmt::Write;

use ::http::HeaderMap;

use super::super::Failure;

/// Ends the story when a step did not hold.
pub(super) fn expect(holds: bool, step: &str) -> Result<(), Failure> {
    if holds {
        Ok(())
    } else {
        Err(Failure::Other(format!("this step did not hold: {step}")))
    }
}

/// A message with a title, set apart from the story.
pub(super) fn indent(title: &str, text: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| format!("     | {}", line.trim_end()))
        .collect();
    format!("   {title}:\n{}\n", lines.join("\n"))
}

/// Headers, one a line.
pub(super) fn fields(headers: &HeaderMap) -> String {
    let mut lines = String::new();
    for (name, value) in headers {
        let _infallible = writeln!(lines, "{name}: {}", shorten(value.to_str().unwrap_or("?")));
    }
    lines
}

/// Every line short enough to read.
pub(super) fn shorten_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(shorten).collect();
    lines.join("\n")
}

/// A long signature is no pleasure to read.
fn shorten(text: &str) -> String {
    if text.chars().count() <= 90 {
        return text.to_owned();
    }
    let start: String = text.chars().take(70).collect();
    format!("{start}… ({} characters)", text.chars().count())
}
