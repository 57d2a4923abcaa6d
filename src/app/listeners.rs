//! All listening sockets of the process, opened before anything is served.
//!
//! So a start either succeeds whole or leaves nothing behind.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::config::Config;
use crate::net::listener::{BindError, bind};
use crate::upstream::OwnAddresses;

/// All listening sockets.
pub(super) struct Bound {
    pub(super) egress: Vec<TcpListener>,
    pub(super) ingress: Vec<TcpListener>,
    pub(super) admin: Option<TcpListener>,
    pub(super) addresses: Addresses,
}

/// Where they really are: a port 0 was chosen by the system.
pub(super) struct Addresses {
    pub(super) egress: Vec<SocketAddr>,
    pub(super) ingress: Vec<SocketAddr>,
    pub(super) admin: Option<SocketAddr>,
}

impl Bound {
    pub(super) async fn bind(config: &Config) -> Result<Self, BindError> {
        let of_egress = config.egress.iter().flat_map(|section| &section.listen);
        let of_ingress = config.ingress.iter().flat_map(|section| &section.listen);
        let egress = bind_all("egress.listen", of_egress).await?;
        let ingress = bind_all("ingress.listen", of_ingress).await?;
        let admin = match &config.admin {
            Some(admin) => Some(bind("admin.listen", admin.listen).await?),
            None => None,
        };
        let addresses = Addresses {
            egress: egress.iter().filter_map(address).collect(),
            ingress: ingress.iter().filter_map(address).collect(),
            admin: admin.as_ref().and_then(address),
        };
        Ok(Self {
            egress,
            ingress,
            admin,
            addresses,
        })
    }

    pub(super) fn own(&self) -> OwnAddresses {
        let Addresses {
            egress,
            ingress,
            admin,
        } = &self.addresses;
        let own = OwnAddresses::default();
        own.set(egress.iter().chain(ingress).chain(admin).copied().collect());
        own
    }
}

async fn bind_all(
    key: &'static str,
    addresses: impl Iterator<Item = &SocketAddr>,
) -> Result<Vec<TcpListener>, BindError> {
    let mut listeners = Vec::new();
    for address in addresses {
        listeners.push(bind(key, *address).await?);
    }
    Ok(listeners)
}

fn address(listener: &TcpListener) -> Option<SocketAddr> {
    listener.local_addr().ok()
}
