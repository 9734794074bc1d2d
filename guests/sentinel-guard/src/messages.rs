//! What host and module tell each other, as far as this module cares. Unknown fields are the host's business.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize)]
pub struct Request {
    /// Path and query, as sent.
    pub uri: String,
    pub headers: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
pub struct Response {}

impl Request {
    /// The values of a header, whose name is compared without case: hosts differ in how they write it.
    pub fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(candidate, _)| candidate.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct Answer {
    pub decision: Decision,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<&'static str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub add_response_headers: BTreeMap<&'static str, &'static str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub remove_response_headers: &'static [&'static str],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub tags: &'static [&'static str],
}

#[derive(Debug, Clone, Copy, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    Allow,
    Block,
}

impl Answer {
    pub const ALLOW: Self = Self {
        decision: Decision::Allow,
        status: None,
        body: None,
        add_response_headers: BTreeMap::new(),
        remove_response_headers: &[],
        tags: &[],
    };

    pub fn block(status: u16, body: &'static str, tags: &'static [&'static str]) -> Self {
        Self {
            decision: Decision::Block,
            status: Some(status),
            body: Some(body),
            tags,
            ..Self::ALLOW
        }
    }
}
