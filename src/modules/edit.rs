//! What a hook may change of a message, checked while it is put together: names, values, framing, size.

use std::fmt;

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Header lines that one edit may set and add.
const MAX_EDIT_LINES: usize = 256;
/// Bytes of names and values that one edit may set and add.
const MAX_EDIT_BYTES: usize = 65_536;

/// Tags that one verdict may leave, and bytes of one.
const MAX_TAGS: usize = 32;
const MAX_TAG_BYTES: usize = 128;

/// Header lines, and bytes of their names and values, that a head may have after an edit.
const MAX_HEAD_LINES: usize = 512;
const MAX_HEAD_BYTES: usize = 262_144;

/// What a guest asks to change; already checked as a whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Edit {
    pub status: Option<StatusCode>,
    pub fields: FieldEdits,
    pub body: Option<Bytes>,
    /// Said on a request: what to change about its answer, whoever gives it.
    pub of_answer: FieldEdits,
    /// For the request's log line and the metrics.
    pub tags: Vec<String>,
}

impl Edit {
    /// Whether it only leaves tags.
    pub fn changes_nothing(&self) -> bool {
        let Self { status, fields, body, of_answer, tags: _ } = self;
        status.is_none() && body.is_none() && fields.is_empty() && of_answer.is_empty()
    }
}

/// Changes to header fields. Applied in the order set, add, remove.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FieldEdits {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

/// Why an edit was refused. One bad part refuses it all: a half-applied policy is worse than none.
#[derive(Debug, PartialEq, Eq)]
pub enum EditError {
    Name(String),
    Value(String),
    Framing(HeaderName),
    Status(u16),
    TooManyHeaders,
    HeadTooLarge,
    BodyTooLarge { bytes: usize, limit: u64 },
    BodyOnStream,
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name:?} is not a header name"),
            Self::Value(name) => write!(f, "the value for header {name:?} is not valid"),
            Self::Framing(name) => write!(f, "header {name} belongs to the gateway"),
            Self::Status(status) => write!(f, "status {status} is not from 200 to 599"),
            Self::TooManyHeaders => write!(f, "more than {MAX_EDIT_LINES} headers or {MAX_EDIT_BYTES} bytes of them"),
            Self::HeadTooLarge => {
                write!(f, "the head would have more than {MAX_HEAD_LINES} headers or {MAX_HEAD_BYTES} bytes")
            }
            Self::BodyTooLarge { bytes, limit } => write!(f, "a body of {bytes} bytes is over the limit of {limit}"),
            Self::BodyOnStream => write!(f, "the body of a streamed answer can't be replaced"),
        }
    }
}

impl std::error::Error for EditError {}

/// Checks untrusted changes to header fields while they are put together.
#[derive(Default)]
pub struct FieldEditsBuilder {
    edits: FieldEdits,
    content_length: Option<HeaderValue>,
    lines: usize,
    bytes: usize,
}

impl FieldEditsBuilder {
    pub fn set(&mut self, name: &str, value: &[u8]) -> Result<(), EditError> {
        if let Some(field) = self.field(name, value)? {
            self.edits.set.push(field);
        }
        Ok(())
    }

    pub fn add(&mut self, name: &str, value: &[u8]) -> Result<(), EditError> {
        if let Some(field) = self.field(name, value)? {
            self.edits.add.push(field);
        }
        Ok(())
    }

    /// Removing what belongs to the gateway asks for nothing: it is written anew anyway.
    pub fn remove(&mut self, name: &str) -> Result<(), EditError> {
        self.count(name.len())?;
        let name = header_name(name)?;
        if !belongs_to_gateway(&name) {
            self.edits.remove.push(name);
        }
        Ok(())
    }

    /// `body` is the one that comes with these fields, if the guest gave one.
    pub fn finish(self, body: Option<&Bytes>) -> Result<FieldEdits, EditError> {
        if self.has_wrong_length(body) {
            return Err(EditError::Framing(header::CONTENT_LENGTH));
        }
        Ok(self.edits)
    }

