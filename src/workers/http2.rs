//! Exchanges with a worker over HTTP/2 (RFC 9113). A connection carries many at once; hyper and h2 drive it in a task of
//! the shard. What is ours is how many share it, and what is known of a request that failed.

mod upload;

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::uri::Uri;
use http::{Request, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use self::upload::{Lent, Upload};
use super::link::{LinkError, RequestParts, SendError};
use crate::config::Scheme;
use crate::http1::head::{Response, is_status};
use crate::http2::{FilteredIo, Limits};
use crate::stream::Stream;

/// Requests that share a connection, where a worker does not allow fewer.
const MOST_STREAMS: usize = 100;
/// How long a request waits for a connection that another one is making.
const MOST_WAIT: Duration = Duration::from_millis(100);
/// What a worker may send before it is read: of one answer, and of all. A client that takes nothing holds up only
/// its own answer as long as there are fewer of them than the one fits into the other. With what is kept for such a
/// client elsewhere (36 KiB), that of one answer makes 64 KiB.
const STREAM_WINDOW: u32 = 28 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
const MAX_HEAD: u32 = 128 * 1024;
/// With so large a limit of bytes, h2 takes a block in up to twelve frames.
const LISTS: Limits = Limits { bytes: MAX_HEAD as usize, fields: usize::MAX, frames: 12 };
/// A connection in use that is silent for so long is asked whether it is there, and has so long to answer.
const PING_AFTER: Duration = Duration::from_secs(20);
const PING_TIME: Duration = Duration::from_secs(10);

/// The HTTP/2 connections of one shard to one worker.
pub struct Http2<B> {
    connections: RefCell<Vec<Rc<Connection<B>>>>,
    max_idle_time: Duration,
    /// Nothing is kept for those who come later.
    is_retired: Cell<bool>,
    /// Connections that are being made, and requests that wait for one of them.
    dialing: Cell<usize>,
    waiting: Cell<usize>,
    dialed: Notify,
}

struct Connection<B> {
    sender: SendRequest<Upload<B>>,
    /// Streams that the worker allows now; none when the connection has ended.
    allowed: Box<dyn Fn() -> usize>,
    peer: SocketAddr,
    open: Cell<usize>,
    idle_since: Cell<Instant>,
    /// It carried an exchange before.
    reused: Cell<bool>,
}

/// One exchange's place on a connection; free again when it is dropped.
pub struct Place<B> {
    connection: Rc<Connection<B>>,
    /// The connection carried an exchange before.
    pub reused: bool,
}

impl<B> Drop for Place<B> {
    fn drop(&mut self) {
        self.connection.open.set(self.connection.open.get() - 1);
        self.connection.idle_since.set(Instant::now());
    }
}

impl<B> Http2<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// A place on a connection that is open, if there is one, to an address that is still the worker's.
    pub fn place(&self, is_current: impl Fn(SocketAddr) -> bool) -> Option<Place<B>> {
        self.close_aged();
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| !connection.sender.is_closed() && is_current(connection.peer));
        connections.iter().find(|connection| connection.has_room()).map(Connection::place)
    }

    /// The same, with a look at the connections that other requests are making, as far as they will have room. They
    /// are not waited for if they take long: a worker that can't be reached must not hold a request twice.
    pub async fn wait_for_place(&self, is_current: impl Fn(SocketAddr) -> bool) -> Option<Place<B>> {
        let waiting = async {
            loop {
                let dialed = self.dialed.notified();
                let place = self.place(&is_current);
                if place.is_some() || self.waiting.get() >= self.dialing.get() * (MOST_STREAMS - 1) {
                    return place;
                }
                let _waits = Counted::one_more(&self.waiting);
                dialed.await;
            }
        };
        tokio::time::timeout(MOST_WAIT, waiting).await.ok().flatten()
    }

    /// Makes a connection with `dial`, and takes a place on it.
    pub async fn dial<E>(&self, dial: impl Future<Output = Result<(Stream, SocketAddr), E>>) -> Result<Place<B>, E>
    where
        E: From<hyper::Error>,
    {
        let dials = Counted::one_more(&self.dialing);
        let made = async {
            let (stream, peer) = dial.await?;
            Ok(self.add(stream, peer).await?)
        };
        let made = made.await;
        drop(dials);
        self.dialed.notify_waiters();
        made
    }

    /// Begins to speak HTTP/2 on a new connection, and takes a place on it.
    async fn add(&self, stream: Stream, peer: SocketAddr) -> Result<Place<B>, hyper::Error> {
        let mut builder = Builder::new(Tasks);
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD)
            // What still comes for streams that clients have left counts, and would end the connection of all others.
            .max_local_error_reset_streams(None)
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIME);
        let io = FilteredIo::with_worker(stream, LISTS);
        let (sender, driver) = builder.handshake(TokioIo::new(io)).await?;
        let driver = Rc::new(RefCell::new(Some(driver)));
        let driven = driver.clone();
        let allowed = move || driven.borrow().as_ref().map_or(0, |driver| driver.current_max_send_streams());
        spawn_local(async move {
            let ended = poll_fn(|cx| match &mut *driver.borrow_mut() {
                Some(driver) => Pin::new(driver).poll(cx),
                None => Poll::Ready(Ok(())),
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "a connection to a worker ended");
            }
            // Only then does it take no more requests.
            driver.take();
        });
        let (open, reused, idle_since) = (Cell::new(0), Cell::new(false), Cell::new(Instant::now()));
        let connection = Rc::new(Connection { sender, allowed: Box::new(allowed), peer, open, idle_since, reused });
        let place = Connection::place(&connection);
        if !self.is_retired.get() {
            self.connections.borrow_mut().push(connection);
        }
        Ok(place)
    }
}

