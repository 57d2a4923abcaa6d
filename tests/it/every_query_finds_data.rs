//! A real Prometheus scrapes real sidecars to which everything happens: every query of the dashboard, every
//! alert and every recording rule finds what it asks for, or is known not to.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Instant, UNIX_EPOCH};

use countersign::clock::Clock;

use crate::keys_in_tokens::runtime_of;
use crate::support::fleet::Fleet;
use crate::support::monitoring::{dashboard, metrics_in, panels, rule_tests, rules};
use crate::support::process::PATIENCE;
use crate::support::prometheus::Prometheus;
use crate::support::softhsm::alone;

/// What finds nothing here, and the test of the rules in `deploy/prometheus` that shows it would.
const PROVED_ELSEWHERE: &[(&str, &str)] = &[
    (
        "CountersignLocalCaEnds",
        "the local CA ends: 30 days and 3 days",
    ),
    (
        "CountersignRedirectInactive",
        "redirect rules that are not in force for two minutes are critical",
    ),
    (
        "CountersignProxyRetries",
        "refused retries of a proxy warn for fifteen minutes",
    ),
    (
        "CountersignLogLinesLost",
        "lost log lines warn for fifteen minutes",
    ),
    (
        "CountersignAbsent",
        "when no sidecar is seen for ten minutes somebody is woken",
    ),
    (
        "CountersignRestarts",
        "three starts within an hour are worth a look, two are not",
    ),
    (
        "CountersignInjectionsFail",
        "injections that fail wake somebody, those that are refused do not",
    ),
    (
        "CountersignInjectorAbsent",
        "an injector that is scaled to zero for ten minutes wakes somebody until one is back, whatever sidecars do",
    ),
    (
        "CountersignInjectorOutOfSync",
        "an injector that has not seen its Secret for a quarter of an hour is worth a look",
    ),
];

/// Shown only where redirect rules are checked, which needs a network of its own; `redirect_precedence` has it.
const WITH_RULES: &str = "countersign_redirect_active";

/// An expression, and where it stands.
struct Query {
    place: String,
    expression: String,
}

/// Every expression of rules and panels, as Grafana would send it with all of everything chosen.
fn queries() -> Vec<Query> {
    let mut queries: Vec<_> = rules()
        .into_iter()
        .map(|rule| Query {
            place: rule.name,
            expression: rule.expression,
        })
        .collect();
    let dashboard = dashboard();
    for panel in panels(&dashboard) {
        let (title, kind) = (panel["title"].as_str().unwrap(), &panel["type"]);
        let targets = panel["targets"].as_array();
        assert!(targets.is_some() || kind == "row", "{title} asks nothing");
        for target in targets.into_iter().flatten() {
            queries.push(Query {
                place: format!("{}, {title}: {}", panel["id"], target["refId"]),
                expression: chosen(target["expr"].as_str().unwrap()),
            });
        }
    }
    queries
}

/// A panel's expression with its variables filled in.
fn chosen(expression: &str) -> String {
    let filled = expression
        .replace("$__rate_interval", "5m")
        .replace("$namespace", ".*")
        .replace("$pod", ".*")
        .replace("$route", ".*");
    assert!(!filled.contains('$'), "an unknown variable: {expression}");
    filled
}

fn now() -> u64 {
    let since = Clock::system().now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs() + 1
}

/// Whether an expression finds anything, now or on the next full five minutes: what looks back in steps
/// of minutes may find no step in the few seconds there were.
async fn finds_data(prometheus: &Prometheus, query: &Query) -> bool {
    let now = now();
    for time in [now, now.next_multiple_of(300)] {
        if !prometheus.numbers(&query.expression, time).await.is_empty() {
            return true;
        }
    }
    false
}

/// The title or name of who asks.
fn name(query: &Query) -> &str {
    let title = query.place.split(", ").skip(1).collect::<Vec<_>>();
    if title.is_empty() {
        return &query.place;
    }
    let start = query.place.find(", ").unwrap() + 2;
    let end = query.place.rfind(": ").unwrap();
    &query.place[start..end]
}

fn is_proved_elsewhere(query: &Query) -> bool {
    PROVED_ELSEWHERE.iter().any(|(one, _)| *one == name(query))
}

/// Asks again and again until there is nothing left to be found; Prometheus may not have seen all yet.
async fn search(prometheus: &Prometheus, queries: &[Query]) {
    let mut left: Vec<_> = queries
        .iter()
        .filter(|query| !is_proved_elsewhere(query))
        .collect();
    let start = Instant::now();
    while !left.is_empty() {
        let places: Vec<_> = left.iter().map(|query| &query.place).collect();
        assert!(start.elapsed() < PATIENCE, "no data: {places:#?}");
        let mut still = Vec::new();
        for query in left {
            if !finds_data(prometheus, query).await {
                still.push(query);
            }
        }
        left = still;
    }
}

/// `promtool check metrics`: names, units and help as Prometheus wants them.
fn check(metrics: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool: {error}; run make deps"));
    let mut input = promtool.stdin.take().unwrap();
    input.write_all(metrics.as_bytes()).unwrap();
    drop(input);
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// No metric is asked for that no sidecar has.
fn all_are_there(metrics: &[String], queries: &[Query]) {
    let types = metrics.iter().flat_map(|text| text.lines());
    let types = types.filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let there: BTreeSet<_> = types.map(str::to_owned).collect();
    let asked: BTreeSet<_> = queries
        .iter()
        .flat_map(|query| metrics_in(&query.expression))
        .collect();
    assert!(asked.len() > 35, "{asked:?}");
    let missing = asked.difference(&there);
    let missing: Vec<_> = missing.filter(|name| *name != WITH_RULES).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_query_finds_data_or_is_proved_by_a_rule_test() {
    alone(|tokens| {
        runtime_of(tokio::runtime::Builder::new_multi_thread()).block_on(async {
            let queries = queries();
            let tests = rule_tests();
            for (one, test) in PROVED_ELSEWHERE {
                let asked = queries.iter().any(|query| name(query) == *one);
                assert!(asked, "nobody asks for {one}");
                let test = format!("- name: '{}'\n", test.replace('\'', "''"));
                assert!(tests.contains(&test), "no test is called {test}");
            }
            let mut fleet = Fleet::start(tokens).await;
            let prometheus = Prometheus::start(&fleet.targets()).await;
            // Counters that begin to count before they were seen have not risen.
            let start = Instant::now();
            while prometheus.numbers("up == 1", now()).await.len() < fleet.targets().len() {
                assert!(start.elapsed() < PATIENCE, "{}", prometheus.log());
                tokio::task::yield_now().await;
            }
            fleet.live(tokens).await;
            search(&prometheus, &queries).await;
            for query in queries.iter().filter(|query| is_proved_elsewhere(query)) {
                // Now only: on the next full five minutes, which may be five minutes from here, there will
                // be nobody, as CountersignAbsent would find.
                let found = prometheus.numbers(&query.expression, now()).await;
                assert!(found.is_empty(), "{} is proved here", query.place);
            }
            let metrics = fleet.metrics().await;
            for text in &metrics {
                check(text);
            }
            all_are_there(&metrics, &queries);
        });
    });
}
