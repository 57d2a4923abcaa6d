//! Sockets: listening, first bytes, serving connections, TLS, tunnels, draining.
//!
//! Knows HTTP only as far as a connection must be served; what a request means is decided by the
//! rooms above. Refuses connections over the limit by not accepting them, or by ending those without a request.

mod busy;
pub mod certificate;
pub mod drain;
pub mod guard;
pub mod handshake;
pub mod linger;
pub mod listener;
pub mod network;
pub mod opening;
pub mod original;
pub mod peeked;
pub mod places;
pub mod serve;
pub mod speaker;
pub mod tls;
pub mod tunnel;
pub mod watch;
pub mod x509;
