//! Installs the log subscriber: JSON lines for machines, readable lines for a person.
//!
//! Called once by `cli`. Refuses nothing itself; what may be logged is decided by [`super::line`].

use std::io::{self, IsTerminal};

use tracing::{level_filters::LevelFilter, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::redact::Redacting;

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
        .with_writer(|| Redacting(io::stdout()))
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
