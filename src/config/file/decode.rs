//! From the tree to a struct with serde, so that each section is a struct that says what it takes. serde stops at
//! the first mistake; here a value with a mistake is noted and left out, and the rest is read again.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, Unexpected, Visitor,
};

use super::hint::hint;
use super::node::{Entry, Node, Value};
use super::problem::{Path, Problem, Report};

/// Of a key with nothing after it: not taken for the default, since it is mostly a template that failed.
pub(super) const NO_VALUE: &str = "it has no value; leave the key out for the default";

/// Reads a value, or reports everything that is wrong with it.
pub(super) fn decode<T: DeserializeOwned>(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<T> {
    let run = Run::default();
    let at = At { node, path, run: &run };
    let mut before = 0;
    let value = loop {
        match at.value(std::marker::PhantomData::<T>) {
            Ok(value) => break run.bad.borrow().is_empty().then_some(value),
            Err(_) if run.is_bad(node) || run.bad.borrow().len() == before || report.is_full() => break None,
            Err(_) => before = run.bad.borrow().len(),
        }
        run.found.take().into_iter().for_each(|problem| report.add(problem));
    };
    run.found.take().into_iter().for_each(|problem| report.add(problem));
    value
}

/// What is known to be wrong, from one reading to the next.
#[derive(Default)]
struct Run {
    found: RefCell<Vec<Problem>>,
    /// Values that are left out from now on, by their place in memory, which is the tree's and stays.
    bad: RefCell<HashSet<*const Node>>,
}

impl Run {
    fn is_bad(&self, node: &Node) -> bool {
        self.bad.borrow().contains(&std::ptr::from_ref(node))
    }

    fn note(&self, node: &Node, line: usize, path: &Path<'_>, text: impl fmt::Display) {
        if self.bad.borrow_mut().insert(node) {
            self.found.borrow_mut().push(Problem::new(line, path, text));
        }
    }
}

/// Why a value could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Text(String),
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// It is in the run's list.
    #[error("")]
    Noted,
}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Failure::Text(text.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Failure::Missing(field)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match found {
            // It may be a secret in the wrong place.
            Unexpected::Str(_) => Failure::Text(format!("it must be {expected}, not text")),
            found => Failure::Text(format!("it must be {expected}, not {found}")),
        }
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let known = expected.join(", ");
        let hint = hint(variant, expected.iter().copied());
        Failure::Text(format!("it must be one of {known}, not `{variant}`{hint}"))
    }
}

/// A value that is being read.
#[derive(Clone, Copy)]
struct At<'a> {
    node: &'a Node,
    path: &'a Path<'a>,
    run: &'a Run,
}

impl<'a> At<'a> {
    /// Reads this value; a mistake in it is noted here, where its place is known.
    fn value<'de, S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Failure> {
        let result = if self.node.is_null() { Err(Failure::Text(NO_VALUE.to_owned())) } else { seed.deserialize(self) };
        result.map_err(|failure| {
            match &failure {
                Failure::Noted => {}
                Failure::Missing(field) if self.node.get(field).is_some() => {
                    // Its mistake is noted; what it is a part of can't be whole.
                    self.run.bad.borrow_mut().insert(self.node);
                }
                Failure::Text(_) | Failure::Missing(_) => self.run.note(self.node, self.node.line, self.path, &failure),
            }
            Failure::Noted
        })
    }

    fn scalar(self, expected: &str) -> Result<&'a str, Failure> {
        let found = match &self.node.value {
            Value::Scalar { text, .. } => return Ok(text),
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        };
        Err(Failure::Text(format!("it must be {expected}, not {found}")))
    }

    fn number<T: std::str::FromStr>(self, expected: &str) -> Result<T, Failure> {
        let text = self.scalar(expected)?;
        text.parse().map_err(|_| Failure::Text(format!("it must be {expected}, not `{text}`")))
    }

    fn items(self, nodes: &'a [Node]) -> Items<'a> {
        Items { parent: self, nodes: nodes.iter().enumerate() }
    }

    fn entries(self, entries: &'a [Entry]) -> Entries<'a> {
        Entries { parent: self, entries: entries.iter(), current: None }
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $number:ty, $expected:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            visitor.$visit(self.number::<$number>($expected)?)
        })*
    };
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.node.value {
            Value::Scalar { text, .. } => visitor.visit_str(text),
            Value::List(nodes) => visitor.visit_seq(self.items(nodes)),
            Value::Map(entries) => visitor.visit_map(self.entries(entries)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_bool(self.number::<bool>("true or false")?)
    }

    numbers! {
        deserialize_u8 visit_u64 u64, "a whole number";
        deserialize_u16 visit_u64 u64, "a whole number";
        deserialize_u32 visit_u64 u64, "a whole number";
        deserialize_u64 visit_u64 u64, "a whole number";
        deserialize_i8 visit_i64 i64, "a whole number";
        deserialize_i16 visit_i64 i64, "a whole number";
        deserialize_i32 visit_i64 i64, "a whole number";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_f32 visit_f64 f64, "a number";
        deserialize_f64 visit_f64 f64, "a number";
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_str(self.scalar("text")?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.node.value {
            Value::List(nodes) => visitor.visit_seq(self.items(nodes)),
            Value::Scalar { .. } | Value::Map(_) => Err(Failure::Text("it must be a list".to_owned())),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let entries = match &self.node.value {
            Value::Map(entries) => entries,
            Value::Scalar { text, .. } => return visitor.visit_str(text),
            Value::List(_) => return Err(Failure::Text("it must be a map, not a list".to_owned())),
        };
        for entry in entries.iter().filter(|entry| !fields.contains(&entry.key.as_str())) {
            let hint = hint(&entry.key, fields.iter().copied());
            let path = Path::Key(self.path, &entry.key);
            self.run.note(&entry.node, entry.line, &path, format_args!("no such key{hint}"));
        }
        visitor.visit_map(self.entries(entries))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_enum(self.scalar("text")?.into_deserializer())
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct map identifier ignored_any
    }
}

struct Items<'a> {
    parent: At<'a>,
    nodes: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = Failure;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Failure> {
        let At { path, run, .. } = self.parent;
        match self.nodes.find(|(_, node)| !run.is_bad(node)) {
            Some((index, node)) => At { node, path: &Path::Item(path, index), run }.value(seed).map(Some),
            None => Ok(None),
        }
    }
}

struct Entries<'a> {
    parent: At<'a>,
    entries: std::slice::Iter<'a, Entry>,
    current: Option<&'a Entry>,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = Failure;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Failure> {
        self.current = self.entries.find(|entry| !self.parent.run.is_bad(&entry.node));
        let key = self.current.map(|entry| StrDeserializer::<Failure>::new(&entry.key));
        key.map(|key| seed.deserialize(key)).transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Failure> {
        let Some(entry) = self.current.take() else { return Err(Failure::Noted) };
        let At { path, run, .. } = self.parent;
        At { node: &entry.node, path: &Path::Key(path, &entry.key), run }.value(seed)
    }
}
