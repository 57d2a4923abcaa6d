//! Where a connection was going before the kernel redirected it here.
//!
//! Asks netfilter's connection tracking (`SO_ORIGINAL_DST`, for IPv6 `IP6T_SO_ORIGINAL_DST`), which
//! keeps the destination of a connection that a REDIRECT or DNAT rule changed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::SockRef;
use tokio::net::TcpStream;

/// Addresses that the redirect rules lead to the sidecar whoever connects to them, itself included, so that it can see whether
/// the rules are in force. They are reserved for documentation (RFC 5737, RFC 3849), so nothing else is there.
pub const PROBES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe)),
];
/// The port of [`PROBES`]: that of the hosts which are signed for.
pub const PROBE_PORT: u16 = 443;

/// Whether this destination is that of the self-check.
pub fn is_probe(destination: SocketAddr) -> bool {
    destination.port() == PROBE_PORT && PROBES.contains(&destination.ip())
}

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
