//! A request's body on its way to a worker: bounded, counted, and kept as far as it may have to be sent again.

mod hold;
mod kept;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use self::hold::Watch;
use self::kept::Kept;
use super::body::{BodyError, Collected, collect};
use super::error::GatewayError;
use crate::client::{RequestBody, RequestBodyError};
use crate::deadline::{Deadline, Deadlines};

pub use self::hold::Stopped;
pub use self::kept::{Keep, NoRoom, Shelf};

/// The longest body that is wanted in one piece before it is sent: it is not copied then, but counts only once it is
/// whole.
const MOST_AT_ONCE: u64 = 64 * 1024;

/// What became of a request body while somebody else was reading it.
#[derive(Debug, Default)]
pub struct Upload {
    pub bytes: Cell<u64>,
    is_awaited: Cell<bool>,
    is_answered: Cell<bool>,
    fault: Cell<Option<Fault>>,
    kept: RefCell<Kept>,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Broken,
    Slow,
    TooLarge(u64),
    /// The body has another `model` after the one that selected its pool.
    SecondModel,
}

impl Upload {
    /// The client's fault, if that is why sending failed.
    pub fn error(&self) -> Option<GatewayError> {
        self.fault.get().map(|fault| match fault {
            Fault::Broken => GatewayError::BrokenBody,
            Fault::Slow => GatewayError::SlowBody,
            Fault::TooLarge(limit) => GatewayError::BodyTooLarge(limit),
            Fault::SecondModel => {
                GatewayError::BadRequest("The body has a second `model` after the first part of it was sent on.")
            }
        })
    }

    /// Whether somebody wants more of it, and the client has not sent it.
    pub fn is_awaited(&self) -> bool {
        self.is_awaited.get()
    }

    /// Who is to blame for a request that takes too long.
    pub fn late(&self) -> GatewayError {
        if self.is_awaited() { GatewayError::SlowBody } else { GatewayError::Timeout }
    }

    /// The answer has begun: the client may wait for it before it sends more, as in a call of gRPC in both directions.
    pub fn answered(&self) {
        self.is_answered.set(true);
    }

    /// The body will not be sent again.
    pub fn forget(&self) {
        self.kept.borrow_mut().lose();
    }

    /// Drops the kept bytes but goes on counting their cost, because other bytes are held in their place.
    pub fn let_go(&self) {
        self.kept.borrow_mut().give_away();
    }

    /// Counts `bytes` more as held for this body.
    pub fn charge(&self, bytes: u64) -> Result<(), NoRoom> {
        self.kept.borrow_mut().charge(bytes)
    }

    fn keep(&self, frame: &Frame<Bytes>) {
        let kept = &mut *self.kept.borrow_mut();
        match frame.data_ref() {
            _ if kept.is_lost => {}
            Some(data) if kept.add(data).is_ok() => {}
            Some(_) | None => kept.lose(),
        }
    }
}

/// The body of a request on its way to a worker.
pub enum WorkerBody {
    Whole(Option<Bytes>),
    Stream(ClientBody),
    /// The pieces that have been read, then the rest.
    Again(VecDeque<Bytes>, Option<ClientBody>),
}

/// A request body as it arrives.
pub struct ClientBody {
    incoming: RequestBody,
    upload: Rc<Upload>,
    limit: u64,
    pause: Pause,
    watch: Option<Box<Watch>>,
}

/// How long a client may send nothing of a body that somebody waits for.
pub struct Pause {
    time: Duration,
    deadlines: Deadlines,
    /// Set for the first time when the client pauses; most bodies come without a pause.
    deadline: Option<Deadline>,
}

impl Pause {
    pub fn new(deadlines: &Deadlines, time: Duration) -> Self {
        Self { time, deadlines: deadlines.clone(), deadline: None }
    }

    fn begin(&mut self) {
        self.deadline.get_or_insert_with(|| self.deadlines.register()).set(self.time);
    }

    fn poll_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.deadline.as_ref().map_or(Poll::Pending, |deadline| deadline.poll_expired(cx))
    }
}

impl ClientBody {
    /// A body of at most `limit` bytes, of which nothing is kept without `keep`.
    pub fn new(incoming: RequestBody, upload: Rc<Upload>, limit: u64, keep: Option<Keep>, pause: Pause) -> Self {
        upload.kept.borrow_mut().keep = keep;
        Self { incoming, upload, limit, pause, watch: None }
    }

    /// Whether there is no body at all.
    pub fn is_empty(&self) -> bool {
        self.incoming.is_end_stream()
    }

