//! The text of one YAML document as a tree that knows its lines.
//!
//! Refuses keys given twice, more than one document, and documents that are too deep or grow too large by aliases.
//! What a scalar means is left for later: some documents only pass through.

use std::collections::HashMap;
use std::fmt;
use std::str::Chars;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::{Map, Value};

use super::scalar;

/// How deep lists and mappings may stand in each other.
const DEPTH: usize = 100;
/// How many values a document may have, those of aliases counted wherever they are used.
const VALUES: usize = 1_000_000;

/// What is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The line in the text, the first being 1.
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl Problem {
    pub(super) fn new(line: usize, what: impl fmt::Display) -> Self {
        let what = what.to_string();
        Self { line, what }
    }
}

/// One value, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) content: Content,
    /// How many values it holds, itself counted.
    size: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    Scalar {
        text: String,
        /// Whether it stands there without quotes, so that it may be more than text.
        plain: bool,
        /// A tag that is not understood here.
        tag: Option<String>,
    },
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// Reads one document; without any content there is `None`.
///
/// # Errors
/// The first problem: what is behind it cannot be trusted.
pub(crate) fn read(text: &str) -> Result<Option<Node>, Problem> {
    let mut reader = Reader {
        events: Parser::new_from_str(text),
        source: Source::new(text),
        anchors: HashMap::new(),
        values: 0,
    };
    reader.document()
}

struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
    source: Source<'a>,
    anchors: HashMap<usize, Node>,
    values: usize,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Option<Node>, Problem> {
        let mut document = None;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(document),
                (Event::DocumentStart(_), span) => {
                    if document.is_some() {
                        let what = "a second document begins without --- before it";
                        return Err(Problem::new(span.start.line(), what));
                    }
                    let first = self.next()?;
                    document = Some(self.node(first, 0)?);
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        let broken = |error: ScanError| {
            let (line, column) = (error.marker().line(), error.marker().col() + 1);
            let what = format!("column {column}: not valid YAML: {}", error.info());
            Problem::new(line, what)
        };
        let end = Ok((Event::StreamEnd, Span::default()));
        self.events.next().unwrap_or(end).map_err(broken)
    }

    fn node(&mut self, (event, span): (Event<'a>, Span), depth: usize) -> Result<Node, Problem> {
        let line = span.start.line();
        if depth > DEPTH {
            return Err(Problem::new(line, format!("is deeper than {DEPTH} levels")));
        }
        let (content, anchor) = match event {
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(Problem::new(line, "an alias stands in what it names"));
                };
                let node = node.clone();
                self.count(line, node.size)?;
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                (scalar_of(&text, style, tag.as_deref()), anchor)
            }
            Event::SequenceStart(anchor, _) => (Content::List(self.list(depth)?), anchor),
            Event::MappingStart(anchor, _) => (Content::Map(self.map(depth)?), anchor),
            other => return Err(Problem::new(line, format!("not valid YAML: {other:?}"))),
        };
        self.count(line, 1)?;
        let size = content.size();
        let node = Node {
            line,
            content,
            size,
        };
        if anchor != 0 {
            self.count(line, size)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn count(&mut self, line: usize, more: usize) -> Result<(), Problem> {
        self.values = self.values.saturating_add(more);
        if self.values > VALUES {
            return Err(Problem::new(line, format!("has more than {VALUES} values")));
        }
        Ok(())
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                event => items.push(self.node(event, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Node, Node)>, Problem> {
        let mut entries: Vec<(Node, Node)> = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            let is_plain = matches!(event, Event::Scalar(_, ScalarStyle::Plain, ..));
            let key = match event {
                Event::MappingEnd => return Ok(entries),
                event => self.node((event, span), depth + 1)?,
            };
            if is_plain && self.source.is_part_of_key(span.end.index()) {
                let what = "a colon stands before , ] or }, where kubectl takes it for a part of the key; put a \
                            blank behind it";
                return Err(Problem::new(key.line, what));
            }
            if let Content::Scalar { text, .. } = &key.content
                && let Some(before) = lines.insert(text.clone(), key.line)
            {
                let what = format!("the key \"{text}\" is given twice; before in line {before}");
                return Err(Problem::new(key.line, what));
            }
            let value = self.next()?;
            entries.push((key, self.node(value, depth + 1)?));
        }
    }
}

/// The text itself, gone through once as the events are.
struct Source<'a> {
    rest: Chars<'a>,
    position: usize,
}

impl<'a> Source<'a> {
    fn new(text: &'a str) -> Self {
        let rest = text.chars();
        Self { rest, position: 0 }
    }

    /// Whether the colon behind a plain key that ends at this character is one to readers of YAML 1.2 alone.
    fn is_part_of_key(&mut self, end: usize) -> bool {
        while self.position < end && self.rest.next().is_some() {
            self.position += 1;
        }
        let mut next = self.rest.clone().skip_while(|one| " \t\r\n".contains(*one));
        next.next() == Some(':') && next.next().is_some_and(|behind| ",]}".contains(behind))
    }
}

fn scalar_of(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Content {
    let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
    Content::Scalar {
        text: text.to_owned(),
        plain: style == ScalarStyle::Plain && !is_text,
        tag: tag.filter(|_| !is_text).map(spelled),
    }
}

/// A tag as people write it.
fn spelled(tag: &Tag) -> String {
    if tag.is_yaml_core_schema() {
        format!("!!{}", tag.suffix)
    } else {
        tag.to_string()
    }
}

impl Content {
    fn size(&self) -> usize {
        1 + match self {
            Self::Scalar { .. } => 0,
            Self::List(items) => items.iter().map(|item| item.size).sum(),
            Self::Map(entries) => entries
                .iter()
                .map(|(key, value)| key.size + value.size)
                .sum(),
        }
    }
}

impl Node {
    /// The value of a key, if this is a mapping that has it.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        let Content::Map(entries) = &self.content else {
            return None;
        };
        let mut found = entries.iter().filter(|(key, _)| key.text() == Some(name));
        found.next().map(|(_, value)| value)
    }

    /// What was typed, of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The value as kubectl understands it.
    ///
    /// # Errors
    /// The first thing that has no JSON, or means one thing to kubectl and another to YAML.
    pub(crate) fn to_json(&self) -> Result<Value, Problem> {
        match &self.content {
            Content::Scalar { tag: Some(tag), .. } => {
                let what = format!("the tag {tag} is not understood; write the value without it");
                Err(Problem::new(self.line, what))
            }
            Content::Scalar {
                text, plain: false, ..
            } => Ok(Value::String(text.clone())),
            Content::Scalar { text, .. } => {
                scalar::resolve(text).map_err(|what| Problem::new(self.line, what))
            }
            Content::List(items) => items.iter().map(Self::to_json).collect(),
            Content::Map(entries) => entries_to_json(entries).map(Value::Object),
        }
    }

    fn is_merge(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, plain: true, tag: None } if text == "<<")
    }

    /// A key as JSON has it: kubectl takes numbers and booleans for what they are, and spells them anew.
    fn to_key(&self) -> Result<String, Problem> {
        match self.to_json()? {
            Value::String(key) => Ok(key),
            Value::Bool(key) => Ok(key.to_string()),
            Value::Number(key) if key.is_i64() && self.text().is_some_and(scalar::is_integer) => {
                Ok(key.to_string())
            }
            _ => {
                let what = "a key is no text; put it between quotes";
                Err(Problem::new(self.line, what))
            }
        }
    }
}

