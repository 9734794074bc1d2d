//! `/wasm`: modules are deployed, listed, shown and removed.

mod mistakes;
mod request;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

pub use self::mistakes::mistakes;
pub use self::request::FieldError;

use self::request::ModuleRequest;
use crate::config::file;
use crate::metrics::MICRO_BOUNDS;
use crate::modules::{Defaults, Hook};
use crate::registry::{self, Deployment, Entry, Origin, Registry};

/// `POST /wasm`: 200 if every module was deployed, 400 if one was not; the others stay.
pub async fn deploy(registry: &Registry, body: &[u8]) -> Response<Bytes> {
    let modules = match request::read(body) {
        Ok(modules) => modules,
        Err(refusal) => return super::error(refusal.status, refusal.code, &refusal.message),
    };
    let mut status = StatusCode::OK;
    let mut answers = Vec::with_capacity(modules.len());
    for (mut echo, module) in modules {
        let result = match deploy_one(registry, module).await {
            Ok(id) => json!({"Success": id}),
            Err(why) => {
                status = StatusCode::BAD_REQUEST;
                json!({"Error": why})
            }
        };
        echo.insert("add_result".to_owned(), result);
        answers.push(Value::Object(echo));
    }
    let answer = super::json(status, &json!({"modules": answers}));
    if status == StatusCode::OK { answer } else { super::coded(answer, "module_not_deployed") }
}

async fn deploy_one(registry: &Registry, module: ModuleRequest) -> Result<Uuid, String> {
    let deployment = module.deployment(registry.defaults()).map_err(|error| {
        registry.note_refused();
        error.to_string()
    })?;
    registry.deploy(deployment, Origin::AdminApi).await.map_err(|error| error.to_string())
}

/// The deployment that the configuration file asks for with one of its modules: what it says is what a module object
/// says, and without attach points the module runs at both.
pub fn of_file(module: &file::Module, defaults: &Defaults) -> Result<Deployment, FieldError> {
    let mut object = module.fields.clone();
    object.insert("name".to_owned(), module.name.clone().into());
    object.insert("file_path".to_owned(), registry::absolute(&module.file).to_string_lossy().into());
    object.entry("module_type").or_insert_with(|| "Middleware".into());
    let both = || json!([{"Middleware": "OnRequest"}, {"Middleware": "OnResponse"}]);
    object.entry("attach_points").or_insert_with(both);
    ModuleRequest::of(object)?.deployment(defaults)
}

/// `GET /wasm`
pub fn list(registry: &Registry) -> Response<Bytes> {
    let modules: Vec<_> = registry.list().iter().map(describe).collect();
    super::json(StatusCode::OK, &json!({"modules": modules, "metrics": metrics(registry)}))
}

/// `GET /wasm/{uuid}`
pub fn show(registry: &Registry, id: &str) -> Response<Bytes> {
    let id = match id.parse() {
        Ok(id) => id,
        Err(_) => return not_a_uuid(),
    };
    match registry.find(id) {
        Some(entry) => super::json(StatusCode::OK, &describe(&entry)),
        None => no_such_module(),
    }
}

/// `DELETE /wasm/{uuid}`
pub fn remove(registry: &Registry, id: &str) -> Response<Bytes> {
    match id.parse() {
        Err(_) => not_a_uuid(),
        Ok(id) if registry.remove(id) => {
            super::answer(StatusCode::OK, "text/plain; charset=utf-8", "Module removed successfully")
        }
        Ok(_) => no_such_module(),
    }
}

fn not_a_uuid() -> Response<Bytes> {
    super::error(StatusCode::BAD_REQUEST, "invalid_uuid", "the module's id is not a uuid")
}

fn no_such_module() -> Response<Bytes> {
    super::error(StatusCode::NOT_FOUND, "module_not_found", "there is no module with this id")
}

fn describe(entry: &Entry) -> Value {
    let module = &entry.module;
    let totals = module.stats.totals();
    let seconds = totals.seconds();
    let last_call = match totals.last_call_ms {
        0 => entry.created,
        ms => SystemTime::UNIX_EPOCH + Duration::from_millis(ms),
    };
    let quantile = |q| seconds.quantile_us(q, &MICRO_BOUNDS);
    json!({
        "module_uuid": module.id,
        "module_meta": {
            "name": module.name,
            "file_path": entry.asked.file,
            "sha256_hash": module.sha256,
            "size_bytes": module.size,
            "created_at": rfc3339(entry.created),
            "last_accessed_at": rfc3339(last_call),
            "access_count": totals.calls(),
            "attach_points": module.hooks.iter().map(|hook| attach_point(*hook)).collect::<Vec<_>>(),
            "abi": module.abi().label(),
            "version": 1,
            "settings": module.settings,
            "failures": totals.failures_by_kind(),
            "latency_us": {"p50": quantile(0.5), "p90": quantile(0.9), "p99": quantile(0.99)},
        },
    })
}

fn attach_point(hook: Hook) -> Value {
    json!({"Middleware": hook.attach_point()})
}

/// In whole milliseconds, as existing dashboards expect; the precise sum is in `total_execution_time_us`.
fn metrics(registry: &Registry) -> Value {
    let totals = registry.totals();
    let (calls, failures, seconds) = (totals.calls(), totals.failures(), totals.seconds());
    let mut metrics = json!({
        "total_executions": calls,
        "successful_executions": calls - failures,
        "failed_executions": failures,
        "total_execution_time_ms": seconds.sum_ns / 1_000_000,
        "max_execution_time_ms": seconds.max_ns / 1_000_000,
        "total_execution_time_us": seconds.sum_ns / 1_000,
    });
    if calls > 0 {
        metrics["average_execution_time_ms"] = json!(seconds.sum_ns as f64 / 1e6 / calls as f64);
    }
    metrics
}

fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).expect("the year has four digits")
}
