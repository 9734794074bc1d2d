//! To a worker and back: picks one, sends the request on a connection to it, and waits for the head of the
//! answer. Another attempt is made only while nothing of an answer has been sent on, and only if the worker cannot have
//! seen the request, says itself that it has not carried it out, or may see it twice without harm.

mod elsewhere;

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{StatusCode, Uri};
use http_body::Body;

use super::answer::Answer;
use super::attempt::{Attempt, Begun, Failed, Left, Reuse};
use super::body::{Content, Hold};
use super::destination::{self, Destination};
use super::error::GatewayError;
use super::exchange::Exchange;
use super::references;
use super::said::Said;
use super::upgrade::Tunnel;
use super::upload::{Resend, WorkerBody};
use crate::config::TargetError;
use crate::headers::{self, X_REQUEST_ID};
use crate::http1::head::{HeadError, Response};
use crate::modules::{RequestHead, ResponseHead};
use crate::trace::Target;
use crate::workers::answer::AnswerBody;
use crate::workers::breaker::{Outcome, verdict_of_status};
use crate::workers::policy::Ask;
use crate::workers::retry::{self, Failure, Repeat, may_resend};
use crate::workers::{Lease, Pool, Worker};

/// The longest pause that a worker may ask for before it is asked again.
const MOST_ASKED: Duration = Duration::from_secs(2);

/// Sends a request to one of the workers that can serve it.
pub async fn send(
    exchange: &mut Exchange<'_>,
    head: &mut RequestHead,
    mut body: WorkerBody,
) -> Result<Answer, GatewayError> {
    let (view, mut said) = (exchange.view, Said::default());
    let wants = destination::wants(exchange);
    if wants.something() {
        (body, said) = Box::pin(destination::look(wants, exchange, head, body)).await?;
    }
    let (prompt, routing_key) = (said.prompt(), destination::routing_key(&view.snapshot, &head.headers));
    if let Some(model) = prompt.as_ref().and_then(|prompt| prompt.model.as_deref()) {
        exchange.record.model = Some(model.into());
    }
    let mut now = Instant::now();
    let destination = match Destination::find(exchange, head, &said, prompt.as_ref(), &routing_key, now) {
        Err(GatewayError::UnknownModel(model)) if !model.is_empty() => {
            return Box::pin(elsewhere::send(exchange, head, body, model)).await;
        }
        found => found?,
    };
    let only = exchange.only;
    let at = only.map_or(destination.pool, |index| index.pool);
    let pool = &view.snapshot.pools[at];
    let resend = Resend::of(&body, exchange.record.upload());
    let mut attempts = Attempts::new(exchange);
    if pool.has_base_paths() {
        attempts.leave_out(pool, &head.uri)?;
    }
    if pool.lists_differ() && only.is_none() {
        elsewhere::avoid_others(exchange, pool, &mut attempts);
    }
    let is_one_left = pool.can_serve() && (attempts.avoided.is_empty() || attempts.is_fresh(pool));
    let nobody = if is_one_left { GatewayError::AllLeftAlone } else { GatewayError::NoWorker };
    let mut last = Err(nobody);
    while let Some(mut lease) = attempts.pick(pool, &destination.ask, now) {
        attempts.begin(exchange, head, &lease, &last);
        let mut own = own_head(exchange, head, &lease.worker)?;
        if let Ok(Received { begun: (_, body), .. }) = std::mem::replace(&mut last, Err(GatewayError::NoWorker)) {
            body.pass_over();
        }
        let home = &view.connections[at][lease.position];
        let reuse = if attempts.made == 1 { Reuse::Allowed } else { Reuse::Forbidden };
        let attempt = Attempt { exchange, home, resend: &resend, reuse };
        let (pause, left) = match attempt.run(own.as_deref_mut().unwrap_or(head), body).await {
            Ok(mut begun) => {
                let status = begun.0.status;
                attempts.answered(exchange, &mut lease, status);
                if status == StatusCode::NOT_FOUND {
                    let mut received = Received::new(begun, lease);
                    let elsewhere = elsewhere::body_for_another(exchange, pool, &resend, &mut attempts, &mut received);
                    let elsewhere = Box::pin(elsewhere).await?;
                    last = Ok(received);
                    let Some(again) = elsewhere else { break };
                    (body, now) = (again, Instant::now());
                    continue;
                }
                if !retry::may_be_retried(status, attempts.repeat) {
                    resend.forget();
                    return Ok(Received::new(begun, lease).into_answer(exchange));
                }
                let asked = begun.0.headers.get(header::RETRY_AFTER);
                let asked = asked.and_then(|value| retry::retry_after(value, SystemTime::now()));
                let pause = attempts.pause(exchange, head, pool, Failure::Status(status), asked);
                let rest = if pause.is_some() { begun.1.take_back() } else { None };
                last = Ok(Received::new(begun, lease));
                (pause, Left::Rest(rest))
            }
            Err(Failed { error, kind, left }) => {
                attempts.failed(exchange, &mut lease, &error);
                let pause = attempts.pause(exchange, head, pool, kind, None);
                // Who has waited for one worker in vain does not wait for it again.
                let is_waste = match &error {
                    GatewayError::Connect(error) => error.is_timeout(),
                    GatewayError::BadAnswer(error) => error.is_nonsense(),
                    _ => false,
                };
                // That a worker was tried which is known to be gone is not what the client should hear.
                let is_known = pool.is_refusing() && matches!(error, GatewayError::Connect(_));
                last = Err(if is_known { GatewayError::NoWorker } else { error });
                (pause.filter(|_| attempts.is_fresh(pool) || !is_waste), left)
            }
        };
        let again = pause.and_then(|pause| Some((pause, left.again(&resend)?)));
        let Some((pause, again)) = again else { break };
        if !exchange.gateway.retries.take(Instant::now()) {
            exchange.gateway.metrics.forbidden_retries.add(1);
            break;
        }
        body = again;
        if !pause.is_zero() {
            Box::pin(tokio::time::sleep(pause)).await;
        }
        now = Instant::now();
    }
    resend.forget();
    last.map(|received| received.into_answer(exchange))
}

