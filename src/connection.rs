//! One client's connection: its socket, the phase it is in, and how long it may stay there.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::HeaderValue;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::deadline::{Deadline, Deadlines};

/// How long a connection may stay in a phase.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// To send the whole head of a request, from its first byte (or from the start of the connection).
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// To take the whole answer. The request's own deadline comes first; this one is for a client that takes
    /// so little that nobody asks for more of the answer.
    pub exchange: Duration,
}

/// How long a closing connection waits for its client to close too.
const LINGER: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing of the next request is here yet.
    Idle,
    /// Some of its head is.
    Head,
    /// A request is being answered.
    Busy,
}

/// One client's connection.
pub struct ClientConnection {
    stream: RefCell<TokioIo<TcpStream>>,
    pub peer: SocketAddr,
    /// The client's address without port, as `X-Forwarded-For` shows it.
    pub forwarded_for: HeaderValue,
    phase: Cell<Phase>,
    /// The last answer broke off, and only the way in which the connection ends can say so.
    broke_off: Cell<bool>,
    deadline: Deadline,
    patience: Patience,
}

impl ClientConnection {
    pub fn new(stream: TcpStream, peer: SocketAddr, deadlines: &Deadlines, patience: Patience) -> Rc<Self> {
        let address = peer.ip().to_canonical().to_string();
        let deadline = deadlines.register();
        deadline.set(patience.head);
        Rc::new(Self {
            stream: RefCell::new(TokioIo::new(stream)),
            peer,
            forwarded_for: HeaderValue::from_str(&address).expect("an address is a valid header value"),
            phase: Cell::new(Phase::Idle),
            broke_off: Cell::new(false),
            deadline,
            patience,
        })
    }

    /// The head of a request is complete: the time for its answer begins. When the guard is dropped, which is when
    /// the answer has been sent or given up, the connection is idle again.
    pub fn begin_exchange(self: &Rc<Self>) -> Exchange {
        self.phase.set(Phase::Busy);
        self.deadline.set(self.patience.exchange);
        Exchange(self.clone())
    }

    /// Ready when the client has taken too long for the phase it is in.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.deadline.poll_expired(cx)
    }

    /// Closes without losing the last answer: says that nothing more comes, then reads what the client still
    /// sends until it closes too. Closing with unread bytes would reset the connection, and the reset can
    /// overtake the answer (RFC 9112 section 9.6).
    pub async fn close(&self) {
        if self.broke_off.get() {
            // A reset instead of an orderly end. If it can't be had, there is nothing better.
            let _ = self.stream.borrow().inner().set_zero_linger();
            return;
        }
        self.deadline.set(LINGER);
        tokio::select! {
            () = self.drain() => {}
            () = self.deadline.expired() => {}
        }
    }

    /// The last of an answer is still being written: the time between requests has not begun.
    fn note_progress(&self) {
        if self.phase.get() == Phase::Idle {
            self.deadline.set(self.patience.idle);
        }
    }

    async fn drain(&self) {
        let shut = std::future::poll_fn(|cx| Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx));
        if shut.await.is_err() {
            return;
        }
        let mut scratch = [0u8; 4096];
        loop {
            let mut buffer = hyper::rt::ReadBuf::new(&mut scratch);
            let read =
                std::future::poll_fn(|cx| Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, buffer.unfilled()));
            if read.await.is_err() || buffer.filled().is_empty() {
                return;
            }
        }
    }
}

/// See [`ClientConnection::begin_exchange`].
pub struct Exchange(Rc<ClientConnection>);

impl ClientConnection {
    /// The client has taken too long; an answer that it is still being sent breaks off.
    pub fn break_off_exchange(&self) {
        if self.phase.get() == Phase::Busy && self.stream.borrow().inner().set_zero_linger().is_err() {
            tracing::debug!("a connection can't be reset");
        }
    }
}

impl Exchange {
    /// The answer ends before its end, and its length was to be told by the end of the connection: an orderly
    /// end would make it look complete (RFC 9112 section 8).
    pub fn break_off(&self) {
        self.0.broke_off.set(true);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.phase.set(Phase::Idle);
        self.0.deadline.set(self.0.patience.idle);
    }
}

/// The socket, as hyper reads and writes it.
pub struct ClientIo(pub Rc<ClientConnection>);

impl Read for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        let connection = &*self.0;
        let polled = Pin::new(&mut *connection.stream.borrow_mut()).poll_read(cx, buffer);
        if polled.is_ready() && connection.phase.get() == Phase::Idle {
            connection.phase.set(Phase::Head);
            connection.deadline.set(connection.patience.head);
        }
        polled
    }
}

impl Write for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.note_progress();
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        // The connection's task closes the socket in its own way: see `close`.
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.0.note_progress();
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_write_vectored(cx, slices)
    }
}
