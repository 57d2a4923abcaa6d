//! Opens listening sockets and says clearly when that cannot be done.
//!
//! A place such as `:18449` leaves open which version of IP there is: one socket takes both, and where the
//! kernel has no IPv6 it takes IPv4. Refuses to do so for an address that is spelled out. Called by the rooms
//! that serve.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};

/// How many connections may wait in the kernel's queue, as where tokio opens a socket itself.
const BACKLOG: u32 = 1024;

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this address.
    At(SocketAddr),
    /// At every address of this machine, of IPv4 and of IPv6: `:18449`.
    Everywhere(u16),
    /// At both addresses of loopback, as far as there are both: `localhost:18441`.
    Loopback(u16),
}

/// A text that names no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is no IP address with a port; write it like 127.0.0.1:18441, or :18441 for every address, or localhost:18441 for \
     127.0.0.1 and [::1]"
)]
pub struct NoPlace;

/// Why a listening socket could not be opened.
#[derive(Debug)]
pub struct BindError {
    /// The configuration key that names the address.
    key: &'static str,
    place: Place,
    source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, place, source } = self;
        match source.kind() {
            io::ErrorKind::AddrInUse => write!(
                f,
                "{key}: {place} is in use by another process; stop it or choose another port"
            ),
            io::ErrorKind::PermissionDenied => write!(
                f,
                "{key}: not allowed to listen on {place}; ports under 1024 need the capability \
                 NET_BIND_SERVICE"
            ),
            _ => write!(f, "{key}: cannot listen on {place}: {source}"),
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
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| BindError {
        key,
        place: Place::At(address),
        source,
    })
}

impl Place {
    /// Listens there, for what the configuration names under `key`: with one socket, or with two at loopback.
    ///
    /// # Errors
    /// [`BindError`] with the key, the place and what to do.
    pub async fn bind(self, key: &'static str) -> Result<Vec<TcpListener>, BindError> {
        let listeners = match self {
            Self::At(address) => TcpListener::bind(address).await.map(|one| vec![one]),
            Self::Everywhere(port) => everywhere(port).await.map(|one| vec![one]),
            Self::Loopback(port) => loopback(port).await,
        };
        listeners.map_err(|source| BindError {
            key,
            place: self,
            source,
        })
    }

    /// Its port; 0 lets the system choose.
    pub fn port(self) -> u16 {
        match self {
            Self::At(address) => address.port(),
            Self::Everywhere(port) | Self::Loopback(port) => port,
        }
    }

    /// How many sockets listen there at most.
    pub fn sockets(self) -> u64 {
        match self {
            Self::At(_) | Self::Everywhere(_) => 1,
            Self::Loopback(_) => 2,
        }
    }

    /// Whether the system lets only one of two listen. That `[::]` may be all of IPv4, too, is its own affair.
    pub fn excludes(self, other: Self) -> bool {
        let meet = |one: &SocketAddr, other: &SocketAddr| {
            let for_all = one.ip().is_unspecified() || other.ip().is_unspecified();
            one.ip() == other.ip() || (for_all && one.is_ipv4() == other.is_ipv4())
        };
        let (own, others) = (self.addresses(), other.addresses());
        let both_meet = own
            .iter()
            .any(|one| others.iter().any(|other| meet(one, other)));
        self.port() == other.port() && both_meet
    }

    fn addresses(self) -> Vec<SocketAddr> {
        match self {
            Self::At(address) => vec![address],
            Self::Everywhere(port) => vec![
                (Ipv4Addr::UNSPECIFIED, port).into(),
                (Ipv6Addr::UNSPECIFIED, port).into(),
            ],
            Self::Loopback(port) => vec![
                (Ipv4Addr::LOCALHOST, port).into(),
                (Ipv6Addr::LOCALHOST, port).into(),
            ],
        }
    }
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self::At(address)
    }
}

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        // A sign before a number is read as well, and meant by nobody.
        let port = |text: &str| match text.parse() {
            Ok(port) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
            _ => Err(NoPlace),
        };
        if let Some(text) = text.strip_prefix(':') {
            port(text).map(Self::Everywhere)
        } else if let Some(text) = text.strip_prefix("localhost:") {
            port(text).map(Self::Loopback)
        } else {
            text.parse().map(Self::At).map_err(|_syntax| NoPlace)
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Everywhere(port) => write!(f, ":{port}"),
            Self::Loopback(port) => write!(f, "localhost:{port}"),
        }
    }
}

/// One socket for both versions, whatever `net.ipv6.bindv6only` says.
async fn everywhere(port: u16) -> io::Result<TcpListener> {
    match ipv6(Ipv6Addr::UNSPECIFIED, port)? {
        Some(listener) => Ok(listener),
        None => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    }
}

/// Port 0 is chosen once for both.
async fn loopback(port: u16) -> io::Result<Vec<TcpListener>> {
    let first = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let second = ipv6(Ipv6Addr::LOCALHOST, first.local_addr()?.port())?;
    Ok([first].into_iter().chain(second).collect())
}

/// Listens at an address of IPv6, and at `[::]` on IPv4 as well; none where the kernel does not have the address.
fn ipv6(address: Ipv6Addr, port: u16) -> io::Result<Option<TcpListener>> {
    // Without IPv6 in the kernel there is no such socket. Without descriptors there is none either, and whoever goes on
    // to IPv4 is told that.
    let Ok(socket) = TcpSocket::new_v6() else {
        return Ok(None);
    };
    SockRef::from(&socket).set_only_v6(!address.is_unspecified())?;
    socket.set_reuseaddr(true)?;
    match socket.bind((address, port).into()) {
        // Switched off (`net.ipv6.conf.lo.disable_ipv6`): loopback has no address then.
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(None),
        bound => bound.and_then(|()| socket.listen(BACKLOG)).map(Some),
    }
}
