//! Requests for objects that one worker stores: a stored response, a conversation, a file, a batch.
//!
//! When a request creates an object, the gateway learns the object's id from the worker's answer while it forwards it.
//! A request for an object with a known id goes to the worker that has the object. For an unknown id the gateway asks
//! all workers: a worker without the object answers 404 and does nothing. The client gets the answer of the worker that
//! has the object.

mod owners;
mod scan;
mod search;

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Method, StatusCode, Uri};
use rustc_hash::FxHashSet;

use self::scan::{AnswerScan, JsonScan, REFERENCE, Scan};
use self::search::Search;
use super::answer::Answer;
use super::body::Content;
use super::destination;
use super::error::GatewayError;
use super::exchange::{Exchange, WorkerIndex};
use super::forward;
use super::upload::WorkerBody;
use crate::headers;
use crate::modules::RequestHead;
use crate::routes::{Object, Stored};
use crate::workers::Worker;
use crate::workers::answer::BodyObserver;

pub use self::owners::Owners;

/// Number of leading bytes of an answer in which the id of a new object is searched.
const MOST_SCANNED: usize = 64 * 1024;

/// The worker that has an object.
enum Owner {
    At(WorkerIndex),
    /// The worker is known but gets no requests now.
    Unavailable,
    Unknown,
}

/// The object that a request is about.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    kind: &'static str,
    id: &'a [u8],
    part: Part,
}

/// What a path means of an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    /// Workers disagree about what a trailing `/` means.
    WholeWithSlash,
    Below,
}

/// Answers a request to a path of stored objects.
pub async fn serve(
    exchange: &mut Exchange<'_>,
    head: &mut RequestHead,
    body: WorkerBody,
) -> Result<Answer, GatewayError> {
    use Method as M;
    let is_asked = matches!(head.method, M::GET | M::HEAD | M::DELETE | M::POST | M::PUT | M::PATCH);
    match Stored::of(head.uri.path()) {
        _ if exchange.upgrade.is_some() => forward::send(exchange, head, body).await,
        Stored::Collection(kind) if head.method == M::POST => create(exchange, head, body, kind).await,
        Stored::Object(Object { kind, id, rest }) if is_asked => {
            let part = match rest {
                "" => Part::Whole,
                "/" => Part::WholeWithSlash,
                _ => Part::Below,
            };
            let id = id.as_bytes().to_vec();
            find(exchange, head, body, Wanted { kind, id: &id, part }).await
        }
        Stored::Collection(_) | Stored::Object(_) | Stored::Other => forward::send(exchange, head, body).await,
    }
}

/// Forwards a creation, to the worker of an object that it refers to if that is known, and learns the new id.
async fn create(
    exchange: &mut Exchange<'_>,
    head: &mut RequestHead,
    body: WorkerBody,
    kind: &'static str,
) -> Result<Answer, GatewayError> {
    let body = if may_refer(exchange, &head.headers) { refer(exchange, body).await? } else { body };
    let mut answer = forward::send(exchange, head, body).await?;
    if answer.head.status.is_success()
        && let Some(lease) = &answer.hold.lease
        && let Content::Stream { rest, .. } = &mut answer.content
        && let Some(observer) = learner(exchange, kind, &lease.worker, &answer.head.headers)
    {
        rest.observe(observer);
    }
    Ok(answer)
}

/// Whether the body may refer to an object whose worker is known, and another worker could be picked.
fn may_refer(exchange: &Exchange, headers: &HeaderMap) -> bool {
    let is_choice = exchange.view.snapshot.workers().nth(1).is_some();
    // A body without a content type is treated as JSON.
    let is_json = headers::media_type(headers).is_none_or(|kind| kind.eq_ignore_ascii_case(b"application/json"));
    let is_plain = is_json && !headers.contains_key(header::CONTENT_ENCODING);
    is_choice && is_plain && !exchange.gateway.shared.owners.is_empty()
}

/// Restricts the request to the worker that has the object it refers to. A body too long to be buffered is not read.
async fn refer(exchange: &mut Exchange<'_>, body: WorkerBody) -> Result<WorkerBody, GatewayError> {
    let body = body.hold_whole(exchange.config().retries.max_buffered_request_bytes).await?;
    let mut scan = JsonScan::new(REFERENCE);
    if let WorkerBody::Whole(Some(whole)) = &body
        && let Scan::Found(id) = scan.feed(whole)
    {
        match owner(exchange, scan.kind_referred_to(), &id) {
            Owner::At(index) => exchange.only = Some(index),
            Owner::Unavailable => return Err(GatewayError::NoWorker),
            Owner::Unknown => {}
        }
    }
    Ok(body)
}

/// Learns the new object's id from the answer's body.
fn learner(exchange: &Exchange, kind: &'static str, worker: &Worker, headers: &HeaderMap) -> Option<BodyObserver> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return None;
    }
    let mut scan = AnswerScan::of(headers::media_type(headers)?)?;
    let (shared, owner, mut left) = (exchange.gateway.shared.clone(), worker.key, MOST_SCANNED);
    Some(Box::new(move |piece| {
        let seen = &piece[..piece.len().min(left)];
        left -= seen.len();
        match scan.feed(seen) {
            Scan::More if left > 0 => return ControlFlow::Continue(()),
            Scan::Found(id) => shared.owners.learn(kind, &id, owner),
            Scan::More | Scan::Nothing => {}
        }
        ControlFlow::Break(())
    }))
}

