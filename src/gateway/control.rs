//! What the control plane answers, and the endpoints of the gateway itself.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderMap;
use http::{Method, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::answer::Answer;
use super::error::{ERROR_CODE, GatewayError, codes};
use super::exchange::Exchange;
use super::upload::{ClientBody, Pause, WorkerBody};
use super::view::View;
use super::{Gateway, access, forward, within};
use crate::client::RequestBody;
use crate::http1::head::Request;
use crate::modules::RequestHead;
use crate::routes::MODEL;
use crate::workers::models::LONGEST_NAME;

/// Largest body of a request to the admin API, and the time it may take to arrive.
const MAX_ADMIN_BODY: u64 = 1 << 20;
const ADMIN_BODY_TIME: Duration = Duration::from_secs(10);
/// What a call may take: a module is compiled, after those that others have sent. The limits of requests that go to
/// workers don't hold here.
const ADMIN_TIME: Duration = Duration::from_secs(1800);

/// Something that the control plane answers.
pub struct ControlCall {
    pub question: Question,
    pub reply: Asker,
}

/// Who waits for an answer.
pub type Asker = oneshot::Sender<Response<Bytes>>;

pub enum Question {
    Metrics,
    Admin(AdminCall),
}

/// The ways to the control plane. Callers have one of their own, so that nobody can shut out those who look after the
/// gateway.
pub struct Control {
    pub calls: mpsc::Sender<ControlCall>,
    /// Who wants the list of models, or one of them.
    pub models: mpsc::Sender<ModelsCall>,
    /// What all workers are to do. They may take long for it, and the rest of the admin API does not wait for them.
    pub operations: mpsc::Sender<OperationCall>,
}

/// A question for what the workers offer. `None` answers it where nobody offers that.
pub struct ModelsCall {
    pub asked: AskedModel,
    pub reply: oneshot::Sender<Option<Response<Bytes>>>,
}

pub enum AskedModel {
    All,
    One(Box<str>),
}

/// A request to the admin API that is for all workers.
pub struct OperationCall {
    pub call: AdminCall,
    pub query: Option<String>,
    pub reply: Asker,
}

/// A request to the admin API.
pub struct AdminCall {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Gateway {
    pub(super) fn readiness(&self, view: &View) -> Answer {
        let snapshot = &view.snapshot;
        let (healthy, total) = (snapshot.available().count(), snapshot.workers().count());
        let serves = healthy > 0 || snapshot.healthy().any(|worker| !worker.is_left_alone());
        let (status, reason) = match () {
            () if self.is_stopping() => (StatusCode::SERVICE_UNAVAILABLE, Some("draining")),
            () if !serves => (StatusCode::SERVICE_UNAVAILABLE, Some("no healthy workers")),
            () if healthy == 0 => (StatusCode::OK, Some("panic: no worker passes its health checks")),
            () => (StatusCode::OK, None),
        };
        let said = if status == StatusCode::OK { "ready" } else { "not ready" };
        let mut body = json!({"status": said, "healthy_workers": healthy, "total_workers": total});
        if let Some(reason) = reason {
            body["reason"] = reason.into();
        }
        Answer::json(status, &body)
    }

    pub(super) async fn metrics(&self, exchange: &mut Exchange<'_>, request: &Request) -> Result<Answer, GatewayError> {
        access::check_admin(exchange, request).map_err(|error| match error {
            GatewayError::Forbidden(_) if exchange.view.snapshot.keys.is_empty() => GatewayError::Forbidden(
                "Without --admin-key, this port shows metrics only to callers on the gateway's own machine; \
                 --prometheus-port serves them to everybody.",
            ),
            error => error,
        })?;
        only_reads(&request.method)?;
        self.ask(Question::Metrics).await
    }

    pub(super) async fn administer(
        &self,
        exchange: &mut Exchange<'_>,
        request: &mut Request,
        body: RequestBody,
    ) -> Result<Answer, GatewayError> {
        let call = self.admin_call(exchange, request, body).await?;
        let answer = self.ask(Question::Admin(call)).await?;
        note_refusal(exchange, &answer);
        Ok(answer)
    }

    /// The same for what all workers are to do.
    pub(super) async fn operate(
        &self,
        exchange: &mut Exchange<'_>,
        request: &mut Request,
        body: RequestBody,
    ) -> Result<Answer, GatewayError> {
        let query = request.uri.query().map(str::to_owned);
        let call = self.admin_call(exchange, request, body).await?;
        let operations = &self.shared.control.operations;
        let answer = Answer::whole(answer(operations, |reply| OperationCall { call, query, reply }).await?);
        note_refusal(exchange, &answer);
        Ok(answer)
    }

    /// Reads a request to the admin API of someone who may send it.
    async fn admin_call(
        &self,
        exchange: &mut Exchange<'_>,
        request: &mut Request,
        body: RequestBody,
    ) -> Result<AdminCall, GatewayError> {
        access::check_admin(exchange, request)?;
        exchange.caller.allow(ADMIN_TIME);
        let deadline = self.deadlines.register();
        deadline.set(ADMIN_BODY_TIME);
        let pause = Pause::new(&self.deadlines, ADMIN_BODY_TIME);
        let body = ClientBody::new(body, exchange.record.upload(), MAX_ADMIN_BODY, None, pause);
        let body = body.collect(MAX_ADMIN_BODY);
        let body = within(&deadline, || GatewayError::SlowBody, pin!(body)).await?;
        let (method, path) = (request.method.clone(), request.uri.path().to_owned());
        let headers = std::mem::take(&mut request.headers);
        Ok(AdminCall { method, path, headers, body })
    }

    async fn ask(&self, question: Question) -> Result<Answer, GatewayError> {
        answer(&self.shared.control.calls, |reply| ControlCall { question, reply }).await.map(Answer::whole)
    }
}

/// Puts the code of an error that the control plane answers with into the request's log line.
fn note_refusal(exchange: &mut Exchange<'_>, answer: &Answer) {
    let code = answer.head.headers.get(&ERROR_CODE).and_then(|code| codes::find(code.to_str().ok()?));
    code.into_iter().for_each(|code| exchange.record.refused(code.name, String::new()));
}

/// Asks the control plane.
async fn answer<T, A>(way: &mpsc::Sender<T>, call: impl FnOnce(oneshot::Sender<A>) -> T) -> Result<A, GatewayError> {
    let (reply, answer) = oneshot::channel();
    way.try_send(call(reply)).map_err(|error| match error {
        TrySendError::Full(_) => GatewayError::Overloaded,
        TrySendError::Closed(_) => GatewayError::ControlPlane,
    })?;
    answer.await.map_err(|_| GatewayError::ControlPlane)
}

/// The models that the workers offer together, or the one whose id follows in the path. What is to be done with one,
/// such as deleting it, is a worker's.
pub(super) async fn models(
    exchange: &mut Exchange<'_>,
    head: &mut RequestHead,
    body: WorkerBody,
) -> Result<Answer, GatewayError> {
    let id = head.uri.path().strip_prefix(MODEL);
    let is_read = only_reads(&head.method);
    if id.is_some() && is_read.is_err() {
        return forward::send(exchange, head, body).await;
    }
    is_read?;
    if !exchange.view.snapshot.has_healthy() {
        return Err(GatewayError::NoWorker);
    }
    let asked = match id {
        None => AskedModel::All,
        Some(id) => {
            let decoded = percent_decode_str(id).decode_utf8().ok().filter(|id| id.len() <= LONGEST_NAME);
            let decoded = decoded.ok_or_else(|| GatewayError::UnknownModel(id.to_owned()))?;
            AskedModel::One(decoded.into())
        }
    };
    let found = answer(&exchange.gateway.shared.control.models, |reply| ModelsCall { asked, reply }).await?;
    found.map(Answer::whole).ok_or_else(|| GatewayError::UnknownModel(id.unwrap_or_default().to_owned()))
}

pub(super) fn only_reads(method: &Method) -> Result<(), GatewayError> {
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(GatewayError::MethodNotAllowed),
    }
}
