//! Which models a worker lists at `GET /v1/models`, and when it is asked.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{Request, StatusCode};
use http_body_util::LengthLimitError;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{Notify, watch};

use super::Worker;
use super::client::{self, FetchError};
use super::connector::Connector;

/// Time a worker has to list its models, and bytes of the largest list that is read.
const TIME: Duration = Duration::from_secs(5);
const MAX_LIST: usize = 8 << 20;
/// Time between two looks at the list of a worker that serves: adapters come and go. A little less than the usual time
/// between two health checks, each of which then brings a look.
const REFRESH: Duration = Duration::from_secs(55);
/// The least time between two looks, however often requests are for models that nobody is known to have.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// Time between two warnings about one worker's list, however often there is another reason.
const QUIET: Duration = Duration::from_secs(60);
/// Entries of one worker's list that are used, for routing and in the gateway's own list; and bytes of the longest name.
const MOST_MODELS: usize = 1024;
pub const LONGEST_NAME: usize = 256;

/// One model as a worker lists it.
pub struct Entry {
    pub id: String,
    /// All of the entry, as it was written.
    pub json: Box<RawValue>,
}

/// What is wrong with a worker's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The worker wants another key.
    Refused,
    /// It has more than [`MAX_LIST`] bytes, and none of it is known.
    TooLarge,
    /// It has more than [`MOST_MODELS`] entries, and the rest is not used.
    Cut,
}

impl Fault {
    fn told(self) -> &'static str {
        match self {
            Self::Refused => "the worker wants another key to list its models: see --worker-api-key",
            Self::TooLarge => "the worker's list of models is larger than 8 MiB and is not used",
            Self::Cut => "the worker lists more than 1024 models: the others are not used",
        }
    }
}

/// The entries of the list that have an id of at most [`LONGEST_NAME`] bytes; `None` if the worker gives no list. `agent`
/// is who asks.
pub async fn list(connector: &Connector, worker: &Worker, agent: &'static str) -> Option<Vec<Entry>> {
    let request = Request::get("/v1/models").header("accept", "application/json").header("user-agent", agent);
    let request = request.body(()).expect("a valid request");
    let fetched = tokio::time::timeout(TIME, client::fetch(connector, worker, request, MAX_LIST)).await.ok()?;
    let (list, fault) = match fetched {
        Ok(answer) if answer.status() == StatusCode::OK => match entries(answer.body()) {
            Some((list, is_cut)) => (Some(list), is_cut.then_some(Fault::Cut)),
            None => (None, None),
        },
        Ok(answer) => {
            let is_refused = matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            (None, is_refused.then_some(Fault::Refused))
        }
        Err(FetchError::Body(error)) if error.is::<LengthLimitError>() => (None, Some(Fault::TooLarge)),
        Err(_) => return None,
    };
    if let Some(fault) = worker.listing.news(fault, Instant::now()) {
        tracing::warn!(worker = %worker.label, "{}", fault.told());
    }
    list
}

/// The entries of a list, as many as are used, and whether there are more.
fn entries(body: &[u8]) -> Option<(Vec<Entry>, bool)> {
    #[derive(Deserialize)]
    struct List {
        data: Vec<Box<RawValue>>,
    }
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    // Serde takes arrays for structs, too.
    let is_object = |json: &[u8]| json.trim_ascii_start().starts_with(b"{");
    let list: List = is_object(body).then(|| serde_json::from_slice(body).ok()).flatten()?;
    let entry = |json: Box<RawValue>| {
        let named = is_object(json.get().as_bytes()).then(|| serde_json::from_str::<Named>(json.get()));
        let id = named?.ok()?.id.into_owned();
        (id.len() <= LONGEST_NAME).then_some(Entry { id, json })
    };
    let mut all = list.data.into_iter().filter_map(entry);
    let used = all.by_ref().take(MOST_MODELS).collect();
    Some((used, all.next().is_some()))
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
    /// What was wrong when it answered last, and when somebody was told of it last.
    fault: Option<Fault>,
    told: Option<Instant>,
}

impl Listing {
    pub fn names(&self) -> Arc<Vec<String>> {
        self.names.load_full()
    }

    pub fn has(&self, model: &str) -> bool {
        self.names.load().binary_search_by(|name| name.as_str().cmp(model)).is_ok()
    }

    /// It may have any model: none of its models is known, and not because its list is too large.
    pub fn may_have_any(&self) -> bool {
        self.names.load().is_empty() && !self.is_too_large()
    }

    /// It has a list, which is too large to be read.
    pub fn is_too_large(&self) -> bool {
        self.asking().fault == Some(Fault::TooLarge)
    }

    /// Takes note of what is wrong with the list; returns what the log has to be told.
    fn news(&self, fault: Option<Fault>, now: Instant) -> Option<Fault> {
        let mut asking = self.asking();
        if std::mem::replace(&mut asking.fault, fault) == fault {
            return None;
        }
        let is_quiet = asking.told.is_some_and(|told| now.saturating_duration_since(told) < QUIET);
        let news = fault.filter(|_| !is_quiet);
        if news.is_some() {
            asking.told = Some(now);
        }
        news
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
        if self.may_be_asked() {
            self.want();
        }
    }

