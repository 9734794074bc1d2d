//! Which pool serves a request, and what its policy is told of the request. The body is read for that only if there is
//! a choice that depends on it.

use std::time::Instant;

use http::Uri;
use http::header::{HeaderMap, HeaderName};

use super::error::GatewayError;
use super::exchange::Exchange;
use super::said::{Said, Wants};
use super::upload::WorkerBody;
use crate::model_name::Model;
use crate::modules::RequestHead;
use crate::prompt::Prompt;
use crate::snapshot::Snapshot;
use crate::workers::Pool;
use crate::workers::policy::Ask;

static ROUTING_KEY: HeaderName = HeaderName::from_static("x-smg-routing-key");
static TARGET_WORKER: HeaderName = HeaderName::from_static("x-smg-target-worker");

/// What has to be known of a request.
pub fn wants(exchange: &Exchange) -> Wants {
    let of = |pool: &Pool| Wants {
        choice: false,
        name: pool.serves.renames() || pool.lists_differ(),
        prompt: pool.wants_prompt(),
    };
    match (&exchange.view.snapshot.pools[..], own_pool(exchange)) {
        ([only], _) => of(only),
        (pools, Some(own)) => of(&pools[own]),
        (pools, None) => Wants { choice: true, name: true, prompt: pools.iter().any(|pool| pool.wants_prompt()) },
    }
}

/// Reads what has to be known, and writes the name of the model that the workers know in place of an alias.
pub async fn look(
    wants: Wants,
    exchange: &mut Exchange<'_>,
    head: &mut RequestHead,
    body: WorkerBody,
) -> Result<(WorkerBody, Said), GatewayError> {
    let (mut body, mut said) = Said::read(wants, exchange, head, body).await?;
    if let Model::Named(name) = &said.model {
        exchange.record.model = Some(name.as_str().into());
    }
    // A model that nobody serves is an error of those who look for its pool.
    let Ok(at) = pool(exchange, &said, &head.uri) else { return Ok((body, said)) };
    let pool = &exchange.view.snapshot.pools[at];
    if let Model::Named(name) = &said.model
        && let Some(own) = pool.serves.own_name(name)
    {
        body = said.rename(own, exchange, head, body).await?;
    }
    if !pool.wants_prompt() {
        said.forget_prompt();
    }
    Ok((body, said))
}

/// See the module's documentation.
pub struct Destination<'a> {
    /// The pool's position in the snapshot.
    pub pool: usize,
    pub ask: Ask<'a>,
}

impl<'a> Destination<'a> {
    pub fn find(
        exchange: &Exchange<'_>,
        head: &RequestHead,
        said: &Said,
        prompt: Option<&'a Prompt<'_>>,
        routing_key: &'a Option<Vec<u8>>,
        now: Instant,
    ) -> Result<Self, GatewayError> {
        let snapshot = &exchange.view.snapshot;
        let pool = pool(exchange, said, &head.uri)?;
        let ask = Ask {
            routing_key: routing_key.as_deref(),
            target: if snapshot.pools[pool].wants_key() { target(&head.headers) } else { None },
            prompt: prompt.and_then(|prompt| prompt.text.as_deref()),
            now: now.saturating_duration_since(snapshot.began),
        };
        Ok(Self { pool, ask })
    }
}

fn pool(exchange: &Exchange<'_>, said: &Said, target: &Uri) -> Result<usize, GatewayError> {
    match (&exchange.view.snapshot.pools[..], own_pool(exchange)) {
        ([_], _) => Ok(0),
        (_, Some(own)) => Ok(own),
        (_, None) => pool_by_model(exchange, said, target),
    }
}

/// The pool that the route names.
pub fn own_pool(exchange: &Exchange) -> Option<usize> {
    let model = exchange.route.as_ref()?.route.pool.as_deref()?;
    exchange.view.snapshot.pool_of(model)
}

/// What names no model, such as JSON without the field or no body at all, goes to a pool that can serve it.
fn pool_by_model(exchange: &Exchange, said: &Said, target: &Uri) -> Result<usize, GatewayError> {
    let snapshot = &exchange.view.snapshot;
    match &said.model {
        Model::Named(name) => snapshot.pool_of(name).ok_or_else(|| GatewayError::UnknownModel(name.clone())),
        Model::NoName => snapshot.pool_of_all().ok_or_else(|| GatewayError::UnknownModel(String::new())),
        Model::Ambiguous => Err(GatewayError::BadRequest("Parsers disagree about the model that the request names.")),
        Model::Unsaid => Ok(snapshot.any_pool(target)),
    }
}

/// The worker that a client names, as a position in the pool.
fn target(headers: &HeaderMap) -> Option<usize> {
    headers.get(&TARGET_WORKER)?.to_str().ok()?.parse().ok()
}

/// The key by which a client binds its requests together, if anybody looks at it.
pub fn routing_key(snapshot: &Snapshot, headers: &HeaderMap) -> Option<Vec<u8>> {
    let is_needed = snapshot.pools.iter().any(|pool| pool.wants_key());
    if !is_needed {
        return None;
    }
    headers.get(&ROUTING_KEY).map(|value| value.as_bytes().to_vec())
}
