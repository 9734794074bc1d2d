//! To a worker and back: picks one, sends the request on a connection to it, and waits for the head of the
//! answer. Another attempt is made only when the worker cannot have seen the request, or when it may see it
//! twice without harm.

use std::rc::Rc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, StatusCode};
use http_body::Body;
use hyper::body::Incoming;

use super::View;
use super::body::{Collected, Content, Upload, WorkerBody, collect};
use super::error::GatewayError;
use super::record::Record;
use crate::headers;
use crate::modules::{RequestHead, ResponseHead};
use crate::workers::Lease;
use crate::workers::client::{AnswerBody, Connections, Link};

/// Workers that are tried while none can be connected to.
const MOST_WORKERS: usize = 3;

/// A worker's answer: its head, and a body that is still arriving.
pub struct WorkerAnswer {
    pub head: ResponseHead,
    pub content: Content,
    pub lease: Lease,
}

/// Sends a request to one of the view's workers.
pub async fn send(
    view: &View,
    head: RequestHead,
    body: WorkerBody,
    record: &mut Record,
) -> Result<WorkerAnswer, GatewayError> {
    let mut request = request(head, body);
    let mut avoid = Vec::new();
    let mut last = None;
    while avoid.len() < MOST_WORKERS {
        let Some(lease) = view.snapshot.pool.pick(&avoid) else { break };
        record.sent_to(&lease.worker);
        match exchange(&view.connections[lease.position], request, &record.upload()).await {
            Ok((response, link)) => return receive(response, link, &view.connections[lease.position], lease).await,
            Err(Failure::Unsent { error, request: unsent }) => {
                lease.failed();
                avoid.push(lease.position);
                (last, request) = (Some(error), unsent);
            }
            Err(Failure::Final(error)) => {
                lease.failed();
                return Err(error);
            }
        }
    }
    Err(last.unwrap_or(GatewayError::NoWorker))
}

fn request(head: RequestHead, body: WorkerBody) -> Request<WorkerBody> {
    let RequestHead { method, uri, headers } = head;
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    let is_unsized = matches!(request.body(), WorkerBody::Stream(_)) && request.body().size_hint().exact().is_none();
    if is_unsized {
        // Said aloud, or hyper takes a GET with a body of unknown length for one without a body.
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    wait_for_continue(&mut request);
    request
}

/// A client that waits for `100 Continue` gets it when the worker says so (RFC 9110 section 10.1.1).
fn wait_for_continue(request: &mut Request<WorkerBody>) {
    let waits =
        request.headers().get(header::EXPECT).is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    match request.body_mut() {
        WorkerBody::Stream(body) if waits => {
            let said = body.wait_for_continue();
            hyper::ext::on_informational(request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    said.say();
                }
            });
        }
        _ => drop(request.headers_mut().remove(header::EXPECT)),
    }
}

/// Why one worker gave no answer.
#[expect(clippy::large_enum_variant, reason = "the larger one is the rarer path to another attempt, and is not kept")]
enum Failure {
    /// It cannot have seen the request.
    Unsent {
        error: GatewayError,
        request: Request<WorkerBody>,
    },
    Final(GatewayError),
}

/// Sends on a kept connection if one is good, otherwise on a new one.
async fn exchange(
    home: &Rc<Connections<WorkerBody>>,
    mut request: Request<WorkerBody>,
    upload: &Upload,
) -> Result<(http::Response<Incoming>, Link<WorkerBody>), Failure> {
    request.headers_mut().insert(header::HOST, home.worker.host.clone());
    let mut kept = home.reuse().await;
    loop {
        let mut link = match kept.take() {
            Some(link) => link,
            None => match home.connect().await {
                Ok(link) => link,
                Err(error) => return Err(Failure::Unsent { error: GatewayError::Connect(error), request }),
            },
        };
        let again = if link.reused { repeatable(&request) } else { None };
        let failure = match link.send(request).await {
            Ok(response) => return Ok((response, link)),
            Err(failure) => failure,
        };
        // The worker closed a kept connection just as it was taken: not a failure of the worker, and the next
        // attempt is on a new one.
        request = match (failure.unsent, again) {
            (Some(unsent), _) if link.reused => unsent,
            (None, Some(again)) if upload.error().is_none() => again,
            _ => return Err(Failure::Final(upload.error().unwrap_or(GatewayError::BadAnswer(failure.error)))),
        };
    }
}

/// A copy of a request that may be seen twice: safe and without a body (RFC 9110 section 9.2).
fn repeatable(request: &Request<WorkerBody>) -> Option<Request<WorkerBody>> {
    if !request.method().is_safe() || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(WorkerBody::Whole(None));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

async fn receive(
    response: http::Response<Incoming>,
    link: Link<WorkerBody>,
    home: &Rc<Connections<WorkerBody>>,
    lease: Lease,
) -> Result<WorkerAnswer, GatewayError> {
    let (parts, incoming) = response.into_parts();
    if parts.status.is_informational() || !headers::transfer_coding_is_plain(&parts.headers) {
        lease.failed();
        return Err(GatewayError::BadHead);
    }
    let mut headers = parts.headers;
    let ambiguous = is_ambiguous(&headers);
    if ambiguous {
        headers.remove(header::CONTENT_LENGTH);
    }
    headers::strip_hop_by_hop(&mut headers);
    if parts.status.is_server_error() {
        lease.failed();
    }
    let mut rest = AnswerBody::new(incoming, link, (!ambiguous).then(|| home.clone()));
    rest.settle().await;
    let head = ResponseHead { status: parts.status, headers };
    Ok(WorkerAnswer { head, content: Content::Stream { first: None, rest: Box::new(rest) }, lease })
}

/// Both framings at once: the transfer coding counts, and the connection is not used again (RFC 9112
/// section 6.3).
fn is_ambiguous(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH)
}

/// Reads up to `limit` bytes of an answer's body for modules to see. `Err` holds what to send on when there
/// is more.
pub async fn collect_answer(
    content: Content,
    headers: &HeaderMap,
    limit: u64,
) -> Result<Result<bytes::Bytes, Content>, GatewayError> {
    let mut rest = match content {
        Content::Whole(bytes) => return Ok(Ok(bytes.unwrap_or_default())),
        Content::Stream { rest, .. } => rest,
    };
    if !rest.is_end_stream() && headers::content_length(headers).is_some_and(|length| length > limit) {
        return Ok(Err(Content::Stream { first: None, rest }));
    }
    match collect(&mut *rest, limit).await.map_err(GatewayError::BadAnswer)? {
        Collected::Whole(body) => Ok(Ok(body)),
        Collected::Over(first) => Ok(Err(Content::Stream { first: Some(first), rest })),
    }
}
