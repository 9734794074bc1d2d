//! Finds the model that a request names: the top-level member `model` of a JSON object, the field `model` of a form,
//! or the parameter `model` of a query.
//!
//! The scanners take a body piece by piece, whatever the pieces are, keep none of it, and need the same memory for any
//! body. They judge nothing but the name: a body that no worker would parse has some result, and the worker refuses it.
//! A name that is not the one that the worker reads would send a request past the rules of its model's pool. Of several
//! members of an object the last counts, as in all common parsers. Where parsers differ, the name is
//! [`Model::Ambiguous`]: of several fields of a form some take the first.

mod form;
mod json;
mod multipart;
mod value;

use std::ops::Range;

use http::header::{self, HeaderMap};
use smallvec::SmallVec;

use self::form::Form;
use self::json::Json;
use self::multipart::Multipart;
use crate::headers::media_type;

/// Longest model name, in bytes. Longer than any path of a model's files.
const LONGEST: usize = 4096;
/// Longest boundary of a multipart body, in bytes; RFC 2046 allows 70.
const LONGEST_BOUNDARY: usize = 256;
/// Number of places that are remembered.
const MOST_PLACES: usize = 8;

/// The model that a request names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Model {
    /// No `model`, or `null`.
    #[default]
    Unsaid,
    Named(String),
    /// The value is not a string, or longer than [`LONGEST`].
    NoName,
    /// It depends on who reads it.
    Ambiguous,
}

/// The byte range of a value in the body or query, including the quotes of a JSON string.
pub type Place = Range<u64>;

/// The result of a scanner so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    pub model: Model,
    /// The places of all strings found, in order. If there are more than [`MOST_PLACES`], the last one is kept and
    /// some before it are missing.
    pub places: SmallVec<[Place; 1]>,
    /// Number of values found, of any type.
    pub count: u64,
}

impl Found {
    fn add(&mut self, model: Model, place: Option<Place>) {
        self.model = model;
        self.count += 1;
        let Some(place) = place else { return };
        if self.places.len() == MOST_PLACES {
            self.places.pop();
        }
        self.places.push(place);
    }

    /// Adds a field of a form. Some parsers take the first with that name, others the last.
    fn add_field(&mut self, model: Model, place: Option<Place>) {
        let is_other = self.count > 0 && self.model != model;
        self.add(if is_other { Model::Ambiguous } else { model }, place);
    }

    /// Whether both name something, and not the same.
    pub fn contradicts(&self, other: &Self) -> bool {
        self.count > 0 && other.count > 0 && self.model != other.model
    }
}

/// The format of a body that can name a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    Json,
    /// A form, or JSON that `curl -d` sends with a form's content type.
    FormOrJson,
    /// `multipart/form-data` with this boundary.
    Multipart(Vec<u8>),
}

impl Format {
    /// The format of a body with these header fields. `None` if the body can't name a model, or must not be read
    /// before it is sent on. A gRPC client may wait for an answer before it sends more. So may any client that does not
    /// announce the body's length, unless the content type is known.
    pub fn of(headers: &HeaderMap, is_length_known: bool) -> Option<Self> {
        let Some(kind) = media_type(headers) else { return Some(Self::Json) };
        if kind.eq_ignore_ascii_case(b"application/json") {
            return Some(Self::Json);
        }
        let kind = kind.to_ascii_lowercase();
        let starts_with = |starts: &[&str]| starts.iter().any(|start| kind.starts_with(start.as_bytes()));
        match kind.as_slice() {
            b"" | b"text/plain" | b"text/json" => Some(Self::Json),
            b"application/x-www-form-urlencoded" => Some(Self::FormOrJson),
            b"multipart/form-data" => boundary(headers).map(Self::Multipart),
            b"text/event-stream" => None,
            _ if starts_with(&["application/grpc", "application/connect+", "multipart/"]) => None,
            _ if starts_with(&["audio/", "video/", "image/"]) => None,
            kind => (is_length_known || kind.ends_with(b"+json")).then_some(Self::Json),
        }
    }

    pub fn scanner(&self) -> Scanner {
        match self {
            Self::Json => Scanner::Json(Json::default()),
            Self::FormOrJson => Scanner::FormOrJson(Box::default()),
            Self::Multipart(boundary) => Scanner::Multipart(Box::new(Multipart::new(boundary))),
        }
    }
}

