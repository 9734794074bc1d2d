//! Distributed traces: each request is a span of the trace that its caller began, or of a new one, and so are the
//! attempts at workers and the calls of modules within it. Spans go to an OpenTelemetry collector.
//!
//! A shard only adds to a vector in the request's record. When the record ends it is handed to the control plane,
//! without waiting: what doesn't fit into the queue is dropped and counted.

pub mod context;
pub mod export;
mod otlp;
pub mod span;
pub mod target;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::Authority;
use http::{Method, StatusCode, Uri};
use tokio::sync::mpsc;

pub use self::context::TraceId;
use self::context::{TRACEPARENT, TraceContext};
use self::span::{Epoch, Event, RequestSpans, Span, SpanKind, Value};
use crate::metrics::Exposition;

/// Spans of one request that are kept: a chain can be long, and a queue of such requests must stay bounded.
const MOST_SPANS: usize = 128;

/// What shards hand spans to. Each shard has its own.
#[derive(Clone)]
pub struct Tracer {
    /// Of the requests that come without a trace, the part that is recorded: 0 to 1.
    sample_ratio: f64,
    queue: mpsc::Sender<RequestSpans>,
    counts: Arc<Counts>,
}

/// What became of spans. Written once for each request at most, and only when it is recorded.
#[derive(Debug, Default)]
pub struct Counts {
    pub exported: AtomicU64,
    /// The queue was full.
    pub dropped: AtomicU64,
    /// The collector didn't take them.
    pub failed: AtomicU64,
}

impl Counts {
    pub fn expose(&self, exposition: &mut Exposition) {
        let help = "Spans that were exported, dropped because too many waited, or refused.";
        for (outcome, count) in [("exported", &self.exported), ("dropped", &self.dropped), ("failed", &self.failed)] {
            let count = count.load(Relaxed) as f64;
            exposition.counter("smg_trace_spans_total", help, &[("outcome", outcome)], count);
        }
    }
}

impl Tracer {
    /// Takes a request into the trace that its headers name, or into a new one, and tells that to whoever reads them
    /// next. Whether it is recorded is the caller's decision, if there is one.
    pub fn begin(self: &Rc<Self>, headers: &mut HeaderMap) -> Trace {
        let parent = TraceContext::take_up(headers);
        let context = match parent {
            // Nobody will see a span of ours: the worker is the caller's child.
            Some(parent) if !parent.is_sampled() => return Trace { context: parent, recording: None },
            Some(parent) => parent.child(),
            None => TraceContext::root(|| fastrand::f64() < self.sample_ratio),
        };
        headers.insert(&TRACEPARENT, context.header());
        let recording = context.is_sampled().then(|| {
            let mut request = Span::begin(SpanKind::Server, "", context.span, parent.map(|parent| parent.span));
            note_headers(&mut request, headers);
            Box::new(Recording { tracer: self.clone(), epoch: Epoch::now(), request, parts: Vec::new(), attempts: 0 })
        });
        Trace { context, recording }
    }

    fn hand_over(&self, spans: RequestSpans) {
        let count = spans.spans.len() as u64;
        if self.queue.try_send(spans).is_err() {
            self.counts.dropped.fetch_add(count, Relaxed);
        }
    }
}

/// One request's part in a trace. All but its ids is nothing when it isn't recorded.
pub struct Trace {
    context: TraceContext,
    recording: Option<Box<Recording>>,
}

struct Recording {
    tracer: Rc<Tracer>,
    epoch: Epoch,
    request: Span,
    /// Attempts and calls.
    parts: Vec<Span>,
    attempts: u32,
}

/// Where an attempt goes.
pub struct Target<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    /// `http` or `https`
    pub scheme: &'static str,
    /// Host name or address, IPv6 without brackets.
    pub host: &'a str,
    pub port: u16,
}

/// A call of a guest that has ended.
#[derive(Debug, Clone)]
pub struct ModuleCall {
    pub module: Arc<str>,
    pub hook: &'static str,
    /// `continue`, `modify`, `reject`, or the failure.
    pub verdict: &'static str,
    pub is_failure: bool,
    pub start: Instant,
    pub end: Instant,
}

/// What is known of a request at its end.
pub struct Summary<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    /// `http` or `https`
    pub scheme: &'static str,
    /// The path if it is one of a fixed list.
    pub route: Option<&'static str>,
    /// `1.0`, `1.1` or `2`
    pub protocol: &'static str,
    pub client: &'a HeaderValue,
    pub request_id: &'a HeaderValue,
    pub status: StatusCode,
    /// The gateway's own error, or why the answer broke off; empty if neither.
    pub error: &'static str,
}

impl Trace {
    pub fn id(&self) -> TraceId {
        self.context.trace
    }

    /// Whether somebody will see what is noted.
    pub fn is_recorded(&self) -> bool {
        self.recording.is_some()
    }