    /// What could be taken over, and whether that is all that the guest asked for.
    pub fn finish_in_part(self, body: Option<&Bytes>) -> (FieldEdits, bool) {
        let is_whole = !self.has_wrong_length(body);
        (self.edits, is_whole)
    }

    fn has_wrong_length(&self, body: Option<&Bytes>) -> bool {
        let Some(said) = &self.content_length else { return false };
        body.is_none_or(|body| said.as_bytes() != body.len().to_string().as_bytes())
    }

    /// A `Content-Length` is let pass, and written by us, when it is the length of the guest's body.
    fn field(&mut self, name: &str, value: &[u8]) -> Result<Option<(HeaderName, HeaderValue)>, EditError> {
        self.count(name.len() + value.len())?;
        let field = (header_name(name)?, HeaderValue::from_bytes(value).map_err(|_| EditError::Value(shorten(name)))?);
        if field.0 == header::CONTENT_LENGTH {
            self.content_length = Some(field.1);
            return Ok(None);
        }
        if belongs_to_gateway(&field.0) {
            return Err(EditError::Framing(field.0));
        }
        Ok(Some(field))
    }

    fn count(&mut self, bytes: usize) -> Result<(), EditError> {
        self.lines += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.lines > MAX_EDIT_LINES || self.bytes > MAX_EDIT_BYTES {
            return Err(EditError::TooManyHeaders);
        }
        Ok(())
    }
}

/// The body that a guest gives, within its limit.
pub fn bounded_body(body: impl Into<Bytes>, limit: u64) -> Result<Bytes, EditError> {
    let body = body.into();
    if body.len() as u64 > limit {
        return Err(EditError::BodyTooLarge { bytes: body.len(), limit });
    }
    Ok(body)
}

/// The tags that a guest leaves, cut to the bounds: a decision must not depend on what is said about it.
pub fn bounded_tags(mut tags: Vec<String>) -> Vec<String> {
    tags.truncate(MAX_TAGS);
    for tag in &mut tags {
        tag.truncate(tag.floor_char_boundary(MAX_TAG_BYTES));
    }
    tags
}

/// A status that can end an exchange: 200 to 599.
pub fn final_status(status: u16) -> Result<StatusCode, EditError> {
    match StatusCode::from_u16(status) {
        Ok(code) if (200..=599).contains(&status) => Ok(code),
        _ => Err(EditError::Status(status)),
    }
}

fn header_name(name: &str) -> Result<HeaderName, EditError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| EditError::Name(shorten(name)))
}

fn shorten(name: &str) -> String {
    name.chars().take(64).collect()
}

/// The fields that frame a message or belong to one connection.
fn belongs_to_gateway(name: &HeaderName) -> bool {
    [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::HOST,
        header::TE,
        header::TRAILER,
    ]
    .contains(name)
        || name == "keep-alive"
        || name == "proxy-connection"
}

impl FieldEdits {
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Whether the head is still of a sane size after the edit; many modules must not add up to what one may
    /// not do. (A header map panics at 32,768 lines.) An edit that adds nothing always fits.
    pub fn check_fits(&self, headers: &HeaderMap) -> Result<(), EditError> {
        if self.set.is_empty() && self.add.is_empty() {
            return Ok(());
        }
        let added = self.set.iter().chain(&self.add);
        let lines = headers.len() + self.set.len() + self.add.len();
        let bytes: usize = headers.iter().chain(added.map(|(name, value)| (name, value))).map(bytes_of).sum();
        if lines > MAX_HEAD_LINES || bytes > MAX_HEAD_BYTES {
            return Err(EditError::HeadTooLarge);
        }
        Ok(())
    }