/// The head as this worker is sent it, where others are sent another one: the worker has a base path, or a key of its
/// own. It is made for one attempt, so that nobody else gets the key.
pub fn own_head(
    exchange: &Exchange,
    head: &RequestHead,
    worker: &Worker,
) -> Result<Option<Box<RequestHead>>, GatewayError> {
    if worker.takes_as_is() {
        return Ok(None);
    }
    let uri = worker.url.target(&head.uri)?;
    let mut headers = head.headers.clone();
    // A CORS preflight may come without a caller's key, and goes on without the worker's.
    if exchange.key.is_some() || exchange.view.snapshot.keys.is_open() {
        worker.credentials().apply_to_request(&mut headers);
    }
    Ok(Some(Box::new(RequestHead { method: head.method.clone(), uri, headers })))
}

impl From<TargetError> for GatewayError {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::DotSegment => Self::BadRequest("The path must not have dot segments."),
            TargetError::TooLong => Self::NoRequest(HeadError::TargetTooLong.into()),
            TargetError::OutsideVersion => Self::NotServed,
        }
    }
}

/// The attempts at one request.
struct Attempts {
    made: u32,
    most: u32,
    /// Positions of the workers that were tried in vain.
    tried: Vec<usize>,
    /// Positions of the workers that can't serve the request, and are not sent it.
    avoided: Vec<usize>,
    /// The position of the one worker that may be asked.
    only: Option<usize>,
    /// Which requests may reach workers twice.
    repeat: Repeat,
    /// The next one must not be at a worker that was tried.
    needs_another: bool,
}

impl Attempts {
    fn new(exchange: &Exchange) -> Self {
        exchange.gateway.retries.request(exchange.record.start());
        let repeat = if exchange.config().retries.retry_non_idempotent { Repeat::Any } else { Repeat::Safe };
        let only = exchange.only.map(|index| index.worker);
        let (most, tried, avoided) = (exchange.most_attempts(), Vec::new(), Vec::new());
        Self { made: 0, most, tried, avoided, only, repeat, needs_another: false }
    }

    /// Leaves out the workers that can't be asked for the target, which is an error if no other worker could be.
    fn leave_out(&mut self, pool: &Pool, target: &Uri) -> Result<(), GatewayError> {
        if let Some(only) = self.only {
            return Ok(pool.all[only].url.check(target)?);
        }
        if let Some(able) = pool.able(target) {
            if able.is_empty()
                && let Some(error) = pool.target_error(target)
            {
                return Err(error.into());
            }
            self.avoided.extend(pool.healthy_positions().iter().filter(|at| !able.contains(at)));
        }
        Ok(())
    }

    fn pick(&self, pool: &Pool, ask: &Ask, now: Instant) -> Option<Lease> {
        match (self.only, self.needs_another) {
            (Some(only), _) => pool.pick_only(only, now),
            (None, false) if self.avoided.is_empty() => pool.pick(ask, &self.tried, now),
            (None, _) => self.pick_among_others(pool, ask, now),
        }
    }

    /// One that was not tried if there is one, and none that is avoided in any case.
    #[cold]
    fn pick_among_others(&self, pool: &Pool, ask: &Ask, now: Instant) -> Option<Lease> {
        let another = pool.pick_another(ask, &[&self.avoided[..], &self.tried].concat(), now);
        if self.needs_another { another } else { another.or_else(|| pool.pick_another(ask, &self.avoided, now)) }
    }

    /// `last` is why there is another.
    fn begin(
        &mut self,
        exchange: &mut Exchange,
        head: &mut RequestHead,
        lease: &Lease,
        last: &Result<Received, GatewayError>,
    ) {
        self.made += 1;
        exchange.record.sent_to(&lease.worker, self.made);
        if let Some(trace) = &mut exchange.record.trace {
            if self.made > 1 {
                trace.retry(last.as_ref().map_or_else(GatewayError::code, |_| "status"));
            }
            let url = &lease.worker.url;
            let (scheme, host, port) = (url.scheme().as_str(), url.host(), url.port());
            let RequestHead { method, uri, headers } = head;
            let below_base = url.has_base_path().then(|| url.target(uri).ok()).flatten();
            let uri = below_base.as_ref().unwrap_or(uri);
            trace.attempt(&Target { method, uri, scheme, host, port }, headers);
        }
    }

