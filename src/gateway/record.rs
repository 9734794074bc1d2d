//! What is known of one request: written once, when its answer's body ends, as a log line and as metrics.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, Method, StatusCode, Uri, Version, header};
use rustc_hash::FxHashMap;

use super::upload::Upload;
use crate::access_log::{AccessLog, Entry};
use crate::admission::AdmissionCounts;
use crate::client::Client;
use crate::http1::head::Request;
use crate::keys::Key;
use crate::metrics::{Counter, Exposition, Histogram, HistogramTotals, REQUEST_BOUNDS, REQUEST_BUCKETS};
use crate::modules::Visit;
use crate::routes;
use crate::trace::{Summary, Trace};
use crate::workers::Worker;

/// What is counted as the status of a request whose client left before its answer, as others do.
const CLIENT_LEFT: u16 = 499;

/// One request. It ends when it is dropped.
pub struct Record {
    start: Instant,
    pub request_id: HeaderValue,
    /// The client's address, without a port.
    pub client: HeaderValue,
    /// The version of TLS.
    tls: &'static str,
    /// The version of HTTP.
    protocol: &'static str,
    method: Method,
    uri: Uri,
    asked: Option<Box<Asked>>,
    status: StatusCode,
    error_code: &'static str,
    cause: String,
    worker: Option<Arc<Worker>>,
    /// Those that were made at workers.
    attempts: u32,
    /// The model that it names, if somebody has read it.
    pub model: Option<Box<str>>,
    /// Whose request it is.
    pub key: Option<Arc<Key>>,
    modules: Vec<Arc<str>>,
    tags: Vec<Arc<str>>,
    upload: Rc<Upload>,
    sent: u64,
    to_head: Duration,
    /// To the first byte of the answer's body.
    to_body: Option<Duration>,
    end: End,
    pub trace: Option<Trace>,
    ledger: Rc<Ledger>,
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

/// Where the records of a shard are written.
pub struct Ledger {
    pub metrics: Arc<HttpMetrics>,
    pub log: AccessLog,
}

/// What the log shows of a request's fields, if it does.
struct Asked {
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
}

impl Record {
    pub fn open(request_id: HeaderValue, client: &Client, method: &Method, uri: &Uri, ledger: &Rc<Ledger>) -> Self {
        Self {
            start: Instant::now(),
            request_id,
            client: client.address.clone(),
            tls: client.tls,
            protocol: "",
            method: method.clone(),
            uri: uri.clone(),
            asked: None,
            status: StatusCode::from_u16(CLIENT_LEFT).expect("a valid status"),
            error_code: "",
            cause: String::new(),
            worker: None,
            attempts: 0,
            model: None,
            key: None,
            modules: Vec::new(),
            tags: Vec::new(),
            upload: Rc::default(),
            sent: 0,
            to_head: Duration::ZERO,
            to_body: None,
            end: End::ClientLeft,
            trace: None,
            ledger: ledger.clone(),
        }
    }

    /// What is known of a request besides its first line.
    pub fn note(&mut self, request: &Request) {
        self.protocol = match request.version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_11 => "1.1",
            _ => "2",
        };
        if self.ledger.log.shows_headers {
            let get = |name| request.headers.get(name).cloned();
            let host = request.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
            let (user_agent, referer) = (get(header::USER_AGENT), get(header::REFERER));
            self.asked = Some(Box::new(Asked { host: host.or_else(|| get(header::HOST)), user_agent, referer }));
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
        self.attempts = attempt;
        self.worker = Some(worker.clone());
    }

    /// The modules that acted, and the tags that they left.
    pub fn visited(&mut self, visit: &mut Visit) {
        self.modules = visit.acted();
        self.tags = visit.tags();
        if let Some(trace) = &mut self.trace {
            trace.called(visit.calls());
        }
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
        if self.sent == 0 && bytes > 0 {
            self.to_body = Some(self.start.elapsed());
            if let Some(trace) = &mut self.trace {
                trace.first_byte();
            }
        }
        self.sent += bytes as u64;
    }

    pub fn complete(&mut self) {
        self.end = End::Complete;
    }

    pub fn broke(&mut self, why: &'static str) {
        self.end = End::Broke(why);
    }

