//! The body of an answer on its way to a client. It is never held back; what must end with it (a lease, a record)
//! rides in it.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use super::admit::Permits;
use super::error::GatewayError;
use super::record::Record;
use super::silence::{Attentive, Silence, Stall};
use super::upgrade::{Traffic, Tunnel, TunnelEnd};
use super::upload::WorkerBody;
use super::view::View;
use crate::client::RequestBodyError;
use crate::deadline::Deadline;
use crate::workers::Lease;
use crate::workers::answer::AnswerBody;
use crate::workers::breaker::Outcome;
use crate::workers::link::LinkError;

/// Why a body can't go on.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the client's body broke off")]
    Client(#[source] RequestBodyError),
    #[error("the request body is too large")]
    TooLarge,
    #[error("the request body has a second model")]
    SecondModel,
    #[error("the worker's body broke off")]
    Worker(#[source] LinkError),
    #[error("the request took too long")]
    Timeout,
    #[error("the worker was silent for too long")]
    Stalled,
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
    /// No body of HTTP: the connection is the worker's from here on.
    Tunnel(Option<Box<Tunnel>>),
}

impl Content {
    /// Reads up to `limit` bytes for modules to see, from a worker that is silent for `stall` at most. `Err` holds what
    /// to send on when there is more.
    pub async fn collect(self, limit: u64, stall: Stall) -> Result<Result<Bytes, Self>, GatewayError> {
        let mut rest = match self {
            Self::Whole(bytes) => return Ok(Ok(bytes.unwrap_or_default())),
            Self::Tunnel(_) => return Ok(Err(self)),
            Self::Stream { rest, .. } => rest,
        };
        if rest.size_hint().lower() > limit {
            return Ok(Err(Self::Stream { first: None, rest }));
        }
        rest.expect_whole();
        match collect(&mut Attentive::new(&mut rest, stall), limit).await? {
            Collected::Whole(body) => Ok(Ok(body)),
            Collected::Over(first) => Ok(Err(Self::Stream { first: Some(first), rest })),
        }
    }
}

/// What a request holds until its last byte.
#[derive(Default)]
pub struct Hold {
    pub lease: Option<Lease>,
    pub deadline: Option<Deadline>,
    /// What it saw.
    pub view: Option<Rc<View>>,
    pub permits: Permits,
}

/// The body of an answer to a client, with everything that ends when it does.
pub struct GatewayBody {
    content: Content,
    pub record: Box<Record>,
    hold: Hold,
    silence: Option<Silence>,
}

impl GatewayBody {
    /// `silence` is what becomes of a worker that pauses.
    pub fn new(content: Content, record: Box<Record>, hold: Hold, silence: Option<Silence>) -> Self {
        let mut body = Self { content, record, hold, silence };
        if body.is_end_stream() {
            body.end();
        }
        body
    }

    /// A worker is still sending it, and may still be reading the request.
    pub fn is_arriving(&self) -> bool {
        matches!(&self.content, Content::Stream { rest, .. } if !rest.is_end_stream())
    }

    /// No more than `count` bytes of a worker's body are read at once.
    pub fn limit_reads(&mut self, count: usize) {
        if let Content::Stream { rest, .. } = &mut self.content {
            rest.limit_reads(count);
        }
    }

    /// What the connection is to become; the head of the answer must have been sent.
    pub fn take_tunnel(&mut self) -> Option<Box<Tunnel>> {
        match &mut self.content {
            Content::Tunnel(tunnel) => tunnel.take(),
            Content::Whole(_) | Content::Stream { .. } => None,
        }
    }

    /// The tunnel that was in its place has ended.
    pub fn tunnelled(&mut self, end: TunnelEnd, traffic: Traffic) {
        self.record.sent(usize::try_from(traffic.from_worker).unwrap_or(usize::MAX));
        self.record.upload().bytes.set(traffic.from_client);
        match end {
            TunnelEnd::Complete => self.end(),
            TunnelEnd::ClientLeft => {}
            TunnelEnd::WorkerLeft => self.record.broke("worker_left"),
            TunnelEnd::Idle => self.record.broke("idle"),
        }
    }

    /// It was sent to its end.
    pub fn end(&mut self) {
        self.record.complete();
        if let Some(lease) = &mut self.hold.lease {
            lease.ended(Outcome::Succeeded);
        }
        self.hold = Hold::default();
    }

    /// It will not be sent to its end.
    fn break_off(&mut self, error: &BodyError) {
        let why = match error {
            BodyError::Timeout => "timeout",
            BodyError::Stalled => "stalled",
            BodyError::Client(_) | BodyError::TooLarge | BodyError::SecondModel => "client_body",
            BodyError::Worker(_) if self.record.upload().error().is_some() => "client_body",
            BodyError::Worker(_) => "worker_body",
        };
        if let Some(lease) = &mut self.hold.lease
            && why != "client_body"
        {
            lease.ended(if why == "worker_body" { Outcome::Unreachable } else { Outcome::Failed });
        }
        self.record.broke(why);
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.hold.deadline.as_ref().is_some_and(|deadline| deadline.poll_expired(cx).is_ready()) {
            return Poll::Ready(Some(Err(BodyError::Timeout)));
        }
        let frame = match &mut self.content {
            Content::Whole(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Stream { first: first @ Some(_), .. } => Poll::Ready(first.take().map(|it| Ok(Frame::data(it)))),
            Content::Stream { first: None, rest } => Pin::new(rest).poll_frame(cx).map_err(BodyError::Worker),
            Content::Tunnel(_) => return Poll::Ready(None),
        };
        match (frame, &mut self.silence) {
            (Poll::Pending, Some(silence)) => silence.poll(cx).map(Some),
            (Poll::Ready(Some(Ok(mut frame))), Some(silence)) => {
                silence.broken(&mut frame);
                Poll::Ready(Some(Ok(frame)))
            }
            (frame, _) => frame,
        }
    }
}

impl Body for GatewayBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = ready!(this.poll_content(cx));
        match &frame {
            Some(Ok(frame)) => {
                this.record.sent(frame.data_ref().map_or(0, Bytes::len));
                if this.is_end_stream() {
                    this.end();
                }
            }
            Some(Err(error)) => this.break_off(error),
            None => this.end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(bytes) => bytes.is_none(),
            Content::Stream { first, rest } => first.is_none() && rest.is_end_stream(),
            Content::Tunnel(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Content::Stream { first: None, rest } => rest.size_hint(),
            Content::Stream { first: Some(_), .. } | Content::Tunnel(_) => SizeHint::default(),
        }
    }
}
