//! `routes`: what is different for some paths.

use std::fmt;
use std::time::Duration;

use http::Method;
use http::uri::PathAndQuery;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::hint::hint;
use super::node::{Node, Value};
use super::pools::is_name;
use super::problem::Report;
use super::section::Section;
use crate::config::value;

/// Settings for the requests of a path. What is left out is as everywhere.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a map")]
pub struct Route {
    /// A path, or everything below one with `/*` at its end.
    #[serde(deserialize_with = "path")]
    pub path: String,
    /// Any method, if there is none.
    #[serde(default, deserialize_with = "methods")]
    pub methods: Vec<Method>,
    /// The model of a pool that takes these requests, whatever model they name.
    #[serde(default)]
    pub pool: Option<String>,
    #[serde(default, deserialize_with = "time")]
    pub request_timeout_secs: Option<Duration>,
    /// Time to the first byte of the worker's answer.
    #[serde(default, deserialize_with = "time")]
    pub first_byte_timeout_secs: Option<Duration>,
    #[serde(default)]
    pub retries: Option<bool>,
    /// Requests a second that are let through.
    #[serde(default, deserialize_with = "rate")]
    pub rate_limit_tokens_per_second: Option<f64>,
    /// Bytes.
    #[serde(default, deserialize_with = "size")]
    pub max_payload_size: Option<u64>,
    #[serde(default)]
    pub modules: RouteModules,
}

/// Which modules see a route's requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RouteModules {
    #[default]
    All,
    None,
    /// These only; they need not be deployed yet.
    Named(Vec<String>),
}

impl Route {
    pub(super) fn read(document: &Node, report: &mut Report) -> Vec<Self> {
        let section = Section::<Self>::read(document, "routes", report);
        let models = models(document);
        for item in &section.items {
            if let Some(pool) = item.value.pool.as_deref().filter(|pool| !models.contains(pool)) {
                let text = format!("no pool has the model `{pool}`{}", hint(pool, models.iter().copied()));
                section.report(item, "pool", &text, report);
            }
        }
        section.unique("path", Route::claims, report);
        section.values()
    }

    /// What no other route may have. One for any method may stand beside those for some: it gets the rest.
    fn claims(&self) -> Vec<(String, Option<Method>)> {
        let claim = |method: Option<&Method>| (self.path.clone(), method.cloned());
        if self.methods.is_empty() {
            return vec![claim(None)];
        }
        self.methods.iter().map(|method| claim(Some(method))).collect()
    }
}

/// The models of all pools, also of those with mistakes elsewhere.
fn models(document: &Node) -> Vec<&str> {
    match document.get("pools") {
        Some(Node { value: Value::List(pools), .. }) => {
            pools.iter().filter_map(|pool| pool.get("model")?.text()).collect()
        }
        _ => Vec::new(),
    }
}

impl<'de> Deserialize<'de> for RouteModules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WordOrNames)
    }
}

struct WordOrNames;

impl<'de> Visitor<'de> for WordOrNames {
    type Value = RouteModules;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all, none or a list of names")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RouteModules, E> {
        match text {
            "all" => Ok(RouteModules::All),
            "none" => Ok(RouteModules::None),
            _ => Err(E::custom(format_args!("it must be all, none or a list of names, not `{text}`"))),
        }
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<RouteModules, S::Error> {
        let mut names: Vec<String> = Vec::new();
        while let Some(name) = seq.next_element()? {
            let name = is_name(name).map_err(de::Error::custom)?;
            if names.contains(&name) {
                return Err(de::Error::custom(format_args!("`{name}` is there twice")));
            }
            names.push(name);
        }
        Ok(RouteModules::Named(names))
    }
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let fixed = text.strip_suffix("/*").unwrap_or(&text);
    let is_path = text.starts_with('/') && !fixed.contains(['*', '?', '#']) && text.parse::<PathAndQuery>().is_ok();
    if is_path { Ok(text) } else { Err(de::Error::custom("it must be a path such as /v1/embeddings or /v1/*")) }
}

fn methods<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Method>, D::Error> {
    let mut methods: Vec<Method> = Vec::new();
    for text in Vec::<String>::deserialize(deserializer)? {
        let is_method = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
        let Some(method) = text.parse::<Method>().ok().filter(|_| is_method) else {
            return Err(de::Error::custom(format_args!("`{text}` is not a method, such as POST")));
        };
        methods.push(method);
    }
    Ok(methods)
}

/// As the flags for times take it.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    value::seconds(&String::deserialize(deserializer)?).map(Some).map_err(de::Error::custom)
}

/// As the flags for sizes take it.
fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    value::bytes(&String::deserialize(deserializer)?).map(Some).map_err(de::Error::custom)
}

/// As the flag for it takes it.
pub(super) fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    value::rate(&String::deserialize(deserializer)?).map(Some).map_err(de::Error::custom)
}