fn entries_to_json(entries: &[(Node, Node)]) -> Result<Map<String, Value>, Problem> {
    let mut members = Map::new();
    let mut merged = Map::new();
    for (key, value) in entries {
        if key.is_merge() {
            merge(value, &members, &mut merged)?;
            continue;
        }
        let name = key.to_key()?;
        if members.contains_key(&name) {
            let what = format!("the key \"{name}\" is given twice, in different spellings");
            return Err(Problem::new(key.line, what));
        }
        members.insert(name, value.to_json()?);
    }
    // What is merged stands first, as other readers have it, and what is said itself counts.
    merged.extend(members);
    Ok(merged)
}

/// What `<<` brings: one mapping, or a list of them of which the first counts.
fn merge(
    value: &Node,
    before: &Map<String, Value>,
    merged: &mut Map<String, Value>,
) -> Result<(), Problem> {
    let sources = match &value.content {
        Content::List(items) => items.iter().collect(),
        _ => vec![value],
    };
    for source in sources {
        let Value::Object(members) = source.to_json()? else {
            return Err(Problem::new(value.line, "<< must bring a mapping"));
        };
        for (name, value_of) in members {
            // YAML says that the own key counts, and kubectl lets the merged one win.
            if before.contains_key(&name) {
                let what = format!("<< brings \"{name}\", which stands before it; put << first");
                return Err(Problem::new(value.line, what));
            }
            merged.entry(name).or_insert(value_of);
        }
    }
    Ok(())
}
