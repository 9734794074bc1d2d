//! A shard's connections to one worker.
//!
//! A connection of HTTP/1.1 is driven by the task of the request that uses it, not by a task of its own: an answer's
//! bytes wake the client's task directly, and a client that leaves takes the worker's request with it. An
//! idle connection is not driven at all; it is looked at when it is taken again, and closed by its age.

use std::cell::Cell;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};

use super::Worker;
use super::answer::AnswerBody;
use super::connector::{ConnectError, Connector};
use super::http2::{Http2, Place};
use super::idle::{Asker, IdleConnections};
use super::link::{Link, LinkError, Payload, RequestParts};
use crate::config::{self, TargetError};
use crate::tls::Alpn;

/// The connections of one shard to one worker.
pub struct Connections<B> {
    pub worker: Arc<Worker>,
    connector: Arc<Connector>,
    idle: IdleConnections<B>,
    http2: Http2<B>,
    is_retired: Cell<bool>,
}

impl<B> Connections<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    pub fn new(worker: Arc<Worker>, connector: Arc<Connector>, config: &config::Workers) -> Self {
        let max_idle_time = config.upstream_pool_idle_timeout_secs;
        let (http2, is_retired) = (Http2::new(max_idle_time), Cell::new(false));
        let idle = IdleConnections::new(config.upstream_reuse, max_idle_time);
        Self { worker, connector, idle, http2, is_retired }
    }

    /// An idle connection that is still good, if there is one for `asker`.
    pub fn reuse(&self, asker: Asker) -> Option<Box<Link<B>>> {
        let mut link = self.idle.take(asker, |link| self.worker.addresses.has(link.peer))?;
        link.reused = true;
        Some(link)
    }

    pub async fn connect(&self) -> Result<Box<Link<B>>, ConnectError> {
        connect(&self.connector, &self.worker).await
    }

    /// Whether the worker is spoken to in HTTP/2.
    pub fn speaks_http2(&self) -> bool {
        self.connector.alpn == Alpn::Http2
    }

    /// Keeps a connection whose exchange is complete.
    pub fn keep(&self, mut link: Box<Link<B>>) {
        link.rest();
        if !self.is_retired.get() {
            self.idle.keep(link);
        }
    }

    /// Closes what is idle, and from now on whatever has finished: others take their place, and those who hold these
    /// still may do so for long.
    pub fn retire(&self) {
        self.is_retired.set(true);
        self.idle.clear();
        self.http2.retire();
    }

    /// Closes what has been idle for too long.
    pub fn close_aged(&self) {
        self.idle.close_aged();
        self.http2.close_aged();
    }
}

impl<B> Connections<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// A place on an HTTP/2 connection, on a new one if there is none.
    pub async fn place(&self) -> Result<Place<B>, ConnectError> {
        let is_current = |peer| self.worker.addresses.has(peer);
        if let Some(place) = self.http2.place(is_current) {
            return Ok(place);
        }
        match self.http2.wait_for_place(is_current).await {
            Some(place) => Ok(place),
            None => self.new_place().await,
        }
    }

    /// A place on a new HTTP/2 connection.
    pub async fn new_place(&self) -> Result<Place<B>, ConnectError> {
        self.http2.dial(self.connector.connect(&self.worker, Alpn::Http2)).await
    }
}

async fn connect<B>(connector: &Connector, worker: &Worker) -> Result<Box<Link<B>>, ConnectError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (stream, peer) = connector.connect(worker, Alpn::Http1).await?;
    Ok(Box::new(Link::new(stream, peer)))
}

/// Why a question of the control plane got no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the request is not valid")]
    Request(#[source] http::Error),
    #[error("the target can't be appended to the worker's base path: {0:?}")]
    Target(TargetError),
    #[error("no connection")]
    Connect(#[from] ConnectError),
    #[error("no answer")]
    Send(#[source] LinkError),
    #[error("the answer broke off or is too large")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// [`ask`] without a body.
pub async fn fetch(
    connector: &Connector,
    worker: &Worker,
    request: Request<()>,
    limit: usize,
) -> Result<Response<Bytes>, FetchError> {
    ask(connector, worker, request.map(|()| Bytes::new()), limit).await
}

/// Asks a worker on a connection of its own and reads up to `limit` bytes of the answer; with a `limit` of 0
/// the body is not read at all. For the control plane.
pub async fn ask(
    connector: &Connector,
    worker: &Worker,
    request: Request<Bytes>,
    limit: usize,
) -> Result<Response<Bytes>, FetchError> {
    let (mut head, body) = request.into_parts();
    head.uri = worker.url.target(&head.uri).map_err(FetchError::Target)?;
    worker.credentials().apply_to_question(&mut head.headers);
    let body = Full::new(body);
    let (answer, body) = if connector.alpn == Alpn::Http2 {
        let connection = Http2::<Full<Bytes>>::new(Duration::ZERO);
        let place = connection.dial(connector.connect(worker, Alpn::Http2)).await?;
        let sent = place.send(worker.url.scheme(), asked(worker, &head), body).await;
        let (answer, body) = sent.map_err(|failure| FetchError::Send(failure.error))?;
        (answer, AnswerBody::http2(body))
    } else {
        let mut link = connect::<Full<Bytes>>(connector, worker).await?;
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let upload = Payload::new(&head.method, &head.headers, body);
        let sent = link.send(asked(worker, &head), upload, |_, _| {}).await;
        (sent.map_err(|failure| FetchError::Send(failure.error))?, AnswerBody::http1(link, None))
    };
    let body = match limit {
        0 => Bytes::new(),
        limit => Limited::new(body, limit).collect().await.map_err(FetchError::Body)?.to_bytes(),
    };
    let mut response = Response::new(body);
    (*response.status_mut(), *response.headers_mut()) = (answer.status, answer.headers);
    Ok(response)
}

fn asked<'a>(worker: &'a Worker, head: &'a http::request::Parts) -> RequestParts<'a> {
    RequestParts { method: &head.method, uri: &head.uri, headers: &head.headers, host: &worker.host, upgrade: None }
}
