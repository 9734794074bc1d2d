//! Operations that mean all workers: `POST /flush_cache`, `/start_profile` and `/stop_profile`, `GET /get_loads` and
//! `/engine_metrics`. Each worker is asked, and the answer says what each said. It has the shape of Shepherd Model
//! Gateway's where that has one.
//!
//! What changes something at a worker goes to all workers, for one that is not healthy may be so again; what reads goes
//! to the healthy ones. If one fails, the whole is no success: 502 with the same details.

mod exposition;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{spawn_blocking, spawn_local};

use super::{error, method_not_allowed};
use crate::config::WorkerUrl;
use crate::gateway::control::OperationCall;
use crate::gateway::error::ERROR_CODE;
use crate::metrics::TEXT_FORMAT;
use crate::snapshot::{Publisher, Snapshot};
use crate::telemetry;
use crate::workers::connector::Connector;
use crate::workers::{Worker, client};

/// Operations that are under way; as many as [`MOST_WAITING`] wait.
const MOST_AT_ONCE: usize = 4;
pub const MOST_WAITING: usize = 16;
/// Workers that one operation asks at once.
const MOST_ASKED: usize = 32;
/// Bytes of all workers' answers that are kept.
const MOST_KEPT: usize = 64 << 20;

/// Carries out what callers of the admin API ask for, for as long as anybody can. Workers may take long for it, so these
/// calls wait for each other and not for those to the rest of the admin API.
pub async fn answer(publisher: Arc<Publisher>, mut calls: mpsc::Receiver<OperationCall>) {
    let places = Arc::new(Semaphore::new(MOST_AT_ONCE));
    while let Some(call) = calls.recv().await {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let snapshot = publisher.current();
        spawn_local(async move {
            let answer = carry_out(&snapshot, &call).await;
            // Whoever asked may have left meanwhile.
            let _ = call.reply.send(answer);
            drop(place);
        });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    FlushCache,
    StartProfile,
    StopProfile,
    Loads,
    Metrics,
}

impl Operation {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/flush_cache" => Some(Self::FlushCache),
            "/start_profile" => Some(Self::StartProfile),
            "/stop_profile" => Some(Self::StopProfile),
            "/get_loads" => Some(Self::Loads),
            "/engine_metrics" => Some(Self::Metrics),
            _ => None,
        }
    }

    fn reads(self) -> bool {
        matches!(self, Self::Loads | Self::Metrics)
    }

    /// Where workers have it. The next is tried if one answers 404: engines disagree, and so do their versions.
    fn paths(self) -> &'static [&'static str] {
        match self {
            Self::FlushCache => &["/flush_cache"],
            Self::StartProfile => &["/start_profile"],
            Self::StopProfile => &["/stop_profile"],
            Self::Loads => &["/v1/loads?include=core,disagg,queues,memory", "/get_loads", "/get_load"],
            Self::Metrics => &["/metrics"],
        }
    }

    /// The time that a worker has for it.
    fn time(self) -> Duration {
        Duration::from_secs(match self {
            Self::FlushCache => 60,
            // The end of a profile is when it is written.
            Self::StartProfile | Self::StopProfile => 300,
            Self::Loads => 5,
            Self::Metrics => 10,
        })
    }

    /// Bytes of one worker's answer that are read.
    fn most(self) -> usize {
        match self {
            Self::FlushCache | Self::StartProfile | Self::StopProfile => 64 << 10,
            Self::Loads => 1 << 20,
            Self::Metrics => 8 << 20,
        }
    }
}

/// What workers are sent.
struct Question {
    operation: Operation,
    query: Option<String>,
    body: Bytes,
}

/// What a worker said, or why it did not.
struct Told {
    worker: Arc<Worker>,
    said: Result<Response<Bytes>, String>,
}

impl Told {
    fn has_succeeded(&self) -> bool {
        self.said.as_ref().is_ok_and(|answer| answer.status().is_success())
    }

    fn value(&self) -> Value {
        self.said.as_ref().map_or(Value::Null, |answer| {
            let body = &answer.body()[..];
            serde_json::from_slice(body).unwrap_or_else(|_| String::from_utf8_lossy(body).into())
        })
    }

    /// Why it counts as failed.
    fn failure(&self) -> String {
        match &self.said {
            Ok(answer) => format!("it answered {}", answer.status().as_u16()),
            Err(why) => why.clone(),
        }
    }

