//! What an agent answers, read as strictly as the proxy's parser does.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// What the agent answers, with names of headers in lower case.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Reply {
    pub version: u32,
    pub decision: Decision,
    #[serde(default)]
    pub request_headers: Vec<Op>,
    #[serde(default)]
    pub response_headers: Vec<Op>,
    #[serde(default)]
    routing_metadata: BTreeMap<String, String>,
    #[serde(default)]
    pub audit: Audit,
    #[serde(default)]
    needs_more: bool,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Allow,
    Block { status: u16, body: Option<String>, headers: Option<BTreeMap<String, String>> },
    Redirect { url: String, status: u16 },
}

impl Decision {
    pub fn block(status: u16, body: Option<&str>, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Decision::Block { status, body: body.map(str::to_owned), headers: Some(headers) }
    }

    pub fn redirect(status: u16, url: &str) -> Self {
        Decision::Redirect { url: url.to_owned(), status }
    }

    /// What a module's failure comes to where it is closed.
    pub fn failed() -> Self {
        Self::block(500, Some("Wasm Error"), &[])
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    Set { name: String, value: String },
    Add { name: String, value: String },
    Remove { name: String },
}

impl Op {
    pub fn set(name: &str, value: &str) -> Self {
        Op::Set { name: name.to_owned(), value: value.to_owned() }
    }

    pub fn remove(name: &str) -> Self {
        Op::Remove { name: name.to_owned() }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Audit {
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    rule_ids: Vec<String>,
    #[serde(default)]
    confidence: Option<f32>,
    #[serde(default)]
    pub reason_codes: Vec<String>,
    #[serde(default)]
    pub custom: BTreeMap<String, Value>,
}

impl Reply {
    #[track_caller]
    pub fn parse(json: &[u8]) -> Self {
        let parsed = serde_json::from_slice(json);
        let mut reply: Reply = parsed.unwrap_or_else(|e| panic!("{e} in {}", String::from_utf8_lossy(json)));
        reply.request_headers.iter_mut().chain(&mut reply.response_headers).for_each(Op::lower);
        reply
    }

    /// How a proxy of version 2 finds the event.
    #[track_caller]
    pub fn id(&self) -> &str {
        let id = self.audit.custom.get("correlation_id").unwrap_or_else(|| panic!("no id in {self:?}"));
        id.as_str().expect("text")
    }

    pub fn tags(&self) -> Vec<&str> {
        self.audit.tags.iter().map(String::as_str).collect()
    }
}

impl Op {
    fn lower(&mut self) {
        let (Op::Set { name, .. } | Op::Add { name, .. } | Op::Remove { name }) = self;
        *name = name.to_lowercase();
    }
}
