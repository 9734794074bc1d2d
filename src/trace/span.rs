//! What is noted of a request while it goes on: plain values in the record of one request, without locks.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::context::{SpanId, TraceId};

/// Bytes that are kept of one text from outside.
const MAX_TEXT: usize = 512;

/// The numbers are those of OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// A module's call.
    Internal = 1,
    /// The request.
    Server = 2,
    /// An attempt at a worker.
    Client = 3,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Static(&'static str),
    Shared(Arc<str>),
    Text(String),
    Int(i64),
}

impl Value {
    /// Text from outside: bounded, and made UTF-8.
    pub fn text(bytes: &[u8]) -> Self {
        Self::Text(String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT)]).into_owned())
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Static(text)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Int(number.into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

/// A name by the OpenTelemetry semantic conventions, and a value.
pub type Attribute = (&'static str, Value);

/// Something that happened at one moment of a span.
#[derive(Debug, Clone)]
pub struct Event {
    pub name: &'static str,
    pub at: Instant,
    pub attributes: Vec<Attribute>,
}

#[derive(Debug, Clone)]
pub struct Span {
    pub id: SpanId,
    pub parent: Option<SpanId>,
    pub kind: SpanKind,
    pub name: Cow<'static, str>,
    pub start: Instant,
    /// `None` while it goes on; the request's end is its end at the latest.
    pub end: Option<Instant>,
    pub is_error: bool,
    pub attributes: Vec<Attribute>,
    pub events: Vec<Event>,
}

impl Span {
    pub fn begin(kind: SpanKind, name: impl Into<Cow<'static, str>>, id: SpanId, parent: Option<SpanId>) -> Self {
        let (attributes, events) = (Vec::new(), Vec::new());
        let start = Instant::now();
        Self { id, parent, kind, name: name.into(), start, end: None, is_error: false, attributes, events }
    }

    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.attributes.push((name, value.into()));
    }

    /// Marks it as failed, by a word of a small vocabulary.
    pub fn failed(&mut self, why: impl Into<Value>) {
        self.is_error = true;
        self.set("error.type", why);
    }
}

/// Two clocks read at once: spans are timed by the one that never goes back, and told by the other.
#[derive(Debug, Clone, Copy)]
pub struct Epoch {
    at: Instant,
    unix_ns: u64,
}

impl Epoch {
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { at: Instant::now(), unix_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// Nanoseconds since the Unix epoch, of a moment that is not before this one.
    pub fn unix_ns(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.at).as_nanos();
        self.unix_ns.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

/// All spans of one request, as its record hands them over.
#[derive(Debug)]
pub struct RequestSpans {
    pub trace: TraceId,
    pub epoch: Epoch,
    pub end: Instant,
    pub spans: Vec<Span>,
}
