//! The list of what is in the binaries: of the schema it claims, complete where it matters, the same for
//! the same sources.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::clients::venv_python;
use crate::support::netns::succeed;
use crate::support::podman::repository;

#[test]
fn the_sbom_is_valid_and_names_crates_and_openssl() {
    let folder = tempfile::tempdir().unwrap();
    let (fixed, other) = (folder.path().join("static"), folder.path().join("again"));
    let modules = folder.path().join("dynamic");
    // One after the other: cargo-cyclonedx writes to one place.
    write("static", &fixed);
    write("static", &other);
    write("dynamic", &modules);
    assert!(fs::read(&fixed).unwrap() == fs::read(&other).unwrap());
    assert!(version(&modules, "cryptoki").is_some());
    assert_eq!(version(&fixed, "cryptoki"), None, "no PKCS#11");
    for file in [&fixed, &modules] {
        let text = fs::read_to_string(file).unwrap();
        assert!(!text.contains(repository().to_str().unwrap()), "{text}");
        // What this test is linked with, in OpenSSL's own words.
        let linked = openssl::version::version();
        let linked = linked.split(' ').nth(1).unwrap();
        assert_eq!(version(file, "openssl").as_deref(), Some(linked));
        for name in ["hyper", "rustls", "countersign-protocol"] {
            assert!(version(file, name).is_some(), "{name}");
        }
    }
}

fn write(flavour: &str, file: &Path) {
    succeed(
        Command::new(repository().join("scripts/sbom.py"))
            .arg(flavour)
            .arg(file),
    );
    let validator = repository().join("tests/tools/validate_sbom.py");
    succeed(Command::new(venv_python()).arg(validator).arg(file));
}

/// The version of a component, the last where a crate and a library have one name.
fn version(file: &Path, name: &str) -> Option<String> {
    let bom: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let components = bom["components"].as_array().unwrap();
    let found = components.iter().rfind(|part| part["name"] == name)?;
    Some(found["version"].as_str().unwrap().to_owned())
}
