//! An OpenTelemetry collector: it keeps the spans that it is sent (OTLP over HTTP with JSON).

use super::wait::eventually;
use super::worker::Worker;
use serde_json::Value;
use std::time::Duration;

pub struct Collector(Worker);

/// One span, as it came.
#[derive(Clone, Debug)]
pub struct Span(Value);

impl Collector {
    pub fn start() -> Self {
        Collector(Worker::new(|_, conn| conn.answer_json(&serde_json::json!({}))))
    }

    pub fn url(&self) -> String {
        self.0.url()
    }

    /// Every span so far; each request must have come to where it belongs.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        for request in self.0.requests() {
            assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/v1/traces"));
            let body: Value = serde_json::from_slice(&request.body).expect("JSON");
            for resource in body["resourceSpans"].as_array().expect("a list") {
                for scope in resource["scopeSpans"].as_array().expect("a list") {
                    spans.extend(scope["spans"].as_array().expect("a list").iter().cloned().map(Span));
                }
            }
        }
        spans
    }

    /// Waits until so many spans are here.
    #[track_caller]
    pub fn wait_for(&self, count: usize) -> Vec<Span> {
        eventually(Duration::from_secs(10), || self.spans().len() >= count);
        self.spans()
    }
}

impl Span {
    /// A field that is a text, such as `traceId`; empty if it is not there.
    pub fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    /// 2 for what a caller asked, 3 for an attempt at a worker, 1 within the gateway.
    pub fn kind(&self) -> u64 {
        self.0["kind"].as_u64().expect("a span has a kind")
    }

    /// An attribute's value as text, whatever its type is; empty if it is not there.
    pub fn attribute(&self, key: &str) -> String {
        let all = self.0["attributes"].as_array().map(Vec::as_slice).unwrap_or_default();
        let value = all.iter().find(|one| one["key"] == key).and_then(|one| one["value"].as_object()?.values().next());
        value.map_or_else(String::new, |value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }
}
