//! Lines for a person: results to stdout, problems to stderr.
//!
//! A closed pipe ends nothing; whoever closed it did not want the rest.

use std::fmt::Display;
use std::io::{self, Write};

use super::arguments;
use crate::telemetry::redact::redact;

/// A line of result.
pub fn say(line: impl Display) {
    let _closed = writeln!(io::stdout(), "{line}");
}

/// A line of result that names files as arguments did, unless these look like secrets.
pub fn say_files(line: impl Display) {
    say(arguments::mask_unusual(&line.to_string()));
}

/// A line about a problem, without the secrets it may quote.
pub fn complain(line: impl Display) {
    let line = line.to_string();
    let masked = arguments::mask(&line);
    let _closed = writeln!(io::stderr(), "countersign: {}", redact(&masked));
}

/// What is wrong with the arguments, in several lines, from [`arguments::explain`].
pub fn warn_of_usage(text: impl Display) {
    let _closed = writeln!(io::stderr(), "{}", redact(&text.to_string()));
}