    fn answered(&mut self, exchange: &mut Exchange, lease: &mut Lease, status: StatusCode) {
        let verdict = verdict_of_status(status);
        if retry::may_be_retried(status, self.repeat) {
            let is_first = self.tried_in_vain(lease);
            lease.begun(if is_first { verdict } else { Outcome::Unknown });
        } else {
            lease.begun(verdict);
        }
        if let Some(trace) = &mut exchange.record.trace {
            trace.attempt_answered(status);
        }
    }

    fn failed(&mut self, exchange: &mut Exchange, lease: &mut Lease, error: &GatewayError) {
        let is_first = self.tried_in_vain(lease);
        lease.ended(if is_first { error.outcome() } else { Outcome::Unknown });
        if matches!(error, GatewayError::Connect(error) if !error.is_local()) {
            lease.worker.not_connected();
        }
        if let Some(trace) = &mut exchange.record.trace {
            trace.attempt_failed(error.code());
        }
    }

    /// Whether it is the first time: a worker's breaker counts requests, however often one is sent there.
    fn tried_in_vain(&mut self, lease: &Lease) -> bool {
        let is_first = !self.tried.contains(&lease.position);
        if is_first {
            self.tried.push(lease.position);
        }
        is_first
    }

    /// Whether there are workers that can serve the request and have not been tried.
    fn is_fresh(&self, pool: &Pool) -> bool {
        let is_fresh = |at: &usize| !self.tried.contains(at) && !self.avoided.contains(at);
        match self.only {
            Some(_) => self.tried.is_empty(),
            None => pool.healthy_positions().iter().any(is_fresh),
        }
    }

    /// The pause before another attempt; `None` if there is to be none. Another worker is tried at once if this one
    /// could not be reached. A worker that wants to be left alone for longer is what its client should hear.
    fn pause(
        &mut self,
        exchange: &Exchange<'_>,
        head: &RequestHead,
        pool: &Pool,
        failure: Failure,
        asked: Option<Duration>,
    ) -> Option<Duration> {
        let config = &exchange.config().retries;
        if exchange.has_begun.get()
            || self.made >= self.most
            || !may_resend(failure, &head.method, self.repeat)
            || exchange.deadline.is_expired()
        {
            return None;
        }
        let is_fresh = self.is_fresh(pool);
        self.needs_another |= retry::needs_another(failure);
        if self.needs_another && !is_fresh {
            return None;
        }
        if is_fresh && failure == Failure::Unsent {
            return Some(Duration::ZERO);
        }
        let asked = asked.filter(|_| !is_fresh);
        let pause = config.settings().pause_as_asked(self.made, fastrand::f64(), asked);
        let fits = asked.is_none_or(|asked| asked <= MOST_ASKED) && exchange.deadline.remaining() > pause;
        fits.then_some(pause)
    }
}

impl Left {
    /// The body for another attempt, if all of it can still be had.
    fn again(self, resend: &Resend) -> Option<WorkerBody> {
        match self {
            Self::All(body) => Some(body),
            Self::Rest(rest) => resend.body(rest),
        }
    }
}

/// A worker's answer, which may be passed over for another worker's.
pub struct Received {
    pub begun: Begun,
    pub lease: Lease,
    /// What was read of its body to see what it says.
    seen: Option<Bytes>,
}

impl Received {
    pub fn new(begun: Begun, lease: Lease) -> Self {
        Self { begun, lease, seen: None }
    }

    pub fn into_answer(self, exchange: &Exchange) -> Answer {
        let Self { begun: (Response { status, mut headers, .. }, body), lease, seen } = self;
        exchange.record.upload().answered();
        if headers::strip_answer(&mut headers) {
            references::point_at_gateway(&mut headers, &lease.worker);
        }
        // Whatever the worker calls it: the client and the log know the request by this id.
        headers.insert(&X_REQUEST_ID, exchange.record.request_id.clone());
        let content = match &exchange.upgrade {
            Some(protocol) if status == StatusCode::SWITCHING_PROTOCOLS => switched(exchange, protocol, body),
            _ if seen.is_some() && body.is_end_stream() => Content::Whole(seen.filter(|seen| !seen.is_empty())),
            _ => Content::Stream { first: seen, rest: body.settled() },
        };
        let hold = Hold { lease: Some(lease), ..Hold::default() };
        Answer { head: ResponseHead { status, headers }, content, hold }
    }
}

/// The worker has left HTTP, which only a connection of HTTP/1.1 can.
fn switched(exchange: &Exchange, protocol: &HeaderValue, body: AnswerBody<WorkerBody>) -> Content {
    match body.into_wire() {
        Ok(wire) => {
            let idle = exchange.config().limits.stream_body_stall_timeout_secs;
            let deadline = exchange.gateway.deadlines.register();
            Content::Tunnel(Some(Box::new(Tunnel::new(wire, protocol.clone(), deadline, idle))))
        }
        Err(rest) => Content::Stream { first: None, rest },
    }
}
