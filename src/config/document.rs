//! A YAML file as a tree that knows its lines, and the list of everything wrong with it.
//!
//! Values are kept as they were typed, so a client id of digits stays what it is. Refuses keys it
//! was not asked for and keys given twice. Reading goes on after a problem, so that one run reports
//! them all; a value that could not be read is `None`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use saphyr::{MarkedYaml, YamlData, YamlLoader};
use saphyr_parser::Parser;

use crate::telemetry::quiet;

/// Everything wrong with a configuration, one line each.
#[derive(Debug, Default)]
pub struct Problems {
    lines: Vec<String>,
}

impl Problems {
    /// Adds a line. What it quotes of the file may break no line and reach no terminal as an order.
    pub fn add(&mut self, line: impl Display) {
        self.lines.push(quiet(&line.to_string()));
    }

    /// The lines, or nothing when all is well.
    pub fn into_lines(self) -> Vec<String> {
        self.lines
    }
}

/// A place in the document: its path for people, its line, and what stands there.
#[derive(Debug)]
pub struct Node {
    /// `FILE:LINE: key.path`, how a problem here begins.
    pub place: String,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Scalar(String),
    List(Vec<Node>),
    Map(BTreeMap<String, Node>),
    /// Something else, already reported.
    Broken,
}

/// The keys of a mapping that were not asked for yet.
#[derive(Debug)]
pub struct Map {
    place: String,
    entries: BTreeMap<String, Node>,
    known: Vec<&'static str>,
}

/// Reads one YAML document; `file` is its name in problems.
pub fn read(file: &str, text: &str, problems: &mut Problems) -> Option<Map> {
    let mut loader = YamlLoader::<MarkedYaml<'_>>::default();
    loader.early_parse(false);
    let parsed = Parser::new_from_str(text).load(&mut loader, true);
    // Grammar is the parser's business; a key given twice is found by the loader.
    if let Some(error) = parsed.err().or_else(|| loader.error().cloned()) {
        let (line, column) = (error.marker().line(), error.marker().col() + 1);
        problems.add(format!(
            "{file}:{line}: column {column}: not valid YAML: {}",
            error.info()
        ));
        return None;
    }
    match loader.into_documents().as_slice() {
        [] => Some(Map {
            place: file.to_owned(),
            entries: BTreeMap::new(),
            known: Vec::new(),
        }),
        [document] => Node::new(file, "", document, problems).map(problems),
        _ => {
            problems.add(format!(
                "{file}: holds several YAML documents; one is needed"
            ));
            None
        }
    }
}

impl Node {
    fn new(file: &str, path: &str, yaml: &MarkedYaml<'_>, problems: &mut Problems) -> Self {
        let line = yaml.span.start.line();
        let colon = if path.is_empty() { "" } else { ": " };
        let place = format!("{file}:{line}{colon}{path}");
        let content = match &yaml.data {
            YamlData::Representation(text, ..) => Content::Scalar(text.to_string()),
            YamlData::Sequence(items) => {
                let node = |(index, item)| {
                    Self::new(file, &format!("{path}[{index}]"), item, &mut *problems)
                };
                Content::List(items.iter().enumerate().map(node).collect())
            }
            YamlData::Mapping(pairs) => {
                let mut entries = BTreeMap::new();
                for (key, value) in pairs {
                    let YamlData::Representation(name, ..) = &key.data else {
                        problems.add(format!("{place}: a key that is no text"));
                        continue;
                    };
                    let dot = if path.is_empty() { "" } else { "." };
                    let node = Self::new(file, &format!("{path}{dot}{name}"), value, problems);
                    if entries.contains_key(name.as_ref()) {
                        problems.add(format!("{}: is given twice", node.place));
                    }
                    entries.insert(name.to_string(), node);
                }
                Content::Map(entries)
            }
            _ => {
                problems.add(format!(
                    "{place}: tags and aliases like this are not supported"
                ));
                Content::Broken
            }
        };
        Self { place, content }
    }

