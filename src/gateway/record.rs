//! What is known of one request: written once, when its answer's body ends, as a log line and as metrics.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, Method, StatusCode, Uri, Version, header};

use super::metrics::{Answered, HttpMetrics};
use super::upload::Upload;
use crate::access_log::{AccessLog, Entry};
use crate::client::Client;
use crate::headers;
use crate::http1::head::Request;
use crate::keys::Key;
use crate::modules::Visit;
use crate::routes::Label;
use crate::telemetry::ModuleRun;
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
    modules: Vec<ModuleRun>,
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
    metrics: Arc<HttpMetrics>,
    log: AccessLog,
    /// Answers that were not sent to their end, to be set back by whoever reads it.
    pub broken_off: Cell<usize>,
}

impl Ledger {
    pub fn new(metrics: Arc<HttpMetrics>, log: AccessLog) -> Self {
        Self { metrics, log, broken_off: Cell::default() }
    }
}

/// What the log shows of a request's fields, if it does.
struct Asked {
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    correlation_id: Option<HeaderValue>,
}

impl Record {
    /// In a box: it is moved often on its way into the answer's body, and it is large.
    pub fn open(
        request_id: HeaderValue,
        client: &Client,
        method: &Method,
        uri: &Uri,
        ledger: &Rc<Ledger>,
    ) -> Box<Self> {
        Box::new(Self {
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
        })
    }

    /// What is known of a request besides its first line.
    pub fn note(&mut self, request: &Request) {
        self.protocol = match request.version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_11 => "1.1",
            _ => "2",
        };
        let log = &self.ledger.log;
        let correlation_id = if log.shows_correlation_id { headers::correlation_id(&request.headers) } else { None };
        if log.shows_headers || correlation_id.is_some() {
            let get = |name| request.headers.get(name).cloned();
            let host = request.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
            let (user_agent, referer) = (get(header::USER_AGENT), get(header::REFERER));
            let (host, correlation_id) = (host.or_else(|| get(header::HOST)), correlation_id.cloned());
            self.asked = Some(Box::new(Asked { host, user_agent, referer, correlation_id }));
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

    /// So many workers were asked at once.
    pub fn asked(&mut self, workers: u32) {
        self.attempts += workers;
    }

    /// This one's answer is passed on.
    pub fn answered_by(&mut self, worker: &Arc<Worker>) {
        self.worker = Some(worker.clone());
    }

    /// The modules that ran, and the tags that they left.
    pub fn visited(&mut self, visit: &mut Visit) {
        self.modules = visit.runs();
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
            correlation_id: text(|asked| &asked.correlation_id),
        };
        log.write(&entry, SystemTime::now());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let took = self.start.elapsed();
        if self.end != End::Complete {
            self.ledger.broken_off.set(self.ledger.broken_off.get() + 1);
        }
        self.log(took);
        self.ledger.metrics.count(&Answered {
            method: &self.method,
            path: self.uri.path(),
            status: self.status,
            error_code: self.error_code,
            to_body: self.to_body.unwrap_or(took),
            total: took,
        });
        if let Some(trace) = self.trace.take() {
            trace.finish(&Summary {
                method: &self.method,
                uri: &self.uri,
                scheme: if self.tls.is_empty() { "http" } else { "https" },
                route: Some(Label::of(self.uri.path())).filter(|label| *label != Label::OTHER).map(Label::text),
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
