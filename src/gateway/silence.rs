//! What becomes of an answer while its worker says nothing: after a while it breaks off, and until then the client of
//! an event stream is sent a comment now and then, so that nothing on the way takes the connection for dead.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame, SizeHint};

use super::body::BodyError;
use super::error::GatewayError;
use super::event_stream::EventStream;
use super::upload::WorkerBody;
use crate::config::Limits;
use crate::deadline::{Deadline, Deadlines};
use crate::headers;
use crate::modules::ResponseHead;
use crate::workers::answer::AnswerBody;

/// A comment of an event stream, which clients ignore (WHATWG HTML section 9.2.6). It has no empty line behind it: many
/// clients take that for an event without data.
const COMMENT: &[u8] = b": keep-alive\n";

/// Tells nginx whether to buffer an answer, which it does unless `no` is said.
static X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// See the module's documentation.
pub struct Silence {
    deadlines: Deadlines,
    /// Set for the first time when the worker pauses; most answers come without a pause.
    deadline: Option<Deadline>,
    stall: Duration,
    comments: Option<Comments>,
    /// For how long the worker had been silent when the deadline was set.
    silent: Option<Duration>,
}

struct Comments {
    interval: Duration,
    stream: EventStream,
}

impl Silence {
    /// `length` is that of the answer. An event stream of a known length has no room for comments, and gains nothing by
    /// not being buffered: it is complete already.
    pub fn new(head: &mut ResponseHead, length: &SizeHint, limits: &Limits, deadlines: &Deadlines) -> Self {
        let is_event_stream = length.exact().is_none() && has_comments(&head.headers);
        if is_event_stream && !limits.disable_accel_buffering_header {
            head.headers.entry(&X_ACCEL_BUFFERING).or_insert(HeaderValue::from_static("no"));
        }
        let interval = limits.sse_keepalive_secs;
        let takes_comments =
            is_event_stream && !interval.is_zero() && !head.headers.contains_key(header::CONTENT_ENCODING);
        let comments = takes_comments.then(|| Comments { interval, stream: EventStream::default() });
        let stall = limits.stream_body_stall_timeout_secs;
        Self { deadlines: deadlines.clone(), deadline: None, stall, comments, silent: None }
    }

    /// The worker has said something. The first bytes of it may have to be omitted, see [`EventStream::pass`].
    pub fn broken(&mut self, frame: &mut Frame<Bytes>) {
        self.silent = None;
        if let (Some(comments), Some(data)) = (&mut self.comments, frame.data_mut()) {
            comments.stream.pass(data);
        }
    }

    /// The worker says nothing: ready with what to send instead.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame<Bytes>, BodyError>> {
        if self.silent.is_none() {
            self.wait(Duration::ZERO);
        }
        loop {
            let Some(deadline) = &self.deadline else { return Poll::Pending };
            ready!(deadline.poll_expired(cx));
            let silent = self.silent.unwrap_or_default() + self.step(self.silent.unwrap_or_default());
            if silent >= self.stall {
                return Poll::Ready(Err(BodyError::Stalled));
            }
            self.wait(silent);
            if let Some(Comments { stream, .. }) = &mut self.comments
                && stream.takes_comment()
            {
                stream.commented();
                return Poll::Ready(Ok(Frame::data(Bytes::from_static(COMMENT))));
            }
        }
    }

    fn wait(&mut self, silent: Duration) {
        let step = self.step(silent);
        self.deadline.get_or_insert_with(|| self.deadlines.register()).set(step);
        self.silent = Some(silent);
    }

    /// Time to the next thing to do.
    fn step(&self, silent: Duration) -> Duration {
        let left = self.stall.saturating_sub(silent);
        self.comments.as_ref().map_or(left, |comments| left.min(comments.interval))
    }
}

/// How long a worker may be silent in an answer that is collected.
pub struct Stall {
    pub deadline: Deadline,
    pub time: Duration,
}

/// A worker's answer that breaks off when the worker is silent for too long, for somebody who collects it.
pub struct Attentive<'a> {
    rest: &'a mut AnswerBody<WorkerBody>,
    stall: Stall,
    /// What had been read ahead when the deadline was set for a pause that has not ended.
    ahead: Option<usize>,
}

impl<'a> Attentive<'a> {
    pub fn new(rest: &'a mut AnswerBody<WorkerBody>, stall: Stall) -> Self {
        Self { rest, stall, ahead: None }
    }
}

impl Body for Attentive<'_> {
    type Data = Bytes;
    type Error = GatewayError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, GatewayError>>> {
        let Self { rest, stall, ahead } = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut **rest).poll_frame(cx) {
            *ahead = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(GatewayError::BadAnswer)));
        }
        let read = Some(rest.read_ahead());
        if std::mem::replace(ahead, read) != read {
            stall.deadline.set(stall.time);
        }
        stall.deadline.poll_expired(cx).map(|()| Some(Err(GatewayError::Stalled)))
    }
}

/// Only this kind of stream has comments.
fn has_comments(headers: &HeaderMap) -> bool {
    headers::media_type(headers).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"))
}
