//! One connection to a worker and the exchange on it (HTTP/1.1, RFC 9112).
//!
//! A worker that answers before it has read the whole request, and closes, resets what is still being sent. Its
//! answer has arrived all the same. So a failed write does not end the exchange: what would have been written is
//! dropped, and reading goes on to the answer or to the error (RFC 9112 section 9.5).

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::client::Connections;
use crate::http1::MessageError;
use crate::http1::framing::{Decoder, Framing};
use crate::http1::head::{self, HeadReader, Limits};
use crate::http1::incoming::IncomingBody;
use crate::http1::outgoing::{OutgoingBody, Piece};
use crate::http1::wire::Wire;

/// Header lines and bytes of an answer's head.
const LIMITS: Limits = Limits { fields: 200, bytes: 128 * 1024 };
/// Interim answers (1xx) that a worker may give to one request.
const MOST_INTERIM: usize = 32;
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
}

/// The head of a request to a worker.
#[derive(Clone, Copy)]
pub struct RequestParts<'a> {
    pub method: &'a Method,
    pub uri: &'a Uri,
    /// Without `Host` and framing, which are the connection's.
    pub headers: &'a HeaderMap,
    pub host: &'a HeaderValue,
}

/// The body of a request on its way to a worker.
pub struct Payload<B> {
    outgoing: OutgoingBody<B>,
    /// Read from the body and not sent yet.
    first: Option<Piece>,
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
        Self { outgoing: OutgoingBody::new(body, framing, headers), first: None, gate: None }
    }

    pub fn wait_for_continue(&mut self) {
        self.gate = Some(Box::pin(tokio::time::sleep(CONTINUE_WAIT)));
    }

    /// Whether nothing is lost when the request is sent again.
    pub fn is_empty(&self) -> bool {
        self.first.is_none() && self.outgoing.body().is_end_stream()
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
    wire: Wire<TcpStream>,
    heads: HeadReader,
    /// Interim answers to the request.
    interim: usize,
    /// What the worker has not been sent of the request.
    upload: Option<Payload<B>>,
    /// The answer's.
    body: IncomingBody,
    /// The worker and we would use the connection again.
    persistent: bool,
    pub idle_since: Instant,
    /// It carried an exchange before.
    pub reused: bool,
}

/// A request that got no answer.
pub struct SendError<B> {
    pub error: LinkError,
    /// The body, untouched, if the worker cannot have seen anything of the request.
    pub unsent: Option<Payload<B>>,
}

