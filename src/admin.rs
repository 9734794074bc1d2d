//! What the control plane answers: the admin API, one file for each resource, and the questions whose answer
//! takes more than one request's own worker.

pub mod every_worker;
mod metrics;
pub mod models;
pub mod wasm;
mod workers;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_local;

use crate::admission::{Admission, AdmissionCounts};
use crate::fleet::Fleet;
use crate::gateway::control::{AdminCall, ControlCall, Question};
use crate::gateway::error::{ERROR_CODE, codes};
use crate::gateway::metrics::HttpMetrics;
use crate::headers;
use crate::metrics::{Counter, Exposition};
use crate::pressure::{Pressure, Resource};
use crate::registry::Registry;
use crate::snapshot::Publisher;
use crate::trace::Counts;

/// What the answers are made from.
pub struct Admin {
    pub publisher: Arc<Publisher>,
    /// `None` when modules are not enabled.
    pub registry: Option<Arc<Registry>>,
    pub fleet: Rc<Fleet>,
    pub admission: Arc<Admission>,
    pub pressure: Arc<Pressure>,
    /// `None` when no traces are sent.
    pub traces: Option<Arc<Counts>>,
    pub shards: Vec<Arc<HttpMetrics>>,
    pub reloads: Reloads,
}

/// How often another configuration was taken, and how often not.
#[derive(Default)]
pub struct Reloads {
    pub taken: Counter,
    pub refused: Counter,
}

/// Calls that are answered at once; what comes on top waits, and past that is refused.
const MOST_ANSWERED: usize = 64;

impl Admin {
    /// Answers calls until the last shard is gone; each in a task of its own.
    pub async fn run(self: Rc<Self>, mut calls: mpsc::Receiver<ControlCall>) {
        let places = Arc::new(Semaphore::new(MOST_ANSWERED));
        while let Some(ControlCall { question, reply }) = calls.recv().await {
            let admin = self.clone();
            let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
            spawn_local(async move {
                // Whoever asked may have left meanwhile.
                let _ = reply.send(admin.answer(question).await);
                drop(place);
            });
        }
    }

    async fn answer(&self, question: Question) -> Response<Bytes> {
        match question {
            Question::Metrics => self.metrics(),
            Question::Admin(call) => self.resource(call).await,
        }
    }

    /// Deploys one module object as `POST /wasm` takes it; the text says why not.
    pub async fn deploy(&self, module: &Value) -> Result<(), String> {
        let registry = self.registry.as_ref().ok_or("modules are not enabled")?;
        let answer = wasm::deploy(registry, json!({"modules": [module]}).to_string().as_bytes()).await;
        if answer.status() == StatusCode::OK {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(answer.body()).into_owned())
        }
    }

    /// `/metrics`
    pub fn metrics(&self) -> Response<Bytes> {
        metrics::scrape(self)
    }

    async fn resource(&self, call: AdminCall) -> Response<Bytes> {
        let (method, path) = (&call.method, call.path.as_str());
        if takes_body(method, path) && !is_json(&call.headers) {
            let why = "the content type must be application/json";
            return error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", why);
        }
        if let Some(below) = path.strip_prefix("/workers") {
            return workers::answer(&self.fleet, &call, below);
        }
        let below = path.strip_prefix("/wasm").unwrap_or_default();
        let Some(registry) = &self.registry else {
            let why = "WebAssembly modules are not enabled; start the gateway with --enable-wasm";
            return error(StatusCode::SERVICE_UNAVAILABLE, "wasm_not_enabled", why);
        };
        match (method, below.strip_prefix('/')) {
            (&Method::GET, None) => wasm::list(registry),
            (&Method::POST, None) => wasm::deploy(registry, &call.body).await,
            (&Method::GET, Some(id)) => wasm::show(registry, id),
            (&Method::DELETE, Some(id)) => wasm::remove(registry, id),
            (_, None) => method_not_allowed("GET, POST"),
            (_, Some(_)) => method_not_allowed("GET, DELETE"),
        }
    }

    /// What is in flight, and what waits or was turned away.
    fn expose_admission(&self, exposition: &mut Exposition) {
        let gauge =
            |exposition: &mut Exposition, name, help, value: u32| exposition.gauge(name, help, &[], value.into());
        let admission = &self.admission;
        gauge(
            exposition,
            "smg_admission_inflight",
            "Requests that are admitted and not complete.",
            admission.in_flight(),
        );
        gauge(exposition, "smg_admission_queue_depth", "Requests that wait to be admitted.", admission.waiting());
        let sum = |count: fn(&AdmissionCounts) -> &Counter| -> u64 {
            self.shards.iter().map(|shard| count(&shard.admission).get()).sum()
        };
        let (name, help) = ("smg_admission_rejected_total", "Requests that were not admitted.");
        for (reason, count) in [("queue_full", sum(|c| &c.queue_full)), ("queue_timeout", sum(|c| &c.queue_timeout))] {
            exposition.counter(name, help, &[("reason", reason)], count as f64);
        }
        for resource in [Resource::Memory, Resource::Descriptors] {
            let (labels, share) = ([("resource", resource.label())], self.pressure.share_of(resource));
            exposition.gauge("smg_pressure_ratio", "Share of a resource that is used.", &labels, share);
        }
        let queued = sum(|counts| &counts.queued) as f64;
        exposition.counter("smg_admission_queued_total", "Requests that had to wait.", &[], queued);
    }
}

/// Whether the resource has this method, with a body. For those that it does not have the answer is 405.
fn takes_body(method: &Method, path: &str) -> bool {
    match path.strip_prefix("/workers").or_else(|| path.strip_prefix("/wasm")) {
        Some("") => *method == Method::POST,
        _ => path.starts_with("/workers/") && matches!(*method, Method::PUT | Method::PATCH),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers::media_type(headers).is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/json"))
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn json(status: StatusCode, value: &Value) -> Response<Bytes> {
    answer(status, "application/json", value.to_string())
}

fn error(status: StatusCode, code: &'static str, message: &str) -> Response<Bytes> {
    let value = json!({"error": {"type": "admin_error", "code": code, "message": message, "param": null}});
    coded(json(status, &value), code)
}

/// Marks an answer as an error, as the gateway's own are.
fn coded(mut answer: Response<Bytes>, code: &'static str) -> Response<Bytes> {
    debug_assert!(codes::find(code).is_some(), "{code} is not in the table of codes");
    answer.headers_mut().insert(&ERROR_CODE, HeaderValue::from_static(code));
    answer
}

fn method_not_allowed(allowed: &'static str) -> Response<Bytes> {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this method is not allowed here");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}
