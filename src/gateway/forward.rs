//! To a worker and back: picks one, sends the request on a connection to it, and waits for the head of the
//! answer. Another attempt is made only while nothing of an answer has been sent on, and only if the worker cannot have
//! seen the request, says itself that it has not carried it out, or may see it twice without harm.

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;
use http::header;
use http_body::Body;
use hyper::body::Incoming;

use super::answer::Answer;
use super::body::{Collected, Content, Hold, collect};
use super::destination::{self, Destination};
use super::error::GatewayError;
use super::exchange::Exchange;
use super::upgrade::Tunnel;
use super::upload::{Resend, WorkerBody};
use crate::headers::{self, X_REQUEST_ID};
use crate::http1::MessageError;
use crate::http1::head::Response;
use crate::modules::{RequestHead, ResponseHead};
use crate::prompt::Prompt;
use crate::trace::Target;
use crate::workers::Lease;
use crate::workers::answer::AnswerBody;
use crate::workers::breaker::{Outcome, verdict_of_status};
use crate::workers::client::Connections;
use crate::workers::connector::ConnectError;
use crate::workers::http2::Place;
use crate::workers::link::{Link, LinkError, Payload, RequestParts, SendError};
use crate::workers::retry::{self, Repeat, may_resend};

/// Sends a request to one of the workers that can serve it.
pub async fn send(
    exchange: &mut Exchange<'_>,
    mut head: RequestHead,
    body: WorkerBody,
) -> Result<Answer, GatewayError> {
    let view = exchange.view;
    let (body, peeked) = destination::peek(exchange, body).await?;
    let prompt = peeked.as_deref().map(Prompt::read);
    let routing_key = destination::routing_key(&view.snapshot, &head.headers);
    if let Some(Ok(Prompt { model: Some(model), .. })) = &prompt {
        exchange.record.model = Some(model.as_ref().into());
    }
    let destination = Destination::find(exchange, &head, &prompt, &routing_key)?;
    let pool = &view.snapshot.pools[destination.pool];
    let mut attempts = Attempts::new(exchange);
    let resend = Resend::of(&body, exchange.record.upload());
    let mut next = Some(body);
    loop {
        let picked = pool.pick(&destination.ask, &attempts.tried, Instant::now());
        let (Some(mut lease), Some(body)) = (picked, next.take()) else {
            return Err(attempts.last.unwrap_or(GatewayError::NoWorker));
        };
        attempts.begin(exchange, &mut head, &lease);
        let home = view.connections[destination.pool][lease.position].clone();
        let is_first = attempts.made == 1;
        let attempt = Attempt { exchange, home: &home, resend: &resend, is_first };
        let (failure, asked, rest) = match attempt.run(&mut head, body).await {
            Ok((answer, mut source)) => {
                lease.begun(verdict_of_status(answer.status));
                if let Some(trace) = &mut exchange.record.trace {
                    trace.attempt_answered(answer.status);
                }
                let failure = retry::Failure::Status(answer.status);
                if answer.status.is_success() || !attempts.may_go_on(exchange, failure, &head) {
                    resend.forget();
                    return Ok(receive(exchange, answer, source, &home, lease));
                }
                let asked = answer.headers.get(header::RETRY_AFTER);
                let asked = asked.and_then(|value| retry::retry_after(value, SystemTime::now()));
                next = resend.body(source.take_back());
                if next.is_none() {
                    // Its answer, whatever it is, is the last.
                    return Ok(receive(exchange, answer, source, &home, lease));
                }
                source.body(&home).pass_over();
                (failure, asked, None)
            }
            Err(Failed { error, kind, rest }) => {
                lease.ended(error.outcome());
                if let Some(trace) = &mut exchange.record.trace {
                    trace.attempt_failed(error.code());
                }
                if !attempts.may_go_on(exchange, kind, &head) {
                    return Err(error);
                }
                attempts.last = Some(error);
                (kind, None, rest)
            }
        };
        drop(lease);
        if next.is_none() {
            next = resend.body(rest);
        }
        attempts.pause(exchange, failure, asked, pool.healthy_count()).await;
    }
}

/// The attempts at one request.
struct Attempts {
    made: u32,
    most: u32,
    /// Positions of the workers that were tried.
    tried: Vec<usize>,
    last: Option<GatewayError>,
}

impl Attempts {
    fn new(exchange: &Exchange) -> Self {
        let most = exchange.most_attempts();
        exchange.gateway.retries.request(exchange.record.start());
        Self { made: 0, most, tried: Vec::new(), last: None }
    }

    fn begin(&mut self, exchange: &mut Exchange, head: &mut RequestHead, lease: &Lease) {
        self.made += 1;
        self.tried.push(lease.position);
        exchange.record.sent_to(&lease.worker, self.made);
        if let Some(trace) = &mut exchange.record.trace {
            if self.made > 1 {
                trace.retry(self.last.as_ref().map_or("status", GatewayError::code));
            }
            let url = &lease.worker.url;
            let (scheme, host, port) = (url.scheme().as_str(), url.host(), url.port());
            let RequestHead { method, uri, headers } = head;
            trace.attempt(&Target { method, uri, scheme, host, port }, headers);
        }
    }