    /// Reports a problem here.
    pub fn problem(&self, what: impl Display, problems: &mut Problems) {
        problems.add(format!("{}: {what}", self.place));
    }

    /// The text of a plain value.
    pub fn text(&self, problems: &mut Problems) -> Option<&str> {
        match &self.content {
            Content::Scalar(text) if is_null(text) => {
                self.problem("is empty; a value is needed", problems);
                None
            }
            Content::Scalar(text) => Some(text),
            Content::List(_) | Content::Map(_) => {
                self.problem("must be a single value", problems);
                None
            }
            Content::Broken => None,
        }
    }

    /// A value parsed by its type.
    pub fn parse<T: FromStr<Err: Display>>(&self, problems: &mut Problems) -> Option<T> {
        self.parse_with(problems, |text| {
            text.parse().map_err(|error: T::Err| error.to_string())
        })
    }

    /// A value parsed by a function.
    pub fn parse_with<T>(
        &self,
        problems: &mut Problems,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(problems)?;
        parse(text)
            .map_err(|error| self.problem(error, problems))
            .ok()
    }

    /// Whether several values stand here.
    pub fn is_list(&self) -> bool {
        matches!(self.content, Content::List(_))
    }

    /// Whether it is a list without items.
    pub fn is_empty_list(&self) -> bool {
        matches!(&self.content, Content::List(items) if items.is_empty())
    }

    /// The items of a list.
    pub fn list(self, problems: &mut Problems) -> Vec<Self> {
        match self.content {
            Content::List(items) => return items,
            Content::Broken => {}
            _ => self.problem("must be a list", problems),
        }
        Vec::new()
    }

    /// The keys of a mapping; an empty value is an empty mapping.
    pub fn map(self, problems: &mut Problems) -> Option<Map> {
        let entries = match self.content {
            Content::Map(entries) => entries,
            Content::Scalar(text) if is_null(&text) => BTreeMap::new(),
            Content::Broken => return None,
            _ => {
                self.problem("must be a mapping of keys to values", problems);
                return None;
            }
        };
        Some(Map {
            place: self.place,
            entries,
            known: Vec::new(),
        })
    }
}

impl Map {
    /// `FILE:LINE: key.path` of the mapping.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Takes a key that may be there.
    pub fn take(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        self.entries.remove(key)
    }

    /// Puts the value of a key that may be there in the place of its default.
    pub fn set<T>(
        &mut self,
        key: &'static str,
        default: &mut T,
        parse: impl FnOnce(&str) -> Result<T, String>,
        problems: &mut Problems,
    ) {
        let node = self.take(key);
        if let Some(value) = node.and_then(|node| node.parse_with(problems, parse)) {
            *default = value;
        }
    }

    /// Takes a key that must be there.
    pub fn need(&mut self, key: &'static str, problems: &mut Problems) -> Option<Node> {
        let node = self.take(key);
        if node.is_none() {
            self.lacks(key, problems);
        }
        node
    }

    /// Reports a key that is not there.
    pub fn lacks(&self, key: &str, problems: &mut Problems) {
        problems.add(format!("{}: the key \"{key}\" is missing", self.place));
    }

    /// The entries of a mapping whose keys are values too.
    pub fn into_entries(self) -> BTreeMap<String, Node> {
        self.entries
    }

    /// Reports what was never asked for.
    pub fn finish(self, problems: &mut Problems) {
        for (key, node) in self.entries {
            let known = self.known.join(", ");
            node.problem(
                format!("unknown key \"{key}\"; known here: {known}"),
                problems,
            );
        }
    }
}

/// How YAML writes that there is nothing.
fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_without_control_characters_whatever_it_quotes() {
        let mut problems = Problems::default();
        problems.add("\"a\nb\u{1b}[2J\u{2028}ü\" is no size");
        let expected = "\"a\\nb\\u{1b}[2J\\u{2028}ü\" is no size";
        assert_eq!(problems.into_lines(), [expected]);
    }
}
