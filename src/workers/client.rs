//! Connections to workers (HTTP/1.1, RFC 9112).
//!
//! A connection is driven by the task of the request that uses it, not by a task of its own: an answer's
//! bytes wake the client's task directly, and a client that leaves takes the worker's request with it. An
//! idle connection is not driven at all; it is looked at when it is taken again, and closed by its age.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use tokio::net::TcpStream;

use super::Worker;
use super::io::WorkerIo;

/// Time to connect; a worker that can't be reached must not hold a request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Idle connections to one worker that a shard keeps.
const MOST_IDLE: usize = 256;
/// Header lines and bytes of an answer's head.
const MAX_HEADERS: usize = 200;
const MAX_HEAD: usize = 128 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no connection within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

/// The connections of one shard to one worker.
pub struct Connections<B>
where
    B: Body + 'static,
{
    pub worker: Arc<Worker>,
    idle: RefCell<Vec<Link<B>>>,
    max_idle_time: Duration,
}

impl<B> Connections<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub fn new(worker: Arc<Worker>, max_idle_time: Duration) -> Self {
        Self { worker, idle: RefCell::default(), max_idle_time }
    }

    /// The connection used last that is still good, if there is one.
    pub async fn reuse(&self) -> Option<Link<B>> {
        loop {
            let mut link = self.idle.borrow_mut().pop()?;
            if link.idle_since.elapsed() < self.max_idle_time && link.is_usable().await {
                link.reused = true;
                return Some(link);
            }
        }
    }

    pub async fn connect(&self) -> Result<Link<B>, ConnectError> {
        connect(&self.worker).await
    }

    /// Keeps a connection whose exchange is complete.
    pub fn keep(&self, mut link: Link<B>) {
        link.idle_since = Instant::now();
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MOST_IDLE {
            idle.push(link);
        }
    }

    /// Closes what has been idle for too long.
    pub fn close_aged(&self) {
        let mut idle = self.idle.borrow_mut();
        let aged = idle.iter().take_while(|link| link.idle_since.elapsed() >= self.max_idle_time).count();
        idle.drain(..aged);
    }
}

async fn connect<B>(worker: &Worker) -> Result<Link<B>, ConnectError>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let connecting = TcpStream::connect((worker.url.host(), worker.url.port()));
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| ConnectError::Timeout)??;
    stream.set_nodelay(true)?;
    let mut builder = Builder::new();
    builder.max_headers(MAX_HEADERS).max_header_size(MAX_HEAD);
    let (sender, driver) = builder.handshake(WorkerIo::new(stream)).await?;
    Ok(Link { sender, driver: Some(Box::pin(driver)), idle_since: Instant::now(), reused: false })
}

/// What moves the bytes of a connection.
type Driver<B> = Pin<Box<Connection<WorkerIo, B>>>;

/// One connection to a worker.
pub struct Link<B>
where
    B: Body + 'static,
{
    sender: SendRequest<B>,
    /// Gone once the connection has ended.
    driver: Option<Driver<B>>,
    idle_since: Instant,
    /// It carried an exchange before.
    pub reused: bool,
}

/// A request that got no answer.
pub struct SendError<B> {
    pub error: hyper::Error,
    /// The request, if the worker cannot have seen anything of it.
    pub unsent: Option<Request<B>>,
}

impl<B> Link<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Sends a request and waits for the head of its answer.
    pub async fn send(&mut self, request: Request<B>) -> Result<Response<Incoming>, SendError<B>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        let result = poll_fn(|cx| {
            drive(&mut self.driver, cx);
            answer.as_mut().poll(cx)
        });
        result.await.map_err(|mut failure| {
            let unsent = failure.take_message();
            SendError { error: failure.into_error(), unsent }
        })
    }

    /// Moves bytes in both directions.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        drive(&mut self.driver, cx);
    }

    /// Whether the exchange is complete and the next one can start: not so if the worker wants to close, or
    /// has not taken the whole request.
    pub fn is_complete(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.sender.is_ready() {
            drive(&mut self.driver, cx);
        }
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Whether an idle connection is still open, with nothing unasked-for in it.
    async fn is_usable(&mut self) -> bool {
        poll_fn(|cx| {
            drive(&mut self.driver, cx);
            Poll::Ready(self.driver.is_some() && self.sender.is_ready())
        })
        .await
    }
}

/// Errors of the connection reach whoever waits for the answer or its body.
fn drive<B>(driver: &mut Option<Driver<B>>, cx: &mut Context<'_>)
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if let Some(connection) = driver
        && connection.as_mut().poll(cx).is_ready()
    {
        *driver = None;
    }
}

/// The body of a worker's answer. When it has been read to its end, the connection goes back.
pub struct AnswerBody<B>
where
    B: Body + 'static,
{
    incoming: Incoming,
    link: Option<Link<B>>,
    home: Option<Rc<Connections<B>>>,
}

impl<B> AnswerBody<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Without a `home`, the connection is closed at the end.
    pub fn new(incoming: Incoming, link: Link<B>, home: Option<Rc<Connections<B>>>) -> Self {
        Self { incoming, link: Some(link), home }
    }

    /// Gives the connection back at once if the answer has no body.
    pub async fn settle(&mut self) {
        if self.incoming.is_end_stream() {
            poll_fn(|cx| {
                self.finish(cx);
                Poll::Ready(())
            })
            .await;
        }
    }

    fn finish(&mut self, cx: &mut Context<'_>) {
        let Some(mut link) = self.link.take() else { return };
        if let Some(home) = self.home.take()
            && link.is_complete(cx)
        {
            home.keep(link);
        }
    }
}

impl<B> Body for AnswerBody<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let mut polled = Pin::new(&mut this.incoming).poll_frame(cx);
        if polled.is_pending() {
            if let Some(link) = &mut this.link {
                link.drive(cx);
            }
            polled = Pin::new(&mut this.incoming).poll_frame(cx);
        }
        match &polled {
            Poll::Ready(None) => this.finish(cx),
            Poll::Ready(Some(Ok(_))) if this.incoming.is_end_stream() => this.finish(cx),
            Poll::Ready(Some(Err(_))) => this.link = None,
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.incoming.size_hint()
    }
}

/// Why a question of the control plane got no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the request is not valid")]
    Request(#[source] http::Error),
    #[error("no connection")]
    Connect(#[from] ConnectError),
    #[error("no answer")]
    Send(#[source] hyper::Error),
    #[error("the answer broke off or is too large")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Asks a worker on a connection of its own and reads up to `limit` bytes of the answer; with a `limit` of 0
/// the body is not read at all. For the control plane.
pub async fn fetch(worker: &Worker, request: Request<()>, limit: usize) -> Result<Response<Bytes>, FetchError> {
    let mut link = connect::<Empty<Bytes>>(worker).await?;
    let mut request = request.map(|()| Empty::new());
    request.headers_mut().insert(header::HOST, worker.host.clone());
    request.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
    let (head, incoming) = link.send(request).await.map_err(|failure| FetchError::Send(failure.error))?.into_parts();
    if limit == 0 {
        return Ok(Response::from_parts(head, Bytes::new()));
    }
    let body = Limited::new(AnswerBody::new(incoming, link, None), limit).collect().await.map_err(FetchError::Body)?;
    Ok(Response::from_parts(head, body.to_bytes()))
}
