//! What a connection is for, told by its first bytes, by where it was going, and by the routes.
//!
//! Looks and decides; `reception` acts. Whatever way a connection came, what names a signed host in its
//! first bytes is never carried unread, also when it cannot be understood; and a connection that the
//! sidecar itself opened is not carried at all.

use std::net::SocketAddr;
use std::time::Duration;

use ::http::uri::Authority;

use super::handshake::Failed;
use super::reception::{App, Reception};
use super::route::{HTTP, HTTPS, Routes};
use crate::exchange::Way;
use crate::net::opening::{self, Head, Hello, Kind};
use crate::net::serve::HANDSHAKE;
use crate::upstream::Host;
use crate::upstream::origin::split;

/// What a connection is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// Requests to a proxy or to the base URL: each says where to.
    Proxy,
    /// Requests for one signed host, without TLS.
    Http(Host),
    /// Requests for one signed host, behind TLS.
    Tls(Host, Hello),
    /// Not for us to read.
    Through(Way, Host, u16),
    /// TLS that cannot be served; the host, where it is known.
    Refused(Option<Host>, Failed),
    /// The sidecar's own connection to that address, caught by the redirect rules.
    OurOwn(SocketAddr),
    /// Nobody is there any more.
    Over,
}

impl Reception {
    /// A connection that was made to this sidecar.
    pub(super) async fn direct(&self, app: &mut App) -> Purpose {
        match opening::kind(app, self.speaker.head_timeout()).await {
            Kind::Plain => Purpose::Proxy,
            Kind::Tls => match opening::hello(app, HANDSHAKE).await {
                Ok(Some(hello)) => self.named(hello),
                Ok(None) => Purpose::Refused(None, Failed::Malformed),
                Err(error) => Purpose::Refused(None, Failed::greeting(error)),
            },
            Kind::Silent | Kind::Gone => Purpose::Over,
        }
    }

    /// TLS straight away: the name it asks for points at this sidecar.
    fn named(&self, hello: Hello) -> Purpose {
        let rules = self.egress.rules.now();
        let routes = &rules.config.routes;
        match hello.server_name.as_deref().map(str::parse::<Host>) {
            Some(Ok(host)) if routes.signing(&host).is_some() => Purpose::Tls(host, hello),
            Some(Ok(host)) => Purpose::Through(Way::Tls, host, HTTPS),
            Some(Err(_)) => Purpose::Refused(None, Failed::Malformed),
            // Clients that name no server are old, or were given an address: there is one guess.
            None => match &routes.default_host {
                Some(host) => Purpose::Tls(host.clone(), hello),
                None => Purpose::Refused(None, Failed::Nameless),
            },
        }
    }

    /// What comes inside a CONNECT to a signed host: TLS for that host, or HTTP as it is.
    pub(super) async fn inside(&self, app: &mut App, host: Host) -> Purpose {
        match opening::kind(app, HANDSHAKE).await {
            Kind::Plain => Purpose::Http(host),
            Kind::Silent => Purpose::Refused(Some(host), Failed::TimedOut),
            Kind::Gone => Purpose::Over,
            Kind::Tls => match opening::hello(app, HANDSHAKE).await {
                Ok(Some(hello)) if hello.is_for(&host) => Purpose::Tls(host, hello),
                Ok(Some(_)) => Purpose::Refused(Some(host), Failed::NameMismatch),
                Ok(None) => Purpose::Refused(Some(host), Failed::Malformed),
                Err(error) => Purpose::Refused(Some(host), Failed::greeting(error)),
            },
        }
    }

    /// A connection that the kernel redirected on its way to `original`.
    pub(super) async fn redirected(&self, app: &mut App, original: SocketAddr) -> Purpose {
        let host = Host::from(original.ip());
        let purpose = self
            .toward(app, Way::Redirected, host, original.port())
            .await;
        match app.io().peer_addr() {
            Ok(peer) if self.egress.own.dialled_by_us(peer, original) => Purpose::OurOwn(original),
            _ => purpose,
        }
    }

