//! What `deploy/` says of monitoring, read for tests: the rules, the dashboard, what both name; and promtool.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use saphyr::{LoadableYamlNode, Yaml};
use serde_json::Value;

use super::process::text;

/// What Prometheus loads; the second where there is an injector.
pub const RULE_FILES: [&str; 2] = ["countersign-rules.yaml", "countersign-injector-rules.yaml"];
/// The unit tests of their alerts, but for those of days.
pub const RULE_TESTS: [&str; 3] = [
    "countersign-rules.test.yaml",
    "countersign-rules.windows.test.yaml",
    "countersign-injector-rules.test.yaml",
];

/// The unit tests of alerts, as one text.
pub fn rule_tests() -> String {
    RULE_TESTS
        .map(|name| fs::read_to_string(deployed("prometheus").join(name)).unwrap())
        .concat()
}

/// A file below `deploy/`.
pub fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(name)
}

/// Runs promtool in the folder of the rules; it must find nothing.
pub fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(deployed("prometheus"))
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("promtool: {error}; run make deps"));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{arguments:?}: {said}");
}

/// What is scraped: a sidecar's admin port, and the labels a cluster would give it.
pub struct Target {
    pub admin: SocketAddr,
    pub namespace: &'static str,
    pub pod: &'static str,
}

/// The configuration of a Prometheus with these targets and Countersign's rules.
pub fn config(targets: &[Target]) -> String {
    let mut config = format!(
        "global: {{ scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms }}\n\
         rule_files: [{}]\nscrape_configs:\n  - job_name: countersign\n    static_configs:\n",
        RULE_FILES
            .map(|name| text(&deployed("prometheus").join(name)).to_owned())
            .join(", ")
    );
    for Target {
        admin,
        namespace,
        pod,
    } in targets
    {
        writeln!(
            config,
            "      - {{ targets: [\"{admin}\"], labels: {{ namespace: {namespace}, pod: {pod} }} }}"
        )
        .unwrap();
    }
    config
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
    RULE_FILES.iter().flat_map(|name| rules_of(name)).collect()
}

fn rules_of(name: &str) -> Vec<Rule> {
    let text = fs::read_to_string(deployed("prometheus").join(name)).unwrap();
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
