//! Any bytes as an admission review: what is one is allowed with its own uid and warnings that the API server passes
//! on, and the injection itself never panics.

use countersign::kube::Defaults;
use countersign::kube::webhook::answer;
use serde_json::Value;

/// Checks it for these bytes.
pub fn check(data: &[u8]) {
    let answer = match answer(data, &Defaults::default()) {
        Ok(answer) => answer,
        Err((status, why)) => {
            assert!(status.is_client_error() && !why.is_empty());
            return;
        }
    };
    let review: Value = serde_json::from_slice(data).expect("a review is JSON");
    let answer: Value = serde_json::from_slice(&answer).expect("an answer is JSON");
    let response = &answer["response"];
    assert_eq!(response["allowed"], Value::Bool(true));
    assert_eq!(response["uid"], review["request"]["uid"]);
    assert_eq!(
        response.get("patch").is_some(),
        response["patchType"] == "JSONPatch"
    );
    let warnings = response["warnings"].as_array().cloned().unwrap_or_default();
    let texts = warnings.iter().map(|text| text.as_str().expect("a text"));
    let mut all = 0;
    for text in texts {
        assert!(!text.contains("has a defect"), "the injection panicked");
        assert!(!text.contains(char::is_control));
        assert!(text.chars().count() <= 256);
        all += text.chars().count();
    }
    assert!(all <= 4096);
}