impl<B> Http2<B> {
    /// Its connections are closed when nobody has used them for `max_idle_time`.
    pub fn new(max_idle_time: Duration) -> Self {
        Self {
            connections: RefCell::default(),
            max_idle_time,
            is_retired: Cell::new(false),
            dialing: Cell::new(0),
            waiting: Cell::new(0),
            dialed: Notify::new(),
        }
    }

    /// Each connection is closed when the last exchange on it has ended.
    pub fn retire(&self) {
        self.is_retired.set(true);
        self.connections.take();
    }

    /// Closes what has been idle for too long.
    pub fn close_aged(&self) {
        let is_fresh = |connection: &Connection<B>| connection.idle_since.get().elapsed() < self.max_idle_time;
        self.connections.borrow_mut().retain(|connection| connection.open.get() > 0 || is_fresh(connection));
    }
}

/// Counts one more while it lives.
struct Counted<'a>(&'a Cell<usize>);

impl<'a> Counted<'a> {
    fn one_more(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl<B> Connection<B> {
    /// What a worker has no room for would wait for others to end.
    fn has_room(&self) -> bool {
        self.open.get() < MOST_STREAMS.min((self.allowed)())
    }

    fn place(self: &Rc<Self>) -> Place<B> {
        self.open.set(self.open.get() + 1);
        Place { connection: self.clone(), reused: self.reused.replace(true) }
    }
}

impl<B> Place<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Sends a request and waits for the head of its answer.
    pub async fn send(
        self,
        scheme: Scheme,
        request: RequestParts<'_>,
        body: B,
    ) -> Result<(Response, Answering<B>), SendError<B>> {
        let mut sender = self.connection.sender.clone();
        let upload = Lent(Upload::new(body));
        let Some(request) = message(scheme, request, upload.0.clone()) else {
            return Err(SendError { error: LinkError::Target, is_unsent: true, rest: upload.0.take() });
        };
        match sender.try_send_request(request).await {
            Ok(answer) if !is_status(answer.status()) => {
                Err(SendError { error: LinkError::Status, is_unsent: false, rest: upload.0.take() })
            }
            Ok(answer) => {
                let (head, body) = answer.into_parts();
                let head = Response { status: head.status, version: head.version, headers: head.headers };
                Ok((head, Answering { body, upload, _place: self }))
            }
            Err(mut failure) => {
                let is_unsent = failure.take_message().is_some();
                let error = failure.into_error();
                let is_unsent = is_unsent || is_refused(&error);
                Err(SendError { error: LinkError::Http2(error), is_unsent, rest: upload.0.take() })
            }
        }
    }
}

/// The worker says that it has not begun to work on it: of this stream (RFC 9113 section 8.7), or of all streams after
/// the last that it has looked at (section 6.8).
fn is_refused(error: &hyper::Error) -> bool {
    of_http2(error).is_some_and(|error| {
        error.reason() == Some(h2::Reason::REFUSED_STREAM) || (error.is_go_away() && error.is_remote())
    })
}

/// The worker has ended this stream, and nothing else.
pub fn is_reset(error: &hyper::Error) -> bool {
    of_http2(error).is_some_and(|error| error.is_reset() && error.is_remote())
}

/// What the worker sent on this stream is malformed, and nothing else is wrong with the connection.
pub fn is_malformed(error: &hyper::Error) -> bool {
    of_http2(error).is_some_and(|error| error.is_reset() && error.is_library())
}

fn of_http2(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

/// The body of an answer as it comes. What has not been sent of the request by its end, nobody wants.
pub struct Answering<B> {
    body: Incoming,
    upload: Lent<B>,
    _place: Place<B>,
}

impl<B> Answering<B> {
    /// What has not been read of the request's body, for another worker: its exchange here is over.
    pub fn take_back(&mut self) -> Option<B> {
        self.upload.0.take()
    }
}

impl<B> Body for Answering<B> {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            // hyper takes a reset without an error for an end.
            None if !self.body.is_end_stream() => Poll::Ready(Some(Err(LinkError::Cut))),
            frame => Poll::Ready(frame.map(|frame| frame.map_err(LinkError::Http2))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn message<B>(scheme: Scheme, parts: RequestParts, body: Upload<B>) -> Option<Request<Upload<B>>> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = parts.host.to_str().unwrap_or_default();
    let uri = Uri::builder().scheme(scheme.as_str()).authority(authority).path_and_query(path).build().ok()?;
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.clone_from(parts.headers);
    // What the body is, hyper says.
    for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
        headers.remove(name);
    }
    // Trailers are passed on, which some workers want to be told (RFC 9110 section 10.1.4).
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    Some(request)
}

/// Runs what hyper spawns as tasks of this thread.
#[derive(Clone)]
struct Tasks;

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, task: F) {
        spawn_local(task);
    }
}

#[cfg(test)]
mod tests;
