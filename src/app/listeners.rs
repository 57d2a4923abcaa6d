//! All listening sockets of the process, opened before anything is served, and how they are served.
//!
//! So a start either succeeds whole or leaves nothing behind. Used by `app` and by its `injector`.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::expected;
use crate::config::Config;
use crate::net::drain::Drain;
use crate::net::listener::{BindError, Place};
use crate::net::serve::{Server, Service, Settings};
use crate::task;
use crate::upstream::OwnAddresses;

/// All listening sockets.
pub(super) struct Bound {
    pub(super) egress: Vec<TcpListener>,
    pub(super) ingress: Vec<TcpListener>,
    pub(super) admin: Vec<TcpListener>,
    pub(super) addresses: Addresses,
}

/// Where they really are: a port 0 was chosen by the system.
pub(super) struct Addresses {
    pub(super) egress: Vec<SocketAddr>,
    pub(super) ingress: Vec<SocketAddr>,
    /// The first, for messages.
    pub(super) admin: Option<SocketAddr>,
}

impl Bound {
    pub(super) async fn bind(config: &Config) -> Result<Self, BindError> {
        let of_egress = config.egress.iter().flat_map(|section| &section.listen);
        let of_ingress = config.ingress.iter().flat_map(|section| &section.listen);
        let egress = bind_all("egress.listen", of_egress).await?;
        let ingress = bind_all("ingress.listen", of_ingress).await?;
        let of_admin = config.admin.iter().map(|section| &section.listen);
        let admin = bind_all("admin.listen", of_admin).await?;
        let addresses = Addresses {
            egress: egress.iter().filter_map(address).collect(),
            ingress: ingress.iter().filter_map(address).collect(),
            admin: admin.first().and_then(address),
        };
        Ok(Self {
            egress,
            ingress,
            admin,
            addresses,
        })
    }

    pub(super) fn own(&self) -> OwnAddresses {
        let all = [&self.egress, &self.ingress, &self.admin];
        let own = OwnAddresses::default();
        own.set(all.into_iter().flatten().filter_map(address).collect());
        own
    }
}

async fn bind_all(
    key: &'static str,
    places: impl Iterator<Item = &Place>,
) -> Result<Vec<TcpListener>, BindError> {
    let mut listeners = Vec::new();
    for place in places {
        listeners.extend(place.bind(key).await?);
    }
    Ok(listeners)
}

fn address(listener: &TcpListener) -> Option<SocketAddr> {
    listener.local_addr().ok()
}

/// Serves on these sockets until the drain closes them, and shows what they may take.
pub(super) fn serve<S: Service>(
    listeners: Vec<TcpListener>,
    service: S,
    settings: &Settings,
    drain: &Drain,
) -> Vec<JoinHandle<()>> {
    let service = Arc::new(service);
    if let Some((metrics, name)) = &settings.counted {
        let limit = metrics.connections_limit.with_label_values(&[name]);
        for _ in &listeners {
            expected::listener(metrics, name);
            limit.add(i64::from(settings.connections));
        }
    }
    let servers = listeners.into_iter().map(|listener| {
        let server = Server::new(listener, settings.clone());
        task::spawn(server.run(Arc::clone(&service), drain.clone()))
    });
    servers.collect()
}
