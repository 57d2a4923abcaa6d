//! Manifests: the pods in YAML and JSON files, with the sidecar added where they ask for it.
//!
//! A document that is not changed comes out byte for byte as it came in, comments and all. One that is changed is written
//! anew, and means the same but for the sidecar; only the comments above it stay. Called by `countersign inject`.

mod json;
mod layout;
mod workload;

use serde_json::Value;

use super::all_quiet;
use super::defaults::Defaults;
use super::yaml::{self, Problem};
use workload::{Report, Visit};

/// A manifest with the sidecar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// The manifest.
    pub text: String,
    /// What was not done and why, and what may surprise; one line each.
    pub notes: Vec<String>,
}

/// Adds the sidecar to all pods of a manifest that ask for it; `file` is what lines call it.
///
/// # Errors
/// Everything that is wrong with it or its pods, one line each: then nothing of it should be used.
pub fn inject(file: &str, text: &str, defaults: &Defaults) -> Result<Done, Vec<String>> {
    let mut report = Report::default();
    let (mark, text) = text.split_at(if text.starts_with('\u{feff}') { 3 } else { 0 });
    let mut reader = Reader {
        file,
        defaults,
        report: &mut report,
    };
    let new = match json::read(text) {
        Some(object) => reader.json(object, text),
        None => reader.stream(text),
    };
    if report.problems.is_empty() {
        let text = format!("{mark}{new}");
        let notes = all_quiet(&report.notes);
        Ok(Done { text, notes })
    } else {
        Err(all_quiet(&report.problems))
    }
}

/// Goes through one file.
#[derive(Debug)]
struct Reader<'a> {
    file: &'a str,
    defaults: &'a Defaults,
    report: &'a mut Report,
}

impl Reader<'_> {
    fn json(&mut self, object: Result<Value, Problem>, text: &str) -> String {
        let object = object.map_err(|problem| self.tell(1, &problem)).ok();
        let changed = object.and_then(|object| self.visit(1).document(object));
        changed.map_or_else(|| text.to_owned(), |changed| json::write(&changed, text))
    }

    fn stream(&mut self, text: &str) -> String {
        let (mut whole, mut line) = (String::new(), 1);
        for document in layout::documents(text) {
            let new = self.yaml(line, document);
            whole.push_str(new.as_deref().unwrap_or(document));
            line += layout::count(document);
        }
        whole
    }

    /// The new text of a document that begins in this line, if it changes.
    fn yaml(&mut self, line: usize, text: &str) -> Option<String> {
        if text.starts_with('%') {
            let what = "directives of YAML are not understood; take the line with % out".to_owned();
            self.tell(line, &Problem { line: 1, what });
            return None;
        }
        let node = yaml::read(text);
        let node = node.map_err(|problem| self.tell(line, &problem)).ok()??;
        let mut visit = self.visit(line + node.line.saturating_sub(1));
        let word = |name| {
            node.get(name)
                .and_then(yaml::Node::text)
                .unwrap_or_default()
        };
        if !workload::is_known(word("apiVersion"), word("kind")) {
            let name = node
                .get("metadata")
                .and_then(|metadata| metadata.get("name"));
            let name = name.and_then(yaml::Node::text).unwrap_or_default();
            visit.pass(&format!("{} {name}", word("kind")), text);
            return None;
        }
        let new = node.to_json().and_then(|object| {
            visit
                .document(object)
                .map(|new| written(&new, text))
                .transpose()
        });
        new.map_err(|problem| self.tell(line, &problem)).ok()?
    }

    fn visit(&mut self, line: usize) -> Visit<'_> {
        Visit {
            file: self.file,
            line,
            defaults: self.defaults,
            report: self.report,
        }
    }

    /// Tells what is wrong with a document that begins in this line.
    fn tell(&mut self, line: usize, problem: &Problem) {
        let line = line + problem.line.saturating_sub(1);
        let problem = format!("{}:{line}: {}", self.file, problem.what);
        self.report.problems.push(problem);
    }
}

/// A value as a document that ends its lines as the old text does, below the comments the old one began with.
///
/// # Errors
/// What other readers would find in it that does not stand there.
fn written(value: &Value, before: &str) -> Result<String, Problem> {
    if let Some(line) = layout::oddly_broken(before) {
        let what = "has a line end of Unicode (U+0085, U+2028 or U+2029), at which kubectl ends the line and others do \
                    not; write it between double quotes as \\N, \\L or \\P";
        let what = what.to_owned();
        return Err(Problem { line, what });
    }
    let text = spelled(value, before);
    // What was overlooked here must not come out as another pod.
    let again = yaml::read(&text).and_then(|node| node.map(|node| node.to_json()).transpose());
    let why = match again {
        Ok(again) if again.as_ref() == Some(value) => return Ok(text),
        Ok(_) => "it would be read as something else",
        Err(ref problem) => &problem.what,
    };
    let what = format!("with the sidecar it cannot be written so that it can be read again: {why}");
    Err(Problem { line: 1, what })
}

fn spelled(value: &Value, before: &str) -> String {
    let written = yaml::write(value);
    let ended = if before.contains("\r\n") {
        written.replace('\n', "\r\n")
    } else {
        written
    };
    layout::head(before) + &ended
}
