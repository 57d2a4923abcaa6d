//! Names: that of an exchange or a tunnel, unlike all others of this process, and that of the trace a request is part
//! of. Takes no name of an exchange from a message.
//!
//! Used by [`Exchange`](super::Exchange) and [`Tunnel`](super::Tunnel) when they start.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use ::http::HeaderMap;

/// Gives every exchange of this process a name of its own.
#[derive(Debug)]
pub struct Ids {
    instance: String,
    next: AtomicU64,
}

impl Ids {
    /// Names that start with six random hex digits, so that those of two sidecars differ.
    pub fn new() -> Self {
        let random = RandomState::new().build_hasher().finish() & 0xff_ffff;
        Self {
            instance: format!("{random:06x}"),
            next: AtomicU64::new(1),
        }
    }

    /// The part all names of this process share.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The next name.
    pub(super) fn next(&self) -> String {
        format!(
            "{}-{}",
            self.instance,
            self.next.fetch_add(1, Ordering::Relaxed)
        )
    }
}

impl Default for Ids {
    fn default() -> Self {
        Self::new()
    }
}

/// The trace id of a W3C `traceparent` header (`00-<32 hex>-<16 hex>-<2 hex>`).
pub(super) fn trace_id(headers: &HeaderMap) -> Option<String> {
    let id = headers
        .get("traceparent")?
        .to_str()
        .ok()?
        .split('-')
        .nth(1)?;
    let valid = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    valid.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_trace_id_only_from_a_well_formed_traceparent() {
        let mut headers = HeaderMap::new();
        assert_eq!(trace_id(&headers), None);
        let id = "0af7651916cd43dd8448eb211c80319c";
        headers.insert(
            "traceparent",
            format!("00-{id}-b7ad6b7169203331-01").parse().unwrap(),
        );
        assert_eq!(trace_id(&headers).as_deref(), Some(id));
        headers.insert(
            "traceparent",
            "00-secret-b7ad6b7169203331-01".parse().unwrap(),
        );
        assert_eq!(trace_id(&headers), None);
    }
}
