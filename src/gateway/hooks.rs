//! The modules' part in an exchange: what of it they are shown, and what becomes of what they say.

use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use http::header;

use super::answer::Answer;
use super::body::Content;
use super::error::GatewayError;
use super::exchange::Exchange;
use super::silence::Stall;
use super::upload::{ClientBody, WorkerBody};
use super::within;
use crate::headers;
use crate::modules::{self, RequestHead, RequestView, ResponseView, Visit};

/// What becomes of a request after its hooks.
#[expect(clippy::large_enum_variant, reason = "the large one is the common one, and is taken apart at once")]
pub enum OnRequest {
    Forward(RequestHead, WorkerBody),
    Answered(Box<modules::Answer>),
}

/// Runs the on-request hooks, with the body only if one of them is shown it.
pub async fn on_request(
    visit: &mut Visit,
    head: RequestHead,
    body: ClientBody,
    exchange: &Exchange<'_>,
) -> Result<OnRequest, GatewayError> {
    if !visit.has_request_hooks() {
        return Ok(OnRequest::Forward(head, body.into()));
    }
    let (body, passing) = match visit.request_body_limit() {
        Some(limit) => (within(exchange.deadline, || GatewayError::SlowBody, pin!(body.collect(limit))).await?, None),
        None => (Bytes::new(), Some(body)),
    };
    let received = body.len();
    let mut view = RequestView {
        head: Rc::new(head),
        body,
        request_id: exchange.record.request_id.clone(),
        client: exchange.record.client.clone(),
        received_ms: visit.received_ms(),
    };
    if let Some(answer) = visit.on_request(&mut view).await? {
        return Ok(OnRequest::Answered(Box::new(answer)));
    }
    let mut head = Rc::unwrap_or_clone(view.head);
    if let Some(body) = passing {
        return Ok(OnRequest::Forward(head, body.into()));
    }
    // The length of what is sent, whatever the client or a module said.
    if received > 0 || !view.body.is_empty() {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    let body = Some(view.body).filter(|body| !body.is_empty());
    Ok(OnRequest::Forward(head, WorkerBody::Whole(body)))
}

/// Runs the on-response hooks: with the whole body, or with the head alone of an answer that is streamed.
pub async fn on_response(
    visit: &mut Visit,
    answer: Answer,
    is_head: bool,
    exchange: &Exchange<'_>,
) -> Result<Answer, GatewayError> {
    let streamed = headers::is_event_stream(&answer.head.headers);
    if !visit.has_say_on_response(streamed) {
        return Ok(answer);
    }
    let Answer { head, content, mut hold } = answer;
    let is_tunnel = matches!(content, Content::Tunnel(_));
    let limit = visit.response_body_limit(streamed).filter(|_| !streamed && !is_head && !is_tunnel);
    let (body, passing) = match limit {
        None => (Bytes::new(), Some(content)),
        Some(limit) => {
            let time = exchange.config().limits.stream_body_stall_timeout_secs;
            let stall = Stall { deadline: exchange.gateway.deadlines.register(), time };
            let collecting = pin!(content.collect(limit, stall));
            let collected = within(exchange.deadline, || GatewayError::Timeout, collecting).await;
            match collected.inspect_err(|error| hold.lease.iter_mut().for_each(|lease| lease.ended(error.outcome())))? {
                Ok(body) => (body, None),
                Err(content) => (Bytes::new(), Some(content)),
            }
        }
    };
    let oversized = limit.is_some() && passing.is_some();
    let request_id = exchange.record.request_id.clone();
    let mut view = ResponseView { head: Rc::new(head), body, request_id, streamed, oversized };
    let replaced = visit.on_response(&mut view).await?;
    let mut head = Rc::unwrap_or_clone(view.head);
    let content = match passing {
        Some(content) if !replaced => content,
        dropped => {
            // A worker whose answer nobody will read is done with this request.
            if dropped.is_some() {
                hold.lease = None;
            }
            head.headers.remove(header::CONTENT_LENGTH);
            Content::Whole(Some(view.body).filter(|body| !body.is_empty()))
        }
    };
    Ok(Answer { head, content, hold })
}
