//! One connection to a worker and the exchange on it (HTTP/1.1, RFC 9112).
//!
//! A worker that answers before it has read the whole request, and closes, resets what is still being sent. Its
//! answer has arrived all the same. So a failed write does not end the exchange: what would have been written is
//! dropped, and reading goes on to the answer or to the error (RFC 9112 section 9.5).

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::http2;
use crate::http1::MessageError;
use crate::http1::framing::{Decoder, Framing};
use crate::http1::head::{self, HeadReader, Limits};
use crate::http1::incoming::IncomingBody;
use crate::http1::outgoing::{OutgoingBody, Piece};
use crate::http1::wire::Wire;
use crate::http1::write;
use crate::stream::Stream;

/// Header lines and bytes of an answer's head.
const LIMITS: Limits = Limits { fields: 200, bytes: 128 * 1024 };
/// Interim answers (1xx) that a worker may give to one request.
const MOST_INTERIM: usize = 32;
/// What is read at once of an answer, unless its client wants less: no more is read before the client has taken it.
const PIECE: usize = 32 * 1024;
/// What has arrived within this time before a connection is used again may go unnoticed.
const UNNOTICED: Duration = Duration::from_millis(1);
/// Time that a client with `Expect: 100-continue` is made to wait for a worker that says neither yes nor no
/// (RFC 9110 section 10.1.1: it must not wait for ever).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// Why a worker gave no answer, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("the request's body broke off")]
    Upload,
    #[error("an interim answer that nobody asked for, or too many of them")]
    Interim,
    #[error("it switches to a protocol that nobody asked for")]
    Switch,
    #[error("its status is not between 100 and 599")]
    Status,
    #[error("the target can't be said in HTTP/2")]
    Target,
    #[error("its stream was reset before its end")]
    Cut,
    #[error("HTTP/2: {0}")]
    Http2(#[source] hyper::Error),
}

impl LinkError {
    /// The connection broke before anything of an answer was read.
    pub fn is_break(&self) -> bool {
        match self {
            Self::Message(MessageError::Io(_) | MessageError::Incomplete) => true,
            Self::Http2(error) => !http2::is_reset(error) && !http2::is_malformed(error),
            _ => false,
        }
    }

    /// The worker said something that makes no sense, and would say it again.
    pub fn is_nonsense(&self) -> bool {
        match self {
            Self::Message(MessageError::Head(_) | MessageError::Framing(_)) => true,
            Self::Interim | Self::Switch | Self::Status => true,
            Self::Http2(error) => http2::is_malformed(error),
            _ => false,
        }
    }
}

/// The head of a request to a worker.
#[derive(Clone, Copy)]
pub struct RequestParts<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    /// Without `Host` and framing, which are the connection's.
    pub headers: &'a HeaderMap,
    pub host: &'a HeaderValue,
    /// The protocol that the client would switch to (RFC 9110 section 7.8).
    pub upgrade: Option<&'a HeaderValue>,
}

/// The body of a request on its way to a worker.
pub struct Payload<B> {
    outgoing: OutgoingBody<B>,
    /// Nothing of the body is read before the worker has said `100 Continue`, or has said nothing for a second:
    /// reading is what makes the client send.
    gate: Option<Pin<Box<Sleep>>>,
}

impl<B> Payload<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    pub fn new(method: &Method, headers: &HeaderMap, body: B) -> Self {
        let framing = match body.size_hint().exact() {
            None => Framing::Chunked,
            Some(0) if !headers.contains_key(header::CONTENT_LENGTH) && !anticipates_content(method) => Framing::Unsaid,
            Some(length) => Framing::Length(length),
        };
        Self { outgoing: OutgoingBody::new(body, framing, headers), gate: None }
    }

    pub fn wait_for_continue(&mut self) {
        self.gate = Some(Box::pin(tokio::time::sleep(CONTINUE_WAIT)));
    }

    /// The body as far as it has not been read.
    pub fn into_body(self) -> B {
        self.outgoing.into_body()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, LinkError>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.as_mut().poll(cx));
            self.gate = None;
        }
        self.outgoing.poll_next(cx).map_err(|_| LinkError::Upload)
    }
}