    /// The same, and waits until what it said is in force; not for a worker that gave no list when it was asked last, which
    /// may take all of its time again.
    pub async fn renew(&self) {
        let mut asked = self.asked.subscribe();
        if self.may_be_asked() {
            self.want();
            if self.asking().has_list {
                // The sender lives as long as this does.
                let _ = asked.changed().await;
            }
        }
    }

    /// Whether the worker is to be asked, as was not done for long.
    pub fn is_due(&self) -> bool {
        let asking = self.asking();
        asking.last.is_none_or(|last| last.elapsed() >= REFRESH) || asking.is_stale || asking.is_wanted
    }

    /// Whether it was not asked a moment ago.
    fn may_be_asked(&self) -> bool {
        let asking = self.asking();
        asking.is_wanted || asking.last.is_some_and(|last| last.elapsed() >= LEAST_PAUSE)
    }

    fn asking(&self) -> MutexGuard<'_, Asking> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the worker; whether it lists others than before. One that gives no list is taken to have the models that it had.
pub async fn learn(connector: &Connector, worker: &Worker) -> bool {
    let was_too_large = worker.listing.is_too_large();
    let list = list(connector, worker, "smg-health").await;
    let says_others = worker.listing.is_too_large() != was_too_large;
    let mut asking = worker.listing.asking();
    (asking.last, asking.is_stale, asking.has_list) = (Some(Instant::now()), false, list.is_some());
    drop(asking);
    list.is_some_and(|list| worker.listing.read(&list)) || says_others
}

/// What was learnt is in force.
pub fn settled(worker: &Worker) {
    worker.listing.asking().is_wanted = false;
    worker.listing.asked.send_replace(());
}

/// Asks the worker whenever somebody wants it, for ever; calls `changed` when it lists others than before.
pub async fn answer_wants(worker: &Worker, connector: impl Fn() -> Arc<Connector>, changed: impl Fn()) {
    loop {
        worker.listing.wanted.notified().await;
        if !worker.listing.asking().is_wanted {
            continue;
        }
        if learn(&connector(), worker).await {
            changed();
        }
        settled(worker);
    }
}

/// The names in a list, each once and in order.
fn names<'a>(list: impl Iterator<Item = &'a str>) -> Vec<String> {
    let is_sound = |name: &&str| (1..=LONGEST_NAME).contains(&name.len()) && !name.chars().any(char::is_control);
    let mut names: Vec<String> = list.filter(is_sound).map(str::to_owned).collect();
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
    }

    #[test]
    fn of_a_long_list_as_many_entries_are_used_as_there_may_be() {
        let list = |count: usize| {
            let entries: Vec<_> = (0..count).map(|at| format!(r#"{{"id":"{at}"}}"#)).collect();
            format!(r#"{{"data":[7,{}]}}"#, entries.join(","))
        };
        for (count, used) in [(MOST_MODELS, (MOST_MODELS, false)), (2000, (MOST_MODELS, true))] {
            let (found, is_cut) = entries(list(count).as_bytes()).expect("a list");
            assert_eq!((found.len(), is_cut), used);
        }
    }

    #[test]
    fn a_fault_is_told_once_and_seldom() {
        let (listing, start) = (Listing::default(), Instant::now());
        let told = [
            (0, Some(Fault::Cut)),
            (1, Some(Fault::Cut)),
            (2, None),
            (3, Some(Fault::Cut)),
            (70, Some(Fault::TooLarge)),
            (140, Some(Fault::TooLarge)),
        ]
        .map(|(second, fault)| listing.news(fault, start + Duration::from_secs(second)));
        assert_eq!(told, [Some(Fault::Cut), None, None, None, Some(Fault::TooLarge), None]);
        assert!(listing.is_too_large() && !listing.may_have_any());
    }

    #[test]
    fn entries_stay_as_they_are_written() {
        let kept = r#"{ "root":"…","id" : "org\/a", "max_model_len":262144, "x":{"y":[1e400]}}"#;
        let long = "y".repeat(LONGEST_NAME + 1);
        let list = format!(
            r#"{{"object":"list","data":[{kept},["x"],{{"id":1}},{{}},1,{{"id":"a","id":"b"}},null,{{"id":"{long}"}}]}}"#
        );
        let (entries, is_cut) = entries(list.as_bytes()).expect("a list");
        assert!(!is_cut);
        let entries: Vec<_> = entries.iter().map(|entry| (entry.id.as_str(), entry.json.get())).collect();
        assert_eq!(entries, [("org/a", kept)]);
        for none in ["", "[]", r#"[[{"id":"a"}]]"#, "{}", r#"{"data":{}}"#, r#"{"data":[{"id":"a"}"#] {
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
