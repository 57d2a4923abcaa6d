//! HTTP messages as both flows need them: bounded bodies, clean headers, answers for faults.
//!
//! Knows nothing of routes, keys or sockets. Refuses unbounded buffering and headers that a peer may
//! not choose (hop-by-hop, ours). Called by `net`, `upstream`, the flows and the sandbox.

pub mod answer;
pub mod body;
pub mod coding;
pub mod framing;
pub mod headers;
pub mod intake;
pub mod json;
pub mod pace;
pub mod result;
pub mod retries;
pub mod wire;

pub use body::{Body, Budget, Held};
