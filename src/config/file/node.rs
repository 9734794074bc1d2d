//! YAML as a tree that knows its lines. What a scalar means is up to the key that it belongs to: `no` is text
//! where text is wanted, and a mistake where true or false is.
//!
//! Anchors and aliases are refused, so that a small file can't stand for a large one; so are tags, directives
//! and second documents, which could only mean something that the gateway does not do.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span};

use super::brackets::unclosed;
use super::problem::{Path, Problem, Report};

/// Deepest nesting of lists and maps; what the gateway reads is far below.
const DEEPEST: usize = 32;

/// Most values in a file. The largest file has room for more, at 100 bytes of memory each.
const MOST: usize = 100_000;

/// A value, and where it is.
#[derive(Debug)]
pub(super) struct Node {
    /// From 1.
    pub line: usize,
    pub value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    /// As written, without quotes.
    Scalar {
        text: String,
        is_quoted: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub key: String,
    pub line: usize,
    pub node: Node,
}

impl Node {
    /// The document, if it can be read at all. Duplicate keys are reported and left out.
    pub fn read(text: &str, report: &mut Report) -> Option<Self> {
        let options = granit_parser::options! {
            strict_indentation: true,
            disallow_directives: true,
            emit_unresolved_aliases: true,
            flow_nesting_limit: DEEPEST,
            block_nesting_limit: DEEPEST,
        };
        let mut builder = Builder { text, parser: Parser::new_from_str_with_options(text, options), count: 0, report };
        match builder.document() {
            Ok(node) => Some(node),
            Err(problem) => {
                report.add(problem);
                None
            }
        }
    }

    /// The scalar's text.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The value of a map's key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node),
            Value::List(_) | Value::Scalar { .. } => None,
        }
    }

    /// Nothing was written, or what YAML has for it.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, is_quoted: false } if matches!(text.as_str(), "" | "~" | "null"))
    }

    /// As JSON. A scalar without quotes is what JSON takes it for, everything else is text.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::List(nodes) => nodes.iter().map(Node::to_json).collect(),
            Value::Map(entries) => {
                let entries = entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json()));
                serde_json::Value::Object(entries.collect())
            }
            Value::Scalar { .. } if self.is_null() => serde_json::Value::Null,
            Value::Scalar { text, is_quoted: false } if !text.starts_with('"') => {
                serde_json::from_str(text).ok().filter(is_scalar).unwrap_or_else(|| text.clone().into())
            }
            Value::Scalar { text, .. } => text.clone().into(),
        }
    }
}

fn is_scalar(value: &serde_json::Value) -> bool {
    !value.is_array() && !value.is_object()
}

struct Builder<'t, 'r> {
    text: &'t str,
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    count: usize,
    report: &'r mut Report,
}

/// An event, and its line.
type Seen<'t> = (Event<'t>, usize);

impl<'t> Builder<'t, '_> {
    fn document(&mut self) -> Result<Node, Problem> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(..), _) => {}
                (Event::StreamEnd, line) => return Ok(Node { line, value: Value::Map(Vec::new()) }),
                first => {
                    let node = self.node(first, &Path::Root)?;
                    return self.end().map(|()| node);
                }
            }
        }
    }

    fn end(&mut self) -> Result<(), Problem> {
        loop {
            match self.next()? {
                (Event::DocumentEnd, _) => {}
                (Event::StreamEnd, _) => return Ok(()),
                (_, line) => return Err(Problem::new(line, "", "a second document begins; there must be only one")),
            }
        }
    }

    fn next(&mut self) -> Result<Seen<'t>, Problem> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, line_of(&span))),
            Some(Err(error)) => Err(self.not_yaml(error.marker().line(), &error.info())),
            None => Err(self.not_yaml(0, "the file ends too early")),
        }
    }

    fn not_yaml(&self, line: usize, why: &str) -> Problem {
        match unclosed(self.text, if line == 0 { usize::MAX } else { line }) {
            None => Problem::new(line, "", format_args!("not YAML: {why}")),
            Some((bracket, opened)) => {
                let hint = format_args!("not YAML: {why}; is the `{bracket}` of line {opened} closed?");
                Problem::new(line, "", hint)
            }
        }
    }

    fn node(&mut self, (event, line): Seen<'t>, path: &Path<'_>) -> Result<Node, Problem> {
        let refuse = |text: &str| Err(Problem::new(line, path, text));
        self.count += 1;
        if self.count > MOST {
            return refuse("the file has too many values");
        }
        if event.anchor_id().is_some_and(|id| id != 0) || event.is_alias() {
            return refuse("anchors and aliases are not offered; text that starts with & or * wants quotes");
        }
        if event.tag().is_some() {
            return refuse("tags are not offered; text that starts with ! wants quotes");
        }
        let value = match event {
            Event::Scalar(text, style, ..) => {
                Value::Scalar { text: text.into_owned(), is_quoted: style != ScalarStyle::Plain }
            }
            Event::SequenceStart(..) => Value::List(self.list(path)?),
            Event::MappingStart(..) => Value::Map(self.map(path)?),
            _ => return refuse("not YAML: a value was expected"),
        };
        Ok(Node { line, value })
    }

    fn list(&mut self, path: &Path<'_>) -> Result<Vec<Node>, Problem> {
        let mut nodes = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(nodes),
                first => nodes.push(self.node(first, &Path::Item(path, nodes.len()))?),
            }
        }
    }

    fn map(&mut self, path: &Path<'_>) -> Result<Vec<Entry>, Problem> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut lines: HashMap<String, usize> = HashMap::new();
        loop {
            let (key, line) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(entries),
                (Event::Scalar(key, _, 0, None), line) => (key.into_owned(), line),
                (_, line) => return Err(Problem::new(line, path, "a key must be plain text")),
            };
            let here = Path::Key(path, &key);
            if key == "<<" {
                return Err(Problem::new(line, here, "merge keys are not offered"));
            }
            let first = self.next()?;
            let node = self.node(first, &here)?;
            match lines.get(&key) {
                Some(first) => {
                    self.report.add(Problem::new(line, here, format_args!("it is there already, in line {first}")));
                }
                None => {
                    lines.insert(key.clone(), line);
                    entries.push(Entry { key, line, node });
                }
            }
        }
    }
}

fn line_of(span: &Span) -> usize {
    span.start.line()
}

#[cfg(test)]
mod tests;
