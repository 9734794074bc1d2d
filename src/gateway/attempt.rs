//! One attempt at one worker: the request goes out on a kept connection or a new one, and the head of the answer is
//! waited for.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::header;

use super::error::GatewayError;
use super::exchange::Exchange;
use super::upload::{Resend, WorkerBody};
use crate::client::Interim;
use crate::http1::MessageError;
use crate::http1::head::Response;
use crate::modules::RequestHead;
use crate::workers::answer::AnswerBody;
use crate::workers::breaker::Outcome;
use crate::workers::client::Connections;
use crate::workers::connector::ConnectError;
use crate::workers::idle::Asker;
use crate::workers::link::{Link, LinkError, Payload, RequestParts, SendError};
use crate::workers::retry::Failure;

/// The time in which a kept connection that its worker has closed is found to be so.
const STALE: Duration = Duration::from_millis(500);

/// See the module's documentation.
pub struct Attempt<'a, 'b> {
    pub exchange: &'a Exchange<'b>,
    pub home: &'a Rc<Connections<WorkerBody>>,
    pub resend: &'a Resend,
    pub reuse: Reuse,
}

/// Whether a connection may be used that carried other requests before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    Allowed,
    /// The last one that was taken had gone stale: each might have.
    Forbidden,
}

/// Why one worker gave no answer.
pub struct Failed {
    pub error: GatewayError,
    pub kind: Failure,
    pub left: Left,
}

/// What is left of the request's body after an attempt.
pub enum Left {
    /// All of it: there was no connection. It can be sent whether or not it is kept.
    All(WorkerBody),
    /// What was not read.
    Rest(Option<WorkerBody>),
}

/// The head of a worker's answer, and its body.
pub type Begun = (Response, AnswerBody<WorkerBody>);

/// Why there is no answer on one connection.
enum Unanswered {
    Failed(Failed),
    /// The connection broke.
    Broken {
        failure: SendError<WorkerBody>,
        /// It carried other requests before.
        was_kept: bool,
    },
}

impl Attempt<'_, '_> {
    /// Sends on a kept connection if one is good, otherwise on a new one.
    pub async fn run(&self, head: &mut RequestHead, mut body: WorkerBody) -> Result<Begun, Failed> {
        let mut reuse = self.reuse;
        loop {
            let sent = if self.home.speaks_http2() && self.exchange.upgrade.is_none() {
                Box::pin(self.send_http2(head, body, reuse)).await
            } else {
                self.send_http1(head, body, reuse).await
            };
            let (SendError { error, is_unsent, rest }, was_kept) = match sent {
                Ok(begun) => return Ok(begun),
                Err(Unanswered::Failed(failed)) => return Err(failed),
                Err(Unanswered::Broken { failure, was_kept }) => (failure, was_kept),
            };
            if let Some(error) = self.exchange.record.upload().error() {
                return Err(Failed { error, kind: Failure::Broken, left: Left::Rest(None) });
            }
            // The worker closed a kept connection just as it was taken: not a failure of the worker, and the next
            // try is on a new one.
            let is_stale = was_kept && !self.exchange.has_begun.get();
            let is_stale = is_stale && (is_unsent || (error.is_break() && self.may_be_repeated(head)));
            if !is_stale {
                let kind = if is_unsent { Failure::Unsent } else { Failure::Broken };
                return Err(Failed { error: GatewayError::BadAnswer(error), kind, left: Left::Rest(rest) });
            }
            body = match self.resend.body(rest) {
                Some(again) => again,
                None => {
                    let (error, kind) = (GatewayError::BadAnswer(error), Failure::Broken);
                    return Err(Failed { error, kind, left: Left::Rest(None) });
                }
            };
            reuse = Reuse::Forbidden;
        }
    }

    /// Whether it does no harm if the worker has had the request all the same. One that broke it off later was at work.
    fn may_be_repeated(&self, head: &RequestHead) -> bool {
        let is_quick = || self.exchange.record.start().elapsed() < STALE;
        head.method.is_safe() && self.exchange.most_attempts() > 1 && is_quick()
    }

