//! Bodies on their way through: what goes to a worker, and what goes to a client. Neither is ever held back;
//! what must end with a body (a lease, a record) rides in it.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use super::View;
use super::error::GatewayError;
use super::record::Record;
use crate::client::{RequestBody, RequestBodyError};
use crate::deadline::Deadline;
use crate::workers::Lease;
use crate::workers::link::{AnswerBody, LinkError};

/// Why a body can't go on.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the client's body broke off")]
    Client(#[source] RequestBodyError),
    #[error("the request body is too large")]
    TooLarge,
    #[error("the worker's body broke off")]
    Worker(#[source] LinkError),
    #[error("the request took too long")]
    Timeout,
}

/// What became of a request body while somebody else was reading it.
#[derive(Debug, Default)]
pub struct Upload {
    pub bytes: Cell<u64>,
    /// Somebody wants more of it, and the client has not sent it.
    is_awaited: Cell<bool>,
    fault: Cell<Option<Fault>>,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Broken,
    TooLarge(u64),
}

impl Upload {
    /// The client's fault, if that is why sending failed.
    pub fn error(&self) -> Option<GatewayError> {
        self.fault.get().map(|fault| match fault {
            Fault::Broken => GatewayError::BrokenBody,
            Fault::TooLarge(limit) => GatewayError::BodyTooLarge(limit),
        })
    }

    /// Who is to blame for a request that takes too long.
    pub fn late(&self) -> GatewayError {
        if self.is_awaited.get() { GatewayError::SlowBody } else { GatewayError::Timeout }
    }
}

/// The body of a request on its way to a worker.
pub enum WorkerBody {
    Whole(Option<Bytes>),
    Stream(ClientBody),
}

/// A request body as it arrives, bounded and counted.
pub struct ClientBody {
    incoming: RequestBody,
    upload: Rc<Upload>,
    limit: u64,
}

impl ClientBody {
    pub fn new(incoming: RequestBody, upload: Rc<Upload>, limit: u64) -> Self {
        Self { incoming, upload, limit }
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
        self.incoming.expect_whole();
        let upload = self.upload.clone();
        match collect(&mut self, u64::MAX).await {
            Ok(Collected::Whole(body)) => Ok(body),
            Ok(Collected::Over(_)) | Err(_) => Err(upload.error().unwrap_or(GatewayError::BrokenBody)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.incoming).poll_frame(cx);
        self.upload.is_awaited.set(frame.is_pending());
        let frame = std::task::ready!(frame);
        Poll::Ready(frame.map(|frame| match frame {
            Ok(frame) => self.count(frame),
            Err(error) => {
                self.upload.fault.set(Some(Fault::Broken));
                Err(BodyError::Client(error))
            }
        }))
    }

    fn count(&self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        let bytes = self.upload.bytes.get() + frame.data_ref().map_or(0, Bytes::len) as u64;
        self.upload.bytes.set(bytes);
        if bytes > self.limit {
            self.upload.fault.set(Some(Fault::TooLarge(self.limit)));
            return Err(BodyError::TooLarge);
        }
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

impl Body for WorkerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            WorkerBody::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            WorkerBody::Stream(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            WorkerBody::Whole(bytes) => bytes.is_none(),
            WorkerBody::Stream(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            WorkerBody::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            WorkerBody::Stream(body) => body.incoming.size_hint(),
        }
    }
}

/// A body that was read up to a limit.
pub enum Collected {
    Whole(Bytes),
    /// The first part of a longer one.
    Over(Bytes),
}

/// Reads a body until its end or until more than `limit` bytes are there. A body of one piece is not copied.
/// Trailers are dropped.
pub async fn collect<B>(body: &mut B, limit: u64) -> Result<Collected, B::Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if rest.is_empty() && first.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
        if first.len().max(rest.len()) as u64 > limit {
            return Ok(Collected::Over(if rest.is_empty() { first } else { rest.freeze() }));
        }
    }
    Ok(Collected::Whole(if rest.is_empty() { first } else { rest.freeze() }))
}

/// What a client is sent.
pub enum Content {
    Whole(Option<Bytes>),
    /// A worker's body, behind a part of it that was read before.
    Stream {
        first: Option<Bytes>,
        rest: AnswerBody<WorkerBody>,
    },
}

/// The body of an answer to a client, with everything that ends when it does.
pub struct GatewayBody {
    content: Content,
    pub record: Record,
    pub lease: Option<Lease>,
    deadline: Option<Deadline>,
    /// What the request saw.
    view: Option<Rc<View>>,
}

impl GatewayBody {
    pub fn new(
        content: Content,
        lease: Option<Lease>,
        record: Record,
        deadline: Option<Deadline>,
        view: Option<Rc<View>>,
    ) -> Self {
        let mut body = Self { content, record, lease, deadline, view };
        if body.is_end_stream() {
            body.end();
        }
        body
    }

    /// A worker is still sending it, and may still be reading the request.
    pub fn is_arriving(&self) -> bool {
        matches!(&self.content, Content::Stream { rest, .. } if !rest.is_end_stream())
    }

    fn end(&mut self) {
        self.record.complete();
        self.lease = None;
        self.view = None;
        self.deadline = None;
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.deadline.as_ref().is_some_and(|deadline| deadline.poll_expired(cx).is_ready()) {
            return Poll::Ready(Some(Err(BodyError::Timeout)));
        }
        match &mut self.content {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Stream { first, rest } => match first.take() {
                Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
                None => Pin::new(rest).poll_frame(cx).map_err(BodyError::Worker),
            },
        }
    }
}

impl Body for GatewayBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = std::task::ready!(this.poll_content(cx));
        match &frame {
            Some(Ok(frame)) => {
                this.record.sent(frame.data_ref().map_or(0, Bytes::len));
                if this.is_end_stream() {
                    this.end();
                }
            }
            Some(Err(BodyError::Timeout)) => this.record.broke("timeout"),
            Some(Err(_)) if this.record.upload().error().is_some() => this.record.broke("client_body"),
            Some(Err(_)) => {
                if let Some(lease) = &this.lease {
                    lease.failed();
                }
                this.record.broke("worker_body");
            }
            None => this.end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_none(),
            Content::Stream { first, rest } => first.is_none() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Content::Stream { first: None, rest } => rest.size_hint(),
            Content::Stream { first: Some(_), .. } => SizeHint::default(),
        }
    }
}
