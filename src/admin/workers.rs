//! `/workers`: the workers, their health and their load; adding, changing and removing them.
//!
//! A worker's entity tag changes with what is said of it, the list's with every change of the workers. `If-Match` and
//! `If-None-Match` hold (RFC 9110 section 13.1): of two administrators who change the same thing one is told.

mod said;

use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::LazyLock;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use self::said::Said;
use super::{error, method_not_allowed};
use crate::config::{Secret, WorkerUrl};
use crate::fleet::{About, Fleet, FleetError, Member, Stage};
use crate::gateway::control::AdminCall;
use crate::workers::{Health, Worker};

/// `below` is what follows `/workers` in the path.
pub fn answer(fleet: &Rc<Fleet>, call: &AdminCall, below: &str) -> Response<Bytes> {
    match (&call.method, below.strip_prefix('/')) {
        (&Method::GET, None) => list(fleet, &call.headers),
        (&Method::POST, None) => guarded(&call.headers, Some(list_tag(fleet)), || add(fleet, &call.body)),
        (&Method::GET, Some(id)) => show_one(fleet, id, &call.headers),
        (&Method::PUT | &Method::PATCH, Some(id)) => {
            let tag = fleet.member(id).map(|member| tag(&member));
            guarded(&call.headers, tag, || change(fleet, &call.method, id, &call.body))
        }
        (&Method::DELETE, Some(id)) => {
            let tag = fleet.member(id).map(|member| tag(&member));
            guarded(&call.headers, tag, || remove(fleet, id))
        }
        (_, None) => method_not_allowed("GET, POST"),
        (_, Some(_)) => method_not_allowed("GET, PUT, PATCH, DELETE"),
    }
}

fn invalid(why: &str) -> Response<Bytes> {
    error(StatusCode::BAD_REQUEST, "invalid_worker", why)
}

fn add(fleet: &Rc<Fleet>, body: &[u8]) -> Response<Bytes> {
    let mut said = match Said::read(body) {
        Ok(said) => said,
        Err(refusal) => return *refusal,
    };
    let Some(url) = said.url.take() else {
        return error(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", "missing field `url`");
    };
    let url: WorkerUrl = match url.parse() {
        Ok(url) => url,
        Err(why) => return invalid(&why),
    };
    match fleet.add(url, said.about(About::default())) {
        Ok(member) => {
            let id = &member.worker.id;
            let location = format!("/workers/{id}");
            let mut answer = accepted(id, "the worker is added, and serves once it answers");
            let value = json!({
                "status": "accepted", "worker_id": id, "url": member.worker.label, "location": location,
                "message": "the worker is added, and serves once it answers",
            });
            *answer.body_mut() = value.to_string().into();
            let location = HeaderValue::from_str(&location).expect("a path of letters and digits");
            answer.headers_mut().insert(header::LOCATION, location);
            tagged(answer, tag(&member))
        }
        Err(why) => refusal(&why),
    }
}

/// PUT says everything, PATCH what changes.
fn change(fleet: &Rc<Fleet>, method: &Method, id: &str, body: &[u8]) -> Response<Bytes> {
    let said = match Said::read(body) {
        Ok(said) => said,
        Err(refusal) => return *refusal,
    };
    let Some(member) = fleet.member(id) else { return refusal(&FleetError::Unknown) };
    if said.url.as_ref().is_some_and(|url| url.parse().ok().as_ref() != Some(&member.worker.url)) {
        return invalid("a worker's url can't be changed: add another one, then remove this one");
    }
    let before = if *method == Method::PUT { About::default() } else { member.about() };
    match fleet.change(id, said.about(before)) {
        Ok(member) => tagged(accepted(id, "the worker is changed"), tag(&member)),
        Err(why) => refusal(&why),
    }
}

fn remove(fleet: &Rc<Fleet>, id: &str) -> Response<Bytes> {
    match fleet.remove(id) {
        Ok(()) => accepted(id, "the worker gets nothing new, and is removed when it has finished"),
        Err(why) => refusal(&why),
    }
}

fn accepted(id: &str, message: &str) -> Response<Bytes> {
    super::json(StatusCode::ACCEPTED, &json!({"status": "accepted", "worker_id": id, "message": message}))
}

fn refusal(why: &FleetError) -> Response<Bytes> {
    let (status, code) = match why {
        FleetError::Known(_) => (StatusCode::CONFLICT, "worker_exists"),
        FleetError::Refused(_) => (StatusCode::BAD_REQUEST, "invalid_worker"),
        FleetError::TooMany => (StatusCode::CONFLICT, "too_many_workers"),
        FleetError::Draining => (StatusCode::CONFLICT, "worker_draining"),
        FleetError::Unknown => (StatusCode::NOT_FOUND, "worker_not_found"),
    };
    error(status, code, &why.to_string())
}

fn list(fleet: &Rc<Fleet>, headers: &HeaderMap) -> Response<Bytes> {
    let members = fleet.members();
    let workers: Vec<_> = members.iter().map(|member| show(member)).collect();
    let healthy = members.iter().filter(|member| member.worker.is_available()).count();
    let load: usize = members.iter().map(|member| member.worker.in_flight()).sum();
    let stats = json!({
        "total_workers": workers.len(), "healthy_workers": healthy, "total_load": load,
        "prefill_count": 0, "decode_count": 0, "regular_count": workers.len(),
    });
    let list = json!({"total": workers.len(), "workers": workers, "stats": stats});
    read(headers, list_tag(fleet), &list)
}

fn show_one(fleet: &Rc<Fleet>, id: &str, headers: &HeaderMap) -> Response<Bytes> {
    match fleet.member(id) {
        Some(member) => read(headers, tag(&member), &show(&member)),
        None => refusal(&FleetError::Unknown),
    }
}

fn show(member: &Member) -> Value {
    let (worker, about) = (&member.worker, member.about());
    let models = if about.models.is_empty() { worker.models().to_vec() } else { about.models };
    let status = match member.stage() {
        Stage::Serving => status_of(worker),
        Stage::Draining => "draining",
    };
    json!({
        "id": worker.id,
        "url": worker.label,
        "model_id": models.first().map_or("unknown", String::as_str),
        "models": models,
        "is_healthy": worker.is_available(),
        "status": status,
        "last_check_error": worker.check_error(),
        "load": worker.in_flight(),
        "priority": about.priority,
        "cost": about.cost,
        "worker_type": "regular",
        "runtime_type": about.runtime.as_deref().unwrap_or("unspecified"),
        "labels": about.labels,
        "has_api_key": worker.credentials().replace_callers(),
        "circuit_breaker": worker.breaker_state().label(),
        "addresses": worker.addresses.list(),
        "requests": worker.requests.load(Relaxed),
        "errors": worker.errors.load(Relaxed),
    })
}

/// As scripts for Shepherd Model Gateway wait for it.
fn status_of(worker: &Worker) -> &'static str {
    match worker.health() {
        Health::Pending => "pending",
        Health::Healthy if !worker.is_left_alone() => "ready",
        Health::Healthy | Health::Failing | Health::Refusing | Health::Unreachable => "not_ready",
    }
}