fn boundary(headers: &HeaderMap) -> Option<Vec<u8>> {
    let boundary = multipart::parameter(headers.get(header::CONTENT_TYPE)?.as_bytes(), b"boundary")?;
    (1..=LONGEST_BOUNDARY).contains(&boundary.len()).then_some(boundary)
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(at, text)?;
    Some((&text[..at], &text[at + 1..]))
}

/// Scans one body.
#[derive(Debug)]
pub enum Scanner {
    Json(Json),
    FormOrJson(Box<FormOrJson>),
    Multipart(Box<Multipart>),
}

/// Reads a body as both: a worker may read it as either.
#[derive(Debug, Default)]
pub struct FormOrJson {
    form: Form,
    json: Json,
    /// What both say, once the body is at its end.
    found: Found,
}

impl FormOrJson {
    fn finish(&mut self) {
        self.form.finish();
        let (form, json) = (self.form.found(), self.json.found());
        self.found = if json.count > 0 { json.clone() } else { form.clone() };
        if json.contradicts(form) {
            self.found.model = Model::Ambiguous;
        }
    }
}

impl Scanner {
    /// Takes the next bytes of the body.
    pub fn push(&mut self, bytes: &[u8]) {
        match self {
            Self::Json(json) => json.push(bytes),
            Self::FormOrJson(both) => {
                both.form.push(bytes);
                both.json.push(bytes);
            }
            Self::Multipart(multipart) => multipart.push(bytes),
        }
    }

    /// Ends the body.
    pub fn finish(&mut self) {
        if let Self::FormOrJson(both) = self {
            both.finish();
        }
    }

    /// Whether no later bytes can name a model.
    pub fn is_done(&self) -> bool {
        match self {
            Self::Json(json) => json.is_done(),
            Self::Multipart(multipart) => multipart.is_done(),
            Self::FormOrJson(_) => false,
        }
    }

    /// Whether the body has been a JSON object so far.
    pub fn is_object(&self) -> bool {
        matches!(self, Self::Json(json) if json.is_object())
    }

    pub fn found(&self) -> &Found {
        match self {
            Self::Json(json) => json.found(),
            Self::FormOrJson(both) => &both.found,
            Self::Multipart(multipart) => multipart.found(),
        }
    }

    /// Whether what is found is known only at the end of the body.
    pub fn ends_with_body(&self) -> bool {
        matches!(self, Self::FormOrJson(_))
    }

    /// How to write a name that replaces those found.
    pub fn spelling(&self) -> Spelling {
        match self {
            Self::Json(_) => Spelling::String,
            Self::FormOrJson(both) if both.json.found().count > 0 => Spelling::String,
            Self::FormOrJson(_) => Spelling::Escaped,
            Self::Multipart(_) => Spelling::Plain,
        }
    }
}

/// How a body encodes a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// As a JSON string.
    String,
    /// Percent-encoded, as in a form.
    Escaped,
    Plain,
}

impl Spelling {
    pub fn of(self, name: &str) -> Vec<u8> {
        match self {
            Self::String => serde_json::Value::from(name).to_string().into_bytes(),
            Self::Escaped => form::encoded(name),
            Self::Plain => name.into(),
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Finds the model in a query.
pub fn in_query(query: &str) -> Found {
    // Almost no query names a model, and almost none percent-encodes the parameter's name.
    let may_name = memchr::memmem::find(query.as_bytes(), b"model").is_some() || query.contains('%');
    if !may_name {
        return Found::default();
    }
    let mut form = Form::default();
    form.push(query.as_bytes());
    form.finish();
    form.found().clone()
}

/// The query with `name` in place of the values at `places`.
pub fn renamed_query(query: &str, places: &[Place], name: &str) -> String {
    let name = form::encoded(name);
    let mut renamed = Vec::with_capacity(query.len() + places.len() * name.len());
    let mut passed = 0;
    for place in places {
        let (start, end) = (place.start as usize, place.end as usize);
        renamed.extend_from_slice(&query.as_bytes()[passed..start]);
        renamed.extend_from_slice(&name);
        passed = end;
    }
    renamed.extend_from_slice(&query.as_bytes()[passed..]);
    String::from_utf8(renamed).expect("places start and end at ASCII characters")
}

#[cfg(test)]
mod tests;
