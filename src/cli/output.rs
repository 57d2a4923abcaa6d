//! Lines for a person: results to stdout, problems to stderr.
//!
//! A closed pipe ends nothing; whoever closed it did not want the rest.

use std::fmt::Display;
use std::io::{self, Write};

/// A line of result.
pub fn say(line: impl Display) {
    let _closed = writeln!(io::stdout(), "{line}");
}

/// A line about a problem.
pub fn complain(line: impl Display) {
    let _closed = writeln!(io::stderr(), "countersign: {line}");
}
