//! The way out on its own, without a sidecar around it.

use std::time::Duration;

use bytes::Bytes;
use countersign::exchange::{Direction, Exchange, Fault, Ids};
use countersign::http::body::{self, Budget};
use countersign::net::tls;
use countersign::telemetry::Metrics;
use countersign::upstream::{Connector, OwnAddresses, Upstream};
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
    pub fn trusting(ca: Option<&std::path::Path>) -> Self {
        let (own, metrics) = (OwnAddresses::default(), Metrics::new().unwrap());
        let settings = tls::client(tls::roots(ca).unwrap()).unwrap();
        let connector = Connector::new(settings, own.clone(), metrics.clone());
        let gauge = metrics.buffered.with_label_values::<&str>(&[]);
        Self {
            upstream: Upstream::new(connector, Budget::new(1 << 20, gauge)),
            own,
            metrics,
        }
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
