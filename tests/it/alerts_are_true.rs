//! The rules for Prometheus: well-formed, each alert proved at its boundary, named where a person looks it up,
//! and of one mind with the code about whose fault a failure is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use countersign::exchange::{Blame, Code, Verdict};

use crate::support::monitoring::{
    RULE_FILES, RULE_TESTS, Rule, config, metrics_in, promtool, rule_tests, rules,
};

const TESTS_OF_DAYS: &str = "countersign-rules.days.test.yaml";

fn alerts() -> Vec<Rule> {
    let alerts: Vec<_> = rules().into_iter().filter(|rule| rule.is_alert).collect();
    assert!(alerts.len() >= 20, "only {} found", alerts.len());
    alerts
}

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn prometheus_takes_the_rules_and_a_configuration_with_them() {
    for file in RULE_FILES {
        promtool(&["check", "rules", file]);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prometheus.yml");
    fs::write(&file, config(&[])).unwrap();
    promtool(&["check", "config", file.to_str().unwrap()]);
}

#[test]
fn every_alert_fires_where_it_should_and_nowhere_else() {
    for file in RULE_TESTS {
        promtool(&["test", "rules", file]);
    }
}

#[test]
fn what_looks_back_for_days_fires_where_it_should_and_nowhere_else() {
    promtool(&["test", "rules", TESTS_OF_DAYS]);
}

#[test]
fn every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() {
    let tests = rule_tests();
    for alert in alerts() {
        let named = format!("alertname: {}\n        exp_alerts:", alert.name);
        let (mut fires, mut rests) = (0, 0);
        for after in tests.split(&named).skip(1) {
            *(if after.starts_with(" []") {
                &mut rests
            } else {
                &mut fires
            }) += 1;
        }
        assert!(fires > 0 && rests > 0, "{}: {fires}, {rests}", alert.name);
    }
}

#[test]
fn every_alert_that_looks_back_has_a_test_of_how_far() {
    let tests = rule_tests() + &document(&format!("deploy/prometheus/{TESTS_OF_DAYS}"));
    let mut looking_back = 0;
    for alert in alerts() {
        if alert.expression.contains('[') {
            let row = format!("{{alertname=\"{}\"", alert.name);
            assert!(tests.contains(&row), "{}", alert.name);
            looking_back += 1;
        }
    }
    assert!(looking_back >= 20, "only {looking_back} found");
}

#[test]
fn every_alert_leads_to_its_entry_in_the_runbook_and_no_entry_is_left_over() {
    let page = document("docs/OPERATIONS.md");
    let headings: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("### Countersign"))
        .map(|rest| format!("Countersign{rest}"))
        .collect();
    let alerts = alerts();
    let names: BTreeSet<_> = alerts.iter().map(|alert| alert.name.clone()).collect();
    assert_eq!(names, headings);
    for alert in alerts {
        let place = format!("docs/OPERATIONS.md#{}", alert.name.to_lowercase());
        assert_eq!(alert.runbook, place, "{}", alert.name);
    }
}

/// The alternatives of a matcher of outcomes, as the rules write them.
fn outcomes(expression: &str, operator: &str) -> Vec<String> {
    let (_, after) = expression
        .split_once(&format!("outcome{operator}\""))
        .unwrap();
    let (list, _) = after.split_once('"').unwrap();
    list.split('|').map(str::to_owned).collect()
}

fn is_among(outcome: &str, list: &[String]) -> bool {
    list.iter().any(|one| match one.strip_suffix(".+") {
        Some(start) => outcome.starts_with(start),
        None => outcome == one,
    })
}

#[test]
fn the_error_budget_counts_every_outcome_by_who_is_to_blame() {
    let rules = rules();
    let find = |name: &str| {
        let name = format!("namespace_direction:countersign_exchanges_{name}:rate5m");
        let found = rules.iter().find(|rule| rule.name == name);
        found.unwrap().expression.clone()
    };
    let failed = outcomes(&find("failed"), "=~");
    let left_out = outcomes(&find("counted"), "!~");
    for code in Code::ALL {
        let name = code.as_str();
        let callers = code.blame() == Blame::Caller;
        assert_eq!(is_among(name, &left_out), callers, "{name} is left out");
        assert_eq!(is_among(name, &failed), !callers, "{name} counts");
    }
    assert!(is_among("aborted", &failed) && !is_among("aborted", &left_out));
    for (verdict, counts) in [
        (Verdict::Verified, true),
        (Verdict::Unsigned, true),
        (Verdict::Unchecked, true),
        (Verdict::Failed, false),
        (Verdict::Connected, false),
    ] {
        let name = verdict.as_str();
        assert_eq!(!is_among(name, &left_out), counts, "{name}");
        assert!(!is_among(name, &failed), "{name}");
    }
}

#[test]
fn every_metric_of_the_rules_stands_in_the_documentation() {
    let page = document("docs/OPERATIONS.md");
    for rule in rules() {
        for metric in metrics_in(&rule.expression) {
            let told = page.contains(&format!("`{metric}`")) || metric.starts_with("process_");
            assert!(told, "{metric}");
        }
    }
}
