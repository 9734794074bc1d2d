//! What a deployment says about a module besides its file.

use std::time::Duration;

use http::Method;
use serde::{Deserialize, Serialize};

use super::abi::Abi;
use super::hook::{Hook, RequestHead};
use crate::config::{FailurePolicy, GuestLimits, Wasm};

/// The settings of one deployed module, complete.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    pub on_failure: FailurePolicies,
    /// Status of the answer when the module fails closed.
    pub failure_status: u16,
    pub instance: InstanceMode,
    pub limits: Limits,
    pub streaming: Streaming,
    #[serde(rename = "match")]
    pub applies: Match,
    pub order: Option<i64>,
    pub config: serde_json::Value,
    /// For interfaces that show header names as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_case: Option<HeaderCase>,
}

/// What a deployment says. What it leaves open, the module's interface has a default for.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    pub on_failure: FailurePolicies,
    pub failure_status: Option<u16>,
    pub instance: Option<InstanceMode>,
    pub limits: Limits,
    pub streaming: Streaming,
    pub applies: Match,
    pub order: Option<i64>,
    pub config: serde_json::Value,
    pub header_case: Option<HeaderCase>,
    /// Guests of a pool that doesn't say how many.
    pub pool_size: u32,
}

/// A setting that the module's interface has no use for.
#[derive(Debug, thiserror::Error)]
#[error("header_case is not for modules of the interface {}", .0.label())]
pub struct UselessSetting(Abi);

impl Draft {
    /// The settings for a module of this interface.
    pub fn settings(self, abi: Abi) -> Result<Settings, UselessSetting> {
        if self.header_case.is_some() && !abi.spells_header_names() {
            return Err(UselessSetting(abi));
        }
        let instance = match self.instance.unwrap_or_else(|| abi.instance_mode()) {
            InstanceMode::Pooled { size, max_uses } => InstanceMode::Pooled {
                size: Some(size.unwrap_or(self.pool_size)),
                max_uses: max_uses.or_else(|| abi.max_uses()),
            },
            other => other,
        };
        Ok(Settings {
            on_failure: self.on_failure,
            failure_status: self.failure_status.unwrap_or_else(|| abi.failure_status()),
            instance,
            limits: self.limits,
            streaming: self.streaming,
            applies: self.applies,
            order: self.order,
            config: self.config,
            header_case: abi.spells_header_names().then(|| self.header_case.unwrap_or_default()),
        })
    }
}

/// How names of header fields are spelled for a guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeaderCase {
    /// `User-Agent`
    #[default]
    Title,
    /// `user-agent`
    Lower,
}

/// The failure policy of each hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FailurePolicies {
    #[serde(rename = "OnRequest")]
    pub request: FailurePolicy,
    #[serde(rename = "OnResponse")]
    pub response: FailurePolicy,
}

impl FailurePolicies {
    pub fn same(policy: FailurePolicy) -> Self {
        Self { request: policy, response: policy }
    }

    pub fn of(&self, hook: Hook) -> FailurePolicy {
        match hook {
            Hook::Request => self.request,
            Hook::Response => self.response,
        }
    }
}

/// How long a guest lives and who shares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase", try_from = "WrittenInstance")]
pub enum InstanceMode {
    /// A fresh guest for each request, for all of that request's hooks.
    Request {},
    /// Guests are kept and reused, one call at a time each; `size` of them, divided over the shards and
    /// rounded up.
    Pooled {
        #[serde(skip_serializing_if = "Option::is_none")]
        size: Option<u32>,
        /// Calls after which a guest is replaced; `None` for never.
        #[serde(skip_serializing_if = "Option::is_none")]
        max_uses: Option<u32>,
    },
    /// Exactly one guest in the whole gateway; calls queue.
    Single {},
}

/// An instance mode as it is written. A mistake in one field is told with that field's name, which it would not be in a
/// tagged enum.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenInstance {
    mode: Mode,
    #[serde(default)]
    size: Option<u32>,
    #[serde(default)]
    max_uses: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Request,
    Pooled,
    Single,
}

impl TryFrom<WrittenInstance> for InstanceMode {
    type Error = &'static str;

