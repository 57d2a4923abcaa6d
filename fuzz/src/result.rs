//! What an unsigned body claims: never less than a usual JSON reader would find in it.

use countersign::http::result::{Claim, claim};
use serde_json::Value;

/// See the file's head.
pub fn check(data: &[u8]) {
    let claim = claim(data);
    let usual: Option<Value> = serde_json::from_slice(data).ok();
    let status = usual
        .as_ref()
        .map(|document| &document["result"]["resultStatus"]);
    match status {
        Some(Value::String(status)) if status == "F" || status == "U" => {
            assert_ne!(claim, Claim::None);
        }
        Some(Value::Null) | None => {}
        Some(_) => assert_eq!(claim, Claim::MaybeSuccessful),
    }
    let said = match claim {
        Claim::Failed => Some("F"),
        Claim::Unknown => Some("U"),
        Claim::MaybeSuccessful | Claim::None => None,
    };
    if let Some(said) = said {
        // A reader of any dialect that finds a result finds this one; it is the only one.
        let document = usual.expect("only valid JSON claims anything");
        let mut found = Vec::new();
        collect(&document, 0, &mut found);
        assert_eq!(found, [said]);
    }
    if claim == Claim::None {
        let text = String::from_utf8_lossy(data).to_ascii_lowercase();
        assert!(!text.contains("resultstatus"), "{text}");
    }
}

/// The texts at `result.resultStatus`, as a lenient reader of keys finds them.
fn collect<'a>(value: &'a Value, depth: usize, found: &mut Vec<&'a str>) {
    let name = ["result", "resultstatus"][depth];
    for (key, inner) in value.as_object().into_iter().flatten() {
        let folded = key.replace(['_', '-'], "").replace('ſ', "s");
        if folded.to_ascii_lowercase() != name {
            continue;
        }
        match inner {
            Value::String(text) if depth == 1 => found.push(text),
            _ if depth == 0 => collect(inner, 1, found),
            _ => {}
        }
    }
}
