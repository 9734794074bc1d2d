//! Models come and go at workers that go on running, such as adapters that are loaded at run time, and the gateway has
//! read the workers' lists up to a minute ago. A model that nobody is known to serve, or that a worker says it does not
//! have, makes the gateway read the lists again, and the request goes to a worker that has it, if there is one.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::future::join_all;
use http::header;
use http_body::Body;
use http_body_util::BodyExt;
use serde_json::Value;

use super::{Attempts, Received};
use crate::gateway::answer::Answer;
use crate::gateway::error::GatewayError;
use crate::gateway::exchange::Exchange;
use crate::gateway::upload::{Resend, WorkerBody};
use crate::headers;
use crate::modules::RequestHead;
use crate::prompt::Prompt;
use crate::workers::{Pool, Worker};

/// Bytes of a worker's answer that are looked at, and the time in which they must come.
const MOST: usize = 16 * 1024;
const LOOK: Duration = Duration::from_secs(1);
/// Time that a request waits until the lists were read again.
const RENEWAL: Duration = Duration::from_secs(2);

/// Sends a request for a model that no pool serves, if that is no longer so when the lists were read again.
pub(super) async fn send(
    exchange: &mut Exchange<'_>,
    head: &mut RequestHead,
    body: WorkerBody,
    model: String,
) -> Result<Answer, GatewayError> {
    renew(exchange.view.snapshot.healthy()).await;
    let view = exchange.gateway.view();
    if view.snapshot.pool_of(&model).is_none() {
        return Err(GatewayError::UnknownModel(model));
    }
    let mut renewed = Exchange {
        gateway: exchange.gateway,
        view: &view,
        caller: exchange.caller,
        record: &mut *exchange.record,
        deadline: exchange.deadline,
        upgrade: exchange.upgrade.clone(),
        route: exchange.route.clone(),
        only: None,
        has_begun: Cell::new(exchange.has_begun.get()),
        key: exchange.key.clone(),
    };
    let answer = super::send(&mut renewed, head, body).await;
    exchange.has_begun.set(renewed.has_begun.get());
    answer
}

/// In a pool whose workers are said to serve it, and list more than that: a request for some of that goes to those that
/// list it, or that list nothing.
pub(super) fn avoid_others(exchange: &Exchange<'_>, pool: &Pool, attempts: &mut Attempts) {
    let Some(model) = exchange.record.model.as_deref().filter(|model| !pool.serves.model(model)) else { return };
    if pool.healthy().any(|worker| worker.listing.has(model)) {
        let may_have = |worker: &Worker| worker.listing.has(model) || worker.listing.may_have_any();
        attempts.avoided.extend((0..pool.all.len()).filter(|at| !may_have(&pool.all[*at])));
    }
}

/// A worker has answered 404. If that is because it does not have the request's model, and another worker of the pool
/// lists it, this is the body to send to that one.
pub(super) async fn body_for_another(
    exchange: &Exchange<'_>,
    pool: &Pool,
    resend: &Resend,
    attempts: &mut Attempts,
    received: &mut Received,
) -> Result<Option<WorkerBody>, GatewayError> {
    let refused_by = received.lease.position;
    if attempts.tried.contains(&refused_by) || resend.is_empty() || !received.may_be_looked_at() {
        return Ok(None);
    }
    received.look().await?;
    let model = exchange.record.model.clone().or_else(|| model_in(&resend.kept()?));
    // An alias is not what workers list.
    let model = model.map(|model| pool.serves.own_name(&model).map(Box::from).unwrap_or(model));
    if !names_model(received.seen.as_deref().unwrap_or_default(), model.as_deref()) {
        return Ok(None);
    }
    let can_be_asked = |at: usize| at != refused_by && !attempts.avoided.contains(&at);
    let has = |at: usize, model: &str| can_be_asked(at) && pool.all[at].listing.has(model);
    let is_known = |model: &str| pool.healthy_positions().iter().any(|at| has(*at, model));
    match model.as_deref() {
        Some(model) if !is_known(model) => renew(pool.healthy()).await,
        _ => pool.healthy().for_each(|worker| worker.listing.want_lately()),
    }
    let Some(model) = model.filter(|model| is_known(model)) else { return Ok(None) };
    if exchange.has_begun.get() || attempts.made >= attempts.most || exchange.deadline.is_expired() {
        return Ok(None);
    }
    if !exchange.gateway.retries.take(Instant::now()) {
        exchange.gateway.metrics.forbidden_retries.add(1);
        return Ok(None);
    }
    let others: Vec<_> = (0..pool.all.len()).filter(|at| !has(*at, &model)).collect();
    attempts.avoided.extend(others);
    Ok(resend.body(received.begun.1.take_back()))
}

