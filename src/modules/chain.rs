//! The modules that one request visits, in order on its way in and in reverse on its way out.

use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;

use super::guest::{Guest, View};
use super::hook::{Answer, Edit, Hook, RequestHead, RequestView, ResponseView, Verdict};
use super::load::Module;
use super::pool::ModuleGuests;
use super::settings::Streaming;
use super::stats::FailureKind;
use crate::config::FailurePolicy;

/// A guest failed and its module's policy is to fail closed.
#[derive(Debug, thiserror::Error)]
#[error("module {module} failed: {}", kind.label())]
pub struct GuestFailure {
    pub module: Arc<str>,
    pub kind: FailureKind,
    /// What the deployment says the client gets.
    pub status: StatusCode,
}

/// One request's way through the modules that apply to it.
pub struct Visit {
    stops: Vec<Stop>,
    received_ms: u64,
}

struct Stop {
    guests: Rc<ModuleGuests>,
    /// The request's own guest between two hooks.
    kept: Option<Guest>,
    acted: bool,
}

impl Visit {
    /// The visit of a request that arrived at `received_ms`, from the chain in force then.
    pub fn new(chain: &[Rc<ModuleGuests>], head: &RequestHead, received_ms: u64) -> Self {
        let applying = chain.iter().filter(|guests| guests.module.settings.applies.covers(head));
        let stops = applying.map(|guests| Stop { guests: guests.clone(), kept: None, acted: false }).collect();
        Self { stops, received_ms }
    }

    pub fn received_ms(&self) -> u64 {
        self.received_ms
    }

    /// The largest request body that all its modules can be shown; `None` if none runs on requests.
    pub fn request_body_limit(&self) -> Option<u64> {
        self.at(Hook::Request).map(|module| module.settings.limits.body_bytes).min()
    }

    /// The largest response body that any of its modules can be shown; `None` if none would be called.
    pub fn response_body_limit(&self, streamed: bool) -> Option<u64> {
        self.at(Hook::Response)
            .filter(|module| !(streamed && module.settings.streaming == Streaming::Skip))
            .map(|module| module.settings.limits.body_bytes)
            .max()
    }

    fn at(&self, hook: Hook) -> impl Iterator<Item = &Module> {
        self.stops.iter().map(|stop| &*stop.guests.module).filter(move |module| module.runs_at(hook))
    }

    /// Names of the modules that edited, answered or failed.
    pub fn acted(&self) -> Vec<Arc<str>> {
        self.stops.iter().filter(|stop| stop.acted).map(|stop| stop.guests.module.name.clone()).collect()
    }

    /// Runs the on-request hooks. Each module sees the edits of those before it; the first answer ends it.
    pub async fn on_request(&mut self, view: &mut RequestView) -> Result<Option<Answer>, GuestFailure> {
        for stop in self.stops.iter_mut().filter(|stop| stop.guests.module.runs_at(Hook::Request)) {
            match stop.call(View::Request(view), self.received_ms).await? {
                Verdict::Continue => {}
                Verdict::Respond(answer) => return Ok(Some(answer)),
                Verdict::Edit(edit) => edit_request(view, *edit),
            }
        }
        Ok(None)
    }

    /// Runs the on-response hooks, in reverse order. Answers whether the body was replaced.
    pub async fn on_response(&mut self, view: &mut ResponseView) -> Result<bool, GuestFailure> {
        let mut replaced = false;
        for stop in self.stops.iter_mut().rev().filter(|stop| stop.guests.module.runs_at(Hook::Response)) {
            if view.streamed && stop.guests.module.settings.streaming == Streaming::Skip {
                continue;
            }
            match stop.call(View::Response(view), self.received_ms).await? {
                Verdict::Continue => {}
                Verdict::Respond(answer) => Rc::make_mut(&mut view.head).status = answer.status,
                Verdict::Edit(edit) => replaced |= edit_response(view, *edit),
            }
            stop.kept = None;
        }
        Ok(replaced)
    }
}

impl Stop {
    /// A failure under an open policy is as if the module had said to continue.
    async fn call(&mut self, view: View<'_>, now_ms: u64) -> Result<Verdict, GuestFailure> {
        let result = self.guests.call(&mut self.kept, view, now_ms).await;
        self.acted |= !matches!(result, Ok(Verdict::Continue));
        let module = &self.guests.module;
        match (result, module.settings.on_failure.of(view.hook())) {
            (Ok(verdict), _) => Ok(verdict),
            (Err(_), FailurePolicy::Open) => Ok(Verdict::Continue),
            (Err(kind), FailurePolicy::Closed) => {
                let status = StatusCode::from_u16(module.settings.failure_status)
                    .expect("a deployment's status is checked when it is accepted");
                Err(GuestFailure { module: module.name.clone(), kind, status })
            }
        }
    }
}

fn edit_request(view: &mut RequestView, mut edit: Edit) {
    if let Some(body) = edit.body.take() {
        view.body = body;
    }
    edit.apply(&mut Rc::make_mut(&mut view.head).headers);
}

fn edit_response(view: &mut ResponseView, mut edit: Edit) -> bool {
    let head = Rc::make_mut(&mut view.head);
    if let Some(status) = edit.status.take() {
        head.status = status;
    }
    let body = edit.body.take();
    edit.apply(&mut head.headers);
    match body {
        Some(body) => {
            view.body = body;
            true
        }
        None => false,
    }
}