    fn try_from(written: WrittenInstance) -> Result<Self, Self::Error> {
        let WrittenInstance { mode, size, max_uses } = written;
        match mode {
            Mode::Pooled => Ok(Self::Pooled { size, max_uses }),
            _ if size.is_some() || max_uses.is_some() => Err("size and max_uses apply to the mode pooled only"),
            Mode::Request => Ok(Self::Request {}),
            Mode::Single => Ok(Self::Single {}),
        }
    }
}

/// What a guest may use. A deployment may ask for less than the gateway's flags allow, never for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limits {
    pub memory_pages: u32,
    #[serde(rename = "execution_ms", serialize_with = "as_millis")]
    pub execution: Duration,
    pub body_bytes: u64,
}

fn as_millis<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u128(duration.as_millis())
}

/// What an on-response hook sees of a streamed answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Streaming {
    /// Status and headers, with an empty body, before the first byte is sent.
    Head,
    /// Nothing: streamed answers pass by.
    Skip,
}

/// Which requests a module applies to; an empty list means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// A path, or everything below one: `/v1/*`.
    pub paths: Vec<String>,
    /// Methods, in any case.
    pub methods: Vec<String>,
}

impl Match {
    pub fn covers(&self, head: &RequestHead) -> bool {
        let path = head.uri.path();
        (self.methods.is_empty() || self.methods.iter().any(|method| is_method(&head.method, method)))
            && (self.paths.is_empty() || self.paths.iter().any(|pattern| covers_path(pattern, path)))
    }
}

fn is_method(method: &Method, wanted: &str) -> bool {
    method.as_str().eq_ignore_ascii_case(wanted)
}

fn covers_path(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix) || prefix.strip_suffix('/') == Some(path),
        None => pattern == path,
    }
}

/// What the gateway's flags say: defaults of a deployment, and its maxima.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    pub limits: Limits,
    pub on_failure: FailurePolicy,
    pub pool_size: u32,
}

impl From<&GuestLimits> for Limits {
    fn from(flags: &GuestLimits) -> Self {
        Self {
            memory_pages: flags.wasm_max_memory_pages,
            execution: flags.wasm_max_execution_time_ms,
            body_bytes: flags.wasm_max_body_size,
        }
    }
}

impl From<&Wasm> for Defaults {
    fn from(flags: &Wasm) -> Self {
        Self { limits: Limits::from(&flags.guest), on_failure: flags.wasm_on_failure, pool_size: flags.wasm_pool_size }
    }
}

impl Defaults {
    /// A deployment that says nothing.
    pub fn draft(&self) -> Draft {
        Draft {
            on_failure: FailurePolicies::same(self.on_failure),
            failure_status: None,
            instance: None,
            limits: self.limits,
            streaming: Streaming::Head,
            applies: Match::default(),
            order: None,
            config: serde_json::Value::Object(serde_json::Map::new()),
            header_case: None,
            pool_size: self.pool_size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: Method, path: &'static str) -> RequestHead {
        RequestHead { method, uri: http::Uri::from_static(path), headers: http::HeaderMap::new() }
    }

    #[test]
    fn a_star_covers_everything_below_and_the_path_itself() {
        let applies = Match { paths: vec!["/v1/*".into(), "/exact".into()], methods: vec![] };
        for (path, covered) in [
            ("/v1/chat", true),
            ("/v1/", true),
            ("/v1", true),
            ("/v1x", false),
            ("/exact", true),
            ("/exact/more", false),
            ("/", false),
        ] {
            assert_eq!(applies.covers(&head(Method::GET, path)), covered, "{path}");
        }
    }

    #[test]
    fn methods_are_compared_without_case_and_both_must_match() {
        let applies = Match { paths: vec!["/a".into()], methods: vec!["post".into()] };
        assert!(applies.covers(&head(Method::POST, "/a")));
        assert!(!applies.covers(&head(Method::GET, "/a")));
        assert!(!applies.covers(&head(Method::POST, "/b")));
        assert!(Match::default().covers(&head(Method::GET, "/anything")));
    }
}
