//! What a deployment says about a module besides its file.

use std::time::Duration;

use http::Method;
use serde::{Deserialize, Serialize};

use super::hook::{Hook, RequestHead};
use crate::config::{FailurePolicy, Wasm};

/// The settings of one deployed module, complete.
#[derive(Debug, Clone, Serialize)]
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
    pub fn of(&self, hook: Hook) -> FailurePolicy {
        match hook {
            Hook::Request => self.request,
            Hook::Response => self.response,
        }
    }
}

/// How long a guest lives and who shares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase", deny_unknown_fields)]
pub enum InstanceMode {
    /// A fresh guest for each request, for all of that request's hooks.
    Request {},
    /// Guests are kept and reused, one call at a time each; `size` of them, divided over the shards and
    /// rounded up.
    Pooled {
        #[serde(skip_serializing_if = "Option::is_none")]
        size: Option<u32>,
        /// Calls after which a guest is replaced.
        #[serde(default = "default_max_uses")]
        max_uses: u32,
    },
    /// Exactly one guest in the whole gateway; calls queue.
    Single {},
}

fn default_max_uses() -> u32 {
    10_000
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

/// What a v1 on-response hook sees of a streamed answer.
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

impl From<&Wasm> for Defaults {
    fn from(flags: &Wasm) -> Self {
        let limits = Limits {
            memory_pages: flags.wasm_max_memory_pages,
            execution: flags.wasm_max_execution_time_ms,
            body_bytes: flags.wasm_max_body_size,
        };
        Self { limits, on_failure: flags.wasm_on_failure, pool_size: flags.wasm_pool_size }
    }
}

impl Defaults {
    /// The settings of a deployment that says nothing.
    pub fn settings(&self) -> Settings {
        Settings {
            on_failure: FailurePolicies { request: self.on_failure, response: self.on_failure },
            failure_status: 503,
            instance: InstanceMode::Request {},
            limits: self.limits,
            streaming: Streaming::Head,
            applies: Match::default(),
            order: None,
            config: serde_json::Value::Object(serde_json::Map::new()),
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
