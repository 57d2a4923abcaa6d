//! The documents and the command tell of the same annotations as the table in the code.

use countersign::kube::TABLE;

use crate::support::process::countersign;

#[test]
fn the_table_in_the_document_is_the_table_in_the_code() {
    let rows: Vec<String> = TABLE
        .iter()
        .map(|annotation| {
            let default = annotation.default.map(|default| format!("`{default}`"));
            let default = default.unwrap_or_else(|| "–".to_owned());
            let (name, values, what) = (annotation.text, annotation.values, annotation.what);
            format!("| `{name}` | {values} | {default} | {what} |")
        })
        .collect();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("docs/KUBERNETES.md")).unwrap();
    let table = rows.join("\n");
    assert!(
        document.contains(&format!("|---|---|---|---|\n{table}\n\n")),
        "the table should be\n{table}"
    );
}

#[test]
fn the_help_of_inject_names_every_annotation() {
    let output = countersign(&["inject", "--help"]);
    let help = String::from_utf8(output.stdout).unwrap();
    for annotation in TABLE {
        assert!(help.contains(&format!("  {}: ", annotation.text)), "{help}");
    }
}
