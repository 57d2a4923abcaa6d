//! Every metric in one table.
//!
//! Label values are bounded: routes come from the configuration, everything else from enums here
//! and in `exchange`. Refuses paths, ids and anything else a message could choose.

use std::time::Duration;

use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Error, GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec, Registry, TextEncoder,
};

pub use super::reload::Reload;

use super::log;
use super::table::Table;

/// Buckets for whole exchanges: the gateway answers in tens of milliseconds to seconds.
const EXCHANGE_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 8.0, 15.0, 30.0,
];
/// Buckets for our own work: an RSA-2048 signature takes some 0.25 ms.
const WORK_BUCKETS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05,
];

/// The process's metrics; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Finished exchanges.
    pub exchanges: IntCounterVec,
    /// How long exchanges took, waiting included.
    pub exchange_duration: HistogramVec,
    /// Time spent in the sidecar, waiting for peers excluded.
    pub overhead: HistogramVec,
    /// Exchanges under way.
    pub in_flight: IntGaugeVec,
    /// Answers the sidecar gave in place of the peer, with whether the request may have arrived.
    pub faults: IntCounterVec,
    /// Requests refused before they were read, by listener and reason.
    pub malformed: IntCounterVec,
    /// Connections that ended while a request's head was on its way.
    pub unfinished_heads: IntCounterVec,
    /// Times that a listener had as many connections as it may.
    pub connections_full: IntCounterVec,
    /// Time to make one signature.
    pub sign_duration: HistogramVec,
    /// Verified messages and refused ones by code.
    pub verifications: IntCounterVec,
    /// Answers that needed no signature and had none, by route and kind.
    pub unsigned_answers: IntCounterVec,
    /// Time to verify one signature.
    pub verify_duration: HistogramVec,
    /// New upstream connections by result.
    pub upstream_connects: IntCounterVec,
    /// Open connections from peers.
    pub connections: IntGaugeVec,
    /// How many of them a listener takes.
    pub connections_limit: IntGaugeVec,
    /// How many exchanges may be under way.
    pub in_flight_limit: IntGaugeVec,
    /// Bytes of bodies held in memory now.
    pub buffered: IntGaugeVec,
    /// How many bytes of bodies may be held.
    pub buffered_limit: IntGaugeVec,
    /// The keys in use.
    pub key_info: IntGaugeVec,
    /// When each key was loaded.
    pub key_loaded: GaugeVec,
    /// Sessions with the token of each identity that signs with one.
    pub token_sessions: IntGaugeVec,
    /// Messages that verified with a key that is not the newest of their identity.
    pub older_key_uses: IntCounterVec,
    /// Reloads of what was changed on disk, by [`Reload`] and result; counted by
    /// [`Metrics::reloaded`].
    pub reloads: IntCounterVec,
    /// Whether the last reload of something worked, be it counted or not; set by
    /// [`Metrics::reload_ended`].
    pub last_reload: IntGaugeVec,
    /// When the certificate a listener shows ends.
    pub certificate_expiry: IntGaugeVec,
    /// When the CA ends that apps trust.
    pub local_ca_expiry: IntGaugeVec,
    /// TLS handshakes of peers with a listener.
    pub handshakes: IntCounterVec,
    /// The gateway's `Date` minus our clock.
    pub clock_skew: GaugeVec,
    /// Requests from the gateway that were here before.
    pub replays: IntCounterVec,
    /// Whether the kernel's redirect rules are in force, where that is checked.
    pub redirect_active: IntGaugeVec,
    /// Requests that repeat an earlier one, by what was done with them.
    pub repeated_requests: IntCounterVec,
    /// Blind tunnels by result.
    pub tunnels: IntCounterVec,
    /// Blind tunnels now.
    pub tunnels_open: IntGaugeVec,
    /// How many of them there may be.
    pub tunnels_limit: IntGaugeVec,
    /// Bytes carried by blind tunnels.
    pub tunnel_bytes: IntCounterVec,
    /// TLS connections of the app that were to be terminated here.
    pub interceptions: IntCounterVec,
    /// Pods the admission webhook was asked about, by result.
    pub injections: IntCounterVec,
    /// Requests to the cluster's API server.
    pub cluster_requests: IntCounterVec,
    /// When the webhook's certificate was last found to be as it should be in the cluster.
    pub cluster_synced: IntGaugeVec,
}