/// Of what is said of a worker; what it does meanwhile is no change.
fn tag(member: &Member) -> String {
    let (about, stage) = (member.about(), member.stage());
    // Another key is a change, too. This process's own hash of it tells nobody what it is.
    static SALT: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let key = SALT.hash_one(about.api_key.as_ref().map(Secret::expose));
    let said = format!("{about:?} {stage:?} {key}");
    format!("\"{}-{:016x}\"", member.worker.id, said.bytes().fold(0, hash))
}

fn hash(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(5)
}

fn list_tag(fleet: &Fleet) -> String {
    // Why checks fail, and whose breaker is open, is in the list, and no change of the fleet.
    let shown = fleet.members().into_iter().fold(0, |all, member| {
        let error = member.worker.check_error().unwrap_or_default();
        let breaker = member.worker.breaker_state().number();
        error.bytes().chain([breaker]).fold(all, hash)
    });
    format!("\"{:x}\"", fleet.version() ^ shown)
}

fn tagged(mut answer: Response<Bytes>, tag: String) -> Response<Bytes> {
    let tag = HeaderValue::from_str(&tag).expect("letters, digits and quotes are valid");
    answer.headers_mut().insert(header::ETAG, tag);
    answer
}

/// What is read: not again what the caller has. The load in it may have changed all the same, so an
/// `If-None-Match` saves a change, not a look.
fn read(headers: &HeaderMap, tag: String, value: &Value) -> Response<Bytes> {
    if headers.get(header::IF_NONE_MATCH).is_some_and(|condition| names(condition, &tag)) {
        let mut answer = Response::new(Bytes::new());
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        return tagged(answer, tag);
    }
    tagged(super::json(StatusCode::OK, value), tag)
}

/// Makes a change, unless its condition does not hold. `tag` is `None` if there is nothing to change.
fn guarded(headers: &HeaderMap, tag: Option<String>, make: impl FnOnce() -> Response<Bytes>) -> Response<Bytes> {
    let is_current = |condition| tag.as_ref().is_some_and(|tag| names(condition, tag));
    let fails = headers.get(header::IF_MATCH).is_some_and(|condition| !is_current(condition))
        || headers.get(header::IF_NONE_MATCH).is_some_and(is_current);
    if fails {
        let why = "it has changed since: read it again";
        return error(StatusCode::PRECONDITION_FAILED, "precondition_failed", why);
    }
    make()
}

fn names(condition: &HeaderValue, tag: &str) -> bool {
    let Ok(condition) = condition.to_str() else { return false };
    condition.split(',').map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}
