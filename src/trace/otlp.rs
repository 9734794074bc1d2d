//! Spans as OTLP/JSON: the JSON mapping of `opentelemetry/proto/collector/trace/v1/trace_service.proto`, with ids
//! in hexadecimal and 64-bit numbers as strings (OTLP specification, "JSON Protobuf Encoding").
//!
//! The `opentelemetry` crates would add 17 crates, second versions of `getrandom` and `itertools` among them, and send from
//! a thread of their own that has no tokio; this is what is needed of them.

use std::time::Instant;

use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};

use super::context::{SpanId, TraceId};
use super::span::{Attribute, Event, RequestSpans, Span, Value};

/// `SpanFlags`: it is known whether the parent is remote (bit 8), and it is (bit 9); the low byte is W3C's.
const PARENT_IS_KNOWN: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;
const SAMPLED: u32 = 1;
/// `Status.code`
const STATUS_ERROR: u8 = 2;

/// One `ExportTraceServiceRequest`. `resource` are the attributes of this gateway.
pub fn encode(resource: &[(String, String)], batch: &[RequestSpans]) -> Vec<u8> {
    serde_json::to_vec(&Export { resource, batch }).expect("maps have text for keys, and memory can be written to")
}

struct Export<'a> {
    resource: &'a [(String, String)],
    batch: &'a [RequestSpans],
}

impl Serialize for Export<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let resource = One("resource", One("attributes", Each(|| self.resource.iter().map(KeyText))));
        let scope = One("scope", Scope);
        let spans = || self.batch.iter().flat_map(|of| of.spans.iter().map(move |span| Placed { span, of }));
        let scoped = [Two(scope, One("spans", Each(spans)))];
        One("resourceSpans", [Two(resource, One("scopeSpans", scoped))]).serialize(serializer)
    }
}

/// An object of one field.
struct One<T>(&'static str, T);

impl<T: Serialize> Serialize for One<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(1))?;
        object.serialize_entry(self.0, &self.1)?;
        object.end()
    }
}

/// An object of two fields.
struct Two<A, B>(One<A>, One<B>);

impl<A: Serialize, B: Serialize> Serialize for Two<A, B> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(2))?;
        object.serialize_entry(self.0.0, &self.0.1)?;
        object.serialize_entry(self.1.0, &self.1.1)?;
        object.end()
    }
}

/// An array of what the function lists.
struct Each<F>(F);

impl<F, I> Serialize for Each<F>
where
    F: Fn() -> I,
    I: Iterator<Item: Serialize>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

struct Scope;

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Two(One("name", env!("CARGO_PKG_NAME")), One("version", env!("CARGO_PKG_VERSION"))).serialize(serializer)
    }
}

struct KeyText<'a>(&'a (String, String));

impl Serialize for KeyText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Two(One("key", &self.0.0), One("value", One("stringValue", &self.0.1))).serialize(serializer)
    }
}

struct KeyValue<'a>(&'a Attribute);

impl Serialize for KeyValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (key, value) = self.0;
        Two(One("key", key), One("value", value)).serialize(serializer)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Static(text) => One("stringValue", *text).serialize(serializer),
            Value::Shared(text) => One("stringValue", &**text).serialize(serializer),
            Value::Text(text) => One("stringValue", text.as_str()).serialize(serializer),
            Value::Int(number) => One("intValue", Text(number)).serialize(serializer),
        }
    }
}

/// A number as a string.
struct Text<T>(T);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Serialize for TraceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.hex()).expect("hexadecimal digits"))
    }
}

impl Serialize for SpanId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.hex()).expect("hexadecimal digits"))
    }
}

/// A span with what it shares with the others of its request.
struct Placed<'a> {
    span: &'a Span,
    of: &'a RequestSpans,
}

impl Placed<'_> {
    fn time(&self, at: Instant) -> Text<u64> {
        Text(self.of.epoch.unix_ns(at))
    }

    fn flags(&self) -> u32 {
        let is_local = |id| self.of.spans.iter().any(|span| span.id == id);
        match self.span.parent {
            Some(parent) if !is_local(parent) => SAMPLED | PARENT_IS_KNOWN | PARENT_IS_REMOTE,
            _ => SAMPLED | PARENT_IS_KNOWN,
        }
    }
}

impl Serialize for Placed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let span = self.span;
        let mut object = serializer.serialize_struct("Span", 11)?;
        object.serialize_field("traceId", &self.of.trace)?;
        object.serialize_field("spanId", &span.id)?;
        if let Some(parent) = &span.parent {
            object.serialize_field("parentSpanId", parent)?;
        }
        object.serialize_field("flags", &self.flags())?;
        object.serialize_field("name", &span.name)?;
        object.serialize_field("kind", &(span.kind as u8))?;
        object.serialize_field("startTimeUnixNano", &self.time(span.start))?;
        object.serialize_field("endTimeUnixNano", &self.time(span.end.unwrap_or(self.of.end)))?;
        object.serialize_field("attributes", &Each(|| span.attributes.iter().map(KeyValue)))?;
        object.serialize_field("events", &Each(|| span.events.iter().map(|event| (self, event)).map(PlacedEvent)))?;
        if span.is_error {
            object.serialize_field("status", &One("code", STATUS_ERROR))?;
        }
        object.end()
    }
}

struct PlacedEvent<'a>((&'a Placed<'a>, &'a Event));

impl Serialize for PlacedEvent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (placed, event) = self.0;
        let mut object = serializer.serialize_struct("Event", 3)?;
        object.serialize_field("timeUnixNano", &placed.time(event.at))?;
        object.serialize_field("name", event.name)?;
        object.serialize_field("attributes", &Each(|| event.attributes.iter().map(KeyValue)))?;
        object.end()
    }
}
