//! Where a connection was going before the kernel redirected it here.
//!
//! Asks netfilter's connection tracking (`SO_ORIGINAL_DST`, for IPv6 `IP6T_SO_ORIGINAL_DST`), which
//! keeps the destination of a connection that a REDIRECT or DNAT rule changed.

use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::TcpStream;

/// The destination before it was changed; none for a connection that was made to `local` itself.
pub fn destination(stream: &TcpStream, local: SocketAddr) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    // An IPv4 connection to a listener on `[::]` is tracked as IPv4.
    let address = if local.ip().to_canonical().is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    // Fails where nothing is tracked; then nothing is redirected either.
    let original = canonical(address.ok()?.as_socket()?);
    (original != canonical(local)).then_some(original)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