impl Metrics {
    /// Registers all metrics.
    ///
    /// # Errors
    /// When two metrics share a name, which a test rules out.
    #[expect(
        clippy::too_many_lines,
        reason = "one table of all metrics, to be read in one go"
    )]
    pub fn new() -> Result<Self, Error> {
        let table = Table {
            registry: Registry::new(),
        };
        let metrics = Self {
            exchanges: table.counters(
                "countersign_exchanges_total",
                "Finished exchanges by outcome: a verdict, or the error code.",
                &["direction", "route", "outcome"],
            )?,
            exchange_duration: table.histograms(
                "countersign_exchange_duration_seconds",
                "Time from the request's head to the end of its answer, waiting included.",
                &["direction", "route"],
                EXCHANGE_BUCKETS,
            )?,
            overhead: table.histograms(
                "countersign_overhead_seconds",
                "Time an exchange spent in the sidecar, waiting for peers excluded.",
                &["direction"],
                WORK_BUCKETS,
            )?,
            in_flight: table.gauges(
                "countersign_in_flight",
                "Exchanges under way.",
                &["direction"],
            )?,
            in_flight_limit: table.gauges(
                "countersign_in_flight_limit",
                "How many exchanges may be under way.",
                &["direction"],
            )?,
            faults: table.counters(
                "countersign_faults_total",
                "Answers the sidecar gave itself, by code and by whether the request may have been delivered.",
                &["direction", "route", "code", "delivery"],
            )?,
            unfinished_heads: table.counters(
                "countersign_unfinished_heads_total",
                "Connections that ended before a request's head was whole: too slow, or cut off.",
                &["listener"],
            )?,
            connections_full: table.counters(
                "countersign_connections_full_total",
                "Minutes in which all connections a listener may have were open when a new one came.",
                &["listener"],
            )?,
            malformed: table.counters(
                "countersign_malformed_requests_total",
                "HTTP/1 requests that two readers could understand differently, refused by reason.",
                &["listener", "reason"],
            )?,
            sign_duration: table.histograms(
                "countersign_sign_duration_seconds",
                "Time to make one signature.",
                &[],
                WORK_BUCKETS,
            )?,
            verifications: table.counters(
                "countersign_verifications_total",
                "Messages whose signature was looked at: verified, unsigned, or the error code.",
                &["direction", "result"],
            )?,
            unsigned_answers: table.counters(
                "countersign_unsigned_answers_total",
                "Answers of gateways that needed no signature and had none: a refusal (F), or the class of another one's status.",
                &["route", "kind"],
            )?,
            verify_duration: table.histograms(
                "countersign_verify_duration_seconds",
                "Time to verify one signature.",
                &[],
                WORK_BUCKETS,
            )?,
            upstream_connects: table.counters(
                "countersign_upstream_connects_total",
                "New connections towards the gateway or another destination, by result.",
                &["result"],
            )?,
            connections: table.gauges(
                "countersign_connections",
                "Open connections accepted by a listener.",
                &["listener"],
            )?,
            connections_limit: table.gauges(
                "countersign_connections_limit",
                "How many connections a listener takes at a time, on all its addresses together.",
                &["listener"],
            )?,
            buffered: table.gauges(
                "countersign_buffered_bytes",
                "Bytes of message bodies held in memory.",
                &[],
            )?,
            buffered_limit: table.gauges(
                "countersign_buffered_limit_bytes",
                "How many bytes of message bodies may be held, all budgets together.",
                &[],
            )?,
            key_info: table.gauges(
                "countersign_key_info",
                "Keys in use; the value is always 1.",
                &["client_id", "use", "key_version", "fingerprint"],
            )?,
            key_loaded: table.float_gauges(
                "countersign_key_loaded_timestamp_seconds",
                "When the key was loaded, in seconds since the epoch.",
                &["client_id", "use", "key_version", "fingerprint"],
            )?,
            token_sessions: table.gauges(
                "countersign_token_sessions",
                "Sessions that have the token of the signing key now; 0 while it is away.",
                &["client_id"],
            )?,
            older_key_uses: table.counters(
                "countersign_older_key_uses_total",
                "Messages of the gateway that verified with an older key than the newest of their identity.",
                &["direction", "client_id", "key_version"],
            )?,
            reloads: table.counters(
                "countersign_reloads_total",
                "Reloads of what was changed on disk, by result; a failed one changes nothing.",
                &["what", "result"],
            )?,
            last_reload: table.gauges(
                "countersign_last_reload_successful",
                "Whether the last reload of what was changed on disk worked: 1, or 0 while it does not.",
                &["what"],
            )?,
            certificate_expiry: table.gauges(
                "countersign_certificate_expiry_timestamp_seconds",
                "When the certificate that a listener shows ends, in seconds since the epoch.",
                &["listener"],
            )?,
            local_ca_expiry: table.gauges(
                "countersign_local_ca_expiry_timestamp_seconds",
                "When the local CA that apps trust ends, in seconds since the epoch.",
                &[],
            )?,
            handshakes: table.counters(
                "countersign_handshakes_total",
                "TLS handshakes of peers with a listener, by how they ended.",
                &["listener", "result"],
            )?,
            clock_skew: table.float_gauges(
                "countersign_clock_skew_seconds",
                "The gateway's Date header minus our clock, at the last answer.",
                &["route"],
            )?,
            replays: table.counters(
                "countersign_replays_total",
                "Authentic requests from the gateway that are byte for byte the same as an earlier one.",
                &["route"],
            )?,
            redirect_active: table.gauges(
                "countersign_redirect_active",
                "Whether the kernel's redirect rules lead connections here, by version of IP.",
                &["family"],
            )?,
            repeated_requests: table.counters(
                "countersign_repeated_requests_total",
                "Requests that repeat an earlier one, by what was done with them.",
                &["direction", "route", "result"],
            )?,
            tunnels: table.counters(
                "countersign_tunnels_total",
                "Ended tunnels, whose bytes pass unread, by result.",
                &["result"],
            )?,
            tunnels_open: table.gauges("countersign_tunnels_open", "Open tunnels.", &[])?,
            tunnels_limit: table.gauges(
                "countersign_tunnels_limit",
                "How many tunnels may be open.",
                &[],
            )?,
            tunnel_bytes: table.counters(
                "countersign_tunnel_bytes_total",
                "Bytes carried by tunnels: sent by the app, or received by it.",
                &["direction"],
            )?,
            interceptions: table.counters(
                "countersign_interceptions_total",
                "TLS connections of the app towards signed hosts, by how their handshake with the sidecar ended.",
                &["result"],
            )?,
            injections: table.counters(
                "countersign_injections_total",
                "Admission reviews by result: injected, unasked, refused, failed, or no_review, which was none.",
                &["result"],
            )?,
            cluster_requests: table.counters(
                "countersign_cluster_requests_total",
                "Requests of the injector to the API server, by verb, object and result.",
                &["verb", "object", "result"],
            )?,
            cluster_synced: table.gauges(
                "countersign_cluster_synced_timestamp_seconds",
                "When the injector last found its Secret and its caBundle right, in seconds since the epoch.",
                &[],
            )?,
            registry: table.registry.clone(),
        };
        let build = table.gauges(
            "countersign_build_info",
            "The running version; the value is always 1.",
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics
            .registry
            .register(Box::new(ProcessCollector::for_self()))?;
        log::register(&metrics.registry)?;
        metrics.buffered.with_label_values::<&str>(&[]).set(0);
        metrics.tunnels_open.with_label_values::<&str>(&[]).set(0);
        Ok(metrics)
    }

    /// All metrics in the Prometheus text exposition format.
    ///
    /// # Errors
    /// When a metric cannot be encoded, which would be a defect.
    pub fn render(&self) -> Result<String, Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| Error::Msg(error.to_string()))
    }

    /// Records the time one signature took.
    pub fn signed(&self, took: Duration) {
        self.sign_duration
            .with_label_values::<&str>(&[])
            .observe(took.as_secs_f64());
    }

    /// Records the time one verification took.
    pub fn verified(&self, took: Duration) {
        self.verify_duration
            .with_label_values::<&str>(&[])
            .observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_metrics_register_and_the_build_is_named() {
        let metrics = Metrics::new().unwrap();
        let text = metrics.render().unwrap();
        assert!(
            text.contains("countersign_build_info{version=\"0.1.0\"} 1"),
            "{text}"
        );
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }
}
