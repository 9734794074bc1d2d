//! Sends spans to a collector, from a task of the control plane that no request ever waits for.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep_until, timeout};

use super::span::RequestSpans;
use super::target::{Endpoint, Environment, Scheme};
use super::{Counts, Tracer, otlp};
use crate::telemetry::Untrusted;

/// What is read of a collector's answer.
const MAX_ANSWER: usize = 64 * 1024;
/// Time between two lines of the log about spans that are lost.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// How much waits, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Requests whose spans wait to be sent.
    pub queue: usize,
    /// A batch is sent when it has so many spans, or is so old.
    pub batch_spans: usize,
    pub batch_time: Duration,
    /// Time for one attempt to send.
    pub attempt: Duration,
    /// Time before the second attempt; twice as much before each further one, but no more than the last.
    pub first_pause: Duration,
    pub last_pause: Duration,
    /// Time for a batch, after which it is lost.
    pub patience: Duration,
    /// Time for what is left when the gateway ends.
    pub flush: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            queue: 4096,
            batch_spans: 512,
            batch_time: Duration::from_secs(5),
            attempt: Duration::from_secs(10),
            first_pause: Duration::from_secs(1),
            last_pause: Duration::from_secs(16),
            patience: Duration::from_secs(60),
            flush: Duration::from_secs(2),
        }
    }
}

/// Why the collector didn't take a batch.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("the collector can't be reached: {0}")]
    Io(#[from] io::Error),
    #[error("the collector gave no valid answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("the collector answered {status}")]
    Status { status: StatusCode, retry_after: Option<Duration> },
    #[error("the collector gave no answer in time")]
    Timeout,
    #[error("the collector refused some spans: {}", Untrusted(.message.as_bytes()))]
    Partial { rejected: u64, message: String },
}

impl ExportError {
    /// The pause before another attempt, which is `pause`, or longer if the collector asks for it; `None` when another
    /// attempt must not be made (OTLP specification, "Failures").
    fn pause(&self, pause: Duration) -> Option<Duration> {
        match self {
            Self::Io(_) | Self::Http(_) | Self::Timeout => Some(pause),
            Self::Status { status, retry_after } => {
                matches!(status.as_u16(), 429 | 502 | 503 | 504).then(|| retry_after.unwrap_or_default().max(pause))
            }
            Self::Partial { .. } => None,
        }
    }
}

/// The task that sends spans.
pub struct Exporter {
    pub counts: Arc<Counts>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    flush: Duration,
}

impl Exporter {
    /// Starts it on the local runtime of the caller. `tls` makes a TLS stream of one that is connected to the host; it
    /// is asked only for `https` endpoints.
    pub fn start<C, S>(
        endpoint: Endpoint,
        environment: Environment,
        sample_ratio: f64,
        pace: Pace,
        tls: C,
    ) -> (Tracer, Self)
    where
        C: AsyncFn(&str, TcpStream) -> io::Result<S> + 'static,
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (sender, queue) = mpsc::channel(pace.queue);
        let (stop, stopped) = oneshot::channel();
        let counts = Arc::<Counts>::default();
        let tracer = Tracer { sample_ratio, queue: sender, counts: counts.clone() };
        let Environment { resource, mut headers } = environment;
        headers
            .insert(header::HOST, HeaderValue::from_str(endpoint.authority.as_str()).expect("an authority is ASCII"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let sending = Sending {
            link: Link { endpoint, headers, tls, kept: None },
            resource,
            queue,
            stopped: Some(stopped),
            pace,
            counts: counts.clone(),
            complaints: Complaints::default(),
        };
        (tracer, Self { counts, stop, task: spawn_local(sending.run()), flush: pace.flush })
    }

    /// Sends what waits, but takes no longer than [`Pace::flush`]. Spans that come after it are dropped.
    pub async fn finish(self) {
        let Self { stop, mut task, flush, .. } = self;
        drop(stop);
        if timeout(flush, &mut task).await.is_err() {
            task.abort();
            tracing::warn!("the last spans could not be sent in time");
        }
    }
}

struct Sending<C> {
    link: Link<C>,
    resource: Vec<(String, String)>,
    queue: mpsc::Receiver<RequestSpans>,
    /// `None` once it is known that the gateway ends.
    stopped: Option<oneshot::Receiver<()>>,
    pace: Pace,
    counts: Arc<Counts>,
    complaints: Complaints,
}

impl<C, S> Sending<C>
where
    C: AsyncFn(&str, TcpStream) -> io::Result<S> + 'static,
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    async fn run(mut self) {
        while let Some(batch) = self.gather().await {
            self.deliver(batch).await;
        }
    }

    /// The next batch; `None` when there will be no more.
    async fn gather(&mut self) -> Option<Vec<RequestSpans>> {
        let (mut batch, mut spans, mut until) = (Vec::new(), 0, None);
        while spans < self.pace.batch_spans {
            let is_due = async move {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                next = self.queue.recv() => match next {
                    Some(request) => {
                        until = until.or(Some(Instant::now() + self.pace.batch_time));
                        spans += request.spans.len();
                        batch.push(request);
                    }
                    None => break,
                },
                () = is_due => break,
                () = told(&mut self.stopped) => self.queue.close(),
            }
        }
        Some(batch).filter(|batch| !batch.is_empty())
    }

