//! What of the network is this process itself: where it listens, and which connections it has opened.
//!
//! The connector asks it before a request is sent in a circle. The accept side asks it whether a
//! connection that was redirected here is one the sidecar itself has opened: then the redirect rules
//! caught the sidecar's own traffic. Knows nothing of other processes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::net::TcpStream;

use crate::net::serve::canonical;

/// Where this process listens, and both ends of every connection it has opened. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct OwnAddresses {
    /// Filled once all listeners are bound.
    listeners: Arc<OnceLock<Vec<SocketAddr>>>,
    dialled: Arc<Mutex<Dials>>,
}

/// How often a connection between two addresses is open. More than once is possible for the moment
/// in which the system has given the addresses of a closed socket to the next.
type Dials = HashMap<Ends, u32>;

/// Our address and the other side's. The system lets two connections share their local address when
/// they go to different destinations, also those of two processes, so ours alone names no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ends {
    local: SocketAddr,
    remote: SocketAddr,
}

impl OwnAddresses {
    /// Makes the listeners known; a second call changes nothing.
    pub fn set(&self, addresses: Vec<SocketAddr>) {
        let _first_wins = self.listeners.set(addresses);
    }

    /// Whether the connection from `peer` to `destination` is one that this process has opened and
    /// not closed yet. For a redirected connection `destination` is where it was going to before.
    ///
    /// Certain as soon as the first byte of the connection has arrived; before that the opening side
    /// may not know its own address yet.
    pub fn dialled_by_us(&self, peer: SocketAddr, destination: SocketAddr) -> bool {
        self.dials().contains_key(&Ends::new(peer, destination))
    }

    /// Whether a connection to `peer`, made from `local` if it is already made, ends at ourselves.
    pub(super) fn include(&self, peer: SocketAddr, local: Option<SocketAddr>) -> bool {
        // `::ffff:127.0.0.1` is 127.0.0.1.
        let (peer_ip, local) = (
            peer.ip().to_canonical(),
            local.map(|one| one.ip().to_canonical()),
        );
        let own = self
            .listeners
            .get()
            .map_or(&[] as &[SocketAddr], Vec::as_slice);
        own.iter()
            .filter(|own| own.port() == peer.port())
            .any(|own| {
                // A listener on all addresses is reached when both ends are the same machine.
                let same_machine = peer_ip.is_loopback() || local == Some(peer_ip);
                own.ip().to_canonical() == peer_ip || (own.ip().is_unspecified() && same_machine)
            })
    }

    /// Makes a connection known that was just opened, until the registration is dropped.
    pub(super) fn register(&self, stream: &TcpStream) -> io::Result<Registration> {
        let ends = Ends::new(stream.local_addr()?, stream.peer_addr()?);
        *self.dials().entry(ends).or_default() += 1;
        Ok(Registration {
            own: self.clone(),
            ends,
        })
    }

    fn dials(&self) -> MutexGuard<'_, Dials> {
        // A map of numbers is whole at any moment.
        self.dialled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ends {
    /// Without the difference between IPv4 and IPv6-mapped IPv4, and without flow and scope.
    fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            local: canonical(local),
            remote: canonical(remote),
        }
    }
}

/// Keeps a connection known as ours while it is open.
#[derive(Debug)]
pub(super) struct Registration {
    own: OwnAddresses,
    ends: Ends,
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.own.dials().entry(self.ends) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_is_ours_while_registered_whatever_its_addresses_are_written_like() {
        let own = OwnAddresses::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let stream = TcpStream::connect(to).await.unwrap();
        let from = stream.local_addr().unwrap();
        let mapped: SocketAddr = format!("[::ffff:127.0.0.1]:{}", from.port())
            .parse()
            .unwrap();
        assert!(!own.dialled_by_us(from, to));
        let (first, second) = (
            own.register(&stream).unwrap(),
            own.register(&stream).unwrap(),
        );
        drop(first);
        assert!(own.dialled_by_us(from, to) && own.dialled_by_us(mapped, to));
        // Another process may use our local address towards somewhere else.
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 443));
        assert!(!own.dialled_by_us(from, elsewhere) && !own.dialled_by_us(to, from));
        drop(second);
        assert!(!own.dialled_by_us(from, to) && own.dials().is_empty());
    }
}
