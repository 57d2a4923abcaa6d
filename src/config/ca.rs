//! The `ca` section: where the local CA is kept and what apps are given.
//!
//! Refuses a CA that would not outlive a certificate it signs. Does not read or make the CA; `ca` does.

use std::path::Path;
use std::time::Duration;

use super::document::{Map, Problems};
use super::{path, values};
use crate::ca::{Config, LIFE};

/// Reads the section.
pub fn read(mut section: Map, folder: &Path, problems: &mut Problems) -> Config {
    let directory = section
        .take("directory")
        .and_then(|node| path(&node, folder, problems));
    let life = section
        .take("life")
        .and_then(|node| node.parse_with(problems, life));
    let trust_directory = section
        .take("trust_directory")
        .and_then(|node| path(&node, folder, problems));
    section.finish(problems);
    Config {
        directory,
        life: life.unwrap_or(LIFE),
        trust_directory,
    }
}

/// How long a CA is valid: a month to a century.
pub fn life(text: &str) -> Result<Duration, String> {
    const DAY: u64 = 24;
    let life = values::duration(text)?;
    if (Duration::from_hours(30 * DAY)..=Duration::from_hours(36_500 * DAY)).contains(&life) {
        Ok(life)
    } else {
        Err(format!(
            "\"{text}\" is out of range; 30d to 36500d are allowed"
        ))
    }
}
