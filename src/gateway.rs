//! One request, top to bottom.

pub mod accept;
mod access;
mod answer;
pub mod body;
pub mod error;
mod forward;
mod hooks;
pub mod record;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode, Uri};
use http_body::Body;
use serde_json::json;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use self::accept::{Additions, Via};
use self::answer::Answer;
use self::body::{ClientBody, GatewayBody, WorkerBody};
use self::error::GatewayError;
use self::hooks::OnRequest;
use self::record::{HttpMetrics, Record};
use crate::client::{Client, RequestBody};
use crate::config::Config;
use crate::deadline::{Deadline, Deadlines};
use crate::headers::{self, X_REQUEST_ID};
use crate::http1::MessageError;
use crate::http1::framing::FramingError;
use crate::http1::head::Request;
use crate::metrics::now_ms;
use crate::modules::{Engine, ModuleGuests, RequestHead, ResponseHead, ShardGuests, Visit};
use crate::routes::{self, Route};
use crate::snapshot::{Publisher, Snapshot, SnapshotCache};
use crate::workers::client::Connections;

/// Largest body of a request to the admin API, and the time it may take to arrive.
const MAX_ADMIN_BODY: u64 = 1 << 20;
const ADMIN_BODY_TIME: Duration = Duration::from_secs(10);

/// What all shards share.
pub struct Shared {
    pub config: Config,
    pub publisher: Arc<Publisher>,
    pub engine: Option<Arc<Engine>>,
    pub control: mpsc::Sender<ControlCall>,
    pub via: Via,
    pub draining: AtomicBool,
    pub shards: u32,
}

/// What a client is sent.
pub struct Reply {
    pub head: ResponseHead,
    pub body: GatewayBody,
}

impl Reply {
    fn new(answer: Answer, mut record: Record) -> Self {
        let Answer { mut head, content, lease, deadline, view } = answer;
        record.answered(head.status);
        if !head.headers.contains_key(&X_REQUEST_ID) {
            head.headers.insert(&X_REQUEST_ID, record.request_id.clone());
        }
        Self { head, body: GatewayBody::new(content, lease, record, deadline, view) }
    }
}

/// Something that the control plane answers.
pub struct ControlCall {
    pub ask: Ask,
    pub reply: oneshot::Sender<Response<Bytes>>,
}

pub enum Ask {
    Metrics,
    Models,
    Admin { method: Method, path: String, content_type: Option<HeaderValue>, body: Bytes },
}

/// The gateway as one shard runs it.
pub struct Gateway {
    shared: Arc<Shared>,
    pub deadlines: Deadlines,
    pub metrics: Arc<HttpMetrics>,
    guests: Option<ShardGuests>,
    cache: RefCell<SnapshotCache>,
    view: RefCell<Rc<View>>,
}

/// A snapshot with this shard's own guests and connections.
pub struct View {
    snapshot: Arc<Snapshot>,
    chain: Vec<Rc<ModuleGuests>>,
    /// At the positions of the snapshot's workers.
    connections: Vec<Rc<Connections<WorkerBody>>>,
}

impl Gateway {
    pub fn new(shared: Arc<Shared>, deadlines: Deadlines, metrics: Arc<HttpMetrics>) -> Self {
        let cache = shared.publisher.cache();
        let guests = shared.engine.as_ref().map(|engine| ShardGuests::new(engine, shared.shards));
        let empty = View { snapshot: shared.publisher.current(), chain: Vec::new(), connections: Vec::new() };
        let view = RefCell::new(Rc::new(empty));
        let gateway = Self { shared, deadlines, metrics, guests, cache: RefCell::new(cache), view };
        gateway.arrange(gateway.shared.publisher.current());
        gateway
    }

    /// Answers one request. Whatever happens, the client gets an answer with the request's id.
    /// `unreadable` is why its body can't be read, if that is so.
    pub async fn handle(
        &self,
        client: &Client,
        request: Request,
        unreadable: Option<FramingError>,
        body: RequestBody,
    ) -> Reply {
        let request_id = headers::request_id(&request.headers, &self.shared.config.limits.request_id_headers);
        let mut record = Record::open(request_id, client.address.clone(), &request.method, &request.uri, &self.metrics);
        let is_head = request.method == Method::HEAD;
        let answered = match unreadable {
            None => self.route(client, request, body, &mut record).await,
            Some(error) => Err(GatewayError::NoRequest(error.into())),
        };
        let answer = answered.unwrap_or_else(|error| Answer::of_error(&error, &mut record)).framed(is_head);
        Reply::new(answer, record)
    }

