//! One client's connection (HTTP/1.1): its socket, the phase it is in, and how long it may stay there.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncWrite;
use tokio::io::Interest;

use crate::client::{Client, Interim};
use crate::deadline::Deadline;
use crate::http1::MessageError;
use crate::http1::framing::{Decoder, FramingError};
use crate::http1::head::{self, HeadReader, Limits};
use crate::http1::incoming::IncomingBody;
use crate::http1::outgoing::{OutgoingBody, Piece};
use crate::http1::wire::Wire;
use crate::http1::write;
use crate::patience::Patience;
use crate::stream::Stream;

/// Header lines and bytes of a request's head.
pub const LIMITS: Limits = Limits { fields: 100, bytes: 64 * 1024 };
/// What is read ahead of requests that the client sends before it has its answer, besides what is read at once.
const MAX_READ_AHEAD: usize = 4 * 1024;
/// What is read of a body that nobody wanted, to use the connection again.
const MAX_DISCARDED: u64 = 256 * 1024;
/// How long a closing connection waits for its client to close too.
const LINGER: Duration = Duration::from_secs(2);

/// How long an idle connection stays beyond its time.
const LAST_LOOK: Duration = Duration::from_millis(5);

/// How long an idle connection stays when the gateway drains, or has no place for others.
pub const LEAVE: Duration = Duration::from_secs(1);

/// One client's connection.
pub struct ClientConnection {
    http: RefCell<Http>,
    pub client: Client,
    deadline: Deadline,
    patience: Rc<Cell<Patience>>,
    /// When the request must have its answer, while the deadline is that of a client who takes nothing.
    end: Cell<Option<Instant>>,
    /// Some of a request's head is here.
    head_begun: Cell<bool>,
    is_leaving: Cell<bool>,
    /// It is looked at for the last time before it is closed for being idle.
    has_looked: Cell<bool>,
    /// Who waits for the client to leave, while another task may be reading the request's body.
    watching: Cell<Option<Waker>>,
}

struct Http {
    wire: Wire<Stream>,
    heads: HeadReader,
    body: IncomingBody,
    expectation: Expectation,
    /// Bytes of the request's body that were passed over.
    discarded: u64,
}

/// Whether the client waits for `100 Continue` before it sends the body (RFC 9110 section 10.1.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expectation {
    None,
    /// It is told when somebody wants the body.
    Waiting,
    /// The answer has begun, and nothing goes into it any more: the client may or may not send the body.
    Disappointed,
}

/// A request, and why its body can't be read, if that is so.
pub type Opening = (head::Request, Option<FramingError>);

impl ClientConnection {
    /// `deadline` is that of the first request's head, and has been set.
    pub fn new(wire: Wire<Stream>, client: Client, deadline: Deadline, patience: Rc<Cell<Patience>>) -> Rc<Self> {
        let http = Http {
            wire,
            heads: HeadReader::default(),
            body: IncomingBody::new(Decoder::Ended),
            expectation: Expectation::None,
            discarded: 0,
        };
        Rc::new(Self {
            http: RefCell::new(http),
            client,
            deadline,
            patience,
            end: Cell::default(),
            head_begun: Cell::new(false),
            is_leaving: Cell::default(),
            has_looked: Cell::default(),
            watching: Cell::default(),
        })
    }

