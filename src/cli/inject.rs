//! `inject`: manifests of Kubernetes with the sidecar added.

use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use clap::Args;

use super::Failure;
use super::output::complain;
use crate::kube::{Defaults, TABLE, manifest};

/// Add the sidecar to a manifest of Kubernetes.
///
/// Reads YAML or JSON, writes it to stdout with the sidecar in every pod whose annotation countersign.dev/inject is
/// enabled, and says on stderr what got nothing and why. What is not changed comes out byte for byte. When a
/// pod asks for what cannot be done, nothing comes out and the exit code is 64.
///
/// Does what the injector in a cluster does, and asks no cluster.
#[derive(Args, Debug)]
#[command(after_long_help = names())]
pub struct Inject {
    /// A file `defaults: { NAME: VALUE, … }`, as the injector has it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A default, before the file's; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// Manifests; - is stdin.
    #[arg(value_name = "FILE", default_value = "-")]
    files: Vec<String>,
}

impl Inject {
    /// Reads all, then writes all or nothing.
    pub(super) fn execute(self) -> Result<(), Failure> {
        let defaults = self.defaults().map_err(Failure::Usage)?;
        let (mut whole, mut notes, mut problems) = (String::new(), Vec::new(), Vec::new());
        for file in &self.files {
            let name = if file == "-" { "stdin" } else { file };
            let done = read(file)
                .map_err(|problem| vec![problem])
                .and_then(|text| manifest::inject(name, &text, &defaults));
            match done {
                Ok(done) => {
                    join(&mut whole, &done.text);
                    notes.extend(done.notes);
                }
                Err(more) => problems.extend(more),
            }
        }
        if !problems.is_empty() {
            return Err(Failure::Usage(problems));
        }
        notes.iter().for_each(complain);
        let mut stdout = io::stdout().lock();
        let written = stdout
            .write_all(whole.as_bytes())
            .and_then(|()| stdout.flush());
        // Half a manifest must not look like a whole one.
        written.map_err(|error| Failure::other(format_args!("stdout: {error}")))
    }

    fn defaults(&self) -> Result<Defaults, Vec<String>> {
        let mut defaults = Defaults::default();
        if let Some(file) = &self.config {
            let name = file.display().to_string();
            let text =
                fs::read_to_string(file).map_err(|error| vec![format!("{name}: {error}")])?;
            defaults = Defaults::read(&name, &text)?;
        }
        let mut problems = Vec::new();
        for (name, value) in &self.set {
            if let Err(problem) = defaults.set(name, value) {
                problems.push(format!("--set {name}: {problem}"));
            }
        }
        if problems.is_empty() {
            Ok(defaults)
        } else {
            Err(problems)
        }
    }
}

/// The text of a file or of stdin.
fn read(file: &str) -> Result<String, String> {
    if file != "-" {
        return fs::read_to_string(file).map_err(|error| format!("{file}: {error}"));
    }
    let mut text = String::new();
    let result = io::stdin().lock().read_to_string(&mut text);
    result
        .map(|_bytes| text)
        .map_err(|error| format!("stdin: {error}"))
}

/// Puts a manifest behind another.
fn join(whole: &mut String, next: &str) {
    if !whole.is_empty() && !whole.ends_with('\n') {
        whole.push('\n');
    }
    if !whole.is_empty() && !next.starts_with("---") {
        whole.push_str("---\n");
    }
    whole.push_str(next);
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=');
    let pair = pair.filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "write it like way-in=redirect".to_owned())
}

/// The names of defaults and annotations, with what they are for.
fn names() -> String {
    let mut lines =
        vec!["Names of defaults; pods carry them as annotations countersign.dev/NAME:".to_owned()];
    lines.extend(TABLE.iter().map(|annotation| {
        let default = annotation
            .default
            .map(|default| format!(" [default: {default}]"));
        let (name, what, values) = (annotation.text, annotation.what, annotation.values);
        let default = default.unwrap_or_default();
        format!("  {name}: {values}{default}\n          {what}")
    }));
    lines.join("\n").replace('`', "")
}
