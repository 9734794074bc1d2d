//! Which models a worker lists at `GET /v1/models`, and when it is asked.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{Request, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{Notify, watch};

use super::Worker;
use super::client;
use super::connector::Connector;

/// Time a worker has to list its models, and the largest list that is read.
const TIME: Duration = Duration::from_secs(5);
const MAX_LIST: usize = 1 << 20;
/// Time between two looks at the list of a worker that serves: adapters come and go.
const REFRESH: Duration = Duration::from_secs(60);
/// The least time between two looks, however often requests are for models that nobody is known to have.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// Models of one worker that are known, and bytes of the longest name.
const MOST_MODELS: usize = 1024;
pub const LONGEST_NAME: usize = 256;

/// One model as a worker lists it.
pub struct Entry {
    pub id: String,
    /// All of the entry, as it was written.
    pub json: Box<RawValue>,
}

/// The entries of the list that have an id of at most [`LONGEST_NAME`] bytes; `None` if the worker has no list. `agent`
/// is who asks.
pub async fn list(connector: &Connector, worker: &Worker, agent: &'static str) -> Option<Vec<Entry>> {
    let request = Request::get("/v1/models").header("accept", "application/json").header("user-agent", agent);
    let request = request.body(()).expect("a valid request");
    let answer = tokio::time::timeout(TIME, client::fetch(connector, worker, request, MAX_LIST)).await.ok()?.ok()?;
    let status = answer.status();
    let is_refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    let was_refused = std::mem::replace(&mut worker.listing.asking().is_refused, is_refused);
    if is_refused && !was_refused {
        let status = status.as_u16();
        tracing::warn!(worker = %worker.label, status, "the worker wants another key to list its models: see --worker-api-key");
    }
    if status == StatusCode::OK { entries(answer.body()) } else { None }
}

fn entries(body: &[u8]) -> Option<Vec<Entry>> {
    #[derive(Deserialize)]
    struct List {
        data: Vec<Box<RawValue>>,
    }
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    let list: List = serde_json::from_slice(body).ok()?;
    let entry = |json: Box<RawValue>| {
        let id = serde_json::from_str::<Named>(json.get()).ok()?.id.into_owned();
        (id.len() <= LONGEST_NAME).then_some(Entry { id, json })
    };
    Some(list.data.into_iter().filter_map(entry).collect())
}

/// What one worker is known to list. Whoever reads the worker's list keeps this up to date.
#[derive(Default)]
pub struct Listing {
    /// In order; none until it has listed some.
    names: ArcSwap<Vec<String>>,
    asking: Mutex<Asking>,
    /// Somebody wants the worker to be asked.
    wanted: Notify,
    /// Marked as changed when it has been asked, and what it said is in force.
    asked: watch::Sender<()>,
}

#[derive(Default)]
struct Asking {
    /// When it was asked last.
    last: Option<Instant>,
    /// It is to be asked before the time, and has not been.
    is_wanted: bool,
    /// What it said last no longer counts as said lately.
    is_stale: bool,
    /// It gave a list when it was asked last.
    has_list: bool,
    /// It refused to say, for want of the right key.
    is_refused: bool,
}

impl Listing {
    pub fn names(&self) -> Arc<Vec<String>> {
        self.names.load_full()
    }

    pub fn has(&self, model: &str) -> bool {
        self.names.load().binary_search_by(|name| name.as_str().cmp(model)).is_ok()
    }

    /// Takes over the names in a list; whether they are others than before.
    pub fn read(&self, list: &[Entry]) -> bool {
        self.set(names(list.iter().map(|entry| entry.id.as_str())))
    }

    pub fn set(&self, names: Vec<String>) -> bool {
        let before = self.names.swap(Arc::new(names));
        *before != **self.names.load()
    }

    /// Whether the worker is asked at all: not where workers are taken as they are, without any question.
    pub fn is_followed(&self) -> bool {
        self.asking().last.is_some()
    }

    /// The worker may have been another one meanwhile, or would say something else now.
    pub fn forget(&self) {
        self.asking().is_stale = true;
    }

