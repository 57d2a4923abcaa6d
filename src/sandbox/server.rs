//! Starts the simulated gateway on a TLS listener with a certificate of its own.
//!
//! Called by `sandbox`, `demo` and the tests.

use std::net::SocketAddr;
use std::sync::Arc;

use countersign_protocol::{KeyError, PrivateKey};
use prometheus::IntGauge;

use super::{Config, Sandbox, certificate};
use crate::ca::certificate::IssueError;
use crate::clock::Clock;
use crate::net::drain::{Drain, Phase};
use crate::net::handshake::Tls;
use crate::net::listener::{BindError, bind};
use crate::net::serve::{Server, Settings};
use crate::net::tls::{self, TlsError};
use crate::task;

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its address is not to be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// No keys could be made.
    #[error("cannot make a key: {0}")]
    Key(#[from] KeyError),
    /// No certificate could be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] IssueError),
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The socket is of no use.
    #[error(transparent)]
    Socket(#[from] std::io::Error),
    /// The connection gauge could not be made.
    #[error(transparent)]
    Gauge(#[from] prometheus::Error),
}

/// A gateway that serves until it is dropped.
#[derive(Debug)]
pub struct Started {
    /// What it is.
    pub gateway: Sandbox,
    /// Where it listens.
    pub address: SocketAddr,
    /// The certificate its clients must trust.
    pub ca_pem: Vec<u8>,
    drain: Drain,
}

/// Listens and serves.
///
/// # Errors
/// [`StartError`]; nothing is left listening then.
pub async fn start(config: Config, listen: SocketAddr) -> Result<Started, StartError> {
    let http2 = config.http2;
    let gateway = Sandbox::new(config, PrivateKey::generate(2048)?)?;
    // Clients ask the machine's clock, whatever time the payments live in.
    let chain = certificate::make(Clock::system().now())?;
    let protocols: &[&[u8]] = if http2 {
        &[b"h2", b"http/1.1"]
    } else {
        &[b"http/1.1"]
    };
    let tls = tls::server(chain.certificates, chain.key, protocols)?;
    let listener = bind("--listen", listen).await?;
    let address = listener.local_addr()?;
    // Shown nowhere: the sandbox has no metrics.
    let open = IntGauge::new("sandbox_connections", "Open connections.")?;
    let settings = Settings {
        tls: Some(Tls::new(tls)),
        ..Settings::plain(open)
    };
    let drain = Drain::new();
    task::spawn(Server::new(listener, settings).run(Arc::new(gateway.clone()), drain.clone()));
    Ok(Started {
        gateway,
        address,
        ca_pem: chain.ca_pem,
        drain,
    })
}

impl Drop for Started {
    fn drop(&mut self) {
        self.drain.enter(Phase::Closing);
    }
}
