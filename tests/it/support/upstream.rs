//! The way out on its own, without a sidecar around it.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use countersign::exchange::{Direction, Exchange, Fault, Ids};
use countersign::http::body::{self, Budget};
use countersign::net::tls;
use countersign::telemetry::Metrics;
use countersign::upstream::{
    Config, Connector, Dialled, Limits, OwnAddresses, Proxy, Resolver, Upstream,
};
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;

/// A client with the registry of its connections.
pub struct WayOut {
    pub upstream: Upstream,
    pub own: OwnAddresses,
    pub metrics: Metrics,
}

impl WayOut {
    /// One that trusts the certificates of this PEM file, and knows no listener.
    pub fn trusting(ca: Option<&Path>) -> Self {
        Self::configured(ca, &Config::default())
    }

    /// One that reaches destinations as configured.
    pub fn by(config: &Config) -> Self {
        Self::configured(None, config)
    }

    fn configured(ca: Option<&Path>, config: &Config) -> Self {
        let (own, metrics) = (OwnAddresses::default(), Metrics::new().unwrap());
        let settings = tls::client(tls::roots(ca).unwrap()).unwrap();
        let resolver = Resolver::new(&config.resolve).unwrap();
        let proxy = config
            .proxy
            .as_ref()
            .map(|proxy| Proxy::load(proxy).unwrap());
        let connector = Connector::new(settings, resolver, proxy, own.clone(), metrics.clone());
        let gauge = metrics.buffered.with_label_values::<&str>(&[]);
        Self {
            upstream: Upstream::new(connector, Budget::new(1 << 20, gauge)),
            own,
            metrics,
        }
    }

    /// Opens a connection to `host:port`.
    pub async fn dial(&self, to: &str) -> Result<Dialled, Fault> {
        let (host, port) = to.rsplit_once(':').unwrap();
        let port = port.parse().unwrap();
        self.upstream.dial(&host.parse().unwrap(), port).await
    }

    /// Posts a body and waits for the whole answer.
    pub async fn send(
        &self,
        uri: &str,
        body: &'static [u8],
    ) -> Result<Response<body::Held>, Fault> {
        let request = Request::post(uri).body(Bytes::from_static(body)).unwrap();
        let (post, none) = (Method::POST, HeaderMap::new());
        let ids = Ids::new();
        let mut exchange =
            Exchange::start(Direction::Egress, &self.metrics, &ids, &post, "/", &none);
        let limits = Limits {
            timeout: Duration::from_secs(30),
            response_limit: 1 << 10,
        };
        self.upstream.send(&mut exchange, request, limits).await
    }

    /// Relays a GET with these fields.
    pub async fn relay(
        &self,
        uri: &str,
        fields: &[(&str, &str)],
    ) -> Result<Response<Incoming>, Fault> {
        let mut request = Request::get(uri).body(body::full(Bytes::new())).unwrap();
        for (name, value) in fields {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        let (get, none) = (Method::GET, HeaderMap::new());
        let ids = Ids::new();
        let mut exchange =
            Exchange::start(Direction::Egress, &self.metrics, &ids, &get, "/", &none);
        let patience = Duration::from_secs(30);
        self.upstream.relay(&mut exchange, request, patience).await
    }

    pub fn connects(&self, result: &str) -> u64 {
        self.metrics
            .upstream_connects
            .with_label_values(&[result])
            .get()
    }
}
