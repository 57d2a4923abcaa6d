//! What `deploy/` says of monitoring, read for tests: the rules, the dashboard, and the queries in both.

use std::collections::BTreeSet;
use std::fs;

use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;

use super::prometheus::deployed;

/// An expression, and where it stands.
pub struct Query {
    pub place: String,
    pub expression: String,
}

/// A rule.
pub struct Rule {
    pub is_alert: bool,
    pub name: String,
    pub expression: String,
    /// Of an alert.
    pub runbook: String,
}

/// All rules.
pub fn rules() -> Vec<Rule> {
    let text = fs::read_to_string(deployed("prometheus/countersign-rules.yaml")).unwrap();
    let documents = Yaml::load_from_str(&text).unwrap();
    let groups = documents[0]["groups"].as_sequence().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_sequence().unwrap());
    let text_of = |node: &Yaml<'_>, key: &str| {
        let there = node.contains_mapping_key(key);
        there.then(|| node[key].as_str().unwrap().to_owned())
    };
    let rules = rules.map(|rule| {
        let alert = text_of(rule, "alert");
        Rule {
            name: alert.clone().or_else(|| text_of(rule, "record")).unwrap(),
            expression: text_of(rule, "expr").unwrap(),
            runbook: alert.as_ref().map_or(String::new(), |_| {
                text_of(&rule["annotations"], "runbook_url").unwrap()
            }),
            is_alert: alert.is_some(),
        }
    });
    rules.collect()
}

/// The dashboard.
pub fn dashboard() -> Value {
    let text = fs::read_to_string(deployed("grafana/countersign.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Its panels and rows, those of folded rows behind their row.
pub fn panels(dashboard: &Value) -> Vec<&Value> {
    let mut all = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        all.push(panel);
        all.extend(panel["panels"].as_array().into_iter().flatten());
    }
    all
}

/// Every expression of rules and panels, as Grafana would send it with all of everything chosen.
pub fn queries() -> Vec<Query> {
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

/// The metrics of a sidecar that an expression names: what bears the name of a recording rule or stands
/// in a string is none.
pub fn metrics_in(expression: &str) -> BTreeSet<String> {
    let code = expression.split('"').step_by(2);
    let is_name = |byte: char| byte.is_ascii_alphanumeric() || byte == '_' || byte == ':';
    let words = code.flat_map(|code| code.split(move |byte| !is_name(byte)));
    let ours = words.filter(|word| {
        let begins = word.starts_with("countersign_") || word.starts_with("process_");
        begins && !word.contains(':')
    });
    ours.map(|word| family(word).to_owned()).collect()
}

/// The metric a series belongs to: histograms have three kinds.
fn family(series: &str) -> &str {
    ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|end| series.strip_suffix(end))
        .unwrap_or(series)
}