    /// Answers what is not a request.
    pub fn refuse(&self, client: &Client, error: MessageError) -> Reply {
        let request_id = headers::new_request_id();
        let (method, target) = (Method::from_bytes(b"-").expect("a token"), Uri::from_static("*"));
        let mut record = Record::open(request_id, client.address.clone(), &method, &target, &self.metrics);
        let answer = Answer::of_error(&GatewayError::NoRequest(error), &mut record);
        Reply::new(answer, record)
    }

    async fn route(
        &self,
        client: &Client,
        request: Request,
        body: RequestBody,
        record: &mut Record,
    ) -> Result<Answer, GatewayError> {
        accept::check(&request)?;
        match routes::route(request.uri.path()) {
            Route::Alive => only_reads(&request.method).map(|()| Answer::text(StatusCode::OK, "OK")),
            Route::Ready => only_reads(&request.method).map(|()| self.readiness()),
            Route::Metrics => {
                access::check_admin(&self.shared.config.access, client.peer, &request.uri, &request.headers)?;
                only_reads(&request.method)?;
                self.ask(Ask::Metrics).await
            }
            Route::Admin => self.administer(client, request, body, record).await,
            Route::Models => self.serve(client, request, body, record, Self::models).await,
            Route::Workers => self.serve(client, request, body, record, Self::forward).await,
        }
    }

    /// What a caller's request goes through, whoever answers it in the end.
    async fn serve(
        &self,
        client: &Client,
        request: Request,
        body: RequestBody,
        record: &mut Record,
        destination: impl AsyncFnOnce(&Self, &View, RequestHead, WorkerBody, &mut Record) -> Result<Answer, GatewayError>,
    ) -> Result<Answer, GatewayError> {
        // Strangers don't get to spend guest CPU.
        access::check_caller(&self.shared.config.access, &request.headers)?;
        let limit = self.shared.config.limits.max_payload_size;
        if body.size_hint().lower() > limit {
            return Err(GatewayError::BodyTooLarge(limit));
        }
        let view = self.view();
        let deadline = self.deadlines.register();
        deadline.set(self.shared.config.limits.request_timeout_secs);

        let request_id = record.request_id.clone();
        let additions = Additions { client, request_id: &request_id, via: &self.shared.via };
        let head = accept::forwardable(request, &additions)?;
        let body = ClientBody::new(body, record.upload(), limit);

        if view.chain.is_empty() {
            let upload = record.upload();
            let answering = destination(self, &view, head, body.into(), record);
            let answer = within(&deadline, || upload.late(), pin!(answering)).await?;
            return Ok(Answer { deadline: Some(deadline), view: Some(view.clone()), ..answer });
        }

        // In a box of its own: the state of guest calls is large, and most of a future is moved when it starts.
        let visited = self.serve_visited(&view, head, body, record, &deadline, destination);
        let answer = Box::pin(visited).await?;
        Ok(Answer { deadline: Some(deadline), view: Some(view.clone()), ..answer })
    }

    /// The same with the modules in between.
    async fn serve_visited(
        &self,
        view: &View,
        head: RequestHead,
        body: ClientBody,
        record: &mut Record,
        deadline: &Deadline,
        destination: impl AsyncFnOnce(&Self, &View, RequestHead, WorkerBody, &mut Record) -> Result<Answer, GatewayError>,
    ) -> Result<Answer, GatewayError> {
        let is_head = head.method == Method::HEAD;
        let mut visit = Visit::new(&view.chain, &head, now_ms());
        let answered = async {
            let (head, body) = match hooks::on_request(&mut visit, head, body, record, deadline).await? {
                OnRequest::Forward(head, body) => (head, body),
                OnRequest::Answered(answer) => return Ok(Answer::of_module(*answer)),
            };
            let upload = record.upload();
            let answering = destination(self, view, head, body, record);
            let answer = within(deadline, || upload.late(), pin!(answering)).await?;
            hooks::on_response(&mut visit, answer, is_head, record, deadline).await
        };
        let answered = answered.await;
        record.visited(visit.acted(), visit.tags());
        answered
    }

    async fn forward(
        &self,
        view: &View,
        head: RequestHead,
        body: WorkerBody,
        record: &mut Record,
    ) -> Result<Answer, GatewayError> {
        let forward::WorkerAnswer { mut head, content, lease } = forward::send(view, head, body, record).await?;
        // Whatever the worker calls it: the client and the log know the request by this id.
        head.headers.insert(&X_REQUEST_ID, record.request_id.clone());
        Ok(Answer { head, content, lease: Some(lease), deadline: None, view: None })
    }