    fn log(&self, took: Duration) {
        let log = &self.ledger.log;
        if !log.is_on() {
            return;
        }
        let text = |of: fn(&Asked) -> &Option<HeaderValue>| {
            self.asked.as_ref().and_then(|asked| of(asked).as_ref()).map_or(&b""[..], HeaderValue::as_bytes)
        };
        let entry = Entry {
            id: self.request_id.as_bytes(),
            client: self.client.as_bytes(),
            method: self.method.as_str(),
            path: self.uri.path(),
            query: self.uri.query().unwrap_or_default(),
            status: self.status.as_u16(),
            error: self.error_code,
            cause: &self.cause,
            worker: self.worker.as_ref().map_or("", |worker| &worker.label),
            model: self.model.as_deref().unwrap_or_default(),
            key: self.key.as_ref().map_or("", |key| key.label()),
            attempts: self.attempts,
            to_head: self.to_head,
            total: took,
            bytes_in: self.upload.bytes.get(),
            bytes_out: self.sent,
            modules: &self.modules,
            tags: &self.tags,
            end: match self.end {
                End::Complete => "complete",
                End::Broke(why) => why,
                End::ClientLeft => "client_left",
            },
            protocol: self.protocol,
            host: text(|asked| &asked.host),
            user_agent: text(|asked| &asked.user_agent),
            referer: text(|asked| &asked.referer),
            trace_id: self.trace.as_ref().map(Trace::id),
            tls: self.tls,
        };
        log.write(&entry, SystemTime::now());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.start.elapsed();
        self.log(took);
        self.ledger.metrics.count(self, took);
        if let Some(trace) = self.trace.take() {
            trace.finish(&Summary {
                method: &self.method,
                uri: &self.uri,
                scheme: if self.tls.is_empty() { "http" } else { "https" },
                route: Some(routes::label(self.uri.path())).filter(|label| *label != "other"),
                protocol: self.protocol,
                client: &self.client,
                request_id: &self.request_id,
                status: self.status,
                error: match self.end {
                    End::Broke(why) => why,
                    End::Complete | End::ClientLeft => self.error_code,
                },
            });
        }
    }
}

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

/// Labels are ours, not a stranger's: the quick hash will do.
#[derive(Default)]
struct Counts {
    requests: FxHashMap<(&'static str, &'static str), u64>,
    responses: FxHashMap<(&'static str, u16, &'static str), u64>,
    seconds: FxHashMap<&'static str, Seconds>,
}

/// How long the requests of a path took: to the first byte, and to the last.
struct Seconds {
    first: Histogram<16>,
    last: Histogram<16>,
}

impl Default for Seconds {
    fn default() -> Self {
        Self { first: Histogram::new(&REQUEST_BOUNDS), last: Histogram::new(&REQUEST_BOUNDS) }
    }
}

impl HttpMetrics {
    fn count(&self, record: &Record, took: Duration) {
        let path = routes::label(record.uri.path());
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.requests.entry((method_label(&record.method), path)).or_default() += 1;
        *counts.responses.entry((path, record.status.as_u16(), record.error_code)).or_default() += 1;
        let seconds = counts.seconds.entry(path).or_default();
        // Of an answer without a body, its end.
        seconds.first.observe(record.to_body.unwrap_or(took));
        seconds.last.observe(took);
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
    let mut seconds = FxHashMap::<_, [HistogramTotals; 2]>::default();
    let (mut connections, mut forbidden) = (0, 0);
    for shard in shards {
        connections += shard.connections.load(Relaxed);
        forbidden += shard.forbidden_retries.get();
        let counts = shard.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.requests.iter().for_each(|(labels, count)| *requests.entry(*labels).or_default() += count);
        counts.responses.iter().for_each(|(labels, count)| *responses.entry(*labels).or_default() += count);
        for (path, taken) in &counts.seconds {
            let [first, last] = seconds.entry(*path).or_default();
            first.add(&taken.first.totals());
            last.add(&taken.last.totals());
        }
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
    for (path, [first, last]) in seconds {
        let help = "Time of a request, to the first byte of its answer's body.";
        let labels = [("path", path)];
        exposition.histogram("smg_http_time_to_first_byte_seconds", help, &labels, &first, &REQUEST_BUCKETS);
        let help = "Time of a request, to the last byte of its answer.";
        exposition.histogram("smg_http_request_duration_seconds", help, &labels, &last, &REQUEST_BUCKETS);
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
