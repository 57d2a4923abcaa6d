//! `check`: loads all that `run` would, and says what it found.

use clap::Args;

use super::Failure;
use super::output::say;
use super::run::Source;

/// Check a configuration: every problem, or a summary.
///
/// Loads everything `run` would, keys too, and opens no port. Exit 0 when all is well, 64 when not.
#[derive(Args, Debug)]
pub struct Check {
    #[command(flatten)]
    source: Source,
}

impl Check {
    /// Checks.
    pub(super) fn execute(self) -> Result<(), Failure> {
        let prepared = self.source.prepare()?;
        prepared.summary().iter().for_each(say);
        say("configuration is good");
        Ok(())
    }
}