    /// `answer` is what to call its answer.
    fn show(&self, answer: &str) -> Value {
        let mut shown = json!({"worker": self.worker.label, "id": self.worker.id});
        match &self.said {
            Ok(said) => {
                shown["status"] = said.status().as_u16().into();
                shown[answer] = self.value();
            }
            Err(why) => shown["error"] = why.as_str().into(),
        }
        shown
    }
}

async fn carry_out(snapshot: &Snapshot, asked: &OperationCall) -> Response<Bytes> {
    let call = &asked.call;
    let Some(operation) = Operation::of(&call.path) else {
        return error(StatusCode::NOT_FOUND, "not_found", "there is no such operation");
    };
    let allowed = if operation.reads() { Method::GET } else { Method::POST };
    if call.method != allowed {
        return method_not_allowed(if operation.reads() { "GET" } else { "POST" });
    }
    let (question, only) = match question(operation, asked) {
        Ok(question) => question,
        Err(refusal) => return *refusal,
    };
    let mut workers: Vec<_> = match operation.reads() {
        true => snapshot.healthy().cloned().collect(),
        false => snapshot.workers().cloned().collect(),
    };
    if let Some(url) = only {
        workers.retain(|worker| worker.url == url);
        if workers.is_empty() {
            return error(StatusCode::NOT_FOUND, "worker_not_found", "there is no worker with this url");
        }
    }
    if workers.is_empty() {
        return error(StatusCode::SERVICE_UNAVAILABLE, "no_available_workers", "there is no worker to ask");
    }
    let told = ask(&snapshot.connector, &question, workers).await;
    let failed = told.iter().filter(|told| !told.has_succeeded()).count();
    tracing::info!(operation = call.path, workers = told.len(), failed, "all workers were asked");
    match operation {
        Operation::FlushCache => {
            let mut body = summary(&told, "workers_flushed", "flushed the cache");
            (body["total_http_workers"], body["total_grpc_workers"]) = (told.len().into(), 0.into());
            whole(body, failed, told.len())
        }
        Operation::StartProfile => whole(summary(&told, "workers_profiled", "started a profile"), failed, told.len()),
        Operation::StopProfile => whole(summary(&told, "workers_profiled", "ended a profile"), failed, told.len()),
        Operation::Loads => {
            let workers: Vec<_> = told.iter().map(load).collect();
            whole(json!({ "workers": workers }), failed, told.len())
        }
        Operation::Metrics if failed > 0 => {
            let show = |told: &Told| match told.has_succeeded() {
                // Not what it counts: nobody could read it among the rest.
                true => json!({"worker": told.worker.label, "id": told.worker.id, "status": 200}),
                false => told.show("answer"),
            };
            let workers: Vec<_> = told.iter().map(show).collect();
            whole(json!({ "workers": workers }), failed, told.len())
        }
        Operation::Metrics => merged(told).await,
    }
}

/// What to ask, and at which worker alone.
fn question(
    operation: Operation,
    asked: &OperationCall,
) -> Result<(Question, Option<WorkerUrl>), Box<Response<Bytes>>> {
    let mut question = Question { operation, query: None, body: Bytes::new() };
    if operation.reads() {
        return Ok((question, None));
    }
    question.query.clone_from(&asked.query);
    question.body.clone_from(&asked.call.body);
    if question.body.is_empty() {
        return Ok((question, None));
    }
    let refuse = |code, why: &str| Err(Box::new(error(StatusCode::BAD_REQUEST, code, why)));
    let Ok(mut options) = serde_json::from_slice::<Value>(&question.body) else {
        return refuse("invalid_json", "the body is not JSON");
    };
    let Some(url) = options.as_object_mut().and_then(|options| options.remove("url")) else {
        return Ok((question, None));
    };
    question.body = options.to_string().into();
    match url.as_str().map(str::parse) {
        Some(Ok(url)) => Ok((question, Some(url))),
        Some(Err(why)) => refuse("invalid_worker", &why),
        None => refuse("invalid_field", "`url` must be text"),
    }
}

