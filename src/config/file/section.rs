//! A list of the file: each element is read on its own, so that one mistake does not hide another.

use std::collections::HashMap;
use std::hash::Hash;

use serde::de::DeserializeOwned;

use super::decode::decode;
use super::node::{Node, Value};
use super::problem::{Path, Problem, Report};

/// An element that could be read, and where it is.
pub(super) struct Item<'n, T> {
    pub node: &'n Node,
    pub index: usize,
    pub value: T,
}

/// The elements of one list.
pub(super) struct Section<'n, T> {
    name: &'static str,
    pub items: Vec<Item<'n, T>>,
}

impl<'n, T> Section<'n, T> {
    /// Reads what is under the key `name` of the document; a missing key is an empty list.
    pub fn read(document: &'n Node, name: &'static str, report: &mut Report) -> Self
    where
        T: DeserializeOwned,
    {
        Self::read_with(document, name, report, decode)
    }

    /// The same, with a reader for one element.
    pub fn read_with(
        document: &'n Node,
        name: &'static str,
        report: &mut Report,
        mut read: impl FnMut(&'n Node, &Path<'_>, &mut Report) -> Option<T>,
    ) -> Self {
        let path = Path::Key(&Path::Root, name);
        let nodes = match document.get(name) {
            None => &[][..],
            Some(Node { value: Value::List(nodes), .. }) => nodes,
            Some(other) => {
                report.add(Problem::new(other.line, path, "it must be a list"));
                &[]
            }
        };
        let mut items = Vec::new();
        for (index, node) in nodes.iter().enumerate() {
            let value = read(node, &Path::Item(&path, index), report);
            items.extend(value.map(|value| Item { node, index, value }));
        }
        Self { name, items }
    }

    /// Reports a mistake in a field of an element.
    pub fn report(&self, item: &Item<'n, T>, field: &str, text: &str, report: &mut Report) {
        let line = item.node.get(field).map_or(item.node.line, |node| node.line);
        report.add(Problem::new(line, format_args!("{}[{}].{field}", self.name, item.index), text));
    }

    /// Reports the elements whose field says what an earlier one says.
    pub fn unique<K: Hash + Eq>(&self, field: &str, keys: impl Fn(&T) -> Vec<K>, report: &mut Report) {
        let mut first: HashMap<K, usize> = HashMap::new();
        for item in &self.items {
            for key in keys(&item.value) {
                match first.get(&key) {
                    Some(index) if *index == item.index => self.report(item, field, "it is there twice", report),
                    Some(index) => {
                        let text = format!("the same as in {}[{index}]", self.name);
                        self.report(item, field, &text, report);
                    }
                    None => {
                        first.insert(key, item.index);
                    }
                }
            }
        }
    }

    pub fn values(self) -> Vec<T> {
        self.items.into_iter().map(|item| item.value).collect()
    }
}
