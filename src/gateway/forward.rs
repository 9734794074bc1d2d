//! To a worker and back: picks one, sends the request on a connection to it, and waits for the head of the
//! answer. Another attempt is made only while nothing of an answer has been sent on, and only if the worker cannot have
//! seen the request, says itself that it has not carried it out, or may see it twice without harm.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;
use http::header;
use http_body::Body;

use super::answer::Answer;
use super::body::{Collected, Content, Hold, collect};
use super::destination::{self, Destination, Said};
use super::error::GatewayError;
use super::exchange::Exchange;
use super::upgrade::Tunnel;
use super::upload::{Resend, WorkerBody};
use crate::headers::{self, X_REQUEST_ID};
use crate::http1::MessageError;
use crate::http1::head::Response;
use crate::modules::{RequestHead, ResponseHead};
use crate::trace::Target;
use crate::workers::answer::AnswerBody;
use crate::workers::breaker::{Outcome, verdict_of_status};
use crate::workers::client::Connections;
use crate::workers::connector::ConnectError;
use crate::workers::http2::Answering;
use crate::workers::link::{Link, LinkError, Payload, RequestParts, SendError};
use crate::workers::retry::{self, Repeat, may_resend};
use crate::workers::{Lease, Pool};

/// The longest pause that a worker may ask for before it is asked again.
const MOST_ASKED: Duration = Duration::from_secs(2);

/// Sends a request to one of the workers that can serve it.
pub async fn send(
    exchange: &mut Exchange<'_>,
    mut head: RequestHead,
    body: WorkerBody,
) -> Result<Answer, GatewayError> {
    let view = exchange.view;
    let (body, peeked) = destination::peek(exchange, body).await?;
    let said = Said::in_body(&peeked);
    let routing_key = destination::routing_key(&view.snapshot, &head.headers);
    exchange.record.model = said.prompt().and_then(|prompt| prompt.model.as_deref()).map(Into::into);
    let destination = Destination::find(exchange, &head, &said, &routing_key)?;
    let pool = &view.snapshot.pools[destination.pool];
    let mut attempts = Attempts::new(exchange, pool);
    let resend = Resend::of(&body, exchange.record.upload());
    let (mut body, mut last) = (body, Err(GatewayError::NoWorker));
    loop {
        let Some(mut lease) = pool.pick(&destination.ask, &attempts.tried, Instant::now()) else { break };
        attempts.begin(exchange, &mut head, &lease, retried(&last));
        if let Ok(Received { source, home, .. }) = std::mem::replace(&mut last, Err(GatewayError::NoWorker)) {
            source.body(&home).pass_over();
        }
        let home = view.connections[destination.pool][lease.position].clone();
        let is_first = attempts.made == 1;
        let attempt = Attempt { exchange, home: &home, resend: &resend, is_first };
        let (failure, asked, left) = match attempt.run(&mut head, body).await {
            Ok((answer, mut source)) => {
                attempts.answered(exchange, &mut lease, answer.status);
                if !retry::may_be_retried(answer.status) {
                    resend.forget();
                    return Ok(Received { answer, source, home, lease }.into_answer(exchange));
                }
                let failure = retry::Failure::Status(answer.status);
                let asked = answer.headers.get(header::RETRY_AFTER);
                let asked = asked.and_then(|value| retry::retry_after(value, SystemTime::now()));
                let may_go_on = attempts.pause(exchange, failure, asked, &head).is_some();
                let rest = if may_go_on { source.take_back() } else { None };
                last = Ok(Received { answer, source, home, lease });
                (failure, asked, Left::Rest(rest))
            }
            Err(Failed { error, kind, left }) => {
                attempts.failed(exchange, &mut lease, &error);
                last = Err(error);
                (kind, None, left)
            }
        };
        let again = match left {
            Left::All(body) => Some(body),
            Left::Rest(rest) => resend.body(rest),
        };
        // Who has waited for one worker in vain does not wait for it again.
        let is_waste = matches!(&last, Err(GatewayError::Connect(error)) if error.is_timeout()) && !attempts.is_fresh();
        let (false, Some(pause), Some(again)) = (is_waste, attempts.pause(exchange, failure, asked, &head), again)
        else {
            break;
        };
        if !exchange.gateway.retries.take(Instant::now()) {
            exchange.gateway.metrics.forbidden_retries.add(1);
            break;
        }
        body = again;
        if !pause.is_zero() {
            Box::pin(tokio::time::sleep(pause)).await;
        }
    }
    resend.forget();
    last.map(|received| received.into_answer(exchange))
}

