//! What holds for every pod that says nothing else.
//!
//! Read from the file of the injector, `defaults: { NAME: VALUE, … }`, and from `inject --set NAME=VALUE`, which counts
//! before it. Names and values are those of the annotations, and every bad one is refused.

use super::all_quiet;
use super::annotations::{Texts, take};
use super::yaml::{self, Content, Node, Problem};
use crate::telemetry::quiet;

/// Values for pods that do not have their own, by the annotations' names without their prefix.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    pub(super) texts: Texts,
}

impl Defaults {
    /// Reads a file `defaults: { NAME: VALUE, … }`; `file` is what problems call it.
    ///
    /// # Errors
    /// Everything wrong with it, one line each.
    pub fn read(file: &str, text: &str) -> Result<Self, Vec<String>> {
        let mut defaults = Self::default();
        let document = match yaml::read(text) {
            Ok(document) => document,
            Err(Problem { line, what }) => {
                return Err(vec![quiet(&format!("{file}:{line}: {what}"))]);
            }
        };
        let mut problems = Vec::new();
        for (key, value) in entries(document.as_ref(), file, "", &mut problems) {
            if key == "defaults" {
                for (name, value) in entries(Some(value), file, key, &mut problems) {
                    let taken = match &value.content {
                        Content::Scalar { text, .. } => defaults.set(name, text),
                        _ => Err("must be a single value".to_owned()),
                    };
                    if let Err(problem) = taken {
                        problems.push(format!("{file}:{}: defaults.{name}: {problem}", value.line));
                    }
                }
            } else {
                let line = value.line;
                problems.push(format!(
                    "{file}:{line}: unknown key \"{key}\"; known here: defaults"
                ));
            }
        }
        if problems.is_empty() {
            Ok(defaults)
        } else {
            Err(all_quiet(&problems))
        }
    }

    /// Sets one value, in place of the file's.
    ///
    /// # Errors
    /// What is wrong with name or value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        take(&mut self.texts, name, value).map_err(|problem| quiet(&problem))
    }
}

/// The entries of a mapping; of nothing none.
fn entries<'a>(
    node: Option<&'a Node>,
    file: &str,
    path: &str,
    problems: &mut Vec<String>,
) -> Vec<(&'a str, &'a Node)> {
    let Some(node) = node else {
        return Vec::new();
    };
    let colon = if path.is_empty() { "" } else { ": " };
    let place = format!("{file}:{}: {path}{colon}", node.line);
    match &node.content {
        Content::Map(entries) => entries
            .iter()
            .filter_map(|(key, value)| {
                let text = key.text();
                if text.is_none() {
                    problems.push(format!("{place}has a key that is no text"));
                }
                Some((text?, value))
            })
            .collect(),
        Content::Scalar {
            text, plain: true, ..
        } if matches!(text.as_str(), "" | "~" | "null") => Vec::new(),
        _ => {
            problems.push(format!("{place}must be a mapping of names to values"));
            Vec::new()
        }
    }
}
