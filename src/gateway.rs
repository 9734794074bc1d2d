//! One request, top to bottom.

pub mod accept;
mod access;
mod admit;
mod answer;
mod attempt;
pub mod body;
pub mod control;
mod cors;
mod destination;
pub mod error;
mod event_stream;
mod exchange;
mod forward;
mod hooks;
pub mod metrics;
pub mod record;
mod references;
mod said;
mod silence;
mod stored;
pub mod upgrade;
mod upload;
mod view;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::num::NonZeroU16;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Poll;

use http::{Method, StatusCode, Uri};
use http_body::Body;

use self::accept::{Additions, Via};
use self::answer::Answer;
use self::body::{Content, GatewayBody};
use self::control::Control;
use self::error::GatewayError;
use self::exchange::Exchange;
use self::hooks::OnRequest;
use self::metrics::HttpMetrics;
use self::record::{Ledger, Record};
use self::said::Decoding;
use self::silence::Silence;
pub use self::stored::Owners;
use self::upload::{ClientBody, Keep, Pause, Shelf, WorkerBody};
use self::view::View;
use crate::access_log::{self, AccessLog};
use crate::admission::Admission;
use crate::client::{Caller, Client, Offers, RequestBody};
use crate::deadline::{Deadline, Deadlines};
use crate::headers::{self, X_REQUEST_ID};
use crate::http1::MessageError;
use crate::http1::framing::FramingError;
use crate::http1::head::Request;
use crate::metrics::now_ms;
use crate::modules::{Engine, RequestHead, ResponseHead, ShardGuests, Visit};
use crate::patience::Patience;
use crate::pressure::{Level, Pressure, Resource};
use crate::routes::{self, Route};
use crate::snapshot::{Publisher, SnapshotCache};
use crate::trace::{Trace, Tracer};
use crate::workers::retry::Budget;

/// Answers that were broken off, each of which may have held 64 KiB for its client.
const WORTH_RELEASING: usize = 16;

/// What all shards share.
pub struct Shared {
    pub publisher: Arc<Publisher>,
    pub engine: Option<Arc<Engine>>,
    pub control: Control,
    pub via: Via,
    /// The gateway has been told to stop: `/readiness` says so, and clients are asked to go elsewhere.
    pub stopping: AtomicBool,
    /// It takes no new connections either, and ends those it has.
    pub draining: AtomicBool,
    pub shards: u16,
    pub admission: Arc<Admission>,
    pub pressure: Arc<Pressure>,
    /// Who has which stored object.
    pub owners: Owners,
    pub log: access_log::Output,
    pub tracer: Option<Tracer>,
}

/// What a client is sent.
pub struct Reply {
    pub head: ResponseHead,
    pub body: GatewayBody,
}

/// The gateway as one shard runs it.
pub struct Gateway {
    shared: Arc<Shared>,
    pub deadlines: Deadlines,
    pub metrics: Arc<HttpMetrics>,
    ledger: Rc<Ledger>,
    tracer: Option<Rc<Tracer>>,
    guests: Option<ShardGuests>,
    cache: RefCell<SnapshotCache>,
    view: RefCell<Rc<View>>,
    /// Of its clients' connections.
    pub patience: Rc<Cell<Patience>>,
    retries: Budget,
    /// What is kept of bodies that may have to be sent again.
    shelf: Rc<Shelf>,
    decoding: Decoding,
    /// Memory was given back when that was last looked at.
    is_releasing: Cell<bool>,
}

impl Gateway {
    pub fn new(shared: Arc<Shared>, deadlines: Deadlines, metrics: Arc<HttpMetrics>) -> Self {
        let cache = shared.publisher.cache();
        let guests = shared.engine.as_ref().map(|engine| ShardGuests::new(engine, u32::from(shared.shards)));
        let view = View::empty(shared.publisher.current()).next(shared.publisher.current(), guests.as_ref());
        let retries = Budget::new(NonZeroU16::new(shared.shards).unwrap_or(NonZeroU16::MIN));
        let patience = Rc::new(Cell::new(Patience::new(&view.snapshot.config.limits)));
        let (cache, view) = (RefCell::new(cache), RefCell::new(Rc::new(view)));
        let ledger = Rc::new(Ledger::new(metrics.clone(), AccessLog::new(shared.log.clone())));
        let tracer = shared.tracer.clone().map(Rc::new);
        let (shelf, decoding) = (Rc::default(), Decoding::default());
        Self {
            shared,
            deadlines,
            metrics,
            ledger,
            tracer,
            guests,
            cache,
            view,
            patience,
            retries,
            shelf,
            decoding,
            is_releasing: Cell::default(),
        }
    }