impl<B> Link<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    pub fn new(stream: TcpStream) -> Self {
        Self {
            wire: Wire::new(stream),
            heads: HeadReader::default(),
            interim: 0,
            upload: None,
            body: IncomingBody::new(Decoder::Ended),
            persistent: true,
            idle_since: Instant::now(),
            reused: false,
        }
    }

    /// Sends a request and waits for the head of its answer.
    pub async fn send(
        &mut self,
        request: RequestParts<'_>,
        upload: Payload<B>,
    ) -> Result<head::Response, SendError<B>> {
        let mut to_send = Some(upload);
        let answered = poll_fn(|cx| {
            if let Some(upload) = to_send.take()
                && let Err(failure) = self.begin(cx, request, upload)
            {
                return Poll::Ready(Err(failure));
            }
            self.poll_answer(cx, request.method).map_err(|error| SendError { error, unsent: None })
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
        self.interim = 0;
        if upload.first.is_none() && !upload.outgoing.is_ended() {
            match upload.poll_next(cx) {
                Poll::Ready(Ok(piece)) => upload.first = Some(piece),
                Poll::Ready(Err(error)) => return Err(SendError { error, unsent: None }),
                Poll::Pending => {}
            }
        }
        let mut first = upload.first.take().unwrap_or_default();
        let head = |out: &mut Vec<u8>| {
            let RequestParts { method, uri, host, headers } = request;
            head::write_request(out, method, uri, host, headers, upload.outgoing.framing);
        };
        match upload.outgoing.send(&mut self.wire, cx, head, &mut first) {
            Ok(()) => self.upload = Some(upload),
            // The worker closed a kept connection just as it was taken.
            Err(error) if self.reused => {
                upload.first = Some(first);
                return Err(SendError { error: MessageError::Io(error).into(), unsent: Some(upload) });
            }
            Err(_) => self.stop_sending(),
        }
        Ok(())
    }

    /// The worker takes nothing any more.
    fn stop_sending(&mut self) {
        self.upload = None;
        self.persistent = false;
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>, method: &Method) -> Poll<Result<head::Response, LinkError>> {
        while self.interim <= MOST_INTERIM {
            self.poll_upload(cx)?;
            let response = ready!(self.poll_head(cx))?;
            match response.status {
                StatusCode::CONTINUE => {
                    if let Some(upload) = &mut self.upload {
                        upload.gate = None;
                    }
                }
                StatusCode::SWITCHING_PROTOCOLS => return Poll::Ready(Err(LinkError::Interim)),
                status if status.is_informational() => {}
                _ => {
                    if self.upload.as_ref().is_some_and(|upload| upload.gate.is_some()) {
                        // It has answered without the body, which the client has not been asked for.
                        self.stop_sending();
                    }
                    let (body, persistent) = Decoder::of_response(method, &response).map_err(MessageError::Framing)?;
                    self.body = IncomingBody::new(body);
                    self.persistent &= persistent;
                    return Poll::Ready(Ok(response));
                }
            }
            self.interim += 1;
        }
        Poll::Ready(Err(LinkError::Interim))
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
        }
    }

    /// Sends what can be sent of the request; an error if its body broke off.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), LinkError> {
        while let Some(upload) = &mut self.upload {
            match self.wire.poll_flush(cx) {
                Poll::Ready(Ok(())) if upload.outgoing.is_ended() => self.upload = None,
                Poll::Ready(Ok(())) => {
                    let Poll::Ready(next) = upload.poll_next(cx) else { return Ok(()) };
                    if upload.outgoing.send(&mut self.wire, cx, |_| {}, &mut next?).is_err() {
                        self.stop_sending();
                    }
                }
                Poll::Ready(Err(_)) => self.stop_sending(),
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        if let Err(error) = self.poll_upload(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        self.body.poll(&mut self.wire, cx, |_, _| Ok(())).map_err(LinkError::Message)
    }

    /// Whether the exchange is complete and the next one can start: not so if the worker wants to close, has not
    /// taken the whole request, or has sent more than its answer.
    fn is_reusable(&self) -> bool {
        self.persistent && self.upload.is_none() && self.body.is_ended() && self.wire.unread.is_empty()
    }

    /// Nothing is kept of the last exchange.
    pub fn rest(&mut self) {
        self.wire.compact();
        self.idle_since = Instant::now();
    }

    /// Whether an idle connection is still open, with nothing unasked-for in it.
    pub async fn is_usable(&mut self) -> bool {
        // Whatever this task has done before: a socket that is not looked at would pass for a silent one.
        tokio::task::unconstrained(poll_fn(|cx| Poll::Ready(self.wire.poll_fill(cx, 0).is_pending()))).await
    }
}

/// The body of a worker's answer. When it has been read to its end, the connection goes back.
pub struct AnswerBody<B>
where
    B: Body,
{
    link: Option<Box<Link<B>>>,
    home: Option<Rc<Connections<B>>>,
}

impl<B> AnswerBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Gives the connection back at once if the answer has no body. Without a `home`, it is closed at the end.
    pub fn new(link: Box<Link<B>>, home: Option<Rc<Connections<B>>>) -> Self {
        let mut body = Self { link: Some(link), home };
        if body.is_end_stream() {
            body.finish();
        }
        body
    }

    /// It will come in one piece, if its length is known.
    pub fn expect_whole(&mut self) {
        if let Some(link) = &mut self.link {
            link.body.whole = true;
        }
    }

    fn finish(&mut self) {
        if let (Some(link), Some(home)) = (self.link.take(), self.home.take())
            && link.is_reusable()
        {
            home.keep(link);
        }
    }
}

impl<B> Body for AnswerBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        let Some(link) = &mut self.link else { return Poll::Ready(None) };
        let frame = ready!(link.poll_body(cx));
        match &frame {
            Some(Err(_)) => self.link = None,
            None => self.finish(),
            Some(Ok(_)) if link.body.is_ended() => self.finish(),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.link.as_ref().is_none_or(|link| link.body.is_ended())
    }

    fn size_hint(&self) -> SizeHint {
        self.link.as_ref().map_or_else(|| SizeHint::with_exact(0), |link| link.body.size_hint())
    }
}