/// Why there is another attempt, in a word for traces.
fn retried(last: &Result<Received, GatewayError>) -> &'static str {
    last.as_ref().map_or_else(GatewayError::code, |_| "status")
}

/// The attempts at one request.
struct Attempts {
    made: u32,
    most: u32,
    /// Positions of the workers that were tried.
    tried: Vec<usize>,
    /// Workers that could be.
    workers: usize,
}

impl Attempts {
    fn new(exchange: &Exchange, pool: &Pool) -> Self {
        exchange.gateway.retries.request(exchange.record.start());
        Self { made: 0, most: exchange.most_attempts(), tried: Vec::new(), workers: pool.healthy_count() }
    }

    fn begin(&mut self, exchange: &mut Exchange, head: &mut RequestHead, lease: &Lease, why: &'static str) {
        self.made += 1;
        self.tried.push(lease.position);
        exchange.record.sent_to(&lease.worker, self.made);
        if let Some(trace) = &mut exchange.record.trace {
            if self.made > 1 {
                trace.retry(why);
            }
            let url = &lease.worker.url;
            let (scheme, host, port) = (url.scheme().as_str(), url.host(), url.port());
            let RequestHead { method, uri, headers } = head;
            trace.attempt(&Target { method, uri, scheme, host, port }, headers);
        }
    }

    fn answered(&self, exchange: &mut Exchange, lease: &mut Lease, status: StatusCode) {
        lease.begun(verdict_of_status(status));
        if let Some(trace) = &mut exchange.record.trace {
            trace.attempt_answered(status);
        }
    }

    fn failed(&self, exchange: &mut Exchange, lease: &mut Lease, error: &GatewayError) {
        lease.ended(error.outcome());
        if let Some(trace) = &mut exchange.record.trace {
            trace.attempt_failed(error.code());
        }
    }

    /// Whether there are workers that have not been tried.
    fn is_fresh(&self) -> bool {
        self.tried.len() < self.workers
    }

    /// The pause before another attempt; `None` if there is to be none. Another worker is tried at once if this one
    /// could not be reached. A worker that wants to be left alone for longer is what its client should hear.
    fn pause(
        &self,
        exchange: &Exchange<'_>,
        failure: retry::Failure,
        asked: Option<Duration>,
        head: &RequestHead,
    ) -> Option<Duration> {
        let config = &exchange.config().retries;
        let repeat = if config.retry_non_idempotent { Repeat::Any } else { Repeat::Safe };
        if self.made >= self.most || !may_resend(failure, &head.method, repeat) || exchange.deadline.is_expired() {
            return None;
        }
        let is_fresh = self.is_fresh();
        if is_fresh && failure == retry::Failure::Unsent {
            return Some(Duration::ZERO);
        }
        let asked = asked.filter(|_| !is_fresh);
        let pause = config.settings().pause_as_asked(self.made, fastrand::f64(), asked);
        let fits = asked.is_none_or(|asked| asked <= MOST_ASKED) && exchange.deadline.remaining() > pause;
        fits.then_some(pause)
    }
}

/// A worker's answer, which may be passed over for another worker's.
struct Received {
    answer: Response,
    source: Source,
    home: Rc<Connections<WorkerBody>>,
    lease: Lease,
}

/// Why one worker gave no answer.
struct Failed {
    error: GatewayError,
    kind: retry::Failure,
    left: Left,
}

/// What is left of the request's body after an attempt.
enum Left {
    /// All of it: there was no connection. It can be sent whether or not it is kept.
    All(WorkerBody),
    /// What was not read.
    Rest(Option<WorkerBody>),
}

/// One attempt at one worker.
struct Attempt<'a, 'b> {
    exchange: &'a Exchange<'b>,
    home: &'a Rc<Connections<WorkerBody>>,
    resend: &'a Resend,
    /// Another attempt never takes a kept connection: each might be as stale as the one before.
    is_first: bool,
}

/// Where the body of an answer comes from.
enum Source {
    Http1(Box<Link<WorkerBody>>),
    Http2(Answering<WorkerBody>),
}