    async fn models(
        &self,
        view: &View,
        head: RequestHead,
        _: WorkerBody,
        _: &mut Record,
    ) -> Result<Answer, GatewayError> {
        only_reads(&head.method)?;
        if view.snapshot.pool.healthy_count() == 0 {
            return Err(GatewayError::NoWorker);
        }
        self.ask(Ask::Models).await
    }

    async fn administer(
        &self,
        client: &Client,
        request: Request,
        body: RequestBody,
        record: &mut Record,
    ) -> Result<Answer, GatewayError> {
        access::check_admin(&self.shared.config.access, client.peer, &request.uri, &request.headers)?;
        let deadline = self.deadlines.register();
        deadline.set(ADMIN_BODY_TIME);
        let body = ClientBody::new(body, record.upload(), MAX_ADMIN_BODY).collect(MAX_ADMIN_BODY);
        let body = within(&deadline, || GatewayError::SlowBody, pin!(body)).await?;
        let content_type = request.headers.get(header::CONTENT_TYPE).cloned();
        self.ask(Ask::Admin { method: request.method, path: request.uri.path().to_owned(), content_type, body }).await
    }

    /// Asks the control plane.
    async fn ask(&self, ask: Ask) -> Result<Answer, GatewayError> {
        let (reply, answer) = oneshot::channel();
        let call = ControlCall { ask, reply };
        self.shared.control.try_send(call).map_err(|error| match error {
            TrySendError::Full(_) => GatewayError::Overloaded,
            TrySendError::Closed(_) => GatewayError::ControlPlane,
        })?;
        Ok(Answer::whole(answer.await.map_err(|_| GatewayError::ControlPlane)?))
    }

    fn readiness(&self) -> Answer {
        let view = self.view();
        let (healthy, total) = (view.snapshot.pool.healthy_count(), view.snapshot.pool.all.len());
        let reason = match () {
            () if self.is_draining() => Some("draining"),
            () if healthy == 0 => Some("no healthy workers"),
            () => None,
        };
        match reason {
            None => {
                let ready = json!({"status": "ready", "healthy_workers": healthy, "total_workers": total});
                Answer::json(StatusCode::OK, &ready)
            }
            Some(reason) => {
                let not = json!({"status": "not ready", "reason": reason, "healthy_workers": healthy, "total_workers": total});
                Answer::json(StatusCode::SERVICE_UNAVAILABLE, &not)
            }
        }
    }

    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Relaxed)
    }

    /// The snapshot in force, with this shard's guests and connections. Whether it changed is one read.
    pub fn view(&self) -> Rc<View> {
        let mut cache = self.cache.borrow_mut();
        let current = cache.load();
        if !Arc::ptr_eq(current, &self.view.borrow().snapshot) {
            self.arrange(current.clone());
        }
        self.view.borrow().clone()
    }

    fn arrange(&self, snapshot: Arc<Snapshot>) {
        let before = self.view.borrow().clone();
        let chain = self.guests.as_ref().map(|guests| guests.arrange(&snapshot.modules)).unwrap_or_default();
        let max_idle_time = self.shared.config.workers.upstream_pool_idle_timeout_secs;
        let connections = snapshot.pool.all.iter().map(|worker| {
            match before.connections.iter().find(|known| Arc::ptr_eq(&known.worker, worker)) {
                Some(known) => known.clone(),
                None => Rc::new(Connections::new(worker.clone(), max_idle_time)),
            }
        });
        let connections = connections.collect();
        *self.view.borrow_mut() = Rc::new(View { snapshot, chain, connections });
    }

    /// Closes connections to workers that nobody has used for a while.
    pub fn close_aged_connections(&self) {
        self.view.borrow().connections.iter().for_each(|connections| connections.close_aged());
    }
}

impl From<ClientBody> for WorkerBody {
    fn from(body: ClientBody) -> Self {
        if body.is_empty() { Self::Whole(None) } else { Self::Stream(body) }
    }
}

fn only_reads(method: &Method) -> Result<(), GatewayError> {
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(GatewayError::MethodNotAllowed),
    }
}

/// The result of `work`, or `late` when the deadline passes before. Taken by reference: a future that is moved
/// into another is copied, and these are large.
async fn within<T>(
    deadline: &Deadline,
    late: impl Fn() -> GatewayError,
    mut work: Pin<&mut impl Future<Output = Result<T, GatewayError>>>,
) -> Result<T, GatewayError> {
    poll_fn(|cx| {
        if deadline.poll_expired(cx).is_ready() {
            return Poll::Ready(Err(late()));
        }
        work.as_mut().poll(cx)
    })
    .await
}
