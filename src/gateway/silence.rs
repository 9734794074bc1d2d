//! What becomes of an answer while its worker says nothing: after a while it breaks off, and until then the client of
//! an event stream is sent a comment now and then, so that nothing on the way takes the connection for dead.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http_body::{Body, Frame, SizeHint};

use super::body::BodyError;
use super::error::GatewayError;
use super::upload::WorkerBody;
use crate::config::Limits;
use crate::deadline::{Deadline, Deadlines};
use crate::headers;
use crate::modules::ResponseHead;
use crate::workers::answer::AnswerBody;

/// A comment of an event stream, which clients pass over (WHATWG HTML section 9.2.6).
const COMMENT: &[u8] = b": keep-alive\n\n";

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
    /// The last bytes that were sent. A comment is one only between two events.
    tail: [u8; 2],
}

impl Silence {
    /// `length` is that of the answer: one that is known has no room for comments.
    pub fn new(head: &ResponseHead, length: &SizeHint, limits: &Limits, deadlines: &Deadlines) -> Self {
        let takes_more = length.exact().is_none() && !limits.sse_keepalive_secs.is_zero();
        let is_plain = || !head.headers.contains_key(header::CONTENT_ENCODING);
        let comments = (takes_more && has_comments(&head.headers) && is_plain())
            .then_some(Comments { interval: limits.sse_keepalive_secs, tail: *b"\n\n" });
        let stall = limits.stream_body_stall_timeout_secs;
        Self { deadlines: deadlines.clone(), deadline: None, stall, comments, silent: None }
    }

    /// The worker has said something.
    pub fn broken(&mut self, frame: &Frame<Bytes>) {
        self.silent = None;
        if let (Some(comments), Some(data)) = (&mut self.comments, frame.data_ref()) {
            comments.note(data);
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
            if self.comments.as_ref().is_some_and(Comments::is_between_events) {
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

impl Comments {
    fn note(&mut self, data: &[u8]) {
        for byte in data[data.len().saturating_sub(4)..].iter().filter(|byte| **byte != b'\r') {
            self.tail = [self.tail[1], *byte];
        }
    }

    /// An event ends with an empty line. A stream with CR alone for the end of a line gets no comments.
    fn is_between_events(&self) -> bool {
        self.tail == *b"\n\n"
    }
}

/// Only this kind of stream has comments.
fn has_comments(headers: &HeaderMap) -> bool {
    headers::media_type(headers).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_go_between_events_only() {
        for (pieces, between) in [
            (&["data: a\n\n"][..], true),
            (&["data: a\r\n\r\n"], true),
            (&["data: a\n", "\n"], true),
            (&["data: a\r\n\r", "\n"], true),
            (&["data: a\n"], false),
            (&["data: a\r\n"], false),
            (&["data: a"], false),
            (&["data: a\n\n", "d"], false),
            (&["", "data: a\n\n", ""], true),
            (&[], true),
        ] {
            let mut comments = Comments { interval: Duration::ZERO, tail: *b"\n\n" };
            pieces.iter().for_each(|piece| comments.note(piece.as_bytes()));
            assert_eq!(comments.is_between_events(), between, "{pieces:?}");
        }
    }
}
