//! Connections to workers (HTTP/1.1, RFC 9112).
//!
//! A connection is driven by the task of the request that uses it, not by a task of its own: an answer's
//! bytes wake the client's task directly, and a client that leaves takes the worker's request with it. An
//! idle connection is not driven at all; it is looked at when it is taken again, and closed by its age.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Limited};
use tokio::net::TcpStream;

use super::Worker;
use super::link::{AnswerBody, Link, LinkError, Payload, RequestParts};

/// Time to connect; a worker that can't be reached must not hold a request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Idle connections to one worker that a shard keeps.
const MOST_IDLE: usize = 256;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("no connection within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The connections of one shard to one worker.
pub struct Connections<B> {
    pub worker: Arc<Worker>,
    idle: RefCell<Vec<Box<Link<B>>>>,
    max_idle_time: Duration,
}

impl<B> Connections<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    pub fn new(worker: Arc<Worker>, max_idle_time: Duration) -> Self {
        Self { worker, idle: RefCell::default(), max_idle_time }
    }

    /// The connection used last that is still good, if there is one.
    pub async fn reuse(&self) -> Option<Box<Link<B>>> {
        loop {
            let mut link = self.idle.borrow_mut().pop()?;
            if link.idle_since.elapsed() < self.max_idle_time && link.is_usable().await {
                link.reused = true;
                return Some(link);
            }
        }
    }

    pub async fn connect(&self) -> Result<Box<Link<B>>, ConnectError> {
        connect(&self.worker).await
    }

    /// Keeps a connection whose exchange is complete.
    pub fn keep(&self, mut link: Box<Link<B>>) {
        link.rest();
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

async fn connect<B>(worker: &Worker) -> Result<Box<Link<B>>, ConnectError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let connecting = TcpStream::connect((worker.url.host(), worker.url.port()));
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| ConnectError::Timeout)??;
    stream.set_nodelay(true)?;
    Ok(Box::new(Link::new(stream)))
}

/// Why a question of the control plane got no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the request is not valid")]
    Request(#[source] http::Error),
    #[error("no connection")]
    Connect(#[from] ConnectError),
    #[error("no answer")]
    Send(#[source] LinkError),
    #[error("the answer broke off or is too large")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Asks a worker on a connection of its own and reads up to `limit` bytes of the answer; with a `limit` of 0
/// the body is not read at all. For the control plane.
pub async fn fetch(worker: &Worker, request: Request<()>, limit: usize) -> Result<Response<Bytes>, FetchError> {
    let mut link = connect::<Empty<Bytes>>(worker).await?;
    let (mut head, ()) = request.into_parts();
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let upload = Payload::new(&head.method, &head.headers, Empty::new());
    let asked = RequestParts { method: &head.method, uri: &head.uri, headers: &head.headers, host: &worker.host };
    let answer = link.send(asked, upload).await.map_err(|failure| FetchError::Send(failure.error))?;
    let body = match limit {
        0 => Bytes::new(),
        limit => Limited::new(AnswerBody::new(link, None), limit).collect().await.map_err(FetchError::Body)?.to_bytes(),
    };
    let mut response = Response::new(body);
    (*response.status_mut(), *response.headers_mut()) = (answer.status, answer.headers);
    Ok(response)
}
