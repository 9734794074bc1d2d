//! Which models a worker lists at `GET /v1/models`.

use std::time::{Duration, Instant};

use http::{Request, StatusCode};
use serde_json::Value;

use super::Worker;
use super::client;
use super::connector::Connector;

/// Time a worker has to list its models, and the largest list that is read.
const TIME: Duration = Duration::from_secs(5);
const MAX_LIST: usize = 1 << 20;
/// Time between two looks at the list of a worker that serves: adapters come and go.
const REFRESH: Duration = Duration::from_secs(60);
/// Models of one worker that are known, and bytes of the longest name.
const MOST_MODELS: usize = 1024;
const LONGEST_NAME: usize = 256;

/// The entries of the list; `None` if the worker has none. `agent` is who asks.
pub async fn list(connector: &Connector, worker: &Worker, agent: &'static str) -> Option<Vec<Value>> {
    let request = Request::get("/v1/models").header("accept", "application/json").header("user-agent", agent);
    let request = request.body(()).expect("a valid request");
    let answer = tokio::time::timeout(TIME, client::fetch(connector, worker, request, MAX_LIST)).await.ok()?.ok()?;
    if answer.status() != StatusCode::OK {
        return None;
    }
    let mut list: Value = serde_json::from_slice(answer.body()).ok()?;
    list.get_mut("data").and_then(Value::as_array_mut).map(std::mem::take)
}

/// Learns from time to time what a worker lists.
#[derive(Default)]
pub struct Lessons {
    last: Option<Instant>,
}

impl Lessons {
    /// Asks the worker, unless that was not long ago; whether it lists others than before. One that gives no list is
    /// taken to have the models that it had.
    pub async fn learn(&mut self, connector: &Connector, worker: &Worker) -> bool {
        if self.last.is_some_and(|last| last.elapsed() < REFRESH) {
            return false;
        }
        self.last = Some(Instant::now());
        let Some(list) = list(connector, worker, "smg-health").await else { return false };
        worker.set_models(names(&list))
    }

    /// The worker may have been another one meanwhile.
    pub fn forget(&mut self) {
        self.last = None;
    }
}

/// The names in a list, each once and in order.
fn names(list: &[Value]) -> Vec<String> {
    let is_sound = |name: &&str| (1..=LONGEST_NAME).contains(&name.len()) && !name.chars().any(char::is_control);
    let names = list.iter().filter_map(|model| model["id"].as_str()).filter(is_sound);
    let mut names: Vec<String> = names.take(MOST_MODELS).map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_sound_and_there_once() {
        let list = json!([{"id": "b"}, {"id": "a"}, {"id": "b"}, {"id": ""}, {"id": 1}, {}, 1, {"id": "x\n"}, {"id": "y".repeat(257)}]);
        assert_eq!(names(list.as_array().expect("a list")), ["a", "b"]);
        let many: Vec<_> = (0..2000).map(|at| json!({"id": at.to_string()})).collect();
        assert_eq!(names(&many).len(), MOST_MODELS);
    }
}
