//! YAML as Kubernetes reads it, and as everybody else does when it is written again.
//!
//! kubectl reads YAML 1.1 with rules of its own: `yes` is true, `0400` is 256, a date is text. `read` makes a tree that
//! knows lines and what was typed, `scalar` gives a value the type kubectl gives it, `write` spells values so that
//! readers of YAML 1.1 and 1.2 find the same. Used by `manifest` and by `defaults`.

mod read;
mod scalar;
mod write;

pub(super) use read::{Content, Node, Problem, read};
pub(super) use write::write;
