//! What a pod becomes: golden files, and the same things said by tools that are not ours.
//!
//! `COUNTERSIGN_BLESS=1` writes the golden files anew; read what changed before it is committed.

use std::fs;
use std::path::Path;

use countersign::kube::{self, Defaults, Outcome};
use serde_json::Value;

use crate::support::manifests::{
    corpus, files, inject, inject_file, invalid, patched, python, templates,
};

/// From the first that takes native sidecars for granted to the newest there are schemas of.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];

fn golden(file: &Path, ending: &str) -> std::path::PathBuf {
    let stem = file.file_stem().unwrap().to_str().unwrap();
    corpus().join("golden").join(format!("{stem}.{ending}"))
}

#[test]
fn what_comes_out_is_what_the_golden_files_say() {
    let bless = std::env::var_os("COUNTERSIGN_BLESS").is_some();
    for file in files() {
        let said = inject_file(&file);
        assert_eq!(
            said.code,
            if said.out.is_empty() { 64 } else { 0 },
            "{}",
            said.err
        );
        let ending = file.extension().unwrap().to_str().unwrap();
        for (path, text) in [
            (golden(&file, ending), &said.out),
            (golden(&file, "stderr"), &said.err),
        ] {
            if bless {
                let _missing = fs::remove_file(&path);
                if !text.is_empty() {
                    fs::write(&path, text).unwrap();
                }
            }
            let expected = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                expected == *text,
                "{} differs; this came out:\n{text}",
                path.display()
            );
        }
    }
}

#[test]
fn what_comes_out_is_valid_in_every_version_of_kubernetes() {
    let (mut whole, mut documents) = (String::new(), 0);
    for file in files() {
        let out = inject_file(&file).out;
        if !out.is_empty() {
            documents += 1;
            whole.push_str("---\n");
            whole.push_str(&out);
        }
    }
    assert!(documents > 8, "only {documents}");
    for version in VERSIONS {
        assert_eq!(invalid(&whole, version), Vec::<String>::new(), "{version}");
    }
    // The schemas see a key that Kubernetes does not know.
    let wrong = whole.replacen("imagePullPolicy", "imagePolicy", 1);
    assert_eq!(invalid(&wrong, VERSIONS[0]).len(), 1);
}

#[test]
fn the_patch_makes_byte_for_byte_what_inject_writes() {
    let (mut pods, mut written) = (Vec::new(), Vec::new());
    for file in files() {
        let before = python(&fs::read_to_string(&file).unwrap());
        let after = python(&inject_file(&file).out);
        let templates = |objects: &[Value]| -> Vec<Value> {
            objects.iter().flat_map(templates).cloned().collect()
        };
        for (before, after) in templates(&before).into_iter().zip(templates(&after)) {
            if let Outcome::Injected { pod, patch, .. } =
                kube::inject(&before, &Defaults::default())
            {
                assert_eq!(pod.to_string(), after.to_string(), "{}", file.display());
                pods.push((before, patch));
                written.push(pod.to_string());
            }
        }
    }
    assert!(pods.len() > 10, "only {}", pods.len());
    assert_eq!(patched(&pods), written);
}

#[test]
fn injecting_twice_changes_nothing() {
    let mut seen = 0;
    for file in files() {
        let once = inject_file(&file).out;
        let twice = inject(&[], &once);
        assert!(once == twice.out, "{}:\n{}", file.display(), twice.out);
        if !once.is_empty() {
            assert!(
                twice.err.contains("it has the sidecar already"),
                "{}",
                twice.err
            );
            seen += 1;
        }
    }
    assert!(seen > 8, "only {seen}");
}