/// What each worker says, in the workers' order.
async fn ask(connector: &Connector, question: &Question, workers: Vec<Arc<Worker>>) -> Vec<Told> {
    let asking = workers.into_iter().map(async |worker| {
        let said = tokio::time::timeout(question.operation.time(), ask_one(connector, question, &worker)).await;
        Told { worker, said: said.unwrap_or_else(|_| Err("no answer in time".to_owned())) }
    });
    let mut asking = stream::iter(asking).buffered(MOST_ASKED);
    let (mut told, mut kept) = (Vec::new(), 0);
    while let Some(mut next) = asking.next().await {
        kept += next.said.as_ref().map_or(0, |answer| answer.body().len());
        if kept > MOST_KEPT {
            next.said = Err("the answers of all workers together are too large".to_owned());
        }
        told.push(next);
    }
    told
}

async fn ask_one(connector: &Connector, question: &Question, worker: &Worker) -> Result<Response<Bytes>, String> {
    let operation = question.operation;
    let mut said = Err("there is nothing to ask".to_owned());
    for path in operation.paths() {
        let uri = match &question.query {
            Some(query) => format!("{path}?{query}"),
            None => (*path).to_owned(),
        };
        let mut request = Request::builder().uri(uri).header(header::USER_AGENT, "smg");
        request = if operation.reads() {
            request
                .header(header::ACCEPT, if operation == Operation::Metrics { "text/plain" } else { "application/json" })
        } else {
            request.method(Method::POST)
        };
        if !question.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(question.body.clone()).map_err(|error| error.to_string())?;
        let answer = client::ask(connector, worker, request, operation.most()).await;
        said = answer.map_err(|error| telemetry::told(&error as &dyn Error));
        if said.as_ref().is_ok_and(|answer| answer.status() != StatusCode::NOT_FOUND) {
            break;
        }
    }
    said
}

/// What a change came to.
fn summary(told: &[Told], count: &str, done: &str) -> Value {
    let (good, bad): (Vec<_>, Vec<_>) = told.iter().partition(|told| told.has_succeeded());
    let status = match (good.len(), bad.len()) {
        (_, 0) => "success",
        (0, _) => "error",
        _ => "partial_success",
    };
    let workers: Vec<_> = told.iter().map(|told| told.show("answer")).collect();
    let mut body = json!({
        "status": status,
        "message": format!("{} of {} workers {done}", good.len(), told.len()),
        "total_workers": told.len(),
        "workers": workers,
    });
    body[count] = good.len().into();
    if !bad.is_empty() {
        body["successful"] = good.iter().map(|told| told.worker.label.as_str()).collect();
        let show = |told: &&Told| json!({"worker": told.worker.label, "error": told.failure()});
        body["failed"] = bad.iter().map(show).collect();
    }
    body
}

/// A worker's load as a number, and as it says it: the tokens that it holds, or -1 if it does not say.
fn load(told: &Told) -> Value {
    let mut shown = told.show("details");
    let details = told.value();
    let ranks = details["loads"].as_array().map_or(&[][..], Vec::as_slice);
    // Without a capacity, the rest is a ratio only.
    let is_absolute = ranks.iter().any(|rank| rank["max_total_num_tokens"].as_i64().is_some_and(|most| most > 0));
    let used = ranks.iter().filter_map(|rank| rank["num_used_tokens"].as_i64()).fold(0_i64, i64::saturating_add);
    shown["load"] = if is_absolute && told.has_succeeded() { used } else { -1 }.into();
    shown
}

/// `body`, and whether it is a success.
fn whole(mut body: Value, failed: usize, of: usize) -> Response<Bytes> {
    if failed == 0 {
        return super::json(StatusCode::OK, &body);
    }
    let (code, message) = ("workers_failed", format!("{failed} of {of} workers failed"));
    body["error"] = json!({"type": "admin_error", "code": code, "message": message, "param": null});
    let mut answer = super::json(StatusCode::BAD_GATEWAY, &body);
    answer.headers_mut().insert(&ERROR_CODE, HeaderValue::from_static(code));
    answer
}

/// Metrics of many workers are megabytes: the control plane's thread has other things to do.
async fn merged(told: Vec<Told>) -> Response<Bytes> {
    let merge = move || {
        let texts: Vec<_> = told
            .iter()
            .filter_map(|told| {
                Some((told.worker.label.as_str(), String::from_utf8_lossy(told.said.as_ref().ok()?.body())))
            })
            .collect();
        exposition::merged(texts.iter().map(|(worker, text)| (*worker, &**text)))
    };
    match spawn_blocking(merge).await {
        Ok(text) => super::answer(StatusCode::OK, TEXT_FORMAT, text),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "the metrics can't be merged"),
    }
}