    /// Set replaces all values, add appends, remove drops all.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

fn bytes_of((name, value): (&HeaderName, &HeaderValue)) -> usize {
    name.as_str().len() + value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(build: impl FnOnce(&mut FieldEditsBuilder) -> Result<(), EditError>) -> Result<FieldEdits, EditError> {
        let mut builder = FieldEditsBuilder::default();
        build(&mut builder)?;
        builder.finish(None)
    }

    #[test]
    fn set_replaces_then_add_appends_then_remove_drops() {
        let mut headers = HeaderMap::new();
        headers.append("a", HeaderValue::from_static("1"));
        headers.append("a", HeaderValue::from_static("2"));
        headers.append("b", HeaderValue::from_static("3"));
        let edit = built(|edit| {
            edit.set("A", b"9")?;
            edit.add("a", b"10")?;
            edit.add("c", b"\xff")?;
            edit.remove("b")
        });
        edit.expect("a good edit").apply(&mut headers);
        assert_eq!(headers.get_all("a").iter().collect::<Vec<_>>(), ["9", "10"]);
        assert!(headers.get("b").is_none() && headers["c"].as_bytes() == b"\xff");
    }

    #[test]
    fn bad_names_and_values_refuse_the_edit() {
        for name in ["", " ", "a b", ":path", "a\r\nb", "ä", "a\0"] {
            assert_eq!(built(|edit| edit.set(name, b"v")), Err(EditError::Name(name.into())), "{name:?}");
            assert_eq!(built(|edit| edit.remove(name)), Err(EditError::Name(name.into())), "{name:?}");
        }
        for value in [&b"a\r\nb: c"[..], b"\n", b"\0", b"\x7f"] {
            assert_eq!(built(|edit| edit.add("a", value)), Err(EditError::Value("a".into())), "{value:?}");
        }
    }

    #[test]
    fn framing_belongs_to_the_gateway() {
        for name in
            ["transfer-encoding", "connection", "upgrade", "host", "te", "trailer", "keep-alive", "Content-Length"]
        {
            assert!(matches!(built(|edit| edit.set(name, b"1")), Err(EditError::Framing(_))), "{name}");
            assert!(built(|edit| edit.remove(name)).expect("a removal").remove.is_empty(), "{name}");
        }
        let mut edits = FieldEditsBuilder::default();
        edits.set("content-length", b"3").expect("a length");
        let right = edits.finish(Some(&Bytes::from_static(b"abc")));
        assert!(right.expect("the right length").is_empty());
    }

    #[test]
    fn only_final_statuses_pass() {
        for status in [0, 99, 100, 101, 199, 600, 999, 65535] {
            assert_eq!(final_status(status), Err(EditError::Status(status)));
        }
        for status in [200, 204, 304, 418, 599] {
            assert_eq!(final_status(status).expect("a status").as_u16(), status);
        }
    }

    #[test]
    fn size_is_bounded() {
        let many = built(|edit| (0..25_000).try_for_each(|at| edit.add(&format!("h{at}"), b"v")));
        assert_eq!(many, Err(EditError::TooManyHeaders));
        let long = built(|edit| edit.set("a", &vec![b'a'; 1 << 20]));
        assert_eq!(long, Err(EditError::TooManyHeaders));
        let edit = built(|edit| (0..200).try_for_each(|at| edit.add(&format!("h{at}"), b"v"))).expect("an edit");
        let mut headers = HeaderMap::new();
        for _ in 0..400 {
            headers.append("a", HeaderValue::from_static("v"));
        }
        assert_eq!(edit.check_fits(&headers), Err(EditError::HeadTooLarge));
        assert_eq!(edit.check_fits(&HeaderMap::new()), Ok(()));
        assert_eq!(bounded_body("abc", 2), Err(EditError::BodyTooLarge { bytes: 3, limit: 2 }));
        assert_eq!(bounded_tags(vec!["t".to_owned(); MAX_TAGS + 1]).len(), MAX_TAGS);
        assert_eq!(bounded_tags(vec!["é".repeat(MAX_TAG_BYTES)]), ["é".repeat(MAX_TAG_BYTES / 2)]);
    }
}
