//! The body of `POST /wasm`: what may be said of a module, checked.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, IgnoredAny, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::config::{FailurePolicy, value};
use crate::modules::{Defaults, Draft, FailurePolicies, HeaderCase, Hook, InstanceMode, Limits, Match, Streaming};
use crate::registry::Deployment;

/// Why a body was refused as a whole.
pub struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
}

/// What is wrong with a module object.
#[derive(Debug)]
pub struct FieldError {
    /// Where in the object, such as `limits.memory_pages`; empty for the whole of it.
    pub field: String,
    pub text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    modules: Vec<ModuleRequest>,
}

/// One module object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleRequest {
    name: String,
    file_path: PathBuf,
    #[serde(rename = "module_type")]
    _module_type: ModuleType,
    attach_points: Vec<AttachPoint>,
    /// What an earlier answer said of this object; existing clients send it back.
    #[serde(default, rename = "add_result")]
    _add_result: Option<Value>,
    #[serde(default)]
    allow_duplicate: bool,
    config: Option<Value>,
    order: Option<i64>,
    #[serde(rename = "match")]
    applies: Option<Match>,
    on_failure: Option<OnFailure>,
    instance: Option<InstanceMode>,
    header_case: Option<HeaderCase>,
    limits: Option<LimitsRequest>,
    streaming: Option<Streaming>,
}

#[derive(Deserialize)]
enum ModuleType {
    Middleware,
}

#[derive(Deserialize)]
enum AttachPoint {
    Middleware(MiddlewarePoint),
}

#[derive(Clone, Copy, Deserialize)]
enum MiddlewarePoint {
    OnRequest,
    OnResponse,
}

enum OnFailure {
    Everywhere(FailurePolicy),
    ByHook(ByHook),
}

/// What is wrong in a map is told with its place, which serde forgets in an untagged enum.
impl<'de> Deserialize<'de> for OnFailure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrMap;

        impl<'de> Visitor<'de> for WordOrMap {
            type Value = OnFailure;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("closed, open or a map of OnRequest, OnResponse and status")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OnFailure, E> {
                FailurePolicy::deserialize(text.into_deserializer()).map(OnFailure::Everywhere)
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<OnFailure, M::Error> {
                ByHook::deserialize(MapAccessDeserializer::new(map)).map(OnFailure::ByHook)
            }
        }

        deserializer.deserialize_any(WordOrMap)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ByHook {
    #[serde(rename = "OnRequest")]
    request: Option<FailurePolicy>,
    #[serde(rename = "OnResponse")]
    response: Option<FailurePolicy>,
    status: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsRequest {
    memory_pages: Option<u32>,
    #[serde(default, deserialize_with = "milliseconds")]
    execution_ms: Option<u64>,
    #[serde(default, deserialize_with = "bytes")]
    body_bytes: Option<u64>,
}

fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let whole = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    number_or(deserializer, |text| value::milliseconds(text).map(whole))
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    number_or(deserializer, value::bytes)
}

/// A number, or text with a unit as flags take it.
fn number_or<'de, D: Deserializer<'de>>(
    deserializer: D,
    read: impl Fn(&str) -> Result<u64, &'static str>,
) -> Result<Option<u64>, D::Error> {
    match Option::<Value>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Value::String(text)) => read(&text).map(Some).map_err(de::Error::custom),
        Some(value) => u64::deserialize(value).map(Some).map_err(de::Error::custom),
    }
}

/// The modules of a body, each with the object as it was sent.
pub fn read(body: &[u8]) -> Result<Vec<(Sent, ModuleRequest)>, Refusal> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let parsed: Result<Body, _> = serde_path_to_error::deserialize(&mut reader);
    let parsed = parsed.map_err(|error| {
        let path = error.path().to_string();
        refuse(body, error.inner(), &path)
    })?;
    reader.end().map_err(|error| refuse(body, &error, ""))?;
    // Fields in order, without their names, would be read as well; only objects can be answered.
    if !body.trim_ascii_start().starts_with(b"{") {
        let message = "the body must be an object".to_owned();
        return Err(Refusal { status: StatusCode::UNPROCESSABLE_ENTITY, code: "invalid_field", message });
    }
    let sent: SentBody = serde_json::from_slice(body).map_err(|error| refuse(body, &error, "modules"))?;
    Ok(sent.modules.into_iter().zip(parsed.modules).collect())
}

/// A module object as it was sent.
pub type Sent = serde_json::Map<String, Value>;

#[derive(Deserialize)]
struct SentBody {
    modules: Vec<Sent>,
}

/// serde_json calls it bad syntax, too, where a word from a list was expected and a number came.
fn refuse(body: &[u8], error: &serde_json::Error, path: &str) -> Refusal {
    let is_json = || str::from_utf8(body).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    if error.is_data() || is_json() {
        let message = format!("{path}: {error}");
        return Refusal { status: StatusCode::UNPROCESSABLE_ENTITY, code: "invalid_field", message };
    }
    Refusal { status: StatusCode::BAD_REQUEST, code: "invalid_json", message: format!("not valid JSON: {error}") }
}

