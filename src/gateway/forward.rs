//! To a worker and back: picks one, sends the request on a connection to it, and waits for the head of the
//! answer. Another attempt is made only when the worker cannot have seen the request, or when it may see it
//! twice without harm.

use std::rc::Rc;

use http::header;
use http_body::Body;

use super::View;
use super::body::{Collected, Content, WorkerBody, collect};
use super::error::GatewayError;
use super::record::Record;
use crate::headers;
use crate::http1::head::Response;
use crate::modules::{RequestHead, ResponseHead};
use crate::workers::Lease;
use crate::workers::client::Connections;
use crate::workers::link::{AnswerBody, Link, Payload, RequestParts};

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
    mut head: RequestHead,
    body: WorkerBody,
    record: &mut Record,
) -> Result<WorkerAnswer, GatewayError> {
    let mut payload = payload(&mut head, body);
    let mut avoid = Vec::new();
    let mut last = None;
    while avoid.len() < MOST_WORKERS {
        let Some(lease) = view.snapshot.pool.pick(&avoid) else { break };
        record.sent_to(&lease.worker);
        let home = &view.connections[lease.position];
        match exchange(home, &head, payload, record).await {
            Ok((answer, link)) => return Ok(receive(answer, link, home, lease)),
            Err(Failure::Unsent { error, payload: unsent }) => {
                lease.failed();
                avoid.push(lease.position);
                (last, payload) = (Some(error), unsent);
            }
            Err(Failure::Final(error)) => {
                if let GatewayError::BadAnswer(_) = error {
                    lease.failed();
                }
                return Err(error);
            }
        }
    }
    Err(last.unwrap_or(GatewayError::NoWorker))
}

/// A client that waits for `100 Continue` gets it when the worker says so (RFC 9110 section 10.1.1).
fn payload(head: &mut RequestHead, body: WorkerBody) -> Payload<WorkerBody> {
    let expects = head.headers.get(header::EXPECT);
    let waits = expects.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let waits = waits && matches!(body, WorkerBody::Stream(_));
    if expects.is_some() && !waits {
        head.headers.remove(header::EXPECT);
    }
    let mut payload = Payload::new(&head.method, &head.headers, body);
    if waits {
        payload.wait_for_continue();
    }
    payload
}

/// Why one worker gave no answer.
enum Failure {
    /// It cannot have seen the request.
    Unsent {
        error: GatewayError,
        payload: Payload<WorkerBody>,
    },
    Final(GatewayError),
}

/// Sends on a kept connection if one is good, otherwise on a new one.
async fn exchange(
    home: &Rc<Connections<WorkerBody>>,
    head: &RequestHead,
    mut payload: Payload<WorkerBody>,
    record: &Record,
) -> Result<(Response, Box<Link<WorkerBody>>), Failure> {
    let request =
        RequestParts { method: &head.method, uri: &head.uri, headers: &head.headers, host: &home.worker.host };
    let mut kept = home.reuse().await;
    loop {
        let mut link = match kept.take() {
            Some(link) => link,
            None => match home.connect().await {
                Ok(link) => link,
                Err(error) => return Err(Failure::Unsent { error: GatewayError::Connect(error), payload }),
            },
        };
        // It may be seen twice: safe and without a body (RFC 9110 section 9.2).
        let repeatable = link.reused && head.method.is_safe() && payload.is_empty();
        let failure = match link.send(request, payload).await {
            Ok(answer) => return Ok((answer, link)),
            Err(failure) => failure,
        };
        // The worker closed a kept connection just as it was taken: not a failure of the worker, and the next
        // attempt is on a new one.
        payload = match failure.unsent {
            Some(unsent) => unsent,
            None if repeatable => Payload::new(&head.method, &head.headers, WorkerBody::Whole(None)),
            None => {
                let client = record.upload().error();
                return Err(Failure::Final(client.unwrap_or(GatewayError::BadAnswer(failure.error))));
            }
        };
    }
}

fn receive(
    answer: Response,
    link: Box<Link<WorkerBody>>,
    home: &Rc<Connections<WorkerBody>>,
    lease: Lease,
) -> WorkerAnswer {
    let Response { status, mut headers, .. } = answer;
    headers::strip_hop_by_hop(&mut headers);
    if status.is_server_error() {
        lease.failed();
    }
    let rest = AnswerBody::new(link, Some(home.clone()));
    WorkerAnswer { head: ResponseHead { status, headers }, content: Content::Stream { first: None, rest }, lease }
}

/// Reads up to `limit` bytes of an answer's body for modules to see. `Err` holds what to send on when there
/// is more.
pub async fn collect_answer(content: Content, limit: u64) -> Result<Result<bytes::Bytes, Content>, GatewayError> {
    let mut rest = match content {
        Content::Whole(bytes) => return Ok(Ok(bytes.unwrap_or_default())),
        Content::Stream { rest, .. } => rest,
    };
    if rest.size_hint().lower() > limit {
        return Ok(Err(Content::Stream { first: None, rest }));
    }
    rest.expect_whole();
    match collect(&mut rest, limit).await.map_err(GatewayError::BadAnswer)? {
        Collected::Whole(body) => Ok(Ok(body)),
        Collected::Over(first) => Ok(Err(Content::Stream { first: Some(first), rest })),
    }
}
