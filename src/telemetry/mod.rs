//! What operators see: metrics, the log, and one line for every exchange.
//!
//! Refuses to carry bodies, keys, signatures, `Authorization` values or query strings: the types
//! here have no field for them. Called by every room above; calls only the clock.

pub mod line;
pub mod log;
mod log_writer;
pub mod metrics;
mod quiet;
pub mod redact;
mod reload;
mod table;

pub use line::Line;
pub use metrics::Metrics;
pub use quiet::quiet;