    async fn deliver(&mut self, batch: Vec<RequestSpans>) {
        let spans = batch.iter().map(|request| request.spans.len() as u64).sum::<u64>();
        let body = Bytes::from(otlp::encode(&self.resource, &batch));
        drop(batch);
        let give_up = Instant::now() + self.pace.patience;
        let mut pause = self.pace.first_pause;
        loop {
            let sent = timeout(self.pace.attempt, self.link.post(body.clone())).await;
            let (error, lost) = match sent.unwrap_or(Err(ExportError::Timeout)) {
                Ok(()) => {
                    self.counts.exported.fetch_add(spans, Relaxed);
                    return self.complaints.delivered();
                }
                Err(error @ ExportError::Partial { rejected, .. }) => (error, rejected.min(spans)),
                Err(error) => (error, spans),
            };
            // Not all at once, when a collector comes back and many gateways wait for it.
            let wait = error.pause(pause.mul_f64(0.75 + fastrand::f64() / 2.0));
            match wait.and_then(|wait| Instant::now().checked_add(wait)) {
                Some(at) if at < give_up && self.stopped.is_some() => {
                    self.complaints.postponed(&error);
                    tokio::select! {
                        () = sleep_until(at) => {}
                        () = told(&mut self.stopped) => self.queue.close(),
                    }
                }
                _ => {
                    self.counts.failed.fetch_add(lost, Relaxed);
                    self.counts.exported.fetch_add(spans - lost, Relaxed);
                    return self.complaints.note(&error, lost);
                }
            }
            pause = (pause * 2).min(self.pace.last_pause);
        }
    }
}

/// Ready once, when the gateway ends.
async fn told(stopped: &mut Option<oneshot::Receiver<()>>) {
    match stopped {
        Some(receiver) => drop(receiver.await),
        None => pending().await,
    }
    *stopped = None;
}

/// The way to the collector, with a connection that is kept for the next batch.
struct Link<C> {
    endpoint: Endpoint,
    headers: HeaderMap,
    tls: C,
    kept: Option<SendRequest<Full<Bytes>>>,
}

impl<C, S> Link<C>
where
    C: AsyncFn(&str, TcpStream) -> io::Result<S> + 'static,
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    async fn post(&mut self, body: Bytes) -> Result<(), ExportError> {
        let mut kept = self.kept.take();
        if let Some(sender) = &mut kept
            && sender.ready().await.is_err()
        {
            kept = None;
        }
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let mut request = Request::post(self.endpoint.path.as_str()).body(Full::new(body)).expect("a valid path");
        request.headers_mut().clone_from(&self.headers);
        let (head, body) = sender.send_request(request).await?.into_parts();
        let answer = Limited::new(body, MAX_ANSWER).collect().await;
        if !head.status.is_success() {
            return Err(ExportError::Status { status: head.status, retry_after: retry_after(&head.headers) });
        }
        let Ok(answer) = answer else { return Ok(()) };
        self.kept = Some(sender);
        partial_success(&answer.to_bytes())
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ExportError> {
        let Endpoint { scheme, host, port, .. } = &self.endpoint;
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.set_nodelay(true)?;
        match scheme {
            Scheme::Http => handshake(stream).await,
            Scheme::Https => handshake((self.tls)(host, stream).await?).await,
        }
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, ExportError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends when the sender is dropped; what goes wrong on it is told to the sender.
    spawn_local(async move { drop(connection.await) });
    Ok(sender)
}

/// Seconds or a date (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::now()).unwrap_or_default()),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    partial_success: PartialSuccess,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PartialSuccess {
    /// A 64-bit number, which is a string in this mapping; some write a number.
    rejected_spans: serde_json::Value,
    error_message: String,
}

/// What is not understood of an answer that says yes is taken for a yes.
fn partial_success(answer: &[u8]) -> Result<(), ExportError> {
    let Ok(Answer { partial_success }) = serde_json::from_slice(answer) else { return Ok(()) };
    let rejected = partial_success.rejected_spans;
    match rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok()) {
        None | Some(0) => Ok(()),
        Some(rejected) => Err(ExportError::Partial { rejected, message: partial_success.error_message }),
    }
}

/// Failures as the log tells them: the first at once, losses then no more than once for each interval.
#[derive(Default)]
struct Complaints {
    last: Option<Instant>,
    untold: u64,
    /// What was told of a collector that may still come back.
    postponed: Option<Instant>,
    /// It has taken nothing since then.
    is_failing: bool,
}

impl Complaints {
    fn note(&mut self, error: &ExportError, lost: u64) {
        self.untold += lost;
        if self.last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            return;
        }
        tracing::warn!(spans = self.untold, %error, "spans are lost");
        (self.last, self.untold) = (Some(Instant::now()), 0);
    }

    /// A batch will be sent again. Most often the address is wrong, and who has just written it is still looking.
    fn postponed(&mut self, error: &ExportError) {
        let is_new = !std::mem::replace(&mut self.is_failing, true);
        if is_new && self.postponed.is_none_or(|last| last.elapsed() >= LOG_INTERVAL) {
            tracing::warn!(%error, "spans are not taken; they are sent again");
            self.postponed = Some(Instant::now());
        }
    }

    fn delivered(&mut self) {
        self.is_failing = false;
    }
}
