//! What is known of one request: written once, when its answer's body ends, as a log line and as metrics.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, StatusCode, Uri};
use rustc_hash::FxHashMap;
use tracing::Level;

use super::upload::Upload;
use crate::admission::AdmissionCounts;
use crate::metrics::{Counter, Exposition, Histogram, HistogramTotals, REQUEST_BOUNDS, REQUEST_BUCKETS};
use crate::routes;
use crate::telemetry::{Millis, Untrusted};
use crate::workers::Worker;

/// What is counted as the status of a request whose client left before its answer, as others do.
const CLIENT_LEFT: u16 = 499;

/// One request. It ends when it is dropped.
pub struct Record {
    start: Instant,
    pub request_id: HeaderValue,
    /// The client's address, without a port.
    pub client: HeaderValue,
    method: Method,
    uri: Uri,
    status: StatusCode,
    error_code: &'static str,
    cause: String,
    worker: Option<Arc<Worker>>,
    modules: Vec<Arc<str>>,
    tags: Vec<Arc<str>>,
    upload: Rc<Upload>,
    sent: u64,
    to_head: Duration,
    end: End,
    metrics: Arc<HttpMetrics>,
}

/// How the answer ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// It was complete.
    Complete,
    /// The worker's or the gateway's part of it failed after the head was sent.
    Broke(&'static str),
    /// The client did not take all of it.
    ClientLeft,
}

impl Record {
    pub fn open(
        request_id: HeaderValue,
        client: HeaderValue,
        method: &Method,
        uri: &Uri,
        metrics: &Arc<HttpMetrics>,
    ) -> Self {
        Self {
            start: Instant::now(),
            request_id,
            client,
            method: method.clone(),
            uri: uri.clone(),
            status: StatusCode::from_u16(CLIENT_LEFT).expect("a valid status"),
            error_code: "",
            cause: String::new(),
            worker: None,
            modules: Vec::new(),
            tags: Vec::new(),
            upload: Rc::default(),
            sent: 0,
            to_head: Duration::ZERO,
            end: End::ClientLeft,
            metrics: metrics.clone(),
        }
    }

    /// Where the request body is counted.
    pub fn upload(&self) -> Rc<Upload> {
        self.upload.clone()
    }

    pub fn start(&self) -> Instant {
        self.start
    }

    /// The attempt with this number goes to `worker`.
    pub fn sent_to(&mut self, worker: &Arc<Worker>, attempt: u32) {
        if attempt > 1 {
            worker.retries.fetch_add(1, Relaxed);
        }
        self.worker = Some(worker.clone());
    }

    /// The modules that acted, and the tags that they left.
    pub fn visited(&mut self, modules: Vec<Arc<str>>, tags: Vec<Arc<str>>) {
        self.modules = modules;
        self.tags = tags;
    }

    /// The gateway answers itself, because of an error.
    pub fn refused(&mut self, code: &'static str, cause: String) {
        self.error_code = code;
        self.cause = cause;
    }

    /// The head of the answer is ready.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = status;
        self.to_head = self.start.elapsed();
    }

    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    pub fn complete(&mut self) {
        self.end = End::Complete;
    }

    pub fn broke(&mut self, why: &'static str) {
        self.end = End::Broke(why);
    }

    fn log(&self, took: Duration) {
        if !tracing::enabled!(target: "smg::access", Level::INFO) {
            return;
        }
        let end = match self.end {
            End::Complete => "complete",
            End::Broke(why) => why,
            End::ClientLeft => "client_left",
        };
        let worker = self.worker.as_ref().map_or("", |worker| &worker.label);
        // No tag may look like two, or like another field.
        let one = |character: char| if character == ',' || character.is_whitespace() { '_' } else { character };
        let tags: Vec<_> = self.tags.iter().map(|tag| tag.chars().map(one).collect::<String>()).collect();
        let (modules, tags) = (self.modules.join(","), tags.join(","));
        tracing::info!(
            target: "smg::access",
            id = %Untrusted(self.request_id.as_bytes()), client = %Untrusted(self.client.as_bytes()), method = %Untrusted(self.method.as_str().as_bytes()),
            path = %Untrusted(self.uri.path().as_bytes()), status = self.status.as_u16(), error = self.error_code, cause = %Untrusted(self.cause.as_bytes()), worker,
            head_ms = %Millis(self.to_head), total_ms = %Millis(took), bytes_in = self.upload.bytes.get(),
            bytes_out = self.sent, modules = %Untrusted(modules.as_bytes()), tags = %Untrusted(tags.as_bytes()), end,
        );
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.start.elapsed();
        self.log(took);
        self.metrics.count(self, took);
    }
}