    /// A connection to a destination that is no signed host by its name: an address may well be one.
    pub(super) async fn toward(&self, app: &mut App, way: Way, host: Host, port: u16) -> Purpose {
        let rules = self.egress.rules.now();
        let transparent = &rules.config.transparent;
        let onward = |host| Purpose::Through(way, host, port);
        if transparent.opaque_ports.contains(&port) {
            return onward(host);
        }
        // On the ports of HTTP clients speak first, and their silence must not open a way past the
        // signature. On others their server may.
        let clients_begin = matches!(port, HTTP | HTTPS);
        let patience = if clients_begin {
            self.speaker.head_timeout()
        } else {
            transparent.peek_timeout
        };
        let found = match opening::kind(app, patience).await {
            Kind::Silent if clients_begin => return Purpose::Over,
            Kind::Silent | Kind::Gone => None,
            Kind::Tls => self.signed_tls(app, port).await,
            Kind::Plain => {
                let patience = if port == HTTP { HANDSHAKE } else { patience };
                self.signed_http(app, patience, port).await
            }
        };
        found.unwrap_or_else(|| onward(host))
    }

    /// TLS that asks for a signed host.
    async fn signed_tls(&self, app: &mut App, port: u16) -> Option<Purpose> {
        let rules = self.egress.rules.now();
        let routes = &rules.config.routes;
        let unreadable = match opening::hello(app, HANDSHAKE).await {
            Ok(Some(hello)) => {
                let host = hello.server_name.as_deref()?.parse::<Host>().ok()?;
                routes.signing(&host)?;
                return Some(match port {
                    HTTPS => Purpose::Tls(host, hello),
                    _ => Purpose::Refused(Some(host), Failed::WrongPort(port)),
                });
            }
            Ok(None) => Failed::Malformed,
            Err(error) => Failed::greeting(error),
        };
        let host = routes.signed_in(app.seen())?;
        Some(Purpose::Refused(Some(host), unreadable))
    }

    /// HTTP that asks for a signed host. What only begins like HTTP gets an answer if it names one.
    async fn signed_http(&self, app: &mut App, patience: Duration, port: u16) -> Option<Purpose> {
        let rules = self.egress.rules.now();
        let routes = &rules.config.routes;
        let head = match opening::head(app, patience).await {
            Ok(Some(head)) => head,
            // No HTTP at all, or not whole: on its own port, that too is answered as HTTP.
            Ok(None) | Err(_) if port == HTTP => {
                opening::to_blank_line(app, patience).await;
                return routes.signed_in(app.seen()).map(Purpose::Http);
            }
            Ok(None) | Err(_) => return None,
        };
        if let Some(host) = head.authority_in_target() {
            // Meant for another proxy, which must not carry a signed host's requests unsigned.
            return routes.signs(&host).then_some(Purpose::Proxy);
        }
        let host = head.host.as_deref().and_then(host_of);
        let host = host.or_else(|| routes.signed_in(app.seen()))?;
        routes.signs(&host).then_some(Purpose::Http(host))
    }
}

impl Routes {
    fn signs(&self, host: &Host) -> bool {
        self.signing(host).is_some()
    }

    /// A signed host whose name stands somewhere in the bytes.
    fn signed_in(&self, bytes: &[u8]) -> Option<Host> {
        let names = bytes.split(|byte| !byte.is_ascii_alphanumeric() && !b".-".contains(byte));
        names
            .filter(|name| name.len() > 3 && name.contains(&b'.'))
            .filter_map(|name| std::str::from_utf8(name).ok()?.parse::<Host>().ok())
            .find(|host| self.signs(host))
    }
}

impl Hello {
    /// Whether the server it asks for, if it names one, is that host.
    fn is_for(&self, host: &Host) -> bool {
        let name = self.server_name.as_deref();
        name.is_none_or(|name| name.parse().is_ok_and(|name: Host| name == *host))
    }
}

impl Head {
    /// The host in the target of CONNECT or of the absolute form, which wins over `Host` (RFC 9112
    /// section 3.2.2).
    fn authority_in_target(&self) -> Option<Host> {
        if self.method == "CONNECT" {
            return host_of(&self.target);
        }
        let (_scheme, rest) = self.target.split_once("://")?;
        host_of(rest.split(['/', '?']).next()?)
    }
}

fn host_of(authority: &str) -> Option<Host> {
    let authority = authority.parse::<Authority>().ok()?;
    Some(split(&authority).ok()?.0)
}
