//! Which pool serves a request, and what its policy is told of the request. The body is read for that only if there is
//! a choice that depends on it.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName};

use super::error::GatewayError;
use super::exchange::Exchange;
use super::upload::WorkerBody;
use crate::modules::RequestHead;
use crate::prompt::{Prompt, PromptError};
use crate::snapshot::Snapshot;
use crate::workers::policy::Ask;

static ROUTING_KEY: HeaderName = HeaderName::from_static("x-smg-routing-key");
static TARGET_WORKER: HeaderName = HeaderName::from_static("x-smg-target-worker");

/// Reads the body if somebody needs to know what is in it, and it is not too long for that.
pub async fn peek(exchange: &Exchange<'_>, body: WorkerBody) -> Result<(WorkerBody, Option<Bytes>), GatewayError> {
    let snapshot = &exchange.view.snapshot;
    let is_needed = match (&snapshot.pools[..], own_pool(exchange)) {
        ([only], _) => only.wants_prompt(),
        (pools, Some(own)) => pools[own].wants_prompt(),
        (_, None) => true,
    };
    match body {
        body if is_needed && !matches!(body, WorkerBody::Whole(None)) => body.peek().await,
        body => Ok((body, None)),
    }
}

/// See the module's documentation.
pub struct Destination<'a> {
    /// The pool's position in the snapshot.
    pub pool: usize,
    pub ask: Ask<'a>,
}

impl<'a> Destination<'a> {
    /// For a request whose body, as far as it was read, holds this prompt.
    pub fn find(
        exchange: &Exchange<'_>,
        head: &RequestHead,
        prompt: &'a Option<Result<Prompt<'a>, PromptError>>,
        routing_key: &'a Option<Vec<u8>>,
    ) -> Result<Self, GatewayError> {
        let snapshot = &exchange.view.snapshot;
        let pool = match (&snapshot.pools[..], own_pool(exchange)) {
            ([_], _) => 0,
            (_, Some(own)) => own,
            (_, None) => {
                let model = model(prompt)?;
                let unknown = || GatewayError::UnknownModel(model.unwrap_or_default().to_owned());
                snapshot.pool_of(model).ok_or_else(unknown)?
            }
        };
        let prompt = prompt.as_ref().and_then(|prompt| prompt.as_ref().ok()?.text.as_deref());
        let ask = Ask {
            routing_key: routing_key.as_deref(),
            target: head.headers.get(&TARGET_WORKER).and_then(|value| value.to_str().ok()?.parse().ok()),
            prompt,
            now: snapshot.began.elapsed(),
        };
        Ok(Self { pool, ask })
    }
}

/// The pool that the route names.
fn own_pool(exchange: &Exchange) -> Option<usize> {
    let model = exchange.route.as_ref()?.route.pool.as_deref()?;
    exchange.view.snapshot.pool_of(Some(model))
}

/// The model that a request names; `None` without a body.
fn model<'a>(prompt: &'a Option<Result<Prompt<'a>, PromptError>>) -> Result<Option<&'a str>, GatewayError> {
    match prompt {
        None => Ok(None),
        Some(Ok(prompt)) => Ok(Some(prompt.model.as_deref().unwrap_or_default())),
        Some(Err(error)) => Err(GatewayError::InvalidJson(error.to_string())),
    }
}

/// The key by which a client binds its requests together, if anybody looks at it.
pub fn routing_key(snapshot: &Snapshot, headers: &HeaderMap) -> Option<Vec<u8>> {
    let is_needed = snapshot.pools.iter().any(|pool| pool.wants_key());
    headers.get(&ROUTING_KEY).filter(|_| is_needed).map(|value| value.as_bytes().to_vec())
}