    /// An attempt at a worker begins, whose request has these headers.
    pub fn attempt(&mut self, target: &Target, headers: &mut HeaderMap) {
        let Some(recording) = &mut self.recording else { return };
        let context = self.context.child();
        headers.insert(&TRACEPARENT, context.header());
        let name = method_name(target.method).unwrap_or("HTTP");
        let mut span = Span::begin(SpanKind::Client, name, context.span, Some(self.context.span));
        note_method(&mut span, target.method);
        let brackets = if target.host.contains(':') { ["[", "]"] } else { ["", ""] };
        let Target { scheme, host, port, .. } = target;
        // Without the query, which may hold keys.
        let url = format!("{scheme}://{}{host}{}:{port}{}", brackets[0], brackets[1], target.uri.path());
        span.set("url.full", Value::text(url.as_bytes()));
        span.set("server.address", Value::text(host.as_bytes()));
        span.set("server.port", *port);
        if recording.attempts > 0 {
            span.set("http.request.resend_count", recording.attempts);
        }
        recording.attempts += 1;
        recording.add(span);
    }

    /// The worker answered. The attempt goes on to the end of the body.
    pub fn attempt_answered(&mut self, status: StatusCode) {
        let Some(span) = self.last_attempt() else { return };
        note_status(span, status);
        if status.is_client_error() || status.is_server_error() {
            span.failed(status_text(status));
        }
    }

    /// The worker gave no answer; `why` is the code of the error.
    pub fn attempt_failed(&mut self, why: &'static str) {
        let Some(span) = self.last_attempt() else { return };
        span.end = Some(Instant::now());
        span.failed(why);
    }

    /// Another attempt will be made, because of `why`.
    pub fn retry(&mut self, why: &'static str) {
        self.event("retry", |attempts| vec![("error.type", why.into()), ("smg.attempts", attempts.into())]);
    }

    /// The first of the answer's body is on its way to the client.
    pub fn first_byte(&mut self) {
        self.event("first_byte", |_| Vec::new());
    }

    pub fn called(&mut self, calls: Vec<ModuleCall>) {
        let Some(recording) = &mut self.recording else { return };
        for call in calls {
            let id = context::SpanId::random();
            let name = format!("{} {}", call.module, call.hook);
            let mut span = Span::begin(SpanKind::Internal, name, id, Some(self.context.span));
            (span.start, span.end) = (call.start, Some(call.end));
            span.set("smg.module.name", Value::Shared(call.module));
            span.set("smg.module.hook", call.hook);
            span.set("smg.module.verdict", call.verdict);
            if call.is_failure {
                span.failed(call.verdict);
            }
            recording.add(span);
        }
    }

    /// Hands everything over.
    pub fn finish(self, summary: &Summary) {
        let Some(recording) = self.recording else { return };
        let Recording { tracer, epoch, mut request, parts: mut spans, .. } = *recording;
        note_summary(&mut request, summary);
        spans.push(request);
        tracer.hand_over(RequestSpans { trace: self.context.trace, epoch, end: Instant::now(), spans });
    }

    fn last_attempt(&mut self) -> Option<&mut Span> {
        let parts = &mut self.recording.as_mut()?.parts;
        parts.iter_mut().rfind(|span| span.kind == SpanKind::Client && span.end.is_none())
    }

    fn event(&mut self, name: &'static str, attributes: impl FnOnce(u32) -> Vec<span::Attribute>) {
        let Some(recording) = &mut self.recording else { return };
        let attributes = attributes(recording.attempts);
        recording.request.events.push(Event { name, at: Instant::now(), attributes });
    }
}

impl Recording {
    fn add(&mut self, span: Span) {
        if self.parts.len() < MOST_SPANS {
            self.parts.push(span);
        }
    }
}

fn note_headers(span: &mut Span, headers: &HeaderMap) {
    if let Some(agent) = headers.get(header::USER_AGENT) {
        span.set("user_agent.original", Value::text(agent.as_bytes()));
    }
    if let Some(host) = headers.get(header::HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok()) {
        span.set("server.address", Value::text(host.host().trim_matches(['[', ']']).as_bytes()));
        if let Some(port) = host.port_u16() {
            span.set("server.port", port);
        }
    }
}

fn note_summary(span: &mut Span, summary: &Summary) {
    let method = method_name(summary.method).unwrap_or("HTTP");
    span.name = match summary.route {
        Some(route) => format!("{method} {route}").into(),
        None => method.into(),
    };
    note_method(span, summary.method);
    span.set("url.scheme", summary.scheme);
    span.set("url.path", Value::text(summary.uri.path().as_bytes()));
    if let Some(route) = summary.route {
        span.set("http.route", route);
    }
    span.set("network.protocol.version", summary.protocol);
    span.set("client.address", Value::text(summary.client.as_bytes()));
    span.set("smg.request.id", Value::text(summary.request_id.as_bytes()));
    note_status(span, summary.status);
    match summary.error {
        // What the client did wrong is no error of the server's span.
        _ if summary.status.is_client_error() => {}
        "" if summary.status.is_server_error() => span.failed(status_text(summary.status)),
        "" => {}
        error => span.failed(error),
    }
}

fn note_status(span: &mut Span, status: StatusCode) {
    span.set("http.response.status_code", status.as_u16());
}

fn status_text(status: StatusCode) -> Value {
    Value::text(status.as_str().as_bytes())
}

fn note_method(span: &mut Span, method: &Method) {
    span.set("http.request.method", method_name(method).unwrap_or("_OTHER"));
    if method_name(method).is_none() {
        span.set("http.request.method_original", Value::text(method.as_str().as_bytes()));
    }
}

/// Methods that the semantic conventions name; names of spans and methods must be few.
fn method_name(method: &Method) -> Option<&'static str> {
    const KNOWN: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str())
}

#[cfg(test)]
mod tests;
