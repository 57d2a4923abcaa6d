//! What a connection is for, told by its first bytes, by where it was going, and by the routes.
//!
//! Looks and decides; `reception` acts. Refuses to let a connection for a signed host pass unread, and
//! one that the sidecar itself opened pass at all.

use std::net::SocketAddr;

use ::http::uri::Authority;
use tracing::debug;

use super::handshake::Failed;
use super::reception::{App, Reception};
use super::route::{HTTP, HTTPS};
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
                Err(error) => Purpose::Refused(None, Failed::from(error)),
            },
            Kind::Silent | Kind::Gone => Purpose::Over,
        }
    }

    /// TLS straight away: the name it asks for points at this sidecar.
    fn named(&self, hello: Hello) -> Purpose {
        let routes = &self.egress.config.routes;
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
                Err(error) => Purpose::Refused(Some(host), Failed::from(error)),
            },
        }
    }

    /// A connection that the kernel redirected on its way to `original`.
    pub(super) async fn redirected(&self, app: &mut App, original: SocketAddr) -> Purpose {
        let transparent = &self.egress.config.transparent;
        let signed_port = matches!(original.port(), HTTP | HTTPS);
        let kind = if transparent.opaque_ports.contains(&original.port()) {
            Kind::Silent
        } else if signed_port {
            opening::kind(app, self.speaker.head_timeout()).await
        } else {
            opening::kind(app, transparent.peek_timeout).await
        };
        let purpose = match kind {
            // Here clients speak first. Silence must not open a way past the signature.
            Kind::Silent if signed_port => Purpose::Over,
            Kind::Tls if original.port() == HTTPS => self.redirected_tls(app, original).await,
            Kind::Plain => self.redirected_http(app, original).await,
            _ => onward(original),
        };
        let peer = app.io().peer_addr();
        match peer {
            Ok(peer) if self.egress.own.dialled_by_us(peer, original) => Purpose::OurOwn(original),
            _ => purpose,
        }
    }

    async fn redirected_tls(&self, app: &mut App, original: SocketAddr) -> Purpose {
        let hello = match opening::hello(app, HANDSHAKE).await {
            Ok(Some(hello)) => hello,
            Ok(None) => return onward(original),
            Err(error) => return Purpose::Refused(None, Failed::from(error)),
        };
        let name = hello.server_name.as_deref().map(str::parse::<Host>);
        match name {
            Some(Ok(host)) if self.egress.config.routes.signing(&host).is_some() => {
                Purpose::Tls(host, hello)
            }
            _ => onward(original),
        }
    }

    async fn redirected_http(&self, app: &mut App, original: SocketAddr) -> Purpose {
        let head = match opening::head(app, HANDSHAKE).await {
            Ok(Some(head)) => head,
            Ok(None) => return onward(original),
            // On other ports it need not be HTTP at all, only begin like it.
            Err(_) if original.port() != HTTP => return onward(original),
            Err(error) => {
                debug!(%original, %error, "a redirected request did not arrive");
                return Purpose::Over;
            }
        };
        let signed = |authority: &str| {
            let host = authority
                .parse::<Authority>()
                .ok()
                .and_then(|authority| split(&authority).ok())?
                .0;
            self.egress.config.routes.signing(&host)?;
            Some(host)
        };
        match head {
            // The app uses another proxy, which must not carry a signed host's requests unsigned.
            Head { method, target, .. } if method == "CONNECT" && signed(&target).is_some() => {
                Purpose::Proxy
            }
            Head {
                host: Some(host), ..
            } if original.port() == HTTP => signed(&host).map_or(onward(original), Purpose::Http),
            _ => onward(original),
        }
    }
}

fn onward(original: SocketAddr) -> Purpose {
    Purpose::Through(Way::Redirected, original.ip().into(), original.port())
}

impl Hello {
    /// Whether the server it asks for, if it names one, is that host.
    fn is_for(&self, host: &Host) -> bool {
        let name = self.server_name.as_deref();
        name.is_none_or(|name| name.parse().is_ok_and(|name: Host| name == *host))
    }
}
