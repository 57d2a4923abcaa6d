//! A world for tests: a gateway, a sidecar in front of it, raw clients and raw servers.

pub mod charts;
pub mod clients;
pub mod cluster;
pub mod conditions;
pub mod daemon;
pub mod entrances;
pub mod envoy;
pub mod faulty;
#[cfg(feature = "pkcs11")]
pub mod fleet;
pub mod inbound;
pub mod injector;
pub mod kubelet;
pub mod lanes;
pub mod listener;
pub mod malformed;
pub mod manifests;
pub mod monitoring;
pub mod netns;
pub mod partner;
pub mod pki;
pub mod podman;
pub mod process;
#[cfg(feature = "pkcs11")]
pub mod prometheus;
pub mod raw;
pub mod redirected;
pub mod reviews;
pub mod rotation;
#[cfg(feature = "pkcs11")]
pub mod softhsm;
pub mod town;
pub mod upstream;
pub mod world;

pub use raw::Answer;
pub use world::{CLIENT_ID, Files, World};
