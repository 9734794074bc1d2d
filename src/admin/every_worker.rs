//! Operations on all workers: `POST /flush_cache`, `/start_profile` and `/stop_profile`, `GET /get_loads` and
//! `/engine_metrics`. The gateway asks each worker, and its answer lists theirs. The answer has the shape of Shepherd
//! Model Gateway's, if that defines one.
//!
//! Operations that change something go to all workers, because an unhealthy one may come back. Operations that read go
//! to the healthy ones. If one worker fails, the answer is 502 with the same details.

mod exposition;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{spawn_blocking, spawn_local};

use super::{error, method_not_allowed};
use crate::config::WorkerUrl;
use crate::gateway::control::OperationCall;
use crate::metrics::TEXT_FORMAT;
use crate::snapshot::{Publisher, Snapshot};
use crate::telemetry;
use crate::workers::connector::Connector;
use crate::workers::{Worker, client};

/// Number of operations in progress. Up to [`MOST_WAITING`] more wait, and further ones are refused.
const MOST_AT_ONCE: usize = 4;
pub const MOST_WAITING: usize = 16;
/// Number of workers that one operation asks at once.
const MOST_ASKED: usize = 32;
/// Largest total of all workers' answers to one operation, in bytes.
const MOST_KEPT: usize = 64 << 20;

