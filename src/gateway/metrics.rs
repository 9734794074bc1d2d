//! What a shard counts of requests and of clients' connections, and the metrics that become of it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};
use rustc_hash::FxHashMap;

use crate::admission::AdmissionCounts;
use crate::metrics::{Counter, Exposition, Histogram, HistogramTotals, REQUEST_BOUNDS, REQUEST_BUCKETS};
use crate::routes::Label;

/// What is counted of requests, by one shard. The lock is the shard's own: besides it, only a scrape takes it.
#[derive(Default)]
pub struct HttpMetrics {
    counts: Mutex<Counts>,
    pub connections: AtomicU64,
    pub handshakes: Handshakes,
    pub protocols: Protocols,
    /// Attempts that there would have been with a larger budget.
    pub forbidden_retries: Counter,
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

/// Clients' connections by what was spoken on them; those on which nothing came are in none.
#[derive(Default)]
pub struct Protocols {
    pub http1: Counter,
    pub http2: Counter,
}

struct Counts {
    /// At the index of their label.
    paths: [PathCounts; Label::COUNT],
    /// By path, status and error code. They are ours, not a stranger's: the quick hash will do.
    responses: FxHashMap<(Label, u16, &'static str), u64>,
}

/// The requests of a path.
struct PathCounts {
    /// By method, at the positions of [`METHODS`].
    requests: [u64; METHODS.len()],
    /// How long they took, to the first byte and to the last.
    first: Histogram<16>,
    last: Histogram<16>,
}

impl Default for Counts {
    fn default() -> Self {
        let path = |_| PathCounts {
            requests: [0; METHODS.len()],
            first: Histogram::new(&REQUEST_BOUNDS),
            last: Histogram::new(&REQUEST_BOUNDS),
        };
        Self { paths: std::array::from_fn(path), responses: FxHashMap::default() }
    }
}

/// A request that has been answered.
pub struct Answered<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub status: StatusCode,
    /// Empty unless the gateway answered itself because of an error.
    pub error_code: &'static str,
    /// Time to the first byte of the answer's body; of an answer without one, to its end.
    pub to_body: Duration,
    pub total: Duration,
}

impl HttpMetrics {
    pub fn count(&self, request: &Answered) {
        let label = Label::of(request.path);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.responses.entry((label, request.status.as_u16(), request.error_code)).or_default() += 1;
        let path = &mut counts.paths[label.index()];
        path.requests[method_index(request.method)] += 1;
        path.first.observe(request.to_body);
        path.last.observe(request.total);
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

/// The requests of a path on all shards.
#[derive(Default)]
struct PathTotals {
    requests: [u64; METHODS.len()],
    first: HistogramTotals,
    last: HistogramTotals,
}

impl PathTotals {
    fn add(&mut self, counts: &PathCounts) {
        self.requests.iter_mut().zip(&counts.requests).for_each(|(sum, count)| *sum += count);
        self.first.add(&counts.first.totals());
        self.last.add(&counts.last.totals());
    }

    fn expose(&self, label: Label, exposition: &mut Exposition) {
        let path = ("path", label.text());
        for (method, count) in METHODS.iter().zip(&self.requests).filter(|(_, count)| **count > 0) {
            let labels = [("method", *method), path];
            exposition.counter("smg_http_requests_total", "Requests.", &labels, *count as f64);
        }
        let help = "Time of a request, to the first byte of its answer's body.";
        exposition.histogram("smg_http_time_to_first_byte_seconds", help, &[path], &self.first, &REQUEST_BUCKETS);
        let help = "Time of a request, to the last byte of its answer.";
        exposition.histogram("smg_http_request_duration_seconds", help, &[path], &self.last, &REQUEST_BUCKETS);
    }
}

/// Values of the label `method`.
const METHODS: [&str; 8] = ["POST", "GET", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "other"];

fn method_index(method: &Method) -> usize {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1)
}

/// Writes the sum over all shards.
pub fn expose(shards: &[Arc<HttpMetrics>], exposition: &mut Exposition) {
    let mut responses = FxHashMap::<_, u64>::default();
    let (mut connections, mut forbidden) = (0, 0);
    let mut paths: Vec<_> = Label::all().map(|label| (label, PathTotals::default())).collect();
    for shard in shards {
        connections += shard.connections.load(Relaxed);
        forbidden += shard.forbidden_retries.get();
        let counts = shard.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.responses.iter().for_each(|(labels, count)| *responses.entry(*labels).or_default() += count);
        paths.iter_mut().zip(&counts.paths).for_each(|((_, totals), counts)| totals.add(counts));
    }
    for (label, totals) in paths.iter().filter(|(_, totals)| totals.last.count > 0) {
        totals.expose(*label, exposition);
    }
    for ((label, status, code), count) in responses {
        let status = status.to_string();
        let labels = [("path", label.text()), ("status_code", status.as_str()), ("error_code", code)];
        exposition.counter("smg_http_responses_total", "Answers to requests.", &labels, count as f64);
    }
    let help = "Retries that the budget did not allow.";
    exposition.counter("smg_worker_retry_budget_exhausted_total", help, &[], forbidden as f64);
    let help = "Clients' connections that are open.";
    exposition.gauge("smg_http_connections_active", help, &[], connections as f64);
    let sum = |count: fn(&HttpMetrics) -> &Counter| shards.iter().map(|shard| count(shard).get()).sum::<u64>() as f64;
    for (protocol, count) in [("http/1.1", sum(|it| &it.protocols.http1)), ("h2", sum(|it| &it.protocols.http2))] {
        let help = "Clients' connections by the version of HTTP on them.";
        exposition.counter("smg_http_connections_total", help, &[("protocol", protocol)], count);
    }
    for (outcome, count) in [("made", sum(|it| &it.handshakes.made)), ("failed", sum(|it| &it.handshakes.failed))] {
        let help = "TLS handshakes with clients.";
        exposition.counter("smg_tls_handshakes_total", help, &[("outcome", outcome)], count);
    }
}