    /// Whether there may be another; takes it from the budget.
    fn may_go_on(&self, exchange: &Exchange, failure: retry::Failure, head: &RequestHead) -> bool {
        let config = &exchange.view.snapshot.config.retries;
        let repeat = if config.retry_non_idempotent { Repeat::Any } else { Repeat::Safe };
        self.made < self.most
            && may_resend(failure, &head.method, repeat)
            && exchange.gateway.retries.take(Instant::now())
    }

    /// Another worker is tried at once if this one could not be reached; otherwise there is a pause.
    async fn pause(&self, exchange: &Exchange<'_>, failure: retry::Failure, asked: Option<Duration>, workers: usize) {
        let is_fresh = self.tried.len() < workers;
        if is_fresh && failure == retry::Failure::Unsent {
            return;
        }
        let settings = exchange.view.snapshot.config.retries.settings();
        let asked = asked.filter(|_| !is_fresh);
        tokio::time::sleep(settings.pause_as_asked(self.made, fastrand::f64(), asked)).await;
    }
}

/// Why one worker gave no answer.
struct Failed {
    error: GatewayError,
    kind: retry::Failure,
    /// What was not read of the request's body.
    rest: Option<WorkerBody>,
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
    Http2(Incoming, Place<WorkerBody>),
}

impl Source {
    /// What has not been read of the request's body.
    fn take_back(&mut self) -> Option<WorkerBody> {
        match self {
            Self::Http1(link) => link.take_back(),
            Self::Http2(..) => None,
        }
    }

    fn body(self, home: &Rc<Connections<WorkerBody>>) -> AnswerBody<WorkerBody> {
        match self {
            Self::Http1(link) => AnswerBody::http1(link, Some(home.clone())),
            Self::Http2(body, place) => AnswerBody::http2(body, place),
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
                self.send_http2(head, body, is_first).await?
            } else {
                self.send_http1(head, body, is_first).await?
            };
            let SendError { error, is_unsent, rest } = match sent {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if let Some(error) = self.exchange.record.upload().error() {
                return Err(Failed { error, kind: retry::Failure::Broken, rest: None });
            }
            // The worker closed a kept connection just as it was taken: not a failure of the worker, and the next
            // attempt is on a new one.
            let is_stale = is_reused && (is_unsent || (error.is_break() && head.method.is_safe()));
            if !is_stale {
                let kind = if is_unsent { retry::Failure::Unsent } else { retry::Failure::Broken };
                return Err(Failed { error: GatewayError::BadAnswer(error), kind, rest });
            }
            body = match self.resend.body(rest) {
                Some(again) => again,
                None => {
                    let (error, kind) = (GatewayError::BadAnswer(error), retry::Failure::Broken);
                    return Err(Failed { error, kind, rest: None });
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
            None => match self.home.connect().await {
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
        let sending = place.send(self.home.worker.url.scheme(), self.parts(head), body);
        let sent = self.in_time(pin!(sending)).await?;
        let is_reused = place.reused;
        Ok((sent.map(|(answer, body)| (answer, Source::Http2(body, place))), is_reused))
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

    /// Waits for the head of the answer, no longer than it may take to begin.
    async fn in_time<T>(&self, mut sending: Pin<&mut impl Future<Output = T>>) -> Result<T, Failed> {
        let Some(limit) = self.exchange.first_byte_timeout() else {
            return Ok(sending.await);
        };
        let deadline = self.exchange.gateway.deadlines.register();
        deadline.set(limit);
        tokio::select! {
            biased;
            sent = sending.as_mut() => Ok(sent),
            () = deadline.expired() => {
                Err(Failed { error: GatewayError::FirstByteTimeout, kind: retry::Failure::Broken, rest: None })
            }
        }
    }
}

impl Failed {
    fn unsent(error: ConnectError, body: WorkerBody) -> Self {
        Self { error: GatewayError::Connect(error), kind: retry::Failure::Unsent, rest: Some(body) }
    }
}

impl GatewayError {
    /// What it says of the worker.
    fn outcome(&self) -> Outcome {
        match self {
            Self::Connect(_) => Outcome::Unreachable,
            Self::BadAnswer(LinkError::Message(MessageError::Io(_) | MessageError::Incomplete)) => Outcome::Unreachable,
            Self::BadAnswer(_) | Self::FirstByteTimeout => Outcome::Failed,
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

fn receive(
    exchange: &Exchange,
    answer: Response,
    source: Source,
    home: &Rc<Connections<WorkerBody>>,
    lease: Lease,
) -> Answer {
    let Response { status, mut headers, .. } = answer;
    headers::strip_hop_by_hop(&mut headers);
    // Whatever the worker calls it: the client and the log know the request by this id.
    headers.insert(&X_REQUEST_ID, exchange.record.request_id.clone());
    let content = match (&exchange.upgrade, source) {
        (Some(protocol), Source::Http1(link)) if status == StatusCode::SWITCHING_PROTOCOLS => {
            let idle = exchange.view.snapshot.config.limits.stream_body_stall_timeout_secs;
            let deadline = exchange.gateway.deadlines.register();
            Content::Tunnel(Some(Box::new(Tunnel::new(link.into_wire(), protocol.clone(), deadline, idle))))
        }
        (_, source) => Content::Stream { first: None, rest: source.body(home) },
    };
    let hold = Hold { lease: Some(lease), ..Hold::default() };
    Answer { head: ResponseHead { status, headers }, content, hold }
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