/// Has the lists of the workers read again, those that were not a moment ago.
async fn renew<'w>(workers: impl Iterator<Item = &'w Arc<Worker>>) {
    let renewed = join_all(workers.map(|worker| worker.listing.renew()));
    // One that does not say it in time is known by what it said before.
    let _ = tokio::time::timeout(RENEWAL, renewed).await;
}

fn model_in(body: &[u8]) -> Option<Box<str>> {
    Prompt::read(body).ok()?.model.map(Into::into)
}

/// Whether an answer says that it is the model that was not found: by the OpenAI API's code or parameter, or by naming
/// it in the message, which is all that some workers do.
fn names_model(answer: &[u8], model: Option<&str>) -> bool {
    let Ok(answer) = serde_json::from_slice::<Value>(answer) else { return false };
    let error = answer.get("error").unwrap_or(&answer);
    let text = |name| error.get(name).and_then(Value::as_str);
    let message = error.as_str().or_else(|| text("message")).or_else(|| text("detail")).unwrap_or_default();
    text("code") == Some("model_not_found")
        || text("param") == Some("model")
        || model.is_some_and(|model| message.to_ascii_lowercase().contains("model") && quotes(message, model))
}

/// Whether a message has a name in it that is not a part of another one.
fn quotes(message: &str, name: &str) -> bool {
    let is_apart = |beside: Option<char>| !beside.is_some_and(|c| c.is_alphanumeric() || "-_/.:".contains(c));
    !name.is_empty()
        && message.match_indices(name).any(|(at, _)| {
            let (before, after) = (&message[..at], &message[at + name.len()..]);
            let ends = after.trim_start_matches('.').is_empty();
            is_apart(before.chars().next_back()) && (ends || is_apart(after.chars().next()))
        })
}

impl Received {
    /// Whether it is an error as the OpenAI API writes it: one small JSON value that is not compressed.
    fn may_be_looked_at(&self) -> bool {
        let (head, body) = &self.begun;
        let is_json = headers::media_type(&head.headers).is_some_and(|it| it.eq_ignore_ascii_case(b"application/json"));
        is_json && !head.headers.contains_key(header::CONTENT_ENCODING) && body.size_hint().lower() <= MOST as u64
    }

    /// Reads the answer's body, or the beginning of it.
    async fn look(&mut self) -> Result<(), GatewayError> {
        let mut seen = BytesMut::new();
        let body = &mut self.begun.1;
        let reading = async {
            while seen.len() <= MOST
                && let Some(frame) = body.frame().await
            {
                if let Ok(data) = frame.map_err(GatewayError::BadAnswer)?.into_data() {
                    seen.extend_from_slice(&data);
                }
            }
            Ok(())
        };
        let read = tokio::time::timeout(LOOK, reading).await.unwrap_or(Ok(()));
        self.seen = Some(seen.freeze());
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_that_the_model_is_not_there() {
        for (answer, wanted) in [
            (r#"{"error":{"code":"model_not_found","message":"No."}}"#, true),
            (r#"{"error":{"message":"The model `org/a` does not exist.","type":"NotFoundError","code":404}}"#, true),
            (r#"{"object":"error","message":"The model `org/a` does not exist.","code":404}"#, true),
            (r#"{"error":{"message":"Not there.","param":"model"}}"#, true),
            (r#"{"error":"model 'org/a' not found"}"#, true),
            (r#"{"error":"no such model: org/a."}"#, true),
            (r#"{"detail":"Model org/a is unknown"}"#, true),
            (r#"{"error":"model 'org/a-2' not found"}"#, false),
            (r#"{"error":"model 'x/org/a' not found"}"#, false),
            (r#"{"error":"org/a: no such file"}"#, false),
            (r#"{"detail":"Not Found"}"#, false),
            (r#"{"error":{"code":404}}"#, false),
            ("model org/a not found", false),
            ("[]", false),
            ("", false),
        ] {
            assert_eq!(names_model(answer.as_bytes(), Some("org/a")), wanted, "{answer}");
        }
        assert!(names_model(br#"{"error":{"code":"model_not_found"}}"#, None));
        assert!(!names_model(br#"{"error":"model 'a' not found"}"#, None));
    }
}