/// Answers calls until the last shard is gone. Workers may take long, so these calls have their own concurrency limit,
/// and the rest of the admin API does not wait for them.
pub async fn answer(publisher: Arc<Publisher>, mut calls: mpsc::Receiver<OperationCall>) {
    let places = Arc::new(Semaphore::new(MOST_AT_ONCE));
    while let Some(call) = calls.recv().await {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let snapshot = publisher.current();
        spawn_local(async move {
            let answer = carry_out(&snapshot, &call).await;
            // The client may have left meanwhile.
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

    /// The paths at workers, which differ between engines and their versions. After a 404 the next one is tried.
    fn paths(self) -> &'static [&'static str] {
        match self {
            Self::FlushCache => &["/flush_cache"],
            Self::StartProfile => &["/start_profile"],
            Self::StopProfile => &["/stop_profile"],
            Self::Loads => &["/v1/loads?include=core,disagg,queues,memory", "/get_loads", "/get_load"],
            Self::Metrics => &["/metrics"],
        }
    }

    /// The time limit for a worker.
    fn time(self) -> Duration {
        Duration::from_secs(match self {
            Self::FlushCache => 60,
            // Engines write the profile before they answer.
            Self::StartProfile | Self::StopProfile => 300,
            Self::Loads => 5,
            Self::Metrics => 10,
        })
    }

    /// Largest answer of one worker, in bytes.
    fn most(self) -> usize {
        match self {
            Self::FlushCache | Self::StartProfile | Self::StopProfile => 64 << 10,
            Self::Loads => 1 << 20,
            Self::Metrics => 8 << 20,
        }
    }
}

/// The request to the workers.
struct Question {
    operation: Operation,
    query: Option<String>,
    body: Bytes,
}

/// A worker's answer, or the reason why there is none.
struct WorkerReply {
    worker: Arc<Worker>,
    answer: Result<Response<Bytes>, String>,
}

impl WorkerReply {
    fn has_succeeded(&self) -> bool {
        self.answer.as_ref().is_ok_and(|answer| answer.status().is_success())
    }

    fn value(&self) -> Value {
        self.answer.as_ref().map_or(Value::Null, |answer| {
            let body = &answer.body()[..];
            serde_json::from_slice(body).unwrap_or_else(|_| String::from_utf8_lossy(body).into())
        })
    }

    /// The reason why the worker counts as failed.
    fn failure(&self) -> String {
        match &self.answer {
            Ok(answer) => format!("the worker answered {}", answer.status().as_u16()),
            Err(why) => why.clone(),
        }
    }

    /// The reply in an answer to the administrator, with the worker's answer in the field `name`.
    fn show(&self, name: &str) -> Value {
        let mut shown = json!({"worker": self.worker.label, "id": self.worker.id});
        match &self.answer {
            Ok(said) => {
                shown["status"] = said.status().as_u16().into();
                shown[name] = self.value();
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
    // A worker whose URL has a path is a hosted API, not an engine, and lacks these operations.
    workers.retain(|worker| !worker.url.has_base_path());
    if let Some(url) = only {
        workers.retain(|worker| worker.url == url);
        if workers.is_empty() {
            return error(StatusCode::NOT_FOUND, "worker_not_found", "there is no worker with this url");
        }
    }
    if workers.is_empty() {
        return error(StatusCode::SERVICE_UNAVAILABLE, "no_available_workers", "there is no worker for this operation");
    }
    let replies = ask(&snapshot.connector, &question, workers).await;
    let failed = replies.iter().filter(|reply| !reply.has_succeeded()).count();
    tracing::info!(operation = call.path, workers = replies.len(), failed, "operation sent to all workers");
    match operation {
        Operation::FlushCache => {
            let mut body = summary(&replies, "workers_flushed", "flushed the cache");
            (body["total_http_workers"], body["total_grpc_workers"]) = (replies.len().into(), 0.into());
            whole(body, failed, replies.len())
        }
        Operation::StartProfile => {
            whole(summary(&replies, "workers_profiled", "started a profile"), failed, replies.len())
        }
        Operation::StopProfile => {
            whole(summary(&replies, "workers_profiled", "stopped a profile"), failed, replies.len())
        }
        Operation::Loads => {
            let workers: Vec<_> = replies.iter().map(load).collect();
            whole(json!({ "workers": workers }), failed, replies.len())
        }
        Operation::Metrics if failed > 0 => {
            let show = |reply: &WorkerReply| match reply.has_succeeded() {
                // Omit the metrics: they would bury the failure.
                true => json!({"worker": reply.worker.label, "id": reply.worker.id, "status": 200}),
                false => reply.show("answer"),
            };
            let workers: Vec<_> = replies.iter().map(show).collect();
            whole(json!({ "workers": workers }), failed, replies.len())
        }
        Operation::Metrics => merged(replies).await,
    }
}

/// The request to the workers, and the worker that the client selected, if any.
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

/// The workers' replies, in the workers' order.
async fn ask(connector: &Connector, question: &Question, workers: Vec<Arc<Worker>>) -> Vec<WorkerReply> {
    let asking = workers.into_iter().map(async |worker| {
        let answer = tokio::time::timeout(question.operation.time(), ask_one(connector, question, &worker)).await;
        WorkerReply { worker, answer: answer.unwrap_or_else(|_| Err("no answer in time".to_owned())) }
    });
    let mut asking = stream::iter(asking).buffered(MOST_ASKED);
    let (mut replies, mut kept) = (Vec::new(), 0);
    while let Some(mut next) = asking.next().await {
        kept += next.answer.as_ref().map_or(0, |answer| answer.body().len());
        if kept > MOST_KEPT {
            next.answer = Err("the workers' answers are too large in total".to_owned());
        }
        replies.push(next);
    }
    replies
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

/// The answer to an operation that changes something.
fn summary(replies: &[WorkerReply], count: &str, done: &str) -> Value {
    let (good, bad): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.has_succeeded());
    let status = match (good.len(), bad.len()) {
        (_, 0) => "success",
        (0, _) => "error",
        _ => "partial_success",
    };
    let workers: Vec<_> = replies.iter().map(|reply| reply.show("answer")).collect();
    let mut body = json!({
        "status": status,
        "message": format!("{} of {} workers {done}", good.len(), replies.len()),
        "total_workers": replies.len(),
        "workers": workers,
    });
    body[count] = good.len().into();
    if !bad.is_empty() {
        body["successful"] = good.iter().map(|reply| reply.worker.label.as_str()).collect();
        let show = |reply: &&WorkerReply| json!({"worker": reply.worker.label, "error": reply.failure()});
        body["failed"] = bad.iter().map(show).collect();
    }
    body
}

/// A worker's load: the number of tokens that it holds, or -1 if unknown, and the worker's own answer.
fn load(reply: &WorkerReply) -> Value {
    let mut shown = reply.show("details");
    let details = reply.value();
    let ranks = details["loads"].as_array().map_or(&[][..], Vec::as_slice);
    // An engine that reports token counts also reports its capacity.
    let is_absolute = ranks.iter().any(|rank| rank["max_total_num_tokens"].as_i64().is_some_and(|most| most > 0));
    let used = ranks.iter().filter_map(|rank| rank["num_used_tokens"].as_i64()).fold(0_i64, i64::saturating_add);
    shown["load"] = if is_absolute && reply.has_succeeded() { used } else { -1 }.into();
    shown
}

/// The answer with this body: 200, or 502 if a worker failed.
fn whole(mut body: Value, failed: usize, of: usize) -> Response<Bytes> {
    if failed == 0 {
        return super::json(StatusCode::OK, &body);
    }
    let (code, message) = ("workers_failed", format!("{failed} of {of} workers failed"));
    body["error"] = json!({"type": "admin_error", "code": code, "message": message, "param": null});
    super::coded(super::json(StatusCode::BAD_GATEWAY, &body), code)
}

/// Merges in a blocking thread: the metrics of many workers are megabytes, and the control plane must not stall.
async fn merged(replies: Vec<WorkerReply>) -> Response<Bytes> {
    let merge = move || {
        let texts: Vec<_> = replies
            .iter()
            .filter_map(|reply| {
                Some((reply.worker.label.as_str(), String::from_utf8_lossy(reply.answer.as_ref().ok()?.body())))
            })
            .collect();
        exposition::merged(texts.iter().map(|(worker, text)| (*worker, &**text)))
    };
    match spawn_blocking(merge).await {
        Ok(text) => super::answer(StatusCode::OK, TEXT_FORMAT, text),
        Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "the metrics can't be merged"),
    }
}
