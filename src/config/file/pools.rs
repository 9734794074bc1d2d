//! `pools`: which workers serve which model.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

use clap::ValueEnum;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::hint::hint;
use super::keys::Environment;
use super::node::Node;
use super::problem::Report;
use super::section::Section;
use super::worker_keys;
use crate::config::{Policy, Secret, WorkerUrl};

/// The workers of one model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a map")]
pub struct Pool {
    /// What requests name; also the pool's name.
    #[serde(deserialize_with = "name")]
    pub model: String,
    /// Other names for it.
    #[serde(default, deserialize_with = "names")]
    pub aliases: Vec<String>,
    /// Whether the model's own name is written in place of an alias that a request names.
    #[serde(default = "yes")]
    pub rewrite: bool,
    /// The flag's, if it is left out.
    #[serde(default, deserialize_with = "policy")]
    pub policy: Option<Policy>,
    /// May be empty: the admin API can add some.
    pub workers: Vec<PoolWorker>,
}

/// A worker of a pool. A URL alone stands for one with nothing else set.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolWorker {
    pub url: WorkerUrl,
    /// Shown by the admin API, for who sorts by it; 50 if it is left out.
    pub priority: Option<u32>,
    /// The same; 1 if it is left out, and greater than 0.
    pub cost: Option<f64>,
    /// What it is sent as `Authorization: Bearer KEY`, wherever the file took it from.
    pub api_key: Option<Secret>,
    /// The environment variable that holds the key.
    pub(super) api_key_env: Option<String>,
    /// The file that holds the key.
    pub(super) api_key_file: Option<PathBuf>,
}

impl Pool {
    pub(super) fn read(document: &Node, environment: Environment<'_>, report: &mut Report) -> Vec<Self> {
        let mut section = Section::<Self>::read(document, "pools", report);
        section.unique("model", |pool| vec![pool.model.clone()], report);
        section.unique("aliases", |pool| pool.aliases.clone(), report);
        let models: HashSet<&str> = section.items.iter().map(|item| item.value.model.as_str()).collect();
        for item in &section.items {
            if let Some(alias) = item.value.aliases.iter().find(|alias| models.contains(alias.as_str())) {
                section.report(item, "aliases", &format!("`{alias}` is a model of a pool"), report);
            }
            let mut seen = HashSet::new();
            if let Some(twice) = item.value.workers.iter().find(|worker| !seen.insert(&worker.url)) {
                section.report(item, "workers", &format!("{} is there twice", twice.url), report);
            }
        }
        worker_keys::read(&mut section.items, environment, report);
        section.values()
    }
}

impl<'de> Deserialize<'de> for PoolWorker {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const FIELDS: &[&str] = &["url", "priority", "cost", "api_key", "api_key_env", "api_key_file"];
        deserializer.deserialize_struct("PoolWorker", FIELDS, UrlOrMap)
    }
}

struct UrlOrMap;

impl<'de> Visitor<'de> for UrlOrMap {
    type Value = PoolWorker;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a worker URL or a map")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PoolWorker, E> {
        let url = text.parse().map_err(E::custom)?;
        Ok(PoolWorker { url, priority: None, cost: None, api_key: None, api_key_env: None, api_key_file: None })
    }

    fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<PoolWorker, M::Error> {
        /// Serde writes the reader; the fields are those of [`PoolWorker`].
        #[derive(Deserialize)]
        #[serde(remote = "PoolWorker", deny_unknown_fields)]
        struct Fields {
            #[serde(deserialize_with = "worker_url")]
            url: WorkerUrl,
            #[serde(default)]
            priority: Option<u32>,
            #[serde(default, deserialize_with = "cost")]
            cost: Option<f64>,
            #[serde(default, deserialize_with = "secret")]
            api_key: Option<Secret>,
            #[serde(default)]
            api_key_env: Option<String>,
            #[serde(default)]
            api_key_file: Option<PathBuf>,
        }
        Fields::deserialize(MapAccessDeserializer::new(map))
    }
}

fn yes() -> bool {
    true
}

fn worker_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WorkerUrl, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(de::Error::custom)
}

fn cost<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let cost = f64::deserialize(deserializer)?;
    let is_sound = cost.is_finite() && cost > 0.0;
    if is_sound { Ok(Some(cost)) } else { Err(de::Error::custom("it must be greater than 0")) }
}

/// The names that the flag `--policy` takes.
fn policy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Policy>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let names = || Policy::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    if let Ok(policy) = Policy::from_str(&text, false) {
        return Ok(Some(policy));
    }
    let names: Vec<String> = names().map(|name| name.get_name().to_owned()).collect();
    let hint = hint(&text, names.iter().map(String::as_str));
    Err(de::Error::custom(format_args!("it must be one of {}, not `{text}`{hint}", names.join(", "))))
}

pub(super) fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    is_name(String::deserialize(deserializer)?).map_err(de::Error::custom)
}

pub(super) fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    names.into_iter().map(is_name).collect::<Result<_, _>>().map_err(de::Error::custom)
}

/// Names end up in log lines, metrics and header values.
pub(super) fn is_name(text: String) -> Result<String, &'static str> {
    let is_sound = (1..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_sound { Ok(text) } else { Err("a name is 1 to 256 characters of visible ASCII without spaces") }
}
