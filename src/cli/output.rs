//! Lines for a person: results to stdout, problems to stderr.
//!
//! A command that only prints its result may wait for a slow reader, as any Unix tool does. A command that serves must
//! not: after [`begin_serving`] a line for stderr is given up after [`PATIENCE`]. A closed pipe is no error, as its
//! reader did not want the rest; any other failure to write a result is, see [`is_result_lost`].

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::arguments;
use crate::task;
use crate::telemetry::redact::redact;

/// How long a command that serves waits for the reader of its last lines, on stdout and on stderr.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Whether this command serves.
static SERVES: AtomicBool = AtomicBool::new(false);
/// Whether stderr kept a line waiting for too long.
static IS_STUCK: AtomicBool = AtomicBool::new(false);
/// Whether a line of the result could not be written.
static IS_LOST: AtomicBool = AtomicBool::new(false);

/// From now on no line for stderr holds the process up.
pub fn begin_serving() {
    SERVES.store(true, Ordering::Relaxed);
}

/// Whether this is a command that serves.
pub fn serves() -> bool {
    SERVES.load(Ordering::Relaxed)
}

/// Whether stdout took less than the whole result, for another reason than a reader that is gone.
pub fn is_result_lost() -> bool {
    IS_LOST.load(Ordering::Relaxed)
}

/// A line of result.
pub fn say(line: impl Display) {
    remember(writeln!(io::stdout(), "{line}"));
}

/// Remembers that a part of the result could not be written.
pub fn remember(written: io::Result<()>) {
    if written.is_err_and(|error| error.kind() != ErrorKind::BrokenPipe) {
        IS_LOST.store(true, Ordering::Relaxed);
    }
}

/// A line of result that names files as arguments did, unless these look like secrets.
pub fn say_files(line: impl Display) {
    say(arguments::mask_unusual(&line.to_string()));
}

/// A line about a problem, without the secrets it may quote.
pub fn complain(line: impl Display) {
    let line = line.to_string();
    let masked = arguments::mask(&line);
    to_stderr(format!("countersign: {}\n", redact(&masked)));
}

/// What is wrong with the arguments, in several lines, from `arguments::explain`.
pub fn warn_of_usage(text: impl Display) {
    to_stderr(format!("{}\n", redact(&text.to_string())));
}

/// Writes to stderr; nothing can be done where that fails.
fn to_stderr(text: String) {
    if !serves() {
        let _unwritable = io::stderr().write_all(text.as_bytes());
        return;
    }
    if IS_STUCK.load(Ordering::Relaxed) {
        return;
    }
    let (sender, written) = mpsc::sync_channel(1);
    let thread = task::thread("stderr", move || {
        let _unwritable = io::stderr().write_all(text.as_bytes());
        let _given_up = sender.send(());
    });
    if thread.is_ok() && written.recv_timeout(PATIENCE).is_err() {
        IS_STUCK.store(true, Ordering::Relaxed);
    }
}
