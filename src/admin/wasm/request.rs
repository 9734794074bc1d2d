//! The body of `POST /wasm`: what may be said of a module, checked.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::config::FailurePolicy;
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

#[derive(Deserialize)]
#[serde(untagged)]
enum OnFailure {
    Everywhere(FailurePolicy),
    ByHook(ByHook),
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
    execution_ms: Option<u64>,
    body_bytes: Option<u64>,
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
    let wrong = |field, value: &str, text| Err(FieldError::new(field, format!("`{value}` {text}")));
    for path in &applies.paths {
        if !path.starts_with('/') {
            return wrong("match.paths", path, "must start with /");
        }
        if path.trim_end_matches('*').contains('*') || path.ends_with("**") {
            return wrong("match.paths", path, "may have one * at its end only");
        }
    }
    for method in &applies.methods {
        if http::Method::from_bytes(method.as_bytes()).is_err() {
            return wrong("match.methods", method, "is not a method");
        }
    }
    Ok(applies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::{Abi, Settings};

    const MODULE: &str = r#"{"name":"a","file_path":"/m/a.wasm","module_type":"Middleware","attach_points":[{"Middleware":"OnRequest"}]"#;

    fn defaults() -> Defaults {
        let limits = Limits { memory_pages: 1024, execution: Duration::from_secs(1), body_bytes: 100 };
        Defaults { limits, on_failure: FailurePolicy::Closed, pool_size: 4 }
    }

    fn status(body: &str) -> u16 {
        read(body.as_bytes()).err().map_or(200, |refusal| refusal.status.as_u16())
    }

    fn settings(more: &str) -> Result<Settings, String> {
        let body = format!(r#"{{"modules":[{MODULE}{more}}}]}}"#);
        let mut modules = read(body.as_bytes()).unwrap_or_else(|refusal| panic!("{}", refusal.message));
        let deployment = modules.remove(0).1.deployment(&defaults()).map_err(|error| error.to_string())?;
        deployment.settings.settings(Abi::SmgV1).map_err(|error| error.to_string())
    }

    #[test]
    fn fields_are_refused_with_their_path_and_syntax_without() {
        for (body, wanted) in [
            ("{", 400),
            ("[1]{}", 422),
            ("", 400),
            (r#"{"modules":[]}"#, 200),
            (r#"{"modules":[]} x"#, 400),
            (r#"{"modules":[{}]}"#, 422),
            (r#"{}"#, 422),
            ("[[]]", 422),
            ("null", 422),
            (r#"{"modules":[["a","/m/a.wasm","Middleware",[]]]}"#, 422),
        ] {
            assert_eq!(status(body), wanted, "{body}");
        }
        assert_eq!(status(&format!(r#"{{"modules":[{MODULE},"header_case":1}}]}}"#)), 422);
        let nested = format!(r#"{{"modules":[{MODULE},"config":{}"#, "[".repeat(1_000_000));
        assert_eq!(status(&nested), 400);
        let wrong = format!(r#"{{"modules":[{MODULE},"attach_pointz":[]}}]}}"#);
        let refusal = read(wrong.as_bytes()).err().expect("an unknown field");
        assert!(refusal.message.starts_with("modules[0]"), "{}", refusal.message);
    }

    #[test]
    fn settings_default_to_the_flags_and_may_ask_for_less() {
        let plain = settings("").expect("settings");
        assert_eq!((plain.limits, plain.instance), (defaults().limits, InstanceMode::Request {}));
        let less = settings(
            r#","limits":{"execution_ms":5},"instance":{"mode":"pooled"},"on_failure":{"OnResponse":"open","status":500}"#,
        );
        let less = less.expect("settings");
        assert_eq!(less.limits.execution, Duration::from_millis(5));
        assert_eq!(less.instance, InstanceMode::Pooled { size: Some(4), max_uses: Some(10_000) });
        assert_eq!((less.on_failure.request, less.on_failure.response), (FailurePolicy::Closed, FailurePolicy::Open));
        assert_eq!(less.failure_status, 500);
    }

    #[test]
    fn settings_out_of_bounds_are_refused() {
        for more in [
            r#","limits":{"execution_ms":1001}"#,
            r#","limits":{"memory_pages":0}"#,
            r#","instance":{"mode":"pooled","size":0}"#,
            r#","instance":{"mode":"pooled","max_uses":0}"#,
            r#","on_failure":{"status":200}"#,
            r#","header_case":"lower""#,
            r#","match":{"paths":["v1"]}"#,
            r#","match":{"paths":["/a*b"]}"#,
            r#","match":{"methods":["A B"]}"#,
        ] {
            assert!(settings(more).is_err(), "{more}");
        }
    }
}
