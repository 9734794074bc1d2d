//! What a request says of a worker. Fields that others know and that would change nothing here are refused by name: who
//! asks for them is better told than left to find out.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::invalid;
use crate::admin::error;
use crate::config::Secret;
use crate::fleet::About;

/// Longest model name, in bytes.
const MAX_MODEL: usize = 256;
/// Labels of a worker, and bytes of their names and values.
const MOST_LABELS: usize = 32;
const MAX_LABEL: usize = 64;
const MAX_VALUE: usize = 256;
/// Longest `runtime_type`, in bytes.
const MAX_RUNTIME: usize = 64;
/// What the name of an environment variable must end with to be sent to a worker that a caller names, and the one that
/// must not be: others hold what no worker should see, and whoever administers the gateway should not either.
const KEY_VARIABLE: &str = "_API_KEY";
const OWN_KEY: &str = "SMG_API_KEY";

/// `url` is there when a worker is added, and only then.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    pub url: Option<String>,
    #[serde(alias = "model")]
    model_id: Option<String>,
    priority: Option<u32>,
    cost: Option<f64>,
    worker_type: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    runtime_type: Option<String>,
    #[serde(default, deserialize_with = "said_key")]
    api_key: SaidKey,
    api_key_env: Option<String>,
    disable_health_check: Option<IgnoredAny>,
    health: Option<IgnoredAny>,
    bootstrap_host: Option<IgnoredAny>,
    bootstrap_port: Option<IgnoredAny>,
}

/// What is said of a worker's key.
#[derive(Default)]
enum SaidKey {
    #[default]
    Nothing,
    /// It has none.
    None,
    Key(Secret),
}

/// Whatever is there is not repeated in an error.
fn said_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SaidKey, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(SaidKey::None),
        Value::String(key) => key.parse().map(SaidKey::Key).map_err(D::Error::custom),
        _ => Err(D::Error::custom("it must be a string")),
    }
}

impl Said {
    pub fn read(body: &[u8]) -> Result<Self, Box<Response<Bytes>>> {
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let mut said: Self =
            serde_path_to_error::deserialize(&mut deserializer).map_err(|why| match why.inner().is_data() {
                true => unprocessable(&why.to_string()),
                false => error(StatusCode::BAD_REQUEST, "invalid_json", &why.inner().to_string()),
            })?;
        deserializer.end().map_err(|why| error(StatusCode::BAD_REQUEST, "invalid_json", &why.to_string()))?;
        if let Some(why) = said.not_offered() {
            return Err(Box::new(unprocessable(why)));
        }
        if let Some(variable) = said.api_key_env.take() {
            said.api_key = said.key_of_environment(&variable).map_err(|why| unprocessable(&why))?;
        }
        match said.out_of_bounds() {
            Some(why) => Err(Box::new(invalid(why))),
            None => Ok(said),
        }
    }

    fn not_offered(&self) -> Option<&'static str> {
        let checks = self.disable_health_check.or(self.health);
        let bootstrap = self.bootstrap_host.or(self.bootstrap_port);
        [
            (checks, "health, disable_health_check: all workers are checked alike; flags say how, or that none is"),
            (bootstrap, "bootstrap_host, bootstrap_port: prefill and decode by different workers are not offered"),
        ]
        .into_iter()
        .find_map(|(said, why)| said.map(|_| why))
        .or_else(|| {
            let is_other = self.worker_type.as_ref().is_some_and(|kind| kind != "regular");
            is_other
                .then_some("worker_type: it must be regular: prefill and decode by different workers are not offered")
        })
    }

    fn key_of_environment(&self, variable: &str) -> Result<SaidKey, String> {
        if !matches!(self.api_key, SaidKey::Nothing) {
            return Err("api_key_env: only one of api_key and api_key_env may be set".to_owned());
        }
        if !variable.ends_with(KEY_VARIABLE) || variable == OWN_KEY {
            return Err(format!("api_key_env: the name must end with {KEY_VARIABLE} and must not be {OWN_KEY}"));
        }
        let key =
            std::env::var(variable).map_err(|_| "api_key_env: this environment variable is not set".to_owned())?;
        key.parse()
            .map(SaidKey::Key)
            .map_err(|why| format!("api_key_env: the variable does not hold a valid key: {why}"))
    }

    fn out_of_bounds(&self) -> Option<&'static str> {
        let is_bad = |text: &Option<String>, most| text.as_ref().is_some_and(|text| !(1..=most).contains(&text.len()));
        let is_label =
            |(name, value): (&String, &String)| (1..=MAX_LABEL).contains(&name.len()) && value.len() <= MAX_VALUE;
        let are_labels = |labels: &BTreeMap<_, _>| labels.len() <= MOST_LABELS && labels.iter().all(is_label);
        match self {
            _ if is_bad(&self.model_id, MAX_MODEL) => Some("model_id must have 1 to 256 bytes"),
            _ if self.cost.is_some_and(|cost| !cost.is_finite() || cost < 0.0) => {
                Some("cost must be a number of at least 0")
            }
            _ if is_bad(&self.runtime_type, MAX_RUNTIME) => Some("runtime_type must have 1 to 64 bytes"),
            _ if !self.labels.as_ref().is_none_or(are_labels) => {
                Some("labels must be 32 at most, with names of 1 to 64 bytes and values of 256 bytes at most")
            }
            _ => None,
        }
    }

    /// What is not said stays as it is in `before`.
    pub fn about(self, before: About) -> About {
        About {
            // What a list shows for a worker that serves all.
            models: match self.model_id {
                Some(model) => Some(model).filter(|model| model != "unknown").into_iter().collect(),
                None => before.models,
            },
            priority: self.priority.unwrap_or(before.priority),
            cost: self.cost.unwrap_or(before.cost),
            labels: self.labels.unwrap_or(before.labels),
            runtime: self.runtime_type.or(before.runtime),
            api_key: match self.api_key {
                SaidKey::Nothing => before.api_key,
                SaidKey::None => None,
                SaidKey::Key(key) => Some(key),
            },
        }
    }
}

fn unprocessable(why: &str) -> Response<Bytes> {
    error(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", why)
}
