//! What is in the images, as they would be pushed: read from the archives that `make image` writes.
//!
//! Whether they serve is held by `a_pod_serves` and `a_container_signs_with_a_token`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::netns::succeed;
use crate::support::podman::{made, repository};
use crate::support::process::text;

/// What an image may have, all its files together: what the README promises.
const LIMIT: u64 = 12_000_000;

/// An OCI archive, looked into.
struct Image {
    config: Value,
    /// Path → bytes, of every file; symbolic links and folders have none.
    files: BTreeMap<String, u64>,
    mode: BTreeMap<String, String>,
}

impl Image {
    fn open(archive: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        succeed(
            Command::new("tar")
                .arg("-xf")
                .args([archive, Path::new("-C"), folder.path()]),
        );
        let blob = |digest: &Value| {
            let name = digest.as_str().unwrap().replace(':', "/");
            folder.path().join("blobs").join(name)
        };
        let read =
            |file: &Path| -> Value { serde_json::from_slice(&fs::read(file).unwrap()).unwrap() };
        let index = read(&folder.path().join("index.json"));
        let manifest = read(&blob(&index["manifests"][0]["digest"]));
        let mut image = Self {
            config: read(&blob(&manifest["config"]["digest"])),
            files: BTreeMap::new(),
            mode: BTreeMap::new(),
        };
        for layer in manifest["layers"].as_array().unwrap() {
            let layer = blob(&layer["digest"]);
            let list = succeed(
                Command::new("tar")
                    .args(["--numeric-owner", "-tvzf"])
                    .arg(layer),
            );
            for line in list.lines() {
                let fields: Vec<_> = line.split_whitespace().collect();
                let path = format!("/{}", fields[5]);
                image
                    .mode
                    .insert(path.clone(), format!("{} {}", fields[0], fields[1]));
                if fields[0].starts_with('-') {
                    image.files.insert(path, fields[2].parse().unwrap());
                }
            }
        }
        image
    }

    fn size(&self) -> u64 {
        self.files.values().sum()
    }
}

/// The program of an image, in a folder of its own.
fn program(archive: &Path) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let tar = |arguments: &[&str]| {
        let mut tar = Command::new("tar");
        succeed(tar.arg("-C").arg(folder.path()).args(arguments))
    };
    tar(&["-xf", archive.to_str().unwrap()]);
    for blob in fs::read_dir(folder.path().join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap().path();
        let list = Command::new("tar").arg("-tzf").arg(&blob).output().unwrap();
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        if let Some(name) = list.lines().find(|name| name.ends_with("countersign")) {
            tar(&["-xzf", blob.to_str().unwrap(), name]);
            let program = folder.path().join(name);
            return (folder, program);
        }
    }
    panic!("no countersign in {}", archive.display());
}

#[test]
fn static_image_rejects_pkcs11_keys_by_name() {
    let (folder, program) = program(&made("static.tar"));
    let config = folder.path().join("config.yaml");
    let text = "identities:\n  - client_id: C\n    signing_key: { pkcs11: { module: /usr/lib/token.so, token_label: t, \
                key_label: k } }\n    verification_keys: [{ file: missing.pem }]\negress: {}\n";
    fs::write(&config, text).unwrap();
    let output = Command::new(program)
        .arg("check")
        .arg("--config")
        .arg(&config)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("/usr/lib/token.so: this build cannot load"),
        "{errors}"
    );
}

#[test]
fn the_sidecars_image_is_one_program_and_no_shell() {
    let image = Image::open(&made("static.tar"));
    let files: Vec<_> = image.files.keys().collect();
    assert_eq!(files, ["/LICENSE", "/countersign"]);
    assert_eq!(image.mode["/countersign"], "-rwxr-xr-x 0/0");
    assert!(image.size() < LIMIT, "{} bytes", image.size());
    let config = &image.config["config"];
    assert_eq!(config["User"], "4343:4343");
    assert_eq!(config["Entrypoint"], json!(["/countersign"]));
    let labels = &config["Labels"];
    let label = |name: &str| labels[format!("org.opencontainers.image.{name}")].as_str();
    assert_eq!(label("version"), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(label("licenses"), Some("Apache-2.0"));
    for name in ["title", "description", "revision", "created"] {
        assert!(label(name).is_some_and(|said| !said.is_empty()), "{name}");
    }
}

#[test]
fn the_redirect_image_adds_nft_alone() {
    let image = Image::open(&made("redirect.tar"));
    let programs: Vec<_> = image
        .files
        .keys()
        .filter(|path| !path.contains("/lib"))
        .collect();
    assert_eq!(programs, ["/LICENSE", "/countersign", "/usr/sbin/nft"]);
    let others = image.files.keys().filter(|path| path.contains("/lib"));
    for library in others {
        assert!(library.contains(".so"), "{library}");
    }
    assert_eq!(
        image.config["config"]["Entrypoint"],
        json!(["/countersign"])
    );
}

#[test]
fn the_same_files_make_the_same_image() {
    let folder = tempfile::tempdir().unwrap();
    let build = |out: &str| {
        let out = folder.path().join(out);
        succeed(
            Command::new(repository().join("scripts/image.sh"))
                .args(["redirect", "--binary", env!("CARGO_BIN_EXE_countersign")])
                .args(["--out", text(&out)]),
        );
        fs::read(out.join("redirect.tar")).unwrap()
    };
    assert!(build("once") == build("twice"));
}

#[test]
fn the_dockerfile_builds_with_the_toolchain_of_the_repository() {
    let read = |name: &str| fs::read_to_string(repository().join(name)).unwrap();
    let toolchain = read("rust-toolchain.toml");
    let version = toolchain
        .lines()
        .find_map(|line| line.strip_prefix("channel = "))
        .unwrap()
        .trim_matches('"');
    let dockerfile = read("deploy/Dockerfile");
    let builders: Vec<_> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("FROM rust:"))
        .collect();
    let expected = |stage| format!("{version}-bookworm AS {stage}");
    assert_eq!(builders, [expected("build"), expected("build-dynamic")]);
    let lint = Command::new(repository().join(".testbed/venv/bin/hadolint"))
        .arg(repository().join("deploy/Dockerfile"))
        .output()
        .expect("hadolint; run make deps");
    assert!(lint.status.success(), "{lint:?}");
}