impl Source {
    /// What has not been read of the request's body.
    fn take_back(&mut self) -> Option<WorkerBody> {
        match self {
            Self::Http1(link) => link.take_back(),
            Self::Http2(body) => body.take_back(),
        }
    }

    fn body(self, home: &Rc<Connections<WorkerBody>>) -> AnswerBody<WorkerBody> {
        match self {
            Self::Http1(link) => AnswerBody::http1(link, Some(home.clone())),
            Self::Http2(body) => AnswerBody::http2(body),
        }
    }
}

type Sent<T> = Result<T, SendError<WorkerBody>>;

impl Attempt<'_, '_> {
    /// Sends on a kept connection if one is good, otherwise on a new one.
    async fn run(&self, head: &mut RequestHead, mut body: WorkerBody) -> Result<(Response, Source), Failed> {
        let mut is_first = self.is_first;
        loop {
            let (sent, is_reused) = if self.home.speaks_http2() && self.exchange.upgrade.is_none() {
                Box::pin(self.send_http2(head, body, is_first)).await?
            } else {
                self.send_http1(head, body, is_first).await?
            };
            let SendError { error, is_unsent, rest } = match sent {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if let Some(error) = self.exchange.record.upload().error() {
                return Err(Failed { error, kind: retry::Failure::Broken, left: Left::Rest(None) });
            }
            // The worker closed a kept connection just as it was taken: not a failure of the worker, and the next
            // attempt is on a new one.
            let is_stale = is_reused && (is_unsent || (error.is_break() && head.method.is_safe()));
            if !is_stale {
                let kind = if is_unsent { retry::Failure::Unsent } else { retry::Failure::Broken };
                return Err(Failed { error: GatewayError::BadAnswer(error), kind, left: Left::Rest(rest) });
            }
            body = match self.resend.body(rest) {
                Some(again) => again,
                None => {
                    let (error, kind) = (GatewayError::BadAnswer(error), retry::Failure::Broken);
                    return Err(Failed { error, kind, left: Left::Rest(None) });
                }
            };
            is_first = false;
        }
    }

    async fn send_http1(
        &self,
        head: &mut RequestHead,
        body: WorkerBody,
        may_reuse: bool,
    ) -> Result<(Sent<(Response, Source)>, bool), Failed> {
        let kept = if may_reuse { self.home.reuse().await } else { None };
        let mut link = match kept {
            Some(link) => link,
            // In a box: it is large, and seldom needed.
            None => match Box::pin(self.home.connect()).await {
                Ok(link) => link,
                Err(error) => return Err(Failed::unsent(error, body)),
            },
        };
        let payload = payload(head, body);
        let caller = self.exchange.caller;
        let sending = link.send(self.parts(head), payload, |cx, interim| caller.send_interim(cx, interim));
        let sent = self.in_time(pin!(sending)).await?;
        let is_reused = link.reused;
        Ok((sent.map(|answer| (answer, Source::Http1(link))), is_reused))
    }

    async fn send_http2(
        &self,
        head: &RequestHead,
        body: WorkerBody,
        may_reuse: bool,
    ) -> Result<(Sent<(Response, Source)>, bool), Failed> {
        let placed = if may_reuse { self.home.place().await } else { self.home.new_place().await };
        let place = match placed {
            Ok(place) => place,
            Err(error) => return Err(Failed::unsent(error, body)),
        };
        let is_reused = place.reused;
        let sending = place.send(self.home.worker.url.scheme(), self.parts(head), body);
        let sent = self.in_time(pin!(sending)).await?;
        Ok((sent.map(|(answer, body)| (answer, Source::Http2(body))), is_reused))
    }

    fn parts<'h>(&'h self, head: &'h RequestHead) -> RequestParts<'h> {
        RequestParts {
            method: &head.method,
            uri: &head.uri,
            headers: &head.headers,
            host: &self.home.worker.host,
            upgrade: self.exchange.upgrade.as_ref(),
        }
    }

    /// Waits for the head of the answer, no longer than it may take to begin, and than the request may take. The time
    /// that the client takes for its body is not the worker's.
    async fn in_time<T>(&self, mut sending: Pin<&mut impl Future<Output = T>>) -> Result<T, Failed> {
        let upload = self.exchange.record.upload();
        let first_byte = self.exchange.first_byte_timeout().map(|limit| {
            let deadline = self.exchange.gateway.deadlines.register();
            deadline.set(limit);
            (deadline, limit)
        });
        let mut was_awaited = false;
        let sent = poll_fn(|cx| {
            if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
                return Poll::Ready(Ok(sent));
            }
            if self.exchange.deadline.poll_expired(cx).is_ready() {
                return Poll::Ready(Err(upload.late()));
            }
            let Some((deadline, limit)) = &first_byte else { return Poll::Pending };
            let is_awaited = upload.is_awaited();
            if std::mem::replace(&mut was_awaited, is_awaited) || is_awaited {
                deadline.set(*limit);
            }
            deadline.poll_expired(cx).map(|()| Err(GatewayError::FirstByteTimeout))
        });
        let late = |error| Failed { error, kind: retry::Failure::Broken, left: Left::Rest(None) };
        sent.await.map_err(late)
    }
}