/// Methods whose requests have content by their meaning (RFC 9110 section 8.6).
fn anticipates_content(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// One connection to a worker.
pub struct Link<B> {
    wire: Wire<Stream>,
    heads: HeadReader,
    /// Interim answers to the request.
    interim: usize,
    /// What the worker has not been sent of the request.
    upload: Option<Payload<B>>,
    /// The worker takes nothing any more.
    deaf: bool,
    /// The answer's.
    body: IncomingBody,
    /// The worker and we would use the connection again.
    persistent: bool,
    /// The worker's address.
    pub peer: SocketAddr,
    pub idle_since: Instant,
    /// It carried an exchange before.
    pub reused: bool,
}

/// A request that got no answer.
pub struct SendError<B> {
    pub error: LinkError,
    /// The worker cannot have seen anything of the request.
    pub is_unsent: bool,
    /// The body as far as it has not been read, if it was not to its end.
    pub rest: Option<B>,
}

impl<B> Link<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    pub fn new(stream: Stream, peer: SocketAddr) -> Self {
        let mut wire = Wire::new(stream);
        wire.limit_reads(PIECE);
        Self {
            wire,
            heads: HeadReader::default(),
            interim: 0,
            upload: None,
            deaf: false,
            body: IncomingBody::new(Decoder::Ended),
            persistent: true,
            peer,
            idle_since: Instant::now(),
            reused: false,
        }
    }

    /// Sends a request and waits for the head of its answer. Interim answers on the way go to `interim`.
    pub async fn send(
        &mut self,
        request: RequestParts<'_>,
        upload: Payload<B>,
        mut interim: impl FnMut(&mut Context<'_>, head::Response),
    ) -> Result<head::Response, SendError<B>> {
        let mut to_send = Some(upload);
        let answered = poll_fn(|cx| {
            if let Some(upload) = to_send.take() {
                self.begin(cx, request, upload)?;
            }
            self.poll_answer(cx, request, &mut interim).map_err(|error| SendError {
                error,
                is_unsent: false,
                rest: self.take_back(),
            })
        });
        answered.await
    }

    /// Sends the head, and with it what is ready of the body.
    fn begin(
        &mut self,
        cx: &mut Context<'_>,
        request: RequestParts,
        mut upload: Payload<B>,
    ) -> Result<(), SendError<B>> {
        (self.interim, self.deaf) = (0, false);
        let mut first = match upload.poll_next(cx) {
            Poll::Ready(Ok(piece)) => piece,
            Poll::Ready(Err(error)) => return Err(SendError { error, is_unsent: true, rest: None }),
            Poll::Pending => Piece::default(),
        };
        let head = |out: &mut Vec<u8>| {
            let RequestParts { method, uri, host, headers, upgrade } = request;
            write::request(out, method, uri, host, headers, upload.outgoing.framing, upgrade);
        };
        match upload.outgoing.send(&mut self.wire, cx, head, &mut first) {
            Ok(()) => self.upload = Some(upload),
            // The worker closed a kept connection just as it was taken.
            Err(error) if self.reused => {
                let error = MessageError::Io(error).into();
                return Err(SendError { error, is_unsent: true, rest: Some(upload.into_body()) });
            }
            Err(_) => {
                self.upload = Some(upload);
                self.stop_sending();
            }
        }
        Ok(())
    }

    /// The worker takes nothing any more.
    fn stop_sending(&mut self) {
        self.deaf = true;
        self.persistent = false;
    }

    /// What has not been read of the request's body, for another worker: its exchange here is over.
    pub fn take_back(&mut self) -> Option<B> {
        let upload = self.upload.take()?;
        self.persistent = false;
        Some(upload.into_body())
    }

    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        request: RequestParts,
        interim: &mut impl FnMut(&mut Context<'_>, head::Response),
    ) -> Poll<Result<head::Response, LinkError>> {
        while self.interim <= MOST_INTERIM {
            self.poll_upload(cx)?;
            let response = ready!(self.poll_head(cx))?;
            match response.status {
                StatusCode::CONTINUE => {
                    if let Some(upload) = &mut self.upload {
                        upload.gate = None;
                    }
                }
                StatusCode::SWITCHING_PROTOCOLS => return Poll::Ready(self.switch(request, response)),
                status if status.is_informational() => interim(cx, response),
                _ => {
                    if self.upload.as_ref().is_some_and(|upload| upload.gate.is_some()) {
                        // It has answered without the body, which the client has not been asked for.
                        self.stop_sending();
                    }
                    let (body, persistent) =
                        Decoder::of_response(request.method, &response).map_err(MessageError::Framing)?;
                    self.body = IncomingBody::new(body);
                    self.persistent &= persistent;
                    return Poll::Ready(Ok(response));
                }
            }
            self.interim += 1;
        }
        Poll::Ready(Err(LinkError::Interim))
    }

    /// The worker leaves HTTP: it may, to the protocol that was asked for.
    fn switch(&mut self, request: RequestParts, response: head::Response) -> Result<head::Response, LinkError> {
        let asked = request.upgrade.map(HeaderValue::as_bytes);
        let taken = response.headers.get(header::UPGRADE).map(HeaderValue::as_bytes);
        match (asked, taken) {
            (Some(asked), Some(taken)) if asked.eq_ignore_ascii_case(taken) => {
                (self.body, self.persistent) = (IncomingBody::new(Decoder::Ended), false);
                Ok(response)
            }
            _ => Err(LinkError::Switch),
        }
    }

    /// The connection as it is after the worker has left HTTP.
    pub fn into_wire(self) -> Wire<Stream> {
        self.wire
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<head::Response, MessageError>> {
        loop {
            if !self.wire.unread.is_empty()
                && let Some(response) = self.heads.response(&mut self.wire.unread, LIMITS)?
            {
                return Poll::Ready(Ok(response));
            }
            if ready!(self.wire.poll_fill(cx, 0))? == 0 {
                return Poll::Ready(Err(MessageError::Incomplete));
            }
            // TLS may have read more than it has given us.
            if !self.wire.flows && matches!(self.wire.stream, Stream::Plain(_)) {
                self.wire.drained_at = Some(Instant::now());
            }
        }
    }

    /// Sends what can be sent of the request; an error if its body broke off.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), LinkError> {
        while let Some(upload) = &mut self.upload
            && !self.deaf
        {
            match self.wire.poll_flush(cx) {
                Poll::Ready(Ok(())) if upload.outgoing.is_ended() => self.upload = None,
                Poll::Ready(Ok(())) => {
                    let Poll::Ready(next) = upload.poll_next(cx) else { return Ok(()) };
                    let mut piece = next?;
                    if upload.outgoing.send(&mut self.wire, cx, |_| {}, &mut piece).is_err() {
                        self.stop_sending();
                    }
                }
                Poll::Ready(Err(_)) => self.stop_sending(),
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }

    /// Bytes of the answer that are here and have not been handed out.
    pub fn read_ahead(&self) -> usize {
        self.wire.unread.len()
    }

    /// The answer's body is at its end.
    pub fn is_ended(&self) -> bool {
        self.body.is_ended()
    }

    /// What is left of the answer's body.
    pub fn body_size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    /// The answer's body will come in one piece, if its length is known.
    pub fn expect_whole(&mut self) {
        self.body.whole = true;
    }

    /// Reads no more than `count` bytes of the answer's body at once.
    pub fn limit_reads(&mut self, count: usize) {
        self.wire.limit_reads(count.min(PIECE));
    }

    /// The next of the answer's body.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        if let Err(error) = self.poll_upload(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        self.body.poll(&mut self.wire, cx, |_, _| Ok(())).map_err(LinkError::Message)
    }

    /// Whether the exchange is complete and the next one can start: not so if the worker wants to close, has not
    /// taken the whole request, or has sent more than its answer.
    pub fn is_reusable(&self) -> bool {
        self.persistent && self.upload.is_none() && self.body.is_ended() && self.wire.unread.is_empty()
    }

    /// Nothing is kept of the last exchange.
    pub fn rest(&mut self) {
        self.wire.compact();
        self.wire.limit_reads(PIECE);
        self.idle_since = self.wire.drained_at.unwrap_or_else(Instant::now);
    }

    /// Whether a connection that has been idle for `idle` is still open, with nothing unasked-for in it. That costs a
    /// system call, which is saved where the socket was seen to be empty a moment ago, as it mostly was under load.
    pub fn is_silent(&mut self, idle: Duration) -> bool {
        let was_just_seen = || self.wire.drained_at.is_some() && !self.wire.stream.is_readable();
        (idle < UNNOTICED && was_just_seen()) || self.wire.stream.is_silent()
    }
}