/// What is counted of requests, by one shard. The lock is the shard's own: besides it, only a scrape takes it.
#[derive(Default)]
pub struct HttpMetrics {
    counts: Mutex<Counts>,
    pub connections: AtomicU64,
    pub handshakes: Handshakes,
    pub admission: AdmissionCounts,
}

/// TLS handshakes with clients.
#[derive(Default)]
pub struct Handshakes {
    made: Counter,
    failed: Counter,
}

impl Handshakes {
    pub fn count(&self, is_made: bool) {
        if is_made { self.made.add(1) } else { self.failed.add(1) }
    }
}

/// Labels are ours, not a stranger's: the quick hash will do.
#[derive(Default)]
struct Counts {
    requests: FxHashMap<(&'static str, &'static str), u64>,
    responses: FxHashMap<(&'static str, u16, &'static str), u64>,
    seconds: FxHashMap<&'static str, Histogram<16>>,
}

impl HttpMetrics {
    fn count(&self, record: &Record, took: Duration) {
        let path = routes::label(record.uri.path());
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.requests.entry((method_label(&record.method), path)).or_default() += 1;
        *counts.responses.entry((path, record.status.as_u16(), record.error_code)).or_default() += 1;
        counts.seconds.entry(path).or_insert_with(|| Histogram::new(&REQUEST_BOUNDS)).observe(took);
    }
}

/// Counts a connection as open while it lives, from the moment it is accepted.
pub struct CountedConnection(Arc<HttpMetrics>);

impl CountedConnection {
    pub fn new(metrics: &Arc<HttpMetrics>) -> Self {
        metrics.connections.fetch_add(1, Relaxed);
        Self(metrics.clone())
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// Writes the sum over all shards.
pub fn expose(shards: &[Arc<HttpMetrics>], exposition: &mut Exposition) {
    let mut requests = FxHashMap::<_, u64>::default();
    let mut responses = FxHashMap::<_, u64>::default();
    let mut seconds = FxHashMap::<_, HistogramTotals>::default();
    let mut connections = 0;
    for shard in shards {
        connections += shard.connections.load(Relaxed);
        let counts = shard.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.requests.iter().for_each(|(labels, count)| *requests.entry(*labels).or_default() += count);
        counts.responses.iter().for_each(|(labels, count)| *responses.entry(*labels).or_default() += count);
        counts.seconds.iter().for_each(|(path, taken)| seconds.entry(*path).or_default().add(&taken.totals()));
    }
    for ((method, path), count) in requests {
        let labels = [("method", method), ("path", path)];
        exposition.counter("smg_http_requests_total", "Requests.", &labels, count as f64);
    }
    for ((path, status, code), count) in responses {
        let status = status.to_string();
        let labels = [("path", path), ("status_code", status.as_str()), ("error_code", code)];
        exposition.counter("smg_http_responses_total", "Answers to requests.", &labels, count as f64);
    }
    for (path, taken) in seconds {
        let help = "Time of a request, to the last byte of its answer.";
        exposition.histogram("smg_http_request_duration_seconds", help, &[("path", path)], &taken, &REQUEST_BUCKETS);
    }
    let help = "Clients' connections that are open.";
    exposition.gauge("smg_http_connections_active", help, &[], connections as f64);
}
