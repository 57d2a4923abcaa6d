//! The Grafana dashboard: what Grafana's own types say it may be made of, nothing twice, nothing above another, and
//! each panel with a unit and a word of what it means.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::monitoring::{dashboard, panels};

/// The type of each kind of panel in `tests/tools/grafana.ts`.
fn kind(panel: &Value) -> &'static str {
    match panel["type"].as_str().unwrap() {
        "timeseries" => "TimeSeriesPanel",
        "stat" => "StatPanel",
        "table" => "TablePanel",
        "heatmap" => "HeatmapPanel",
        "row" => "Row",
        other => panic!("{other} panels are not looked into"),
    }
}

/// The dashboard as constants of those types.
fn constants(dashboard: &Value) -> String {
    let mut text = "import type * as grafana from \"./grafana\";\n".to_owned();
    for panel in panels(dashboard) {
        let (id, kind, mut alone) = (&panel["id"], kind(panel), panel.clone());
        if panel["type"] == "row" {
            alone["panels"] = json!([]);
        }
        writeln!(text, "export const p{id}: grafana.{kind} = {alone};").unwrap();
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let name = variable["name"].as_str().unwrap();
        writeln!(text, "export const {name}: grafana.Variable = {variable};").unwrap();
    }
    let mut rest = dashboard.clone();
    for part in ["panels", "templating"] {
        rest.as_object_mut().unwrap().remove(part);
    }
    writeln!(text, "export const rest: grafana.Rest = {rest};").unwrap();
    text
}

/// What the TypeScript compiler says of a dashboard; nothing when all is well.
fn judged(dashboard: &Value) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = root.join(".testbed/tools/node_modules");
    let compiler = modules.join("typescript/bin/tsc");
    assert!(compiler.exists(), "no TypeScript; run make deps");
    assert!(
        modules.join("@grafana/schema").exists(),
        "no @grafana/schema; run make deps"
    );
    let folder = tempfile::tempdir().unwrap();
    symlink(&modules, folder.path().join("node_modules")).unwrap();
    fs::copy(
        root.join("tests/tools/grafana.ts"),
        folder.path().join("grafana.ts"),
    )
    .unwrap();
    fs::write(folder.path().join("dashboard.ts"), constants(dashboard)).unwrap();
    let strict = json!({
        "compilerOptions": {
            "strict": true, "noEmit": true, "skipLibCheck": true, "types": [],
            "target": "es2022", "module": "esnext", "moduleResolution": "bundler",
        },
        "files": ["dashboard.ts"],
    });
    fs::write(folder.path().join("tsconfig.json"), strict.to_string()).unwrap();
    let output = Command::new("node")
        .arg(compiler)
        .current_dir(&folder)
        .output()
        .unwrap_or_else(|error| panic!("node: {error}; run make deps"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.success(), said.is_empty(), "{output:?}");
    said
}

#[test]
fn grafanas_own_types_agree_and_would_find_a_mistake() {
    let mut dashboard = dashboard();
    assert_eq!(judged(&dashboard), "");
    let stat = panels(&dashboard)
        .iter()
        .position(|panel| panel["type"] == "stat");
    // Rows that are not folded have no panels of their own, so the first panels stand at the top.
    let stat = &mut dashboard["panels"][stat.unwrap()];
    stat["options"]["colourMode"] = json!("background");
    let said = judged(&dashboard);
    assert!(said.contains("'\"colourMode\"' does not exist"), "{said}");
}

#[test]
fn ids_and_titles_are_there_once() {
    let dashboard = dashboard();
    let panels = panels(&dashboard);
    let ids: BTreeSet<_> = panels
        .iter()
        .map(|one| one["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids.len(), panels.len());
    assert!(panels.len() > 40, "only {}", panels.len());
    assert_eq!(dashboard["uid"], "countersign");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["datasource", "namespace", "pod", "route"]);
}

/// The fields of Grafana's grid a panel covers, 24 in a line.
fn cells(panel: &Value) -> Vec<(u64, u64)> {
    let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
    let (x, y, w, h) = (at("x"), at("y"), at("w"), at("h"));
    assert!(x + w <= 24 && w > 0 && h > 0, "{}", panel["title"]);
    (y..y + h)
        .flat_map(|line| (x..x + w).map(move |column| (column, line)))
        .collect()
}

fn no_overlap<'a>(panels: impl IntoIterator<Item = &'a Value>) {
    let mut taken = BTreeSet::new();
    for panel in panels {
        for cell in cells(panel) {
            assert!(taken.insert(cell), "{} at {cell:?}", panel["title"]);
        }
    }
}

#[test]
fn no_panel_lies_above_another_and_no_line_has_a_gap() {
    let dashboard = dashboard();
    let top = dashboard["panels"].as_array().unwrap();
    no_overlap(top);
    let all = top.iter().chain(
        top.iter()
            .filter_map(|row| row["panels"].as_array())
            .flatten(),
    );
    for panel in all {
        let y = &panel["gridPos"]["y"];
        let folded = top.iter().filter_map(|row| row["panels"].as_array());
        let beside = folded
            .chain([top])
            .find(|list| list.contains(panel))
            .unwrap();
        let line = beside.iter().filter(|one| one["gridPos"]["y"] == *y);
        let width: u64 = line.map(|one| one["gridPos"]["w"].as_u64().unwrap()).sum();
        assert_eq!(width, 24, "{}", panel["title"]);
    }
    for row in top.iter().filter(|row| row["collapsed"] == true) {
        no_overlap(row["panels"].as_array().unwrap());
    }
}

#[test]
fn every_panel_says_what_it_means_and_in_which_unit() {
    let dashboard = dashboard();
    for panel in panels(&dashboard) {
        if panel["type"] == "row" {
            continue;
        }
        let title = &panel["title"];
        let words = panel["description"].as_str().unwrap();
        assert!(words.ends_with('.') && words.len() > 14, "{title}: {words}");
        let defaults = &panel["fieldConfig"]["defaults"];
        let unit = match panel["type"].as_str().unwrap() {
            "heatmap" => &panel["options"]["yAxis"]["unit"],
            _ => &defaults["unit"],
        };
        assert!(unit.is_string(), "{title} has no unit");
        if panel["type"] == "stat" {
            let steps = defaults["thresholds"]["steps"].as_array().unwrap();
            assert!(!steps.is_empty(), "{title}");
        }
        for target in panel["targets"].as_array().unwrap() {
            let source = &target["datasource"]["uid"];
            assert_eq!(source, "${datasource}", "{title}");
            let expression = target["expr"].as_str().unwrap();
            assert!(expression.contains("$namespace"), "{title}");
        }
    }
}