    /// Reads the whole body, if it is no longer than `limit`.
    pub async fn collect(mut self, limit: u64) -> Result<Bytes, GatewayError> {
        self.limit = self.limit.min(limit);
        if self.incoming.size_hint().lower() > self.limit {
            return Err(GatewayError::BodyTooLarge(self.limit));
        }
        self.upload.forget();
        self.incoming.expect_whole();
        let upload = self.upload.clone();
        match collect(&mut self, u64::MAX).await {
            Ok(Collected::Whole(body)) => Ok(body),
            Ok(Collected::Over(_)) | Err(_) => Err(upload.error().unwrap_or(GatewayError::BrokenBody)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.incoming).poll_frame(cx);
        let was_awaited = self.upload.is_awaited.replace(frame.is_pending());
        let Poll::Ready(frame) = frame else { return self.poll_pause(was_awaited, cx) };
        if self.incoming.is_end_stream() || frame.is_none() {
            self.upload.kept.borrow_mut().is_whole = true;
        }
        Poll::Ready(frame.map(|frame| match frame {
            Ok(frame) => self.count(frame),
            Err(error) => {
                self.upload.fault.set(Some(Fault::Broken));
                Err(BodyError::Client(error))
            }
        }))
    }

    /// The client sends nothing.
    fn poll_pause<T>(&mut self, was_awaited: bool, cx: &mut Context<'_>) -> Poll<Option<Result<T, BodyError>>> {
        if self.upload.is_answered.get() {
            return Poll::Pending;
        }
        if !was_awaited {
            self.pause.begin();
        }
        ready!(self.pause.poll_over(cx));
        self.upload.fault.set(Some(Fault::Slow));
        Poll::Ready(Some(Err(BodyError::Client(RequestBodyError::Slow))))
    }

    fn count(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        let bytes = self.upload.bytes.get() + frame.data_ref().map_or(0, Bytes::len) as u64;
        self.upload.bytes.set(bytes);
        if bytes > self.limit {
            self.upload.fault.set(Some(Fault::TooLarge(self.limit)));
            return Err(BodyError::TooLarge);
        }
        if let (Some(watch), Some(data)) = (&mut self.watch, frame.data_ref())
            && !watch.passes(data)
        {
            self.upload.fault.set(Some(Fault::SecondModel));
            return Err(BodyError::SecondModel);
        }
        self.upload.keep(&frame);
        Ok(frame)
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.poll(cx)
    }
}

impl WorkerBody {
    /// What has been kept of it, then what has not been read.
    fn again(upload: &Upload, rest: Option<ClientBody>) -> Self {
        Self::Again(upload.kept.borrow_mut().pieces(), rest)
    }
}

/// What is known of a body that is being sent, for another attempt.
pub struct Resend {
    upload: Rc<Upload>,
    /// All of it was here before it was sent.
    whole: Option<WholeBody>,
}

/// A body that was read before; `None` is none.
type WholeBody = Option<Bytes>;

impl Resend {
    pub fn of(body: &WorkerBody, upload: Rc<Upload>) -> Self {
        let whole = match body {
            WorkerBody::Whole(body) => Some(body.clone()),
            WorkerBody::Stream(_) | WorkerBody::Again(..) => None,
        };
        Self { upload, whole }
    }

    /// The body again, where `rest` is what the last attempt did not read; `None` if some of it is lost.
    pub fn body(&self, rest: Option<WorkerBody>) -> Option<WorkerBody> {
        if let Some(body) = &self.whole {
            return Some(WorkerBody::Whole(body.clone()));
        }
        let upload = &self.upload;
        let (is_lost, is_whole) = (upload.kept.borrow().is_lost, upload.kept.borrow().is_whole);
        let rest = match rest {
            // Nothing of it was read: what is kept does not matter.
            Some(WorkerBody::Stream(rest)) if upload.bytes.get() == 0 => return Some(WorkerBody::Stream(rest)),
            Some(WorkerBody::Stream(rest) | WorkerBody::Again(_, Some(rest))) => Some(rest),
            Some(WorkerBody::Whole(_) | WorkerBody::Again(_, None)) | None => None,
        };
        (!is_lost && (is_whole || rest.is_some())).then(|| WorkerBody::again(upload, rest))
    }

    /// Nothing of a body has come, and nothing is known to come.
    pub fn is_empty(&self) -> bool {
        self.whole.as_ref().map_or(self.upload.bytes.get() == 0, Option::is_none)
    }

    /// All of the body, if it has come and is kept.
    pub fn kept(&self) -> Option<Bytes> {
        if let Some(body) = &self.whole {
            return body.clone();
        }
        let kept = &mut *self.upload.kept.borrow_mut();
        (kept.is_whole && !kept.is_lost).then(|| hold::joined(kept.pieces().make_contiguous()))
    }

    /// There will be no other attempt.
    pub fn forget(&self) {
        self.upload.forget();
    }
}

impl From<ClientBody> for WorkerBody {
    fn from(body: ClientBody) -> Self {
        if body.is_empty() { Self::Whole(None) } else { Self::Stream(body) }
    }
}

impl Body for WorkerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            WorkerBody::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            WorkerBody::Stream(body) => body.poll(cx),
            WorkerBody::Again(read, rest) => match (read.pop_front(), rest) {
                (Some(piece), _) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                (None, Some(rest)) => rest.poll(cx),
                (None, None) => Poll::Ready(None),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            WorkerBody::Whole(bytes) => bytes.is_none(),
            WorkerBody::Stream(body) => body.incoming.is_end_stream(),
            WorkerBody::Again(read, rest) => {
                read.is_empty() && rest.as_ref().is_none_or(|rest| rest.incoming.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            WorkerBody::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            WorkerBody::Stream(body) => body.incoming.size_hint(),
            WorkerBody::Again(read, rest) => {
                let read: usize = read.iter().map(Bytes::len).sum();
                let rest = rest.as_ref().map_or_else(|| SizeHint::with_exact(0), |rest| rest.incoming.size_hint());
                rest.exact().map_or_else(SizeHint::default, |rest| SizeHint::with_exact(read as u64 + rest))
            }
        }
    }
}
