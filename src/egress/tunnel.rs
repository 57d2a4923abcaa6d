//! Tunnels: connections whose bytes pass unread, because they are for no signed host.
//!
//! Policy first, then dialled, then carried; each leaves one line and one count behind. A connection
//! that cannot be carried is reset, which is what the app would have seen without the sidecar.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use socket2::SockRef;

use super::Egress;
use super::arrival::Place;
use super::reception::{App, Reception};
use super::route::Unmatched;
use crate::exchange::{Code, Fault, Tunnel, Way};
use crate::net::tunnel::{self, End, Moved};
use crate::upstream::{Dialled, Host};

impl Egress {
    /// A place for one more tunnel.
    pub(super) fn place(&self) -> Result<Place, Fault> {
        let taken = Arc::clone(&self.tunnels).try_acquire_owned();
        taken.map_err(|_full| {
            Fault::not_sent(Code::Overloaded, "too many tunnels; see limits.tunnels")
        })
    }
}

impl Reception {
    /// A tunnel that begins now.
    pub(super) fn record(&self, way: Way, destination: String) -> Tunnel {
        Tunnel::start(way, destination, &self.egress.ids, &self.egress.metrics)
    }

    /// Dials the destination and carries the connection there, if hosts no route names may pass.
    pub(super) async fn through(&self, app: App, way: Way, host: &Host, port: u16) {
        let mut record = self.record(way, format!("{host}:{port}"));
        if self.egress.rules.now().config.routes.unmatched == Unmatched::Refuse {
            let reason = "no route names it and egress.unmatched is refuse";
            record.failed(Code::HostNotAllowed.as_str(), reason.to_owned());
            return reset(&app);
        }
        let dialled = async {
            let place = self.egress.place()?;
            Ok((self.egress.upstream.dial(host, port).await?, place))
        };
        match dialled.await {
            Ok((dialled, _place)) => self.carry(record, app, dialled).await,
            Err(fault) => give_up(record, &app, &fault),
        }
    }

    /// Carries a connection to where it was dialled.
    pub(super) async fn carry(&self, mut record: Tunnel, app: App, mut there: Dialled) {
        let moved = Moved::default();
        let (idle, drain) = (self.idle_timeout(), &self.egress.drain);
        let end = tunnel::join(app, there.tcp(), &moved, idle, drain).await;
        finish(&mut record, &end, &moved);
    }

    /// Carries a connection that both peers agreed to use for something else than HTTP.
    pub(super) async fn carry_upgraded(
        &self,
        app: OnUpgrade,
        there: OnUpgrade,
        destination: String,
    ) {
        let mut record = self.record(Way::Upgrade, destination);
        let (app, there) = match tokio::try_join!(app, there) {
            Ok((app, there)) => (TokioIo::new(app), TokioIo::new(there)),
            Err(error) => return record.failed(BROKE_OFF, error.to_string()),
        };
        let moved = Moved::default();
        let (idle, drain) = (self.idle_timeout(), &self.egress.drain);
        let end = tunnel::join_any(app, there, &moved, idle, drain).await;
        finish(&mut record, &end, &moved);
    }

    /// Ends a connection that would go round for ever.
    pub(super) fn refuse_our_own(&self, app: &App, destination: SocketAddr) {
        let mut record = self.record(Way::Redirected, destination.to_string());
        let reason = "the redirect rules caught the sidecar's own connection; exempt its user, as \
                      countersign redirect --exempt-uid does";
        record.failed(Code::LoopDetected.as_str(), reason.to_owned());
        reset(app);
    }

    fn idle_timeout(&self) -> Option<Duration> {
        self.egress.rules.now().config.tunnel.idle_timeout
    }
}

/// The result of a tunnel one of whose sides broke off.
const BROKE_OFF: &str = "broke_off";

fn finish(record: &mut Tunnel, end: &End, moved: &Moved) {
    record.moved(moved.sent(), moved.received());
    match end {
        End::Closed => record.ended("closed"),
        End::Idle => record.ended("idle_timeout"),
        End::Drained => record.ended("drained"),
        End::Broken(error) => record.failed(BROKE_OFF, error.to_string()),
    }
}

fn give_up(mut record: Tunnel, app: &App, fault: &Fault) {
    record.failed(fault.code().as_str(), fault.chain());
    reset(app);
}

/// Ends a connection by a reset (RFC 9293 section 3.6: abort).
fn reset(app: &App) {
    let _already_gone = SockRef::from(app.io()).set_linger(Some(Duration::ZERO));
}
