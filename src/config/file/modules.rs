//! `modules`: what is deployed, at start and by a reload. Only the admin API knows what a module's object may say, so
//! it is kept as it was written; here it is only made sure that there is a name and a file.

use std::fmt;
use std::path::PathBuf;

use serde_json::{Map, Value as Json};

use super::node::Node;
use super::problem::{Path, Problem, Report};
use super::section::Section;

/// A module to deploy.
#[derive(Clone, PartialEq)]
pub struct Module {
    pub name: String,
    pub file: PathBuf,
    /// The other fields, as in a module object of `POST /wasm`.
    pub fields: Map<String, Json>,
    line: usize,
    path: String,
}

impl Module {
    pub(super) fn read(document: &Node, report: &mut Report) -> Vec<Self> {
        let section = Section::read_with(document, "modules", report, Self::of);
        let named = |module: &Self| Some(module.name.clone()).filter(|name| !name.is_empty());
        section.unique("name", |module| named(module).into_iter().collect(), report);
        section.values()
    }

    /// A mistake in this module, at `field`, such as `limits.memory_pages`; empty for the whole of it.
    pub fn problem(&self, field: &str, text: &str) -> Problem {
        let dot = if field.is_empty() { "" } else { "." };
        Problem::new(self.line, format_args!("{}{dot}{field}", self.path), text)
    }

    fn of(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let Json::Object(mut fields) = node.to_json() else {
            report.add(Problem::new(node.line, path, "it must be a map"));
            return None;
        };
        // The admin API's name for `file`. Here it would be ignored, or contradict `file`.
        let misnamed = node.get("file_path");
        if let Some(field) = misnamed {
            let text = "no such key (did you mean `file`?)";
            report.add(Problem::new(field.line, Path::Key(path, "file_path"), text));
        }
        ["name", "file", "file_path"].iter().for_each(|key| drop(fields.remove(*key)));
        let mut text = |key: &str| {
            let field = node.get(key);
            let text = field.filter(|field| !field.is_null()).and_then(Node::text).filter(|text| !text.is_empty());
            let problem = match (text, field) {
                (Some(_), _) => return text,
                (None, Some(field)) => Problem::new(field.line, Path::Key(path, key), "it must be text"),
                (None, None) => Problem::new(node.line, path, format_args!("`{key}` is missing")),
            };
            report.add(problem);
            None
        };
        let name = text("name");
        let file = if misnamed.is_some() && node.get("file").is_none() { None } else { text("file") };
        // One without a name or a file is reported, and kept so that the rest of it is looked at, too.
        let (name, file) = (name.unwrap_or_default(), file.unwrap_or_default());
        Some(Self { name: name.to_owned(), file: file.into(), fields, line: node.line, path: path.to_string() })
    }
}

/// A module's own configuration may hold secrets.
impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module").field("name", &self.name).field("file", &self.file).finish_non_exhaustive()
    }
}