impl FieldError {
    fn new(field: &str, text: impl Into<String>) -> Self {
        Self { field: field.to_owned(), text: text.into() }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, text } = self;
        if field.is_empty() { f.write_str(text) } else { write!(f, "{field}: {text}") }
    }
}

impl ModuleRequest {
    /// One module object.
    pub fn of(object: Sent) -> Result<Self, FieldError> {
        serde_path_to_error::deserialize(Value::Object(object)).map_err(|error| {
            let field = Some(error.path().to_string()).filter(|path| path != ".");
            FieldError { field: field.unwrap_or_default(), text: error.inner().to_string() }
        })
    }

    /// The deployment that is asked for, within the gateway's limits.
    pub fn deployment(self, defaults: &Defaults) -> Result<Deployment, FieldError> {
        let mut settings = defaults.draft();
        self.on_failure.map(|on_failure| on_failure.set(&mut settings)).transpose()?;
        self.limits.map(|limits| limits.set(&mut settings.limits)).transpose()?;
        self.config.into_iter().for_each(|config| settings.config = config);
        self.streaming.into_iter().for_each(|streaming| settings.streaming = streaming);
        settings.instance = self.instance.map(check_instance).transpose()?;
        settings.header_case = self.header_case;
        settings.applies = check_match(self.applies.unwrap_or_default())?;
        settings.order = self.order;
        let hooks = hooks(&self.attach_points)?;
        Ok(Deployment {
            name: self.name,
            file: self.file_path,
            hooks: Some(hooks),
            settings,
            allow_duplicate: self.allow_duplicate,
        })
    }
}

fn hooks(points: &[AttachPoint]) -> Result<Vec<Hook>, FieldError> {
    let mut hooks = Vec::new();
    for AttachPoint::Middleware(point) in points {
        let hook = match point {
            MiddlewarePoint::OnRequest => Hook::Request,
            MiddlewarePoint::OnResponse => Hook::Response,
        };
        if !hooks.contains(&hook) {
            hooks.push(hook);
        }
    }
    match hooks.as_slice() {
        [] => Err(FieldError::new("attach_points", "it must name at least one attach point")),
        _ => Ok(hooks),
    }
}

impl OnFailure {
    fn set(self, settings: &mut Draft) -> Result<(), FieldError> {
        match self {
            Self::Everywhere(policy) => settings.on_failure = FailurePolicies::same(policy),
            Self::ByHook(ByHook { request, response, status }) => {
                request.into_iter().for_each(|policy| settings.on_failure.request = policy);
                response.into_iter().for_each(|policy| settings.on_failure.response = policy);
                if !status.is_none_or(|status| (400..=599).contains(&status)) {
                    return Err(FieldError::new("on_failure.status", "it must be from 400 to 599"));
                }
                settings.failure_status = status;
            }
        }
        Ok(())
    }
}

impl LimitsRequest {
    fn set(self, limits: &mut Limits) -> Result<(), FieldError> {
        let LimitsRequest { memory_pages, execution_ms, body_bytes } = self;
        let most_ms = u64::try_from(limits.execution.as_millis()).unwrap_or(u64::MAX);
        if let Some(pages) = within("limits.memory_pages", memory_pages.map(u64::from), u64::from(limits.memory_pages))?
        {
            limits.memory_pages = u32::try_from(pages).expect("no more than the limit, which is a u32");
        }
        if let Some(ms) = within("limits.execution_ms", execution_ms, most_ms)? {
            limits.execution = Duration::from_millis(ms);
        }
        if let Some(bytes) = within("limits.body_bytes", body_bytes, limits.body_bytes)? {
            limits.body_bytes = bytes;
        }
        Ok(())
    }
}

fn within(field: &str, asked: Option<u64>, most: u64) -> Result<Option<u64>, FieldError> {
    match asked {
        Some(asked) if asked == 0 || asked > most => {
            Err(FieldError::new(field, format!("it must be from 1 to {most}, the gateway's own limit")))
        }
        asked => Ok(asked),
    }
}

fn check_instance(instance: InstanceMode) -> Result<InstanceMode, FieldError> {
    match instance {
        InstanceMode::Pooled { size: Some(size), .. } if !(1..=1024).contains(&size) => {
            Err(FieldError::new("instance.size", "it must be from 1 to 1024"))
        }
        InstanceMode::Pooled { max_uses: Some(0), .. } => {
            Err(FieldError::new("instance.max_uses", "it must be at least 1"))
        }
        other => Ok(other),
    }
}

fn check_match(applies: Match) -> Result<Match, FieldError> {
    let wrong = |field, at, value: &str, text| {
        Err(FieldError { field: format!("match.{field}[{at}]"), text: format!("`{value}` {text}") })
    };
    for (at, path) in applies.paths.iter().enumerate() {
        if !path.starts_with('/') {
            return wrong("paths", at, path, "must start with /");
        }
        if path.trim_end_matches('*').contains('*') || path.ends_with("**") {
            return wrong("paths", at, path, "may have only one *, at its end");
        }
    }
    for (at, method) in applies.methods.iter().enumerate() {
        if http::Method::from_bytes(method.as_bytes()).is_err() {
            return wrong("methods", at, method, "is not a method");
        }
    }
    Ok(applies)
}

#[cfg(test)]
mod tests;
