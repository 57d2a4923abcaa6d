//! Sockets: listening, serving connections, TLS, draining, and the only spawn.
//!
//! Knows HTTP only as far as a connection must be served; what a request means is decided by the
//! rooms above. Refuses connections over the limit by not accepting them.

pub mod drain;
pub mod listener;
pub mod serve;
pub mod task;
pub mod tls;
