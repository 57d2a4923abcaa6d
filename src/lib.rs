//! Countersign: a sidecar that signs what an app sends to Alipay+ and verifies what comes back.
//!
//! The rooms, from the top; each may call those behind it and never one before it
//! (`tests/architecture.rs` holds this):
//!
//! ```text
//! cli → app → config → {egress | ingress | admin | redirect | sandbox | kube} → {upstream | ca} → net
//!     → {http | keys} → exchange → telemetry → {clock | confinement | live | task}
//! ```
//!
//! The flow: app → `net` accepts → `egress` routes, buffers, signs → `upstream` sends, buffers →
//! `egress` verifies → app. The bytes of the protocol are in the crate `countersign-protocol`.

pub mod admin;
pub mod app;
pub mod ca;
pub mod cli;
pub mod clock;
pub mod config;
pub mod confinement;
pub mod egress;
pub mod exchange;
pub mod http;
pub mod ingress;
pub mod keys;
pub mod kube;
pub mod live;
pub mod net;
pub mod redirect;
pub mod sandbox;
pub mod task;
pub mod telemetry;
pub mod upstream;
