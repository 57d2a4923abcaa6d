//! How a connection arrived, and what becomes of it when a request takes it over.
//!
//! Made by `reception` when it knows what a connection is for; read by the routes. A request that
//! ends HTTP on its connection (CONNECT, Upgrade) leaves here what is to follow.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::upgrade::OnUpgrade;
use tokio::sync::OwnedSemaphorePermit;

use crate::net::serve::Ends;
use crate::upstream::{Dialled, Host};

/// A place among the tunnels that may be open, given back when dropped.
pub type Place = OwnedSemaphorePermit;

/// What is known of a connection before its first request.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The local end.
    pub local: SocketAddr,
    /// The one host all its requests must be for: that of its certificate, CONNECT or destination.
    pub host: Option<Host>,
    next: Arc<Mutex<Option<Next>>>,
}

/// What follows on a connection when HTTP has ended on it.
#[derive(Debug)]
pub enum Next {
    /// Requests for a signed host, with or without TLS.
    Inside(OnUpgrade, Host),
    /// Anything, for a destination that is no signed host by its name.
    Through(OnUpgrade, Dialled, (Host, u16), Place),
    /// What both peers agreed on, such as a WebSocket.
    Joined {
        /// The app's end.
        app: OnUpgrade,
        /// The server's end.
        there: OnUpgrade,
        /// Its name for the log.
        destination: String,
        /// Its place among the tunnels.
        place: Place,
    },
}

impl Arrival {
    /// A connection whose requests must all be for `host`.
    pub fn inside(local: SocketAddr, host: Host) -> Self {
        Self {
            host: Some(host),
            ..Self::from(local)
        }
    }

    /// Whether the app uses this connection as one to a proxy, so that CONNECT makes sense on it.
    pub fn is_to_proxy(&self) -> bool {
        self.host.is_none()
    }

    /// Leaves what is to follow when HTTP has ended.
    pub fn then(&self, next: Next) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
    }

    /// What is to follow.
    pub fn next(&self) -> Option<Next> {
        self.next
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl From<Ends> for Arrival {
    fn from(ends: Ends) -> Self {
        Self::from(ends.local)
    }
}

impl From<SocketAddr> for Arrival {
    fn from(local: SocketAddr) -> Self {
        Self {
            local,
            host: None,
            next: Arc::default(),
        }
    }
}