    /// Answers one request. Whatever happens, the client gets an answer with the request's id.
    /// `unreadable` is why its body can't be read, if that is so.
    pub async fn handle(
        &self,
        caller: &Caller<'_>,
        request: &mut Request,
        unreadable: Option<FramingError>,
        body: RequestBody,
    ) -> Reply {
        let view = self.view();
        let request_id = headers::request_id(&request.headers, &view.snapshot.config.limits.request_id_headers);
        let mut record = Record::open(request_id, caller, &request.method, &request.uri, &self.ledger);
        record.note(request);
        let is_head = request.method == Method::HEAD;
        let upgrade = upgrade::asked(request, &body);
        let route = view.snapshot.overrides.find(&request.method, request.uri.path());
        let deadline = self.deadlines.register();
        let mut exchange = Exchange {
            gateway: self,
            view: &view,
            caller,
            record: &mut record,
            deadline: &deadline,
            upgrade,
            route,
            has_begun: Cell::new(false),
            only: None,
            key: None,
        };
        let answered = match unreadable {
            None => self.route(&mut exchange, request, body).await,
            Some(error) => Err(GatewayError::NoRequest(error.into())),
        };
        let mut answer = answered.unwrap_or_else(|error| Answer::of_error(&error, &mut record)).framed(is_head);
        if matches!(answer.content, Content::Stream { .. }) {
            // A tunnel has its own time, and what is here needs none.
            answer.hold.deadline = Some(deadline);
        }
        self.reply(answer, record)
    }

    /// Answers what is not a request.
    pub fn refuse(&self, client: &Client, error: MessageError) -> Reply {
        let request_id = headers::new_request_id();
        let (method, target) = (Method::from_bytes(b"-").expect("a token"), Uri::from_static("*"));
        let mut record = Record::open(request_id, client, &method, &target, &self.ledger);
        let answer = Answer::of_error(&GatewayError::NoRequest(error), &mut record);
        self.reply(answer, record)
    }

    fn reply(&self, answer: Answer, mut record: Box<Record>) -> Reply {
        let Answer { mut head, content, hold } = answer;
        record.answered(head.status);
        if !head.headers.contains_key(&X_REQUEST_ID) {
            head.headers.insert(&X_REQUEST_ID, record.request_id.clone());
        }
        let silence = match (&content, &hold.view) {
            (Content::Stream { rest, .. }, Some(view)) if !rest.is_end_stream() => {
                Some(Silence::new(&mut head, &rest.size_hint(), &view.snapshot.config.limits, &self.deadlines))
            }
            _ => None,
        };
        Reply { head, body: GatewayBody::new(content, record, hold, silence) }
    }

    async fn route(
        &self,
        exchange: &mut Exchange<'_>,
        request: &mut Request,
        body: RequestBody,
    ) -> Result<Answer, GatewayError> {
        accept::check(request)?;
        match routes::route(request.uri.path()) {
            Route::Alive => control::only_reads(&request.method).map(|()| Answer::text(StatusCode::OK, "OK")),
            Route::Ready => control::only_reads(&request.method).map(|()| self.readiness(exchange.view)),
            Route::Metrics | Route::Admin | Route::EveryWorker if exchange.caller.offers == Offers::DataPlane => {
                Err(GatewayError::NotHere)
            }
            Route::Models | Route::Stored | Route::Workers if exchange.caller.offers == Offers::AdminApi => {
                Err(GatewayError::NotHere)
            }
            Route::Disguised => Err(GatewayError::NotHere),
            // In boxes: most of a future is moved when it starts, and the last one is what almost all requests need.
            Route::Metrics => Box::pin(self.metrics(exchange, request)).await,
            Route::Admin => Box::pin(self.administer(exchange, request, body)).await,
            Route::EveryWorker => Box::pin(self.operate(exchange, request, body)).await,
            Route::Models => Box::pin(self.serve_page(exchange, request, body, control::models)).await,
            Route::Workers if is_for_pages(exchange) => {
                Box::pin(self.serve_page(exchange, request, body, forward::send)).await
            }
            Route::Stored if is_for_pages(exchange) => {
                Box::pin(self.serve_page(exchange, request, body, stored::serve)).await
            }
            Route::Stored => Box::pin(self.serve(exchange, request, body, stored::serve)).await,
            Route::Workers => self.serve(exchange, request, body, forward::send).await,
        }
    }

