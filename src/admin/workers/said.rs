//! What a request says of a worker. Fields that others know and that would change nothing here are refused by name: who
//! asks for them is better told than left to find out.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::invalid;
use crate::admin::error;
use crate::fleet::About;

/// Longest model name, in bytes.
const MAX_MODEL: usize = 256;
/// Labels of a worker, and bytes of their names and values.
const MOST_LABELS: usize = 32;
const MAX_LABEL: usize = 64;
const MAX_VALUE: usize = 256;
/// Longest `runtime_type`, in bytes.
const MAX_RUNTIME: usize = 64;

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
    api_key: Option<IgnoredAny>,
    disable_health_check: Option<IgnoredAny>,
    health: Option<IgnoredAny>,
    bootstrap_host: Option<IgnoredAny>,
    bootstrap_port: Option<IgnoredAny>,
}

impl Said {
    pub fn read(body: &[u8]) -> Result<Self, Box<Response<Bytes>>> {
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let said: Self =
            serde_path_to_error::deserialize(&mut deserializer).map_err(|why| match why.inner().is_data() {
                true => unprocessable(&why.to_string()),
                false => error(StatusCode::BAD_REQUEST, "invalid_json", &why.inner().to_string()),
            })?;
        deserializer.end().map_err(|why| error(StatusCode::BAD_REQUEST, "invalid_json", &why.to_string()))?;
        if let Some(why) = said.not_offered() {
            return Err(Box::new(unprocessable(why)));
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
            (self.api_key, "api_key: a worker is sent its caller's Authorization, and no key of its own"),
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
        }
    }
}

fn unprocessable(why: &str) -> Response<Bytes> {
    error(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", why)
}
