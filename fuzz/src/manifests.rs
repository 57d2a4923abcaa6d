//! Manifests: done or explained, one line a problem, and done twice as done once.

use countersign::kube::{Defaults, manifest};

/// See the file's head.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut defaults = Defaults::default();
    for (name, value) in [("inject", "enabled"), ("keys", "k"), ("client-id", "c")] {
        defaults.set(name, value).expect("a good value");
    }
    match manifest::inject("fuzz.yaml", text, &defaults) {
        Ok(done) => {
            let twice =
                manifest::inject("fuzz.yaml", &done.text, &defaults).expect("what we wrote");
            assert_eq!(twice.text, done.text);
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            for line in &problems {
                assert!(line.starts_with("fuzz.yaml:"), "{line}");
                assert_eq!(line.lines().count(), 1, "{line:?}");
                // Only what grows beyond what may be read at all.
                let unwritable = line.contains("cannot be written so that it can be read again");
                let is_too_much = line.contains(": is deeper") || line.contains(": has more");
                assert!(!unwritable || is_too_much, "{line}");
            }
        }
    }
}
