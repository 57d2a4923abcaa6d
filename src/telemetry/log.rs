//! Installs the log subscriber: JSON lines for machines, readable lines for a person.
//!
//! Called once by `cli`. Lines are written by `log_writer`, and which there are is decided by
//! [`super::line`].

use std::fmt::Display;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::LazyLock;
use std::time::Duration;

use prometheus::{IntCounter, Registry};
use tracing::{level_filters::LevelFilter, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::log_writer::LogWriter;

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

/// Lines that did not reach stdout; `None` only if the name were not a metric's.
static LOST: LazyLock<Option<IntCounter>> = LazyLock::new(|| {
    let help = "Log lines dropped because stdout could not be written or its reader was too slow.";
    IntCounter::new("countersign_log_lines_lost_total", help).ok()
});

/// The process's only queue of lines for stdout.
static WRITER: LazyLock<LogWriter> = LazyLock::new(|| LogWriter::new(LOST.clone()));

/// Starts the thread that writes the log; until then lines are kept. It must not start before the process is confined,
/// as a thread is confined by itself.
///
/// # Errors
/// When the system gives no thread, or no file descriptor.
pub fn start() -> io::Result<()> {
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    WRITER.start(File::from(stdout))
}

/// Adds a line to the log that is no event, such as what a command that serves prints for people.
pub fn print(line: impl Display) {
    WRITER.push(format!("{line}\n").into_bytes());
}

/// Waits until all lines were written, for as long as `patience`. Returns whether they were.
pub fn flush(patience: Duration) -> bool {
    WRITER.is_empty() || (start().is_ok() && WRITER.flush(patience))
}

/// Shows the number of lost lines in these metrics.
pub(super) fn register(registry: &Registry) -> Result<(), prometheus::Error> {
    LOST.iter()
        .try_for_each(|lost| registry.register(Box::new(lost.clone())))
}

/// Sends all further log events to stdout; `level` is a level such as `info`, or a list of
/// `target=level` such as `countersign=debug,hyper=warn`. What is neither is told and left out. A
/// second call in one process changes nothing.
pub fn install(format: Format, level: &str) {
    let (targets, wrong) = filter(level);
    let json = match format {
        Format::Json => true,
        Format::Text => false,
        Format::Auto => !io::stdout().is_terminal(),
    };
    let builder = tracing_subscriber::fmt()
        // Everything, as `targets` is what decides.
        .with_max_level(LevelFilter::TRACE)
        .with_span_events(FmtSpan::NONE)
        .with_writer(WRITER.clone())
        // It would print to stderr, which may block or panic.
        .log_internal_errors(false)
        .with_target(false);
    // A second installation (tests in one process) is refused by `tracing`; the first one stays.
    let _already_installed = if json {
        builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .finish()
            .with(targets)
            .try_init()
    } else {
        builder
            .compact()
            .with_ansi(io::stdout().is_terminal())
            .finish()
            .with(targets)
            .try_init()
    };
    for part in wrong {
        // A secret may stand here by mistake, as anywhere.
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || b"_:=".contains(&byte);
        let part = Some(part).filter(|part| part.bytes().all(is_plain));
        warn!(
            part,
            "left out of the log level: neither a level nor a target=level"
        );
    }
}

/// What `level` asks for, and the parts of it that cannot be understood. Nothing asked for is errors alone.
fn filter(level: &str) -> (Targets, Vec<&str>) {
    let parts = level.split(',').map(str::trim);
    let (good, wrong): (Vec<_>, Vec<_>) = parts
        .filter(|part| !part.is_empty())
        .partition(|part| part.parse::<Targets>().is_ok());
    let targets = good.join(",").parse();
    match targets {
        Ok(targets) if !good.is_empty() => (targets, wrong),
        _ => (Targets::new().with_default(LevelFilter::ERROR), wrong),
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::filter;

    #[test]
    fn a_level_or_targets_say_what_is_logged() {
        for (level, own, others) in [
            ("info", Some(Level::INFO), Some(Level::INFO)),
            ("WARN", Some(Level::WARN), Some(Level::WARN)),
            ("countersign=debug", Some(Level::DEBUG), None),
            (
                " warn, countersign=debug",
                Some(Level::DEBUG),
                Some(Level::WARN),
            ),
            ("off", None, None),
            ("", Some(Level::ERROR), Some(Level::ERROR)),
            ("a=b=c", Some(Level::ERROR), Some(Level::ERROR)),
            ("info,a=loud", Some(Level::INFO), Some(Level::INFO)),
        ] {
            let (targets, _) = filter(level);
            let finest = |target| {
                [Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR]
                    .into_iter()
                    .find(|level| targets.would_enable(target, level))
            };
            assert_eq!(finest("countersign::app"), own, "{level:?}");
            assert_eq!(finest("hyper"), others, "{level:?}");
        }
    }

    #[test]
    fn what_is_no_filter_is_told() {
        assert_eq!(filter("info,a=loud,,b=c=d").1, ["a=loud", "b=c=d"]);
        assert!(filter("info,countersign=debug").1.is_empty());
    }
}