/// Asks the worker that has the object, or all workers if it is not known.
async fn find(
    exchange: &mut Exchange<'_>,
    head: &mut RequestHead,
    body: WorkerBody,
    wanted: Wanted<'_>,
) -> Result<Answer, GatewayError> {
    let Wanted { kind, id, part } = wanted;
    let mut others = candidates(exchange, &head.uri);
    let index = match owner(exchange, kind, id) {
        Owner::At(index) => index,
        Owner::Unavailable => return Err(GatewayError::NoWorker),
        Owner::Unknown if others.len() < 2 => return forward::send(exchange, head, body).await,
        Owner::Unknown => {
            let most = exchange.config().retries.max_buffered_request_bytes;
            return match body.hold_whole(most).await? {
                WorkerBody::Whole(body) => search(exchange, head, body, wanted, &others).await,
                // It is too long to be sent more than once.
                body => forward::send(exchange, head, body).await,
            };
        }
    };
    exchange.only = Some(index);
    // A part of the object may be deleted while the object is still there.
    let is_delete = part != Part::Below && head.method == Method::DELETE;
    let again = if let WorkerBody::Whole(body) = &body { Some((head.clone(), body.clone())) } else { None };
    let answer = forward::send(exchange, head, body).await?;
    if answer.head.status.is_success() && is_delete {
        exchange.gateway.shared.owners.forget(kind, id);
    }
    if answer.head.status != StatusCode::NOT_FOUND {
        return Ok(answer);
    }
    // The worker may have lost the object, and another one may have it now.
    others.retain(|other| worker(exchange, *other).key != worker(exchange, index).key);
    let Some((head, body)) = again.filter(|_| !others.is_empty()) else { return Ok(answer) };
    match search(exchange, &head, body, wanted, &others).await {
        Ok(found) if found.head.status.is_success() => Ok(found),
        // Otherwise the answer of the object's own worker counts.
        Ok(_) | Err(_) => Ok(answer),
    }
}

async fn search(
    exchange: &mut Exchange<'_>,
    head: &RequestHead,
    body: Option<Bytes>,
    wanted: Wanted<'_>,
    indices: &[WorkerIndex],
) -> Result<Answer, GatewayError> {
    let (found, asked) = Box::pin(Search { exchange, head, body }.run(indices)).await;
    exchange.record.asked(asked);
    let found = found?;
    exchange.record.answered_by(&found.lease.worker);
    if found.begun.0.status.is_success() && head.method != Method::DELETE {
        let owners = &exchange.gateway.shared.owners;
        let Wanted { kind, id, part } = wanted;
        let known = owners.get(kind, id);
        let has_owner = known.is_some_and(|key| exchange.view.snapshot.workers().any(|worker| worker.key == key));
        // The owner answered 404. If it was asked for anything else, it may still have the object.
        let is_lost = exchange.only.is_some() && part == Part::Whole && head.method == Method::GET;
        if is_lost || !has_owner {
            owners.replace(kind, id, found.lease.worker.key);
        }
    }
    Ok(found.into_answer(exchange))
}

fn worker<'a>(exchange: &'a Exchange, index: WorkerIndex) -> &'a Arc<Worker> {
    &exchange.view.snapshot.pools[index.pool].all[index.worker]
}

/// Positions of the pools whose workers may be asked: all, unless the route names one.
fn pools(exchange: &Exchange) -> impl Iterator<Item = usize> {
    let own = destination::own_pool(exchange);
    (0..exchange.view.snapshot.pools.len()).filter(move |at| own.is_none_or(|own| own == *at))
}

/// All workers that get requests and can be asked for this target, each once.
fn candidates(exchange: &Exchange, target: &Uri) -> Vec<WorkerIndex> {
    let mut seen = FxHashSet::default();
    let of_pool = |pool: usize| {
        let workers = exchange.view.snapshot.pools[pool].healthy_positions();
        workers.iter().map(move |worker| WorkerIndex { pool, worker: *worker })
    };
    let is_able = |index: &WorkerIndex| worker(exchange, *index).url.check(target).is_ok();
    let indices = pools(exchange).flat_map(of_pool);
    indices.filter(is_able).filter(|index| seen.insert(Arc::as_ptr(worker(exchange, *index)))).collect()
}

/// The worker that has this object.
fn owner(exchange: &Exchange, kind: &str, id: &[u8]) -> Owner {
    let Some(key) = exchange.gateway.shared.owners.get(kind, id) else { return Owner::Unknown };
    let mut owner = Owner::Unknown;
    for at in pools(exchange) {
        let pool = &exchange.view.snapshot.pools[at];
        let Some(position) = pool.all.iter().position(|worker| worker.key == key) else { continue };
        if pool.healthy_positions().contains(&position) {
            return Owner::At(WorkerIndex { pool: at, worker: position });
        }
        owner = Owner::Unavailable;
    }
    owner
}
