//! Opens a listening socket and says clearly when that cannot be done.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Why a listening socket could not be opened.
#[derive(Debug)]
pub struct BindError {
    /// The configuration key that names the address.
    key: &'static str,
    address: SocketAddr,
    source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            address,
            source,
        } = self;
        match source.kind() {
            io::ErrorKind::AddrInUse => write!(
                f,
                "{key}: {address} is in use by another process; stop it or choose another port"
            ),
            io::ErrorKind::PermissionDenied => write!(
                f,
                "{key}: not allowed to listen on {address}; ports under 1024 need the capability \
                 NET_BIND_SERVICE"
            ),
            _ => write!(f, "{key}: cannot listen on {address}: {source}"),
        }
    }
}

impl Error for BindError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// Listens on `address`, which the configuration names under `key`.
///
/// # Errors
/// [`BindError`] with the key, the address and what to do.
pub async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| BindError {
            key,
            address,
            source,
        })
}
