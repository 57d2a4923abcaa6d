//! Configuration texts: read or explained, one line a problem, each naming the file.

use std::path::Path;

use countersign::config;

/// See the file's head.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (config, problems) = config::read(
        "fuzz.yaml",
        text,
        Path::new("/folder"),
        &config::Placement::default(),
    );
    assert!(config.is_some() || !problems.is_empty());
    for line in &problems {
        assert!(line.starts_with("fuzz.yaml"), "{line}");
        assert_eq!(line.lines().count(), 1, "{line:?}");
    }
    if let Some(config) = config.filter(|_| problems.is_empty()) {
        assert!(!config.keys.identities.is_empty());
        assert!(config.files().iter().all(|file| file.is_absolute()));
    }
}
