//! Requests for objects that one worker keeps: a stored response, a conversation, a file, a batch.
//!
//! A request that names an object goes to the worker that has it, as far as that is known: ids are learned from what
//! workers answer to creations, while it passes. Otherwise all are asked, for a worker that does not know an object
//! answers 404 and does nothing. The answer of one that has it is passed on.

mod owners;
mod scan;
mod search;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Method, StatusCode};
use rustc_hash::FxHashSet;

use self::scan::{AnswerScan, CONTINUED, JsonScan, Scan};
use self::search::Search;
use super::answer::Answer;
use super::body::Content;
use super::destination;
use super::error::GatewayError;
use super::exchange::{Exchange, Seat};
use super::forward;
use super::upload::{Peeked, WorkerBody};
use crate::headers;
use crate::modules::RequestHead;
use crate::routes::Stored;
use crate::workers::Worker;
use crate::workers::answer::{Watch, Watching};

pub use self::owners::Owners;

/// Bytes of an answer to a creation in which its id is looked for.
const MOST_SCANNED: usize = 64 * 1024;

/// What is known of the worker that has an object.
enum Owner {
    At(Seat),
    /// It is one of ours, and gets no requests now.
    Away,
    Unknown,
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
        Stored::Collection if head.method == M::POST => create(exchange, head, body).await,
        Stored::Object(id) if is_asked => {
            let id = id.as_bytes().to_vec();
            find(exchange, head, body, &id).await
        }
        Stored::Collection | Stored::Object(_) | Stored::Other => forward::send(exchange, head, body).await,
    }
}

/// Has an object made, where the one is that it continues, and learns its id.
async fn create(exchange: &mut Exchange<'_>, head: &mut RequestHead, body: WorkerBody) -> Result<Answer, GatewayError> {
    let body = if may_continue(exchange, &head.headers) { continued(exchange, body).await? } else { body };
    let mut answer = forward::send(exchange, head, body).await?;
    if answer.head.status.is_success()
        && let Some(lease) = &answer.hold.lease
        && let Content::Stream { rest, .. } = &mut answer.content
        && let Some(watch) = learner(exchange, &lease.worker, &answer.head.headers)
    {
        rest.watch(watch);
    }
    Ok(answer)
}

/// Whether the body may name an object whose worker is known, and another worker could get it.
fn may_continue(exchange: &Exchange, headers: &HeaderMap) -> bool {
    let is_choice = exchange.view.snapshot.workers().nth(1).is_some();
    let is_plain = destination::is_json(headers) && !headers.contains_key(header::CONTENT_ENCODING);
    is_choice && is_plain && !exchange.gateway.shared.owners.is_empty()
}

/// Reads what the request continues, and binds it to the worker that has that. A body that is too long to be kept goes
/// where any goes.
async fn continued(exchange: &mut Exchange<'_>, body: WorkerBody) -> Result<WorkerBody, GatewayError> {
    let (body, peeked) = body.peek().await?;
    if let Peeked::Whole(whole) = &peeked
        && let Scan::Found(id) = JsonScan::new(CONTINUED).feed(whole)
    {
        match owner(exchange, &id) {
            Owner::At(seat) => exchange.only = Some(seat),
            Owner::Away => return Err(GatewayError::NoWorker),
            Owner::Unknown => {}
        }
    }
    Ok(body)
}

/// Learns from the answer's body what the worker has made.
fn learner(exchange: &Exchange, worker: &Worker, headers: &HeaderMap) -> Option<Watch> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return None;
    }
    let mut scan = AnswerScan::of(headers::media_type(headers)?)?;
    let (shared, owner, mut left) = (exchange.gateway.shared.clone(), worker.key, MOST_SCANNED);
    Some(Box::new(move |piece| {
        let seen = &piece[..piece.len().min(left)];
        left -= seen.len();
        match scan.feed(seen) {
            Scan::More if left > 0 => return Watching::Goes,
            Scan::Found(id) => shared.owners.learn(&id, owner),
            Scan::More | Scan::Nothing => {}
        }
        Watching::Ends
    }))
}