    /// What a caller's request goes through, whoever answers it in the end.
    async fn serve(
        &self,
        exchange: &mut Exchange<'_>,
        request: &mut Request,
        body: RequestBody,
        destination: impl AsyncFnOnce(&mut Exchange<'_>, &mut RequestHead, WorkerBody) -> Result<Answer, GatewayError>,
    ) -> Result<Answer, GatewayError> {
        exchange.record.trace = self.tracer.as_ref().map(|tracer| tracer.begin(&mut request.headers));
        if self.shared.pressure.level_of(Resource::Memory) == Level::Critical {
            return Err(GatewayError::Pressed);
        }
        // Strangers don't get to spend guest CPU, or a place in the queue.
        exchange.key = match access::check_caller(&exchange.view.snapshot.keys, &mut request.headers) {
            Err(GatewayError::Unauthorized) if cors::is_keyless(request, &body) => None,
            checked => checked?,
        };
        exchange.record.key.clone_from(&exchange.key);
        let limit = exchange.max_payload_size();
        if body.size_hint().lower() > limit {
            return Err(GatewayError::BodyTooLarge(limit));
        }
        let deadline = exchange.deadline;
        let (time, limits) = (exchange.request_timeout(), &exchange.config().limits);
        deadline.set(time);
        exchange.caller.allow(time);
        let permits = self.admit(exchange).await?;

        let request_id = exchange.record.request_id.clone();
        let key = exchange.key.as_ref().map(|key| &key.name);
        let additions = Additions { client: exchange.caller, request_id: &request_id, via: &self.shared.via, key };
        let mut head = accept::forwardable(request, &additions)?;
        let upload = exchange.record.upload();
        let most = exchange.config().retries.max_buffered_request_bytes;
        let pause = Pause::new(&self.deadlines, limits.stream_body_stall_timeout_secs);
        let keep = Some(Keep { most, shelf: self.shelf.clone() });
        let body = ClientBody::new(body, upload.clone(), limit, keep, pause);

        let mut answer = if exchange.view.chain.is_empty() {
            let answering = destination(exchange, &mut head, body.into());
            within(deadline, || upload.late(), pin!(answering)).await?
        } else {
            // In a box of its own: the state of guest calls is large, and most of a future is moved when it starts.
            Box::pin(self.serve_visited(exchange, head, body, destination)).await?
        };
        answer.hold.view = Some(exchange.view.clone());
        answer.hold.permits = permits;
        Ok(answer)
    }

    /// The same with the modules in between.
    async fn serve_visited(
        &self,
        exchange: &mut Exchange<'_>,
        head: RequestHead,
        body: ClientBody,
        destination: impl AsyncFnOnce(&mut Exchange<'_>, &mut RequestHead, WorkerBody) -> Result<Answer, GatewayError>,
    ) -> Result<Answer, GatewayError> {
        let (is_head, deadline) = (head.method == Method::HEAD, exchange.deadline);
        let mut visit = Visit::new(&exchange.view.chain, &head, now_ms(), |module| {
            exchange.route.as_ref().is_none_or(|route| route.admits(module))
        });
        if exchange.record.trace.as_ref().is_some_and(Trace::is_recorded) {
            visit.note_calls();
        }
        let answered = async {
            let (mut head, body) = match hooks::on_request(&mut visit, head, body, exchange).await? {
                OnRequest::Forward(head, body) => (head, body),
                OnRequest::Answered(answer) => return Ok(Answer::of_module(*answer)),
            };
            let upload = exchange.record.upload();
            let answering = destination(exchange, &mut head, body);
            let answer = within(deadline, || upload.late(), pin!(answering)).await?;
            hooks::on_response(&mut visit, answer, is_head, exchange).await
        };
        let answered = answered.await;
        exchange.record.visited(&mut visit);
        let is_decided = visit.decides_status();
        answered.map(|answer| if is_decided { answer.decided_by_module(exchange.record) } else { answer })
    }

    /// This resource is scarce.
    pub fn is_pressed(&self, resource: Resource) -> bool {
        self.shared.pressure.level_of(resource) != Level::Calm
    }

    pub fn is_stopping(&self) -> bool {
        self.shared.stopping.load(Relaxed)
    }

    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Relaxed)
    }

    /// The snapshot in force, with this shard's guests and connections.
    pub fn view(&self) -> Rc<View> {
        self.keep_up();
        self.view.borrow().clone()
    }

    /// Takes over what has been published. Whether anything has is one read.
    pub fn keep_up(&self) {
        let mut cache = self.cache.borrow_mut();
        let current = cache.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(current, &view.snapshot) {
            *view = Rc::new(view.next(current.clone(), self.guests.as_ref()));
            self.patience.set(Patience::new(&current.config.limits));
        }
    }

    /// Whether so many answers were broken off that their memory is worth giving back; or at least one more since that
    /// was last so: a crowd does not leave at once.
    pub fn has_memory_to_release(&self) -> bool {
        let broken_off = self.ledger.broken_off.get();
        let is_worth_it = broken_off >= if self.is_releasing.get() { 1 } else { WORTH_RELEASING };
        if is_worth_it {
            self.ledger.broken_off.set(0);
        }
        self.is_releasing.set(is_worth_it);
        is_worth_it
    }

    /// Closes connections to workers that nobody has used for a while.
    pub fn close_aged_connections(&self) {
        self.view().close_aged_connections();
    }
}

/// Whether it is said which web pages may call.
fn is_for_pages(exchange: &Exchange) -> bool {
    !exchange.config().access.cors_allowed_origins.is_empty()
}

/// The result of `work`, or `late` when the deadline passes before. Taken by reference: a future that is moved
/// into another is copied, and these are large.
fn within<T>(
    deadline: &Deadline,
    late: impl Fn() -> GatewayError,
    mut work: Pin<&mut impl Future<Output = Result<T, GatewayError>>>,
) -> impl Future<Output = Result<T, GatewayError>> {
    poll_fn(move |cx| {
        if deadline.poll_expired(cx).is_ready() {
            return Poll::Ready(Err(late()));
        }
        work.as_mut().poll(cx)
    })
}
