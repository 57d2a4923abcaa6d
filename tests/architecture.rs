//! Holds the direction of imports between the rooms of `src/`: each may use those behind it in the
//! list, never one before it, and neighbours on one step never use each other.

#![allow(clippy::unwrap_used, clippy::string_slice, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the top; rooms on one line are neighbours.
const STEPS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["app"],
    &["config"],
    &["egress", "ingress", "admin", "redirect", "sandbox", "kube"],
    &["upstream", "ca"],
    &["net"],
    &["http", "keys"],
    &["exchange"],
    &["telemetry"],
    &["clock", "confinement", "live", "task"],
];

fn step(room: &str) -> Option<usize> {
    STEPS.iter().position(|rooms| rooms.contains(&room))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The room a file belongs to: the first part of its path below `src`.
fn room(file: &Path) -> String {
    let first = file
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The rooms a file names as `crate::ROOM`, also inside `use crate::{a, b}`, its tests left out.
fn used_rooms(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap();
    let code: String = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut rooms = Vec::new();
    for after in code.split("crate::").skip(1) {
        if let Some(group) = after.strip_prefix('{') {
            let group = group.split(';').next().unwrap();
            let (mut depth, mut name) = (0, String::new());
            for character in group.chars().chain([',']) {
                match character {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth <= 0 => {
                        let first = name.trim().split("::").next().unwrap().to_owned();
                        rooms.push(first);
                        name.clear();
                        continue;
                    }
                    _ => {}
                }
                if depth >= 0 && character != '}' {
                    name.push(character);
                }
            }
        } else {
            let end = after
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(after.len());
            rooms.push(after[..end].to_owned());
        }
    }
    rooms
}

/// Everything wrong with one file.
fn violations(file: &Path, source: &str) -> Vec<String> {
    let own = room(file);
    if own == "lib" {
        return Vec::new();
    }
    let Some(own_step) = step(&own) else {
        return vec![format!(
            "{}: the room {own} has no place in the list",
            file.display()
        )];
    };
    let rooms = used_rooms(source)
        .into_iter()
        .filter(|used| step(used).is_some());
    let wrong = rooms.filter(|used| *used != own && step(used) <= Some(own_step));
    wrong
        .map(|used| format!("{}: {own} must not use {used}", file.display()))
        .collect()
}

#[test]
fn rooms_use_only_rooms_behind_them() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    assert!(files.len() > 40, "only {} files found", files.len());
    let found: Vec<String> = files
        .iter()
        .flat_map(|file| {
            violations(
                file.strip_prefix(&source).unwrap(),
                &fs::read_to_string(file).unwrap(),
            )
        })
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_check_sees_single_grouped_and_neighbouring_imports() {
    for (file, source) in [
        ("clock.rs", "use crate::telemetry::Line;"),
        ("net/tls.rs", "use std::fmt;\nuse crate::{admin, http};"),
        ("net/tls.rs", "use crate::{http::{a, b}, egress::c};"),
        ("http/mod.rs", "fn f() { crate::keys::g() }"),
        ("egress/mod.rs", "use crate::sandbox::Fault;"),
        ("newroom/mod.rs", ""),
    ] {
        assert_eq!(
            violations(Path::new(file), source).len(),
            1,
            "{file}: {source}"
        );
    }
    let allowed = "use crate::{clock::Clock, exchange::{Code, Fault}};";
    assert!(violations(Path::new("egress/mod.rs"), allowed).is_empty());
}

#[test]
fn only_the_protocol_crate_and_certificates_touch_openssl() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    let users: Vec<String> = files
        .iter()
        .filter(|file| fs::read_to_string(file).unwrap().contains("use openssl::"))
        .map(|file| file.strip_prefix(&source).unwrap().display().to_string())
        .filter(|file| !file.starts_with("ca/") && file != "net/x509.rs")
        .collect();
    assert!(users.is_empty(), "{users:?}");
}

/// What stands between backticks and looks like a test's name: the repository's are whole sentences.
fn named_tests(text: &str) -> Vec<&str> {
    let between = text.split('`').skip(1).step_by(2);
    between
        .filter(|name| name.matches('_').count() >= 5)
        .filter(|name| {
            name.bytes()
                .all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
        })
        .collect()
}

#[test]
fn every_test_that_the_list_of_conformance_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    rust_files(&root.join("tests"), &mut files);
    let code: String = files
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let list = fs::read_to_string(root.join("docs/CONFORMANCE.md")).unwrap();
    let named = named_tests(&list);
    assert!(named.len() > 40, "only {} found", named.len());
    let missing: Vec<_> = named
        .into_iter()
        .filter(|name| !code.contains(&format!("fn {name}(")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
