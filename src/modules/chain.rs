//! The modules that one request visits, in order on its way in and in reverse on its way out.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, StatusCode};

use super::edit::{Edit, FieldEdits};
use super::guest::{Guest, HookView};
use super::hook::{Answer, Hook, RequestHead, RequestView, ResponseView, Verdict};
use super::load::Module;
use super::outcome::FailureKind;
use super::pool::ModuleGuests;
use super::settings::Streaming;
use crate::config::FailurePolicy;
use crate::telemetry::ModuleRun;
use crate::trace::ModuleCall;

/// Tags of a request whose guest failed.
pub const FAILED: &str = "wasm-error";
pub const FAILED_OPEN: &str = "fail-open";

/// A guest failed and its module's policy is to fail closed.
#[derive(Debug, thiserror::Error)]
#[error("module {module} failed: {}", kind.label())]
pub struct GuestFailure {
    pub module: Arc<str>,
    pub kind: FailureKind,
    /// What the deployment says the client gets.
    pub status: StatusCode,
    /// The body that callers of such modules know; `None` for the gateway's own.
    pub text: Option<&'static str>,
}

/// One request's way through the modules that apply to it.
pub struct Visit {
    stops: Vec<Stop>,
    received_ms: u64,
    noted: Noted,
    /// The answer's status is a module's.
    decides_status: bool,
}

/// What the request's record and trace are told at the end of a visit.
#[derive(Default)]
struct Noted {
    runs: Vec<ModuleRun>,
    tags: Vec<Arc<str>>,
    /// The calls of guests, if somebody wants to know.
    calls: Option<Vec<ModuleCall>>,
}

struct Stop {
    guests: Rc<ModuleGuests>,
    /// The request's own guest between two hooks.
    kept: Option<Guest>,
    /// What its on-request hook said about the answer.
    of_answer: FieldEdits,
}

impl Visit {
    /// The visit of a request that arrived at `received_ms`, from the chain in force then; `admits` says of a module's
    /// name whether the request's route lets it take part.
    pub fn new(
        chain: &[Rc<ModuleGuests>],
        head: &RequestHead,
        received_ms: u64,
        admits: impl Fn(&str) -> bool,
    ) -> Self {
        let applies = |module: &Module| module.settings.applies.covers(head) && admits(&module.name);
        let applying = chain.iter().filter(|guests| applies(&guests.module));
        let stop =
            |guests: &Rc<ModuleGuests>| Stop { guests: guests.clone(), kept: None, of_answer: FieldEdits::default() };
        let stops = applying.map(stop).collect();
        Self { stops, received_ms, noted: Noted::default(), decides_status: false }
    }

    pub fn received_ms(&self) -> u64 {
        self.received_ms
    }

    /// Whether any of its modules runs on requests.
    pub fn has_request_hooks(&self) -> bool {
        self.at(Hook::Request).next().is_some()
    }

    /// The largest request body that all its modules can be shown; `None` if none is shown one.
    pub fn request_body_limit(&self) -> Option<u64> {
        self.at(Hook::Request).filter_map(Module::body_limit).min()
    }

    /// Whether any of its modules has a say about an answer.
    pub fn has_say_on_response(&self, streamed: bool) -> bool {
        self.stops.iter().any(|stop| !stop.of_answer.is_empty() || stop.sees_response(streamed))
    }

    /// The largest response body that any of its modules can be shown; `None` if none is shown one.
    pub fn response_body_limit(&self, streamed: bool) -> Option<u64> {
        let called = self.stops.iter().filter(|stop| stop.sees_response(streamed));
        called.filter_map(|stop| stop.guests.module.body_limit()).max()
    }

    fn at(&self, hook: Hook) -> impl Iterator<Item = &Module> {
        self.stops.iter().map(|stop| &*stop.guests.module).filter(move |module| module.runs_at(hook))
    }

    /// What ran, in the order of the calls.
    pub fn runs(&mut self) -> Vec<ModuleRun> {
        std::mem::take(&mut self.noted.runs)
    }

    /// Whether the answer has the status that a module gave it.
    pub fn decides_status(&self) -> bool {
        self.decides_status
    }

    /// From here on, calls of guests are noted.
    pub fn note_calls(&mut self) {
        self.noted.calls = Some(Vec::new());
    }

    /// Those that were noted.
    pub fn calls(&mut self) -> Vec<ModuleCall> {
        self.noted.calls.take().unwrap_or_default()
    }