/// Asks the worker that has the object, otherwise all.
async fn find(
    exchange: &mut Exchange<'_>,
    head: &mut RequestHead,
    body: WorkerBody,
    id: &[u8],
) -> Result<Answer, GatewayError> {
    let mut others = candidates(exchange);
    let seat = match owner(exchange, id) {
        Owner::At(seat) => seat,
        Owner::Away => return Err(GatewayError::NoWorker),
        Owner::Unknown if others.len() < 2 => return forward::send(exchange, head, body).await,
        Owner::Unknown => {
            let body = if let WorkerBody::Stream(_) = body { body.peek().await?.0 } else { body };
            return match body {
                WorkerBody::Whole(body) => search(exchange, head, body, id, &others).await,
                // Too long to be sent more than once.
                body => forward::send(exchange, head, body).await,
            };
        }
    };
    exchange.only = Some(seat);
    // Whatever becomes of something below it, it is still there.
    let is_whole = head.uri.path().as_bytes().ends_with(id);
    let is_delete = is_whole && head.method == Method::DELETE;
    let again = if let WorkerBody::Whole(body) = &body { Some((head.clone(), body.clone())) } else { None };
    let answer = forward::send(exchange, head, body).await?;
    let owners = &exchange.gateway.shared.owners;
    if answer.head.status.is_success() && is_delete {
        owners.forget(id);
    }
    if answer.head.status != StatusCode::NOT_FOUND {
        return Ok(answer);
    }
    // It may have lost it, and another may have it meanwhile.
    if is_whole {
        owners.forget(id);
    }
    others.retain(|other| worker(exchange, *other).key != worker(exchange, seat).key);
    let Some((head, body)) = again.filter(|_| !others.is_empty()) else { return Ok(answer) };
    match search(exchange, &head, body, id, &others).await {
        Ok(found) if found.head.status.is_success() => Ok(found),
        // The worker that made it knows best.
        Ok(_) | Err(_) => Ok(answer),
    }
}

async fn search(
    exchange: &mut Exchange<'_>,
    head: &RequestHead,
    body: Option<Bytes>,
    id: &[u8],
    seats: &[Seat],
) -> Result<Answer, GatewayError> {
    let (found, asked) = Box::pin(Search { exchange, head, body }.run(seats)).await;
    exchange.record.asked(asked);
    let found = found?;
    exchange.record.answered_by(&found.lease.worker);
    if found.begun.0.status.is_success() && head.method != Method::DELETE {
        exchange.gateway.shared.owners.learn(id, found.lease.worker.key);
    }
    Ok(found.into_answer(exchange))
}

fn worker<'a>(exchange: &'a Exchange, seat: Seat) -> &'a Arc<Worker> {
    &exchange.view.snapshot.pools[seat.pool].all[seat.position]
}

/// The positions of pools that may be asked: all, unless the route names one.
fn pools(exchange: &Exchange) -> impl Iterator<Item = usize> {
    let own = destination::own_pool(exchange);
    (0..exchange.view.snapshot.pools.len()).filter(move |at| own.is_none_or(|own| own == *at))
}

/// Every worker that gets requests, once.
fn candidates(exchange: &Exchange) -> Vec<Seat> {
    let mut seen = FxHashSet::default();
    let of_pool =
        |pool: usize| exchange.view.snapshot.pools[pool].positions().map(move |position| Seat { pool, position });
    let seats = pools(exchange).flat_map(of_pool);
    seats.filter(|seat| seen.insert(Arc::as_ptr(worker(exchange, *seat)))).collect()
}

/// Where the worker is that has this object.
fn owner(exchange: &Exchange, id: &[u8]) -> Owner {
    let Some(key) = exchange.gateway.shared.owners.get(id) else { return Owner::Unknown };
    let mut owner = Owner::Unknown;
    for at in pools(exchange) {
        let pool = &exchange.view.snapshot.pools[at];
        let Some(position) = pool.all.iter().position(|worker| worker.key == key) else { continue };
        if pool.positions().any(|healthy| healthy == position) {
            return Owner::At(Seat { pool: at, position });
        }
        owner = Owner::Away;
    }
    owner
}
