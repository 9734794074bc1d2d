//! The JSON that a handler gives, as a verdict.

use std::fmt;
use std::str::Utf8Error;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::modules::edit::{Edit, EditError, FieldEdits, FieldEditsBuilder, bounded_tags, final_status};
use crate::modules::hook::{Answer, Hook, Verdict};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The tag of a decision that nobody knows, which means allow.
const UNKNOWN_DECISION: &str = "unknown-decision";

/// The tag of an answer that should have had a header which no answer can have.
const REFUSED_HEADER: &str = "refused-header";

/// Why an output was refused.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error("the result is not UTF-8")]
    Utf8(#[source] Utf8Error),
    #[error("the result is not what a handler returns: {0}")]
    Json(#[source] serde_json::Error),
    #[error("the result is not a JSON object")]
    NotAnObject,
    #[error("a redirect needs a URL as its body")]
    NoUrl,
    #[error(transparent)]
    Edit(#[from] EditError),
}

/// What is known of the object; other keys are ignored, and null is as good as absent.
#[derive(Deserialize)]
struct Output {
    decision: String,
    status: Option<u16>,
    body: Option<String>,
    add_request_headers: Option<Fields>,
    remove_request_headers: Option<Vec<String>>,
    add_response_headers: Option<Fields>,
    remove_response_headers: Option<Vec<String>>,
    tags: Option<Vec<String>>,
}

enum Decision {
    Allow,
    Block,
    Redirect,
    Unknown,
}

impl Decision {
    fn of(text: &str) -> Self {
        let is = |word| text.eq_ignore_ascii_case(word);
        match () {
            () if is("allow") => Self::Allow,
            () if is("block") || is("deny") => Self::Block,
            () if is("redirect") => Self::Redirect,
            () => Self::Unknown,
        }
    }
}

/// The verdict of a handler's result.
pub fn verdict(hook: Hook, json: &[u8]) -> Result<Verdict, OutputError> {
    let text = std::str::from_utf8(json).map_err(OutputError::Utf8)?;
    // An array of the values in order would be read as well.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(OutputError::NotAnObject);
    }
    let mut output: Output = serde_json::from_str(text).map_err(OutputError::Json)?;
    let mut tags = bounded_tags(output.tags.take().unwrap_or_default());
    match Decision::of(&output.decision) {
        Decision::Block => block(output, tags),
        Decision::Redirect => redirect(output, tags),
        Decision::Allow => allow(hook, output, tags),
        Decision::Unknown => {
            tags.insert(0, UNKNOWN_DECISION.to_owned());
            allow(hook, output, tags)
        }
    }
}

fn allow(hook: Hook, output: Output, tags: Vec<String>) -> Result<Verdict, OutputError> {
    let of_answer = edits(output.add_response_headers, output.remove_response_headers)?;
    let edit = match hook {
        Hook::Request => {
            let fields = edits(output.add_request_headers, output.remove_request_headers)?;
            Edit { fields, of_answer, tags, ..Edit::default() }
        }
        Hook::Response => Edit { fields: of_answer, tags, ..Edit::default() },
    };
    if edit.changes_nothing() && edit.tags.is_empty() {
        return Ok(Verdict::Continue);
    }
    Ok(Verdict::Edit(Box::new(edit)))
}

fn block(output: Output, tags: Vec<String>) -> Result<Verdict, OutputError> {
    let body = output.body.map(Bytes::from);
    let mut answer = Answer { body, tags, ..Answer::empty(final_status(output.status.unwrap_or(403))?) };
    if answer.body.as_ref().is_some_and(|body| !body.is_empty()) {
        answer.head.headers.insert(header::CONTENT_TYPE, TEXT);
    }
    decorate(&mut answer, output.add_response_headers, output.remove_response_headers);
    Ok(Verdict::Respond(Box::new(answer)))
}

fn redirect(output: Output, tags: Vec<String>) -> Result<Verdict, OutputError> {
    let url = output.body.filter(|url| !url.is_empty()).ok_or(OutputError::NoUrl)?;
    let location = HeaderValue::from_str(&url).map_err(|_| EditError::Value("location".to_owned()))?;
    let mut answer = Answer { tags, ..Answer::empty(final_status(output.status.unwrap_or(302))?) };
    answer.body = Some(Bytes::new());
    decorate(&mut answer, output.add_response_headers, output.remove_response_headers);
    answer.head.headers.insert(header::LOCATION, location);
    Ok(Verdict::Respond(Box::new(answer)))
}

fn edits(add: Option<Fields>, remove: Option<Vec<String>>) -> Result<FieldEdits, EditError> {
    let mut edits = FieldEditsBuilder::default();
    for (name, value) in add.iter().flat_map(|fields| &fields.0) {
        edits.set(name, value.as_bytes())?;
    }
    for name in remove.iter().flatten() {
        edits.remove(name)?;
    }
    edits.finish(None)
}

/// Gives an answer the headers that the module wants on it. The decision stands whatever they are: those that
/// can't be are left out, with a tag. (Were they a failure, whoever gets a module to echo a line break into a
/// header could get past a module that fails open.)
fn decorate(answer: &mut Answer, add: Option<Fields>, remove: Option<Vec<String>>) {
    let mut edits = FieldEditsBuilder::default();
    let mut refused = false;
    for (name, value) in add.iter().flat_map(|fields| &fields.0) {
        refused |= edits.set(name, value.as_bytes()).is_err();
    }
    for name in remove.iter().flatten() {
        refused |= edits.remove(name).is_err();
    }
    let (edits, is_whole) = edits.finish_in_part(answer.body.as_ref());
    edits.apply(&mut answer.head.headers);
    if refused || !is_whole {
        answer.tags.insert(0, REFUSED_HEADER.to_owned());
    }
}

/// `{name: value}`, in the order in which it was written.
struct Fields(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of header values by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Fields(fields))
    }
}

#[cfg(test)]
mod tests;
