//! Installs the log subscriber: JSON lines for machines, readable lines for a person.
//!
//! Called once by `cli`. Refuses nothing itself; what may be logged is decided by [`super::line`].

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// JSON when stdout is no terminal, readable text otherwise.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// Readable text.
    Text,
}

/// Sends all further log events to stdout; `level` is a `tracing` filter such as `info` or
/// `countersign=debug`. A second call in one process changes nothing.
pub fn install(format: Format, level: &str) {
    let filter = EnvFilter::builder().parse_lossy(level);
    let json = match format {
        Format::Json => true,
        Format::Text => false,
        Format::Auto => !io::stdout().is_terminal(),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(io::stdout)
        .with_target(false);
    // A second installation (tests in one process) is refused by `tracing`; the first one stays.
    let _already_installed = if json {
        builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init()
    } else {
        builder
            .compact()
            .with_ansi(io::stdout().is_terminal())
            .try_init()
    };
}
