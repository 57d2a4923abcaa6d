//! What Kubernetes runs beside an app: the sidecar, patched into pods by their annotations.
//!
//! [`inject`] is the whole of it, for `countersign inject` and the admission webhook alike: it looks at a pod and says what
//! it would be with the sidecar, or why it stays as it is. It never asks the cluster, and never changes half of a
//! pod: whatever is wrong with it or its annotations leaves it alone.

use serde_json::Value;

/// What holds for every pod that says nothing else, by the annotations' names without their prefix.
#[derive(Clone, Debug, Default)]
pub struct Defaults {}

impl Defaults {
    /// Reads a file `defaults: { NAME: VALUE, … }`; `name` is what problems call it.
    ///
    /// # Errors
    /// Everything wrong with it, one line each.
    pub fn read(_name: &str, _text: &str) -> Result<Self, Vec<String>> {
        Ok(Self {})
    }
}

/// What became of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It gets the sidecar.
    Injected {
        /// The pod with the sidecar.
        pod: Value,
        /// A JSON patch (RFC 6902) that makes it of the pod that was given.
        patch: Value,
        /// What is allowed but will surprise, one line each.
        warnings: Vec<String>,
    },
    /// It is left alone, and nobody asked for more; with the reason.
    Unasked(String),
    /// It was asked for and cannot be done safely, so the pod stays as it is; every reason, one line each.
    Refused(Vec<String>),
}

/// Adds the sidecar to a pod, or to the template of one: a mapping with `metadata` and `spec`.
pub fn inject(_pod: &Value, _defaults: &Defaults) -> Outcome {
    Outcome::Unasked("nothing asks for the sidecar".to_owned())
}
