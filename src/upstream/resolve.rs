//! Where a name is: fixed addresses first, then the configured nameservers or the system's resolver.
//!
//! An app's hosts file may point the gateway's name at the sidecar, and the containers of a pod share
//! that file. So with nameservers named the sidecar asks only those: no hosts file, no search
//! domains, every name is absolute. Called by the connector, which bounds the time.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use tokio::net::lookup_host;

use super::nameservers::Nameservers;
use super::origin::Host;

/// How long one question may take; short enough to ask three times within the connector's step.
const QUESTION: Duration = Duration::from_millis(1500);
/// Answers kept. An app decides which hosts are asked for, so there must be an end.
const ANSWERS: u64 = 1024;

/// How names are resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Who is asked.
    pub nameservers: Nameservers,
    /// Addresses that need no question.
    pub hosts: BTreeMap<Host, Vec<IpAddr>>,
}

impl Config {
    /// In words.
    pub(super) fn sentences(&self) -> Vec<String> {
        let mut sentences: Vec<_> = self.nameservers.sentence().into_iter().collect();
        for (host, addresses) in &self.hosts {
            let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            sentences.push(format!("{host} is at {}", all.join(" ")));
        }
        sentences
    }
}

/// Answers where a name is; clones share the cache.
#[derive(Clone, Debug)]
pub struct Resolver {
    fixed: Arc<HashMap<Host, Vec<IpAddr>>>,
    nameservers: Option<TokioResolver>,
}

impl Resolver {
    /// A resolver that has asked nobody yet.
    ///
    /// # Errors
    /// When the system names no nameserver that could be asked.
    pub fn new(config: &Config) -> io::Result<Self> {
        let nameservers = config.nameservers.addresses()?;
        let nameservers = nameservers
            .map(|addresses| ask(&addresses).map_err(io::Error::other))
            .transpose()?;
        Ok(Self {
            fixed: Arc::new(config.hosts.clone().into_iter().collect()),
            nameservers,
        })
    }

    /// The system's resolver, and nothing else.
    pub fn system() -> Self {
        Self {
            fixed: Arc::default(),
            nameservers: None,
        }
    }

    /// The addresses of a host, at least one.
    pub(super) async fn addresses(&self, host: &Host, port: u16) -> io::Result<Vec<SocketAddr>> {
        let with_port = |ip| SocketAddr::new(ip, port);
        if let Some(ip) = host.ip() {
            return Ok(vec![with_port(ip)]);
        }
        let found: Vec<SocketAddr> = if let Some(fixed) = self.fixed.get(host) {
            fixed.iter().copied().map(with_port).collect()
        } else if let Some(nameservers) = &self.nameservers {
            let name = Name::from_ascii(host.as_str()).map_err(io::Error::other)?;
            let answer = nameservers
                .lookup_ip(name)
                .await
                .map_err(|error| match error {
                    error if error.is_nx_domain() => nothing("the name does not exist"),
                    error if error.is_no_records_found() => nothing(NO_ADDRESS),
                    error => io::Error::other(error),
                })?;
            answer.iter().map(with_port).collect()
        } else {
            lookup_host((host.as_str(), port)).await?.collect()
        };
        if found.is_empty() {
            return Err(nothing(NO_ADDRESS));
        }
        Ok(found)
    }
}

const NO_ADDRESS: &str = "the name has no address";

fn nothing(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, text)
}

fn ask(nameservers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let servers = nameservers.iter().map(|address| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
        let connections = connections.map(|mut connection| {
            connection.port = address.port();
            connection
        });
        NameServerConfig::new(address.ip(), true, connections.into())
    });
    let config = ResolverConfig::from_name_servers(servers.collect());
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options: &mut ResolverOpts = builder.options_mut();
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = QUESTION;
    options.cache_size = ANSWERS;
    options.try_tcp_on_error = true;
    builder.build()
}
