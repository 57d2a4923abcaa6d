//! What can go wrong in a direction, shown as 0 before it does.
//!
//! To Prometheus a counter that appears with its first event has not risen, so alerts would miss the
//! first failure of every sidecar. Refuses what callers alone are to blame for, but for their
//! signatures: there are many such codes, and no alert asks for them. Called by `app` at the start and
//! when a reload brings routes.

use super::{
    Blame, Code, Delivery, Direction, NO_ROUTE, Repetition, UNMATCHED, Unsigned, Verdict,
    is_verification,
};
use crate::telemetry::Metrics;
use Delivery::{NotSent, Unknown};

/// What is known of the delivery when a code of egress is told.
const EGRESS: &[(Code, &[Delivery])] = &[
    (Code::LoopDetected, &[NotSent]),
    (Code::Overloaded, &[NotSent, Unknown]),
    (Code::ShuttingDown, &[NotSent, Unknown]),
    (Code::SigningFailed, &[NotSent]),
    (Code::UpstreamUnreachable, &[NotSent]),
    (Code::UpstreamTlsFailed, &[NotSent]),
    (Code::UpstreamBrokeOff, &[NotSent, Unknown]),
    (Code::UpstreamMalformed, &[NotSent, Unknown]),
    (Code::UpstreamTimeout, &[NotSent, Unknown]),
    (Code::ResponseTooLarge, &[Unknown]),
    (Code::ResponseSignatureMissing, &[Unknown]),
    (Code::ResponseSignatureMalformed, &[Unknown]),
    (Code::ResponseSignatureInvalid, &[Unknown]),
    (Code::ResponseKeyUnknown, &[Unknown]),
    (Code::ResponseClientMismatch, &[Unknown]),
    (Code::ResponseTimeUnacceptable, &[Unknown]),
    (Code::ResponseMismatch, &[Unknown]),
];

/// The same of ingress.
const INGRESS: &[(Code, &[Delivery])] = &[
    (Code::LoopDetected, &[NotSent]),
    (Code::Overloaded, &[NotSent, Unknown]),
    (Code::ShuttingDown, &[NotSent, Unknown]),
    (Code::SigningFailed, &[Unknown]),
    (Code::AppUnreachable, &[NotSent]),
    (Code::AppBrokeOff, &[Unknown]),
    (Code::AppMalformed, &[NotSent, Unknown]),
    (Code::AppTimeout, &[NotSent, Unknown]),
    (Code::ResponseTooLarge, &[Unknown]),
];

/// What may happen to a request before its route is known, or without one: a CONNECT to anywhere may lead
/// back, or find no place.
const WITHOUT_ROUTE: &[Code] = &[Code::LoopDetected, Code::Overloaded, Code::ShuttingDown];

/// Shows what can go wrong on these routes of a direction, and what its signatures can turn out to be.
pub fn show<'a>(
    direction: Direction,
    routes: impl IntoIterator<Item = &'a str>,
    metrics: &Metrics,
) {
    let codes = match direction {
        Direction::Egress => EGRESS,
        Direction::Ingress => INGRESS,
    };
    let show_one = |route: &str, code: Code, deliveries: &[Delivery]| {
        show_outcome(direction, route, code.as_str(), metrics);
        for delivery in deliveries {
            let labels = [direction.as_str(), route, code.as_str(), delivery.as_str()];
            metrics.faults.with_label_values(&labels).inc_by(0);
        }
    };
    let _shown = metrics.overhead.with_label_values(&[direction.as_str()]);
    for route in routes {
        let labels = [direction.as_str(), route];
        let _shown = metrics.exchange_duration.with_label_values(&labels);
        for verdict in [Verdict::Verified, Verdict::Failed] {
            show_outcome(direction, route, verdict.as_str(), metrics);
        }
        for repetition in Repetition::ALL {
            let labels = [direction.as_str(), route, repetition.as_str()];
            let counter = metrics.repeated_requests.with_label_values(&labels);
            counter.inc_by(0);
        }
        for (code, deliveries) in codes {
            show_one(route, *code, deliveries);
        }
        if direction == Direction::Egress {
            for kind in Unsigned::ALL {
                let labels = [route, kind.as_str()];
                metrics
                    .unsigned_answers
                    .with_label_values(&labels)
                    .inc_by(0);
            }
        }
    }
    let elsewhere = (direction == Direction::Egress).then_some(UNMATCHED);
    for route in [NO_ROUTE].into_iter().chain(elsewhere) {
        for code in WITHOUT_ROUTE {
            show_one(route, *code, &[NotSent]);
        }
    }
    for result in results(direction) {
        let labels = [direction.as_str(), result];
        metrics.verifications.with_label_values(&labels).inc_by(0);
    }
}

fn show_outcome(direction: Direction, route: &str, outcome: &str, metrics: &Metrics) {
    let labels = [direction.as_str(), route, outcome];
    metrics.exchanges.with_label_values(&labels).inc_by(0);
}

/// What looking at a signature of the other side can lead to: gateways answer, callers ask.
fn results(direction: Direction) -> impl Iterator<Item = &'static str> {
    let (blame, verdicts): (_, &[Verdict]) = match direction {
        Direction::Egress => (Blame::Peer, &[Verdict::Verified, Verdict::Unsigned]),
        Direction::Ingress => (Blame::Caller, &[Verdict::Verified]),
    };
    let codes = Code::ALL.iter();
    let codes = codes.filter(move |code| is_verification(**code) && code.blame() == blame);
    let verdicts = verdicts.iter().map(|verdict| verdict.as_str());
    verdicts.chain(codes.map(|code| code.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_that_is_not_the_callers_fault_is_expected() {
        let expected = |code: &&Code| EGRESS.iter().chain(INGRESS).any(|(one, _)| one == *code);
        let blamed = Code::ALL
            .iter()
            .filter(|code| code.blame() != Blame::Caller);
        let missing: Vec<_> = blamed.filter(|code| !expected(code)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn every_result_of_a_signature_is_expected_in_one_direction() {
        let [egress, ingress] = [Direction::Egress, Direction::Ingress]
            .map(|direction| results(direction).collect::<Vec<_>>());
        for code in Code::ALL.iter().filter(|code| is_verification(**code)) {
            let name = code.as_str();
            assert_ne!(egress.contains(&name), ingress.contains(&name), "{name}");
        }
    }

    #[test]
    fn what_is_shown_is_0_and_what_has_happened_stays() {
        let metrics = Metrics::new().unwrap();
        let labels = ["egress", "gateway", "overloaded", "not-sent"];
        metrics.faults.with_label_values(&labels).inc();
        show(Direction::Egress, ["gateway"], &metrics);
        assert_eq!(metrics.faults.with_label_values(&labels).get(), 1);
        let text = metrics.render().unwrap();
        for line in [
            "countersign_exchanges_total{direction=\"egress\",outcome=\"verified\",route=\"gateway\"} 0",
            "countersign_exchanges_total{direction=\"egress\",outcome=\"overloaded\",route=\"none\"} 0",
            "countersign_verifications_total{direction=\"egress\",result=\"unsigned\"} 0",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
