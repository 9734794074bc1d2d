//! Exchanges with a worker over HTTP/2 (RFC 9113). A connection carries many at once; hyper and h2 drive it in a task of
//! the shard. What is ours is how many share it, and what is known of a request that failed.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::uri::Uri;
use http::{Request, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::spawn_local;

use super::link::{LinkError, RequestParts, SendError};
use crate::config::Scheme;
use crate::http1::head::Response;
use crate::http1::trailers;
use crate::stream::Stream;

/// Requests that share a connection. Where a worker allows fewer, h2 keeps the others back.
const MOST_STREAMS: usize = 100;
/// What a worker may send before it is read: of one answer, and of all. A client that takes nothing holds up only
/// its own answer as long as there are fewer of them than the one fits into the other.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
const MAX_HEAD: u32 = 128 * 1024;
/// A connection in use that is silent for so long is asked whether it is there, and has so long to answer.
const PING_AFTER: Duration = Duration::from_secs(20);
const PING_TIME: Duration = Duration::from_secs(10);

/// The HTTP/2 connections of one shard to one worker.
pub struct Http2<B>(RefCell<Vec<Rc<Connection<B>>>>);

struct Connection<B> {
    sender: SendRequest<Upload<B>>,
    peer: SocketAddr,
    open: Cell<usize>,
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
    }
}

impl<B> Default for Http2<B> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<B> Http2<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// A place on a connection that is open, if there is one, to an address that is still the worker's.
    pub fn place(&self, is_current: impl Fn(SocketAddr) -> bool) -> Option<Place<B>> {
        let mut connections = self.0.borrow_mut();
        connections.retain(|connection| !connection.sender.is_closed() && is_current(connection.peer));
        let has_room = |connection: &&Rc<Connection<B>>| connection.open.get() < MOST_STREAMS;
        connections.iter().find(has_room).map(Connection::place)
    }

    /// Begins to speak HTTP/2 on a new connection, and takes a place on it.
    pub async fn add(&self, stream: Stream, peer: SocketAddr) -> Result<Place<B>, hyper::Error> {
        let mut builder = Builder::new(Tasks);
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEAD)
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIME);
        let (sender, driver) = builder.handshake(TokioIo::new(stream)).await?;
        spawn_local(async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "a connection to a worker ended");
            }
        });
        let connection = Rc::new(Connection { sender, peer, open: Cell::new(0), reused: Cell::new(false) });
        let place = Connection::place(&connection);
        self.0.borrow_mut().push(connection);
        Ok(place)
    }

    /// Closes what nobody uses.
    pub fn close_idle(&self) {
        self.0.borrow_mut().retain(|connection| connection.open.get() > 0);
    }
}

impl<B> Connection<B> {
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
        &self,
        scheme: Scheme,
        request: RequestParts<'_>,
        body: B,
    ) -> Result<(Response, Incoming), SendError<B>> {
        let mut sender = self.connection.sender.clone();
        let request = match message(scheme, request, Upload(body)) {
            Ok(request) => request,
            Err(body) => {
                return Err(SendError { error: LinkError::Target, is_unsent: true, rest: Some(body.0) });
            }
        };
        match sender.try_send_request(request).await {
            Ok(answer) => {
                let (head, body) = answer.into_parts();
                Ok((Response { status: head.status, version: head.version, headers: head.headers }, body))
            }
            Err(mut failure) => {
                let rest = failure.take_message().map(|request| request.into_body().0);
                let error = failure.into_error();
                let is_unsent = rest.is_some() || is_refused(&error);
                Err(SendError { error: LinkError::Http2(error), is_unsent, rest })
            }
        }
    }
}

/// The worker says that it has not begun to work on it (RFC 9113 section 8.7).
fn is_refused(error: &hyper::Error) -> bool {
    let reason = error.source().and_then(|source| source.downcast_ref::<h2::Error>()).and_then(h2::Error::reason);
    reason == Some(h2::Reason::REFUSED_STREAM)
}

fn message<B>(scheme: Scheme, parts: RequestParts, body: Upload<B>) -> Result<Request<Upload<B>>, Upload<B>> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = parts.host.to_str().unwrap_or_default();
    let Ok(uri) = Uri::builder().scheme(scheme.as_str()).authority(authority).path_and_query(path).build() else {
        return Err(body);
    };
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
    Ok(request)
}

/// A request's body, with the trailers that may be sent.
struct Upload<B>(B);

impl<B> Body for Upload<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_ok(|frame| match frame.into_trailers() {
            Ok(fields) => Frame::trailers(trailers::allowed(fields)),
            Err(frame) => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
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