    async fn send_http1(&self, head: &mut RequestHead, body: WorkerBody, reuse: Reuse) -> Result<Begun, Unanswered> {
        let kept = match reuse {
            Reuse::Allowed => self.home.reuse(self.asker()),
            Reuse::Forbidden => None,
        };
        let mut link = match kept {
            Some(link) => link,
            // In a box: it is large, and seldom needed.
            None => match Box::pin(self.connect(reuse)).await {
                Ok(link) => link,
                Err(error) => return Err(Failed::unsent(error, body).into()),
            },
        };
        let payload = payload(head, body);
        let Exchange { caller, has_begun, .. } = self.exchange;
        let sent = {
            let sending = link.send(self.parts(head), payload, |cx, interim| {
                if caller.send_interim(cx, interim) == Interim::Sent {
                    has_begun.set(true);
                }
            });
            self.in_time(pin!(sending)).await?
        };
        match sent {
            Ok(answer) => Ok((answer, AnswerBody::http1(link, Some(self.home.clone())))),
            Err(failure) => Err(Unanswered::Broken { failure, was_kept: link.reused }),
        }
    }

    /// Connects anew; to a worker that takes no more connections, a kept one may be used that is not proven.
    async fn connect(&self, reuse: Reuse) -> Result<Box<Link<WorkerBody>>, ConnectError> {
        let connected = self.home.connect().await;
        connected.or_else(|error| match reuse {
            Reuse::Allowed => self.home.reuse(Asker::LaterRequest).ok_or(error),
            Reuse::Forbidden => Err(error),
        })
    }

    fn asker(&self) -> Asker {
        match self.exchange.caller.has_asked.replace(true) {
            false => Asker::FirstRequest,
            true => Asker::LaterRequest,
        }
    }

    async fn send_http2(&self, head: &RequestHead, body: WorkerBody, reuse: Reuse) -> Result<Begun, Unanswered> {
        let placed = if reuse == Reuse::Allowed { self.home.place().await } else { self.home.new_place().await };
        let place = match placed {
            Ok(place) => place,
            Err(error) => return Err(Failed::unsent(error, body).into()),
        };
        let was_kept = place.reused;
        let sending = place.send(self.home.worker.url.scheme(), self.parts(head), body);
        match self.in_time(pin!(sending)).await? {
            Ok((answer, body)) => Ok((answer, AnswerBody::http2(body))),
            Err(failure) => Err(Unanswered::Broken { failure, was_kept }),
        }
    }

    fn parts<'h>(&'h self, head: &'h RequestHead) -> RequestParts<'h> {
        RequestParts {
            method: &head.method,
            uri: &head.uri,
            headers: &head.headers,
            host: &self.home.worker.host,
            upgrade: self.exchange.upgrade.as_ref(),
        }
    }

    /// Waits for the head of the answer, no longer than it may take to begin, and than the request may take. The time
    /// that the client takes for its body is not the worker's.
    async fn in_time<T>(&self, mut sending: Pin<&mut impl Future<Output = T>>) -> Result<T, Failed> {
        let upload = self.exchange.record.upload();
        let first_byte = self.exchange.first_byte_timeout().map(|limit| {
            let deadline = self.exchange.gateway.deadlines.register();
            deadline.set(limit);
            (deadline, limit)
        });
        let mut was_awaited = false;
        let sent = poll_fn(|cx| {
            if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
                return Poll::Ready(Ok(sent));
            }
            if self.exchange.deadline.poll_expired(cx).is_ready() {
                return Poll::Ready(Err(upload.late()));
            }
            let Some((deadline, limit)) = &first_byte else { return Poll::Pending };
            let is_awaited = upload.is_awaited();
            if std::mem::replace(&mut was_awaited, is_awaited) || is_awaited {
                deadline.set(*limit);
            }
            deadline.poll_expired(cx).map(|()| Err(GatewayError::FirstByteTimeout))
        });
        sent.await.map_err(|error| Failed { error, kind: Failure::Broken, left: Left::Rest(None) })
    }
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

impl Failed {
    fn unsent(error: ConnectError, body: WorkerBody) -> Self {
        Self { error: GatewayError::Connect(error), kind: Failure::Unsent, left: Left::All(body) }
    }
}

impl From<Failed> for Unanswered {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

impl GatewayError {
    /// What it says of the worker.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            // This machine could not connect to anything.
            Self::Connect(error) if error.is_local() => Outcome::Unknown,
            Self::Connect(_) => Outcome::Unreachable,
            Self::BadAnswer(LinkError::Message(MessageError::Io(_) | MessageError::Incomplete)) => Outcome::Unreachable,
            Self::BadAnswer(LinkError::Http2(_)) => Outcome::Unreachable,
            // It was not the worker that could not say it.
            Self::BadAnswer(LinkError::Target) => Outcome::Unknown,
            Self::BadAnswer(_) | Self::FirstByteTimeout | Self::Stalled | Self::Timeout => Outcome::Failed,
            _ => Outcome::Unknown,
        }
    }
}
