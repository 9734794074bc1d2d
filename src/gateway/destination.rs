//! Which pool serves a request, and what its policy is told of the request. The body is read for that only if there is
//! a choice that depends on it.

use std::time::Instant;

use http::header::{HeaderMap, HeaderName};

use super::error::GatewayError;
use super::exchange::Exchange;
use super::upload::Peeked;
use crate::headers;
use crate::modules::RequestHead;
use crate::prompt::{Model, Prompt, PromptError};
use crate::snapshot::Snapshot;
use crate::workers::policy::Ask;

static ROUTING_KEY: HeaderName = HeaderName::from_static("x-smg-routing-key");
static TARGET_WORKER: HeaderName = HeaderName::from_static("x-smg-target-worker");

/// Whether somebody needs to know what is in the body, and it can be known. What is no JSON is not read before it is
/// sent on: the client of a gRPC call may not say more before it is answered.
pub fn wants_body(exchange: &Exchange, head: &RequestHead) -> bool {
    let is_wanted = match (&exchange.view.snapshot.pools[..], own_pool(exchange)) {
        ([only], _) => only.wants_prompt() || only.lists_differ(),
        (pools, Some(own)) => pools[own].wants_prompt() || pools[own].lists_differ(),
        (_, None) => true,
    };
    is_wanted && is_json(&head.headers)
}

/// What a body says, as far as it was read.
pub enum Said<'a> {
    /// There is none, nobody needed to know, or it is no JSON.
    Nothing,
    Prompt(Prompt<'a>),
    NoPrompt(PromptError),
    TooLong,
    /// Too much of other bodies is kept to read it.
    NoRoom,
}

impl<'a> Said<'a> {
    pub fn in_body(peeked: &'a Peeked) -> Self {
        match peeked {
            Peeked::Nothing => Self::Nothing,
            Peeked::TooLong => Self::TooLong,
            Peeked::NoRoom => Self::NoRoom,
            Peeked::Whole(body) => Prompt::read(body).map_or_else(Self::NoPrompt, Self::Prompt),
        }
    }

    pub fn prompt(&self) -> Option<&Prompt<'a>> {
        match self {
            Self::Prompt(prompt) => Some(prompt),
            Self::Nothing | Self::NoPrompt(_) | Self::TooLong | Self::NoRoom => None,
        }
    }
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
        said: &'a Said<'a>,
        routing_key: &'a Option<Vec<u8>>,
        now: Instant,
    ) -> Result<Self, GatewayError> {
        let snapshot = &exchange.view.snapshot;
        let pool = match (&snapshot.pools[..], own_pool(exchange)) {
            ([_], _) => 0,
            (_, Some(own)) => own,
            (_, None) => pool_by_model(exchange, said)?,
        };
        let ask = Ask {
            routing_key: routing_key.as_deref(),
            target: if snapshot.pools[pool].wants_key() { target(&head.headers) } else { None },
            prompt: said.prompt().and_then(|prompt| prompt.text.as_deref()),
            now: now.saturating_duration_since(snapshot.began),
        };
        Ok(Self { pool, ask })
    }
}

/// The pool that the route names.
pub fn own_pool(exchange: &Exchange) -> Option<usize> {
    let model = exchange.route.as_ref()?.route.pool.as_deref()?;
    exchange.view.snapshot.pool_of(model)
}

/// What names no model, such as a form with a file, JSON without the field, or no body at all, goes to a pool that can serve it.
fn pool_by_model(exchange: &Exchange, said: &Said) -> Result<usize, GatewayError> {
    let snapshot = &exchange.view.snapshot;
    let model = match said {
        Said::Prompt(Prompt { model: Model::Named(model), .. }) => model,
        Said::Prompt(Prompt { model: Model::Nameless, .. }) => return Err(GatewayError::UnknownModel(String::new())),
        Said::TooLong => return Err(GatewayError::BodyTooLarge(exchange.config().retries.max_buffered_request_bytes)),
        Said::NoRoom => return Err(GatewayError::Pressed),
        Said::NoPrompt(error) => return Err(GatewayError::InvalidJson(error.to_string())),
        Said::Prompt(Prompt { model: Model::Unsaid, .. }) | Said::Nothing => return Ok(snapshot.any_pool()),
    };
    snapshot.pool_of(model).ok_or_else(|| GatewayError::UnknownModel(model.to_string()))
}

/// What does not say what it is passes for JSON.
pub fn is_json(headers: &HeaderMap) -> bool {
    headers::media_type(headers).is_none_or(|kind| kind.eq_ignore_ascii_case(b"application/json"))
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