impl Failed {
    fn unsent(error: ConnectError, body: WorkerBody) -> Self {
        Self { error: GatewayError::Connect(error), kind: retry::Failure::Unsent, left: Left::All(body) }
    }
}

impl GatewayError {
    /// What it says of the worker.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Connect(_) => Outcome::Unreachable,
            Self::BadAnswer(LinkError::Message(MessageError::Io(_) | MessageError::Incomplete)) => Outcome::Unreachable,
            Self::BadAnswer(LinkError::Http2(_)) => Outcome::Unreachable,
            // It was not the worker that could not say it.
            Self::BadAnswer(LinkError::Target) => Outcome::Unknown,
            Self::BadAnswer(_) | Self::FirstByteTimeout | Self::Timeout => Outcome::Failed,
            _ => Outcome::Unknown,
        }
    }
}

/// A client that waits for `100 Continue` gets it when the worker says so (RFC 9110 section 10.1.1).
fn payload(head: &mut RequestHead, body: WorkerBody) -> Payload<WorkerBody> {
    let expects = head.headers.get(header::EXPECT);
    let waits = expects.is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let waits = waits && matches!(body, WorkerBody::Stream(_));
    if expects.is_some() && !waits {
        head.headers.remove(header::EXPECT);
    }
    let mut payload = Payload::new(&head.method, &head.headers, body);
    if waits {
        payload.wait_for_continue();
    }
    payload
}

impl Received {
    fn into_answer(self, exchange: &Exchange) -> Answer {
        let Self { answer: Response { status, mut headers, .. }, source, home, lease } = self;
        headers::strip_hop_by_hop(&mut headers);
        // Whatever the worker calls it: the client and the log know the request by this id.
        headers.insert(&X_REQUEST_ID, exchange.record.request_id.clone());
        let content = match (&exchange.upgrade, source) {
            (Some(protocol), Source::Http1(link)) if status == StatusCode::SWITCHING_PROTOCOLS => {
                let idle = exchange.config().limits.stream_body_stall_timeout_secs;
                let deadline = exchange.gateway.deadlines.register();
                Content::Tunnel(Some(Box::new(Tunnel::new(link.into_wire(), protocol.clone(), deadline, idle))))
            }
            (_, source) => Content::Stream { first: None, rest: source.body(&home) },
        };
        let hold = Hold { lease: Some(lease), ..Hold::default() };
        Answer { head: ResponseHead { status, headers }, content, hold }
    }
}

/// Reads up to `limit` bytes of an answer's body for modules to see. `Err` holds what to send on when there
/// is more.
pub async fn collect_answer(content: Content, limit: u64) -> Result<Result<bytes::Bytes, Content>, GatewayError> {
    let mut rest = match content {
        Content::Whole(bytes) => return Ok(Ok(bytes.unwrap_or_default())),
        Content::Tunnel(_) => return Ok(Err(content)),
        Content::Stream { rest, .. } => rest,
    };
    if rest.size_hint().lower() > limit {
        return Ok(Err(Content::Stream { first: None, rest }));
    }
    rest.expect_whole();
    match collect(&mut rest, limit).await.map_err(GatewayError::BadAnswer)? {
        Collected::Whole(body) => Ok(Ok(body)),
        Collected::Over(first) => Ok(Err(Content::Stream { first: Some(first), rest })),
    }
}