    /// Ready when the client has taken too long for the phase it is in.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.deadline.poll_expired(cx)
    }

    /// The connection is between two requests.
    pub fn begin_idle(&self) {
        self.has_looked.set(false);
        self.deadline.set(self.patience.get().idle);
        let wire = &mut self.http.borrow_mut().wire;
        if wire.unread.is_empty() {
            wire.compact();
        }
    }

    /// The idle time is over: gives it one more look, for a gateway that was stopped meanwhile may not know yet what
    /// has arrived; whether it had that before.
    pub fn has_looked_again(&self) -> bool {
        let has_looked = self.has_looked.replace(true);
        if !has_looked {
            self.deadline.set(LAST_LOOK);
        }
        has_looked
    }

    /// The same while others wait for the place.
    pub fn begin_brief_idle(&self) {
        self.begin_idle();
        self.deadline.set(LEAVE.min(self.patience.get().idle));
    }

    /// The gateway drains, and nothing is here of a request. One that is on its way is waited for, and answered with
    /// `Connection: close`: a client that sends just as its connection is closed can't know what became of it.
    pub fn begin_leaving(&self) {
        if !self.is_leaving.replace(true) {
            self.deadline.set(LEAVE);
        }
    }

    /// The next request; `None` when the client has closed between two of them. The body is read from here on, by
    /// [`crate::client::RequestBody`].
    pub fn poll_request(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Opening>, MessageError>> {
        let Http { wire, heads, body, expectation, discarded } = &mut *self.http.borrow_mut();
        loop {
            if !wire.unread.is_empty() {
                if let Some(request) = heads.request(&mut wire.unread, LIMITS)? {
                    let framing = Decoder::of_request(request.version, &request.headers);
                    let unreadable = framing.as_ref().err().copied();
                    *body = IncomingBody::new(framing.unwrap_or(Decoder::Ended));
                    *discarded = 0;
                    *expectation = match !body.is_ended() && awaits(&request) {
                        true => Expectation::Waiting,
                        false => Expectation::None,
                    };
                    self.head_begun.set(false);
                    self.end.set(None);
                    self.deadline.set(self.patience.get().exchange);
                    return Poll::Ready(Ok(Some((request, unreadable))));
                }
                if !self.head_begun.replace(true) {
                    self.deadline.set(self.patience.get().head);
                    wire.compact();
                }
            }
            if ready!(wire.poll_fill(cx, 0))? == 0 {
                return Poll::Ready(if wire.unread.is_empty() { Ok(None) } else { Err(MessageError::Incomplete) });
            }
        }
    }

    /// Nothing of a request is here.
    pub fn is_idle(&self) -> bool {
        self.http.borrow().wire.unread.is_empty()
    }

    /// Ready when the client has closed, or its side of it: nobody waits for the answer.
    pub fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Http { wire, body, .. } = &mut *self.http.borrow_mut();
        while body.is_ended() && wire.unread.len() < MAX_READ_AHEAD {
            match ready!(wire.poll_fill(cx, 0)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        // What the client sends is not read now. The system says that it has left, but wakes nobody for it while
        // there is something to read.
        match wire.stream.look(Interest::READABLE, cx) {
            Poll::Ready(Ok(ready)) if ready.is_read_closed() => Poll::Ready(()),
            Poll::Ready(Err(_)) => Poll::Ready(()),
            // The socket wakes one task for what can be read, and that is whoever reads the body.
            Poll::Ready(Ok(_)) | Poll::Pending => {
                self.watching.set(Some(cx.waker().clone()));
                self.deadline.look_again(cx);
                Poll::Pending
            }
        }
    }

    /// The socket and what has been read ahead, once the connection has left HTTP.
    pub fn with_wire<T>(&self, with: impl FnOnce(&mut Wire<Stream>) -> T) -> T {
        with(&mut self.http.borrow_mut().wire)
    }

    /// Passes on an interim answer (RFC 9110 section 15.2), unless the client does not take what it was sent before.
    pub fn send_interim(&self, cx: &mut Context<'_>, status: StatusCode, headers: &HeaderMap) -> Interim {
        let wire = &mut self.http.borrow_mut().wire;
        if !matches!(wire.poll_flush(cx), Poll::Ready(Ok(()))) {
            return Interim::Withheld;
        }
        let head = |out: &mut Vec<u8>| write::interim(out, status, headers, None);
        // A client that is gone is seen by the next read.
        let _ = wire.send(cx, head, &mut Bytes::new(), b"");
        Interim::Sent
    }

    /// The next of the request's body.
    pub fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, MessageError>>> {
        let Http { wire, body, expectation, .. } = &mut *self.http.borrow_mut();
        let frame = body.poll(wire, cx, |wire, cx| {
            if *expectation == Expectation::Waiting && matches!(wire.poll_flush(cx), Poll::Ready(Ok(()))) {
                *expectation = Expectation::None;
                wire.send(cx, |_| {}, &mut Bytes::new(), b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            // A client that takes nothing may still send; one that is gone is seen by the read.
            let _ = wire.poll_flush(cx);
            Ok(())
        });
        if body.is_ended()
            && let Some(watching) = self.watching.take()
            && !watching.will_wake(cx.waker())
        {
            watching.wake();
        }
        frame
    }

    /// The request's body is at its end.
    pub fn is_body_ended(&self) -> bool {
        self.http.borrow().body.is_ended()
    }

    /// What is left of the request's body.
    pub fn body_size_hint(&self) -> SizeHint {
        self.http.borrow().body.size_hint()
    }

    /// The body will come in one piece, if its length is known.
    pub fn expect_whole(&self) {
        self.http.borrow_mut().body.whole = true;
    }

    /// Passes over what is left of a request's body that nobody has read; ready with whether it came to its end.
    pub fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            {
                let Http { body, expectation, discarded, .. } = &*self.http.borrow();
                let too_much = discarded.saturating_add(body.decoder.expected()) > MAX_DISCARDED;
                if body.is_ended() || too_much || *expectation != Expectation::None {
                    return Poll::Ready(body.is_ended());
                }
            }
            match ready!(self.poll_body(cx)) {
                Some(Ok(frame)) => {
                    self.http.borrow_mut().discarded += frame.data_ref().map_or(0, Bytes::len) as u64;
                }
                Some(Err(_)) => return Poll::Ready(false),
                None => {}
            }
        }
    }

    /// The head of the answer is about to be sent, and whether the connection can be used again after it: not if
    /// somebody is still reading the request's body, or if nobody is and too much may come.
    pub fn begin_answer(&self, cx: &mut Context<'_>, body_is_read: bool) -> bool {
        let waits = self.http.borrow().expectation == Expectation::Waiting;
        if waits {
            self.http.borrow_mut().expectation = Expectation::Disappointed;
        }
        match body_is_read {
            true => self.http.borrow().body.is_ended(),
            false => match self.poll_discard(cx) {
                Poll::Ready(is_ended) => is_ended,
                Poll::Pending => self.http.borrow().body.decoder.remaining().is_some(),
            },
        }
    }

    /// The answer is sent, and the rest of the request's body is passed over.
    pub fn begin_discard(&self) {
        self.deadline.set(self.patience.get().head);
    }

    /// Bytes of the answer that the socket has not taken.
    pub fn unsent(&self) -> usize {
        self.http.borrow().wire.unwritten()
    }

    /// Sends a piece of an answer: the socket takes what it can at once, and the rest with
    /// [`ClientConnection::poll_flush`], which must have been ready before.
    pub fn send<B>(
        &self,
        cx: &mut Context<'_>,
        body: &OutgoingBody<B>,
        head: impl FnOnce(&mut Vec<u8>),
        mut piece: Piece,
    ) -> io::Result<()>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        body.send(&mut self.http.borrow_mut().wire, cx, head, &mut piece)
    }

    /// Ready when the socket has taken everything.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.http.borrow_mut().wire.poll_flush(cx)
    }

    /// The request may take so long, whatever holds for others.
    pub fn allow(&self, request: Duration) {
        let exchange = Patience::exchange(request);
        if exchange != self.patience.get().exchange {
            self.deadline.set(exchange);
        }
    }

    /// The client has taken some more of an answer, and is to take more: it may be slow, as long as it goes on.
    pub fn await_client(&self) {
        let end = self.end.get().or_else(|| self.deadline.at());
        self.end.set(end);
        let pause = Instant::now() + self.patience.get().stall;
        self.deadline.set_at(end.map_or(pause, |end| pause.min(end)));
    }

    /// The client has taken all that there is of an answer, which goes on.
    pub fn await_worker(&self) {
        if let Some(end) = self.end.take() {
            self.deadline.set_at(end);
        }
    }

    /// The client has taken some more of the end of an answer: it may be slow, as long as it goes on.
    pub fn note_progress(&self) {
        self.deadline.set(self.patience.get().stall);
    }

    /// Ends the connection with a reset: an orderly end would make an answer look complete whose end nothing else
    /// tells (RFC 9112 section 8).
    pub fn reset(&self) {
        // A Unix socket has no reset: its end is all that can be said.
        if self.http.borrow().wire.stream.tcp().is_some_and(|tcp| tcp.set_zero_linger().is_err()) {
            tracing::debug!("a connection can't be reset");
        }
    }

    /// Says that nothing more comes, as TLS wants it said, and waits for nothing: no answer is on its way.
    pub fn say_end(&self, cx: &mut Context<'_>) {
        let stream = &mut self.http.borrow_mut().wire.stream;
        // A client that takes nothing any more is not told.
        let _ = Pin::new(stream).poll_shutdown(cx);
    }

    /// Closes without losing the last answer: says that nothing more comes, then reads what the client still
    /// sends until it closes too. Closing with unread bytes would reset the connection, and the reset can
    /// overtake the answer (RFC 9112 section 9.6).
    pub async fn close(&self) {
        self.deadline.set(LINGER);
        tokio::select! {
            () = self.drain() => {}
            () = self.deadline.expired() => {}
        }
    }

    async fn drain(&self) {
        let with = |cx: &mut Context<'_>| {
            let Http { wire, .. } = &mut *self.http.borrow_mut();
            if ready!(Pin::new(&mut wire.stream).poll_shutdown(cx)).is_err() {
                return Poll::Ready(());
            }
            loop {
                wire.unread.clear();
                match ready!(wire.poll_fill(cx, 0)) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(_) => {}
                }
            }
        };
        std::future::poll_fn(with).await
    }
}

/// Only HTTP/1.1 clients can be told to go on (RFC 9110 section 10.1.1).
fn awaits(request: &head::Request) -> bool {
    request.version >= Version::HTTP_11
        && request.headers.get(header::EXPECT).is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
