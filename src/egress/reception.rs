//! Receives a connection: finds out what it is for and stays with it to its end.
//!
//! One port serves every way an app can arrive: as to a proxy, as to its base URL, as to the gateway
//! itself (whose name points here), or redirected by the kernel. What is for a signed host is served
//! as HTTP; everything else passes through a tunnel, unread, or is refused. What a request means is
//! the flow's business.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tracing::debug;

use super::Egress;
use super::arrival::{Arrival, Next};
use super::purpose::Purpose;
use crate::exchange::Way;
use crate::net::drain::Phase;
use crate::net::guard::Guarded;
use crate::net::original;
use crate::net::peeked::Peeked;
use crate::net::speaker::Speaker;

/// The app's side of a connection.
pub(super) type App = Peeked<TcpStream>;

/// One connection on its way to whoever serves it.
#[derive(Debug)]
pub struct Reception {
    pub(super) egress: Arc<Egress>,
    pub(super) local: SocketAddr,
    pub(super) speaker: Speaker,
}

impl Reception {
    /// For a connection whose local end is `local`.
    pub fn new(egress: Arc<Egress>, local: SocketAddr, speaker: Speaker) -> Self {
        Self {
            egress,
            local,
            speaker,
        }
    }

    /// Stays with the connection to its end.
    pub async fn receive(self, stream: TcpStream) {
        let original = self.original(&stream);
        if original.is_some_and(original::is_probe) {
            return self.egress.respond_to_self_check(stream).await;
        }
        let mut app = Peeked::new(stream);
        let purpose = async {
            match original {
                Some(original) => self.redirected(&mut app, original).await,
                None => self.direct(&mut app).await,
            }
        };
        // As long as nothing is known, a connection is idle: it ends when the drain closes.
        let Some(purpose) = self.unless_closing(purpose).await else {
            return;
        };
        let mut turn = Some((app, purpose));
        while let Some((app, purpose)) = turn {
            turn = self.serve(app, purpose).await;
        }
    }

    /// Runs something that may be given up when the drain closes, unless it is done just then: what has
    /// come is served.
    pub(super) async fn unless_closing<T>(&self, idle: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            output = idle => Some(output),
            () = self.egress.drain.reached(Phase::Closing) => None,
        }
    }

    fn original(&self, stream: &TcpStream) -> Option<SocketAddr> {
        let enabled = self.egress.rules.now().config.transparent.enabled;
        enabled.then(|| original::destination(stream, self.local))?
    }

    /// Serves a connection; returns it when a CONNECT gave it another purpose.
    async fn serve(&self, app: App, purpose: Purpose) -> Option<(App, Purpose)> {
        match purpose {
            Purpose::Proxy => return Box::pin(self.proxy(app)).await,
            Purpose::Http(host) => {
                let arrival = Arrival::inside(self.local, host);
                Box::pin(self.speaker.http1(&self.egress, app, arrival)).await;
            }
            Purpose::Tls(host, hello) => Box::pin(self.intercept(app, host, hello)).await,
            Purpose::Through(way, host, port) => self.through(app, way, &host, port).await,
            Purpose::Refused(host, why) => self.refuse(app, host.as_ref(), &why).await,
            Purpose::OurOwn(destination) => self.refuse_our_own(&app, destination),
            Purpose::Over => {}
        }
        None
    }

    /// HTTP as to a proxy or to the base URL, and what a request may turn the connection into.
    async fn proxy(&self, app: App) -> Option<(App, Purpose)> {
        let arrival = Arrival::from(self.local);
        let speaking = self.speaker.http1(&self.egress, app, arrival.clone());
        Box::pin(speaking).await;
        match arrival.next()? {
            Next::Inside(upgrade, host) => {
                let mut app = taken_over(upgrade).await?;
                let purpose = self.unless_closing(self.inside(&mut app, host)).await?;
                Some((app, purpose))
            }
            Next::Through(upgrade, dialled, (host, port), place) => {
                let mut app = taken_over(upgrade).await?;
                let purpose = self.toward(&mut app, Way::Connect, host, port);
                match self.unless_closing(purpose).await? {
                    Purpose::Through(way, host, port) => {
                        let record = self.record(way, format!("{host}:{port}"));
                        self.carry(record, app, dialled).await;
                        drop(place);
                        None
                    }
                    // An address may be that of a signed host: its requests will be dialled for.
                    purpose => Some((app, purpose)),
                }
            }
            Next::Joined {
                app,
                there,
                destination,
                place,
            } => {
                self.carry_upgraded(app, there, destination).await;
                drop(place);
                None
            }
        }
    }
}

/// The connection below HTTP, with what the app sent early.
async fn taken_over(upgrade: OnUpgrade) -> Option<App> {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            debug!(%error, "a connection ended before CONNECT was answered");
            return None;
        }
    };
    // Only this room's connections can be taken over, and they are all of this type.
    let parts = upgraded.downcast::<TokioIo<Guarded<App>>>().ok()?;
    // hyper was given nothing beyond the request itself.
    debug_assert!(parts.read_buf.is_empty(), "hyper has read ahead");
    let (held, app) = parts.io.into_inner().into_parts();
    let (rest, stream) = app.into_parts();
    let mut early = BytesMut::from(parts.read_buf);
    early.extend_from_slice(&held);
    early.extend_from_slice(&rest);
    Some(Peeked::with(early.freeze(), stream))
}