    /// What the modules left for the request's log line.
    pub fn tags(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.noted.tags)
    }

    /// Runs the on-request hooks. Each module sees the edits of those before it; the first answer ends it, and
    /// takes what the modules before said about answers.
    pub async fn on_request(&mut self, view: &mut RequestView) -> Result<Option<Answer>, GuestFailure> {
        for at in 0..self.stops.len() {
            let stop = &mut self.stops[at];
            if !stop.guests.module.runs_at(Hook::Request) {
                continue;
            }
            match stop.call(HookView::Request(view), self.received_ms, &mut self.noted).await? {
                Verdict::Continue => {}
                Verdict::Respond(mut answer) => {
                    self.decorate(0..at, &mut answer.head.headers)?;
                    self.decides_status = true;
                    return Ok(Some(*answer));
                }
                Verdict::Edit(mut edit) => {
                    stop.of_answer = std::mem::take(&mut edit.of_answer);
                    edit_request(view, *edit);
                }
            }
        }
        Ok(None)
    }

    /// Runs the on-response hooks, in reverse order. Answers whether the body was replaced.
    pub async fn on_response(&mut self, view: &mut ResponseView) -> Result<bool, GuestFailure> {
        let mut replaced = false;
        for at in (0..self.stops.len()).rev() {
            if !self.stops[at].of_answer.is_empty() {
                self.decorate(at..at + 1, &mut Rc::make_mut(&mut view.head).headers)?;
            }
            let stop = &mut self.stops[at];
            if !stop.sees_response(view.streamed) {
                continue;
            }
            match stop.call(HookView::Response(view), self.received_ms, &mut self.noted).await? {
                Verdict::Continue => {}
                Verdict::Respond(answer) => {
                    replace_response(view, *answer);
                    (replaced, self.decides_status) = (true, true);
                    // What was said about the answer, whoever gives it, is said of this one too.
                    self.decorate(at..self.stops.len(), &mut Rc::make_mut(&mut view.head).headers)?;
                }
                Verdict::Edit(edit) => {
                    self.decides_status |= edit.status.is_some();
                    replaced |= edit_response(view, *edit);
                }
            }
            self.stops[at].kept = None;
        }
        Ok(replaced)
    }

    /// Applies what the on-request hooks of these modules said about the answer, in reverse order.
    fn decorate(&mut self, stops: Range<usize>, headers: &mut HeaderMap) -> Result<(), GuestFailure> {
        for stop in self.stops[stops].iter_mut().rev() {
            match stop.of_answer.check_fits(headers) {
                Ok(()) => stop.of_answer.apply(headers),
                Err(_) => {
                    stop.guests.count_failure(Hook::Response, FailureKind::Output, self.received_ms);
                    self.noted.ran(&stop.guests.module, FailureKind::Output.label());
                    stop.failed(Hook::Response, FailureKind::Output, &mut self.noted.tags)?;
                }
            }
        }
        Ok(())
    }
}

impl Noted {
    fn ran(&mut self, module: &Module, verdict: &'static str) {
        self.runs.push(ModuleRun { module: module.name.clone(), verdict });
    }
}

impl Stop {
    fn sees_response(&self, streamed: bool) -> bool {
        let module = &self.guests.module;
        module.runs_at(Hook::Response) && !(streamed && module.settings.streaming == Streaming::Skip)
    }

    async fn call(&mut self, view: HookView<'_>, now_ms: u64, noted: &mut Noted) -> Result<Verdict, GuestFailure> {
        let start = noted.calls.is_some().then(Instant::now);
        let called = self.guests.call(&mut self.kept, view, now_ms).await;
        let verdict = verdict(&called);
        noted.ran(&self.guests.module, verdict);
        if let (Some(calls), Some(start)) = (&mut noted.calls, start) {
            let (module, hook) = (self.guests.module.name.clone(), view.hook().label());
            calls.push(ModuleCall { module, hook, verdict, is_failure: called.is_err(), start, end: Instant::now() });
        }
        match called {
            Ok(mut verdict) => {
                let left = match &mut verdict {
                    Verdict::Continue => &mut Vec::new(),
                    Verdict::Edit(edit) => &mut edit.tags,
                    Verdict::Respond(answer) => &mut answer.tags,
                };
                noted.tags.extend(left.drain(..).map(|tag| self.guests.count_tag(&tag)));
                Ok(verdict)
            }
            Err(kind) => self.failed(view.hook(), kind, &mut noted.tags).map(|()| Verdict::Continue),
        }
    }

    /// A failure under an open policy is as if the module had said to continue.
    fn failed(&mut self, hook: Hook, kind: FailureKind, tags: &mut Vec<Arc<str>>) -> Result<(), GuestFailure> {
        let module = &self.guests.module;
        // Before what modules say, so that no module can talk them out of the log.
        tags.insert(0, self.guests.count_tag(FAILED));
        match module.settings.on_failure.of(hook) {
            FailurePolicy::Open => {
                tags.insert(1, self.guests.count_tag(FAILED_OPEN));
                Ok(())
            }
            FailurePolicy::Closed => {
                let status = StatusCode::from_u16(module.settings.failure_status)
                    .expect("a deployment's status is checked when it is accepted");
                Err(GuestFailure { module: module.name.clone(), kind, status, text: module.abi().failure_text() })
            }
        }
    }
}

/// What came of a call, as in metrics.
fn verdict(called: &Result<Verdict, FailureKind>) -> &'static str {
    match called {
        Ok(Verdict::Continue) => "continue",
        Ok(Verdict::Edit(edit)) if edit.changes_nothing() => "continue",
        Ok(Verdict::Edit(_)) => "modify",
        Ok(Verdict::Respond(_)) => "reject",
        Err(kind) => kind.label(),
    }
}

fn edit_request(view: &mut RequestView, edit: Edit) {
    if let Some(body) = edit.body {
        view.body = body;
    }
    if !edit.fields.is_empty() {
        edit.fields.apply(&mut Rc::make_mut(&mut view.head).headers);
    }
}

fn edit_response(view: &mut ResponseView, edit: Edit) -> bool {
    let head = Rc::make_mut(&mut view.head);
    if let Some(status) = edit.status {
        head.status = status;
    }
    edit.fields.apply(&mut head.headers);
    match edit.body {
        Some(body) => {
            view.body = body;
            true
        }
        None => false,
    }
}

/// What is left of the worker's answer is for the modules that come after: nothing.
fn replace_response(view: &mut ResponseView, answer: Answer) {
    *Rc::make_mut(&mut view.head) = answer.head;
    view.body = answer.body.unwrap_or_default();
    view.oversized = false;
    view.streamed = false;
}