    /// Has the worker asked as soon as possible, if it is asked at all.
    pub fn want(&self) {
        let mut asking = self.asking();
        asking.is_wanted = asking.last.is_some();
        if asking.is_wanted {
            self.wanted.notify_one();
        }
    }

    /// The same, unless it was asked a moment ago.
    pub fn want_lately(&self) {
        if self.is_due() {
            self.want();
        }
    }

    /// The same, and waits until what it said is in force; not for a worker that gave no list when it was asked last, which
    /// may take all of its time again.
    pub async fn renew(&self) {
        let mut asked = self.asked.subscribe();
        if self.is_due() {
            self.want();
            if self.asking().has_list {
                // The sender lives as long as this does.
                let _ = asked.changed().await;
            }
        }
    }

    fn is_due(&self) -> bool {
        let asking = self.asking();
        asking.is_wanted || asking.last.is_some_and(|last| last.elapsed() >= LEAST_PAUSE)
    }

    fn asking(&self) -> MutexGuard<'_, Asking> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the worker, unless that was not long ago; whether it lists others than before. One that gives no list is taken
/// to have the models that it had.
pub async fn learn(connector: &Connector, worker: &Worker) -> bool {
    {
        let asking = worker.listing.asking();
        if asking.last.is_some_and(|last| last.elapsed() < REFRESH) && !asking.is_stale && !asking.is_wanted {
            return false;
        }
    }
    let list = list(connector, worker, "smg-health").await;
    let mut asking = worker.listing.asking();
    (asking.last, asking.is_stale, asking.has_list) = (Some(Instant::now()), false, list.is_some());
    drop(asking);
    list.is_some_and(|list| worker.listing.read(&list))
}

/// What was learnt is in force.
pub fn settled(worker: &Worker) {
    worker.listing.asking().is_wanted = false;
    worker.listing.asked.send_replace(());
}

/// Asks the worker whenever somebody wants it, for ever; calls `changed` when it lists others than before.
pub async fn answer_wants(connector: &Connector, worker: &Worker, changed: impl Fn()) {
    loop {
        worker.listing.wanted.notified().await;
        if !worker.listing.asking().is_wanted {
            continue;
        }
        if learn(connector, worker).await {
            changed();
        }
        settled(worker);
    }
}

/// The names in a list, each once and in order.
fn names<'a>(list: impl Iterator<Item = &'a str>) -> Vec<String> {
    let is_sound = |name: &&str| (1..=LONGEST_NAME).contains(&name.len()) && !name.chars().any(char::is_control);
    let mut names: Vec<String> = list.filter(is_sound).take(MOST_MODELS).map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sound_and_there_once() {
        let long = "y".repeat(257);
        assert_eq!(names(["b", "a", "b", "", "x\n", &long].into_iter()), ["a", "b"]);
        let many: Vec<_> = (0..2000).map(|at| at.to_string()).collect();
        assert_eq!(names(many.iter().map(String::as_str)).len(), MOST_MODELS);
    }

    #[test]
    fn entries_stay_as_they_are_written() {
        let kept = r#"{ "root":"…","id" : "org\/a", "max_model_len":262144, "x":{"y":[1e400]}}"#;
        let long = "y".repeat(LONGEST_NAME + 1);
        let list = format!(
            r#"{{"object":"list","data":[{kept},{{"id":1}},{{}},1,{{"id":"a","id":"b"}},null,{{"id":"{long}"}}]}}"#
        );
        let entries = entries(list.as_bytes()).expect("a list");
        let entries: Vec<_> = entries.iter().map(|entry| (entry.id.as_str(), entry.json.get())).collect();
        assert_eq!(entries, [("org/a", kept)]);
        for none in ["", "[]", "{}", r#"{"data":{}}"#, r#"{"data":[{"id":"a"}"#] {
            assert!(super::entries(none.as_bytes()).is_none(), "{none}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_worker_that_is_not_asked() {
        let listing = Listing::default();
        listing.renew().await;
        assert!(!listing.is_followed());
        listing.want();
        assert!(!listing.asking().is_wanted);
    }
}
