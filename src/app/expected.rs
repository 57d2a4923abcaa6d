//! Shows in the metrics what can happen with a configuration, before it does.
//!
//! Alerts need the zero before the first event. Refuses to know what can happen in an exchange: that is
//! `exchange::expected`. Called at the start, and at a reload for the routes it brings.

use crate::config::Config;
use crate::exchange::{Direction, expected};
use crate::telemetry::Metrics;

/// TLS with apps that alerts are about; the names are those of `egress::handshake`.
const INTERCEPTIONS: [&str; 4] = ["ok", "distrusted", "closed", "no_certificate"];
/// Tunnels that alerts are about; the names are those of `egress::tunnel`.
const TUNNELS: [&str; 2] = ["loop_detected", "overloaded"];

/// Shows what can happen at a listener.
pub(super) fn listener(metrics: &Metrics, name: &str) {
    for counter in [&metrics.connections_full, &metrics.unfinished_heads] {
        counter.with_label_values(&[name]).inc_by(0);
    }
}

/// Shows all that can happen, as 0 where it has not.
pub(super) fn show(config: &Config, metrics: &Metrics) {
    if let Some(egress) = &config.egress {
        let routes = egress.routes.routes.iter().map(|route| route.name.as_str());
        expected::show(Direction::Egress, routes, metrics);
        for result in INTERCEPTIONS {
            metrics.interceptions.with_label_values(&[result]).inc_by(0);
        }
        for result in TUNNELS {
            metrics.tunnels.with_label_values(&[result]).inc_by(0);
        }
    }
    if let Some(ingress) = &config.ingress {
        let names = || {
            ingress
                .routes
                .routes
                .iter()
                .map(|route| route.name.as_str())
        };
        expected::show(Direction::Ingress, names(), metrics);
        for name in names() {
            metrics.replays.with_label_values(&[name]).inc_by(0);
        }
    }
}
