//! `GET /v1/models` and `GET /v1/models/{id}`: what the healthy workers offer together.
//!
//! Entries are passed on as they were written. Of several workers that list one id, the first in the order of the
//! snapshot counts: that of the configuration, with the workers of the file's pools first, and then those that were added.

use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use tokio::sync::mpsc;

use crate::fleet::Fleet;
use crate::gateway::control::{AskedModel, ModelsCall};
use crate::snapshot::{Publisher, Snapshot};
use crate::workers::models::Entry;
use crate::workers::{Worker, models};

/// Time for which a union is good.
const FRESH: Duration = Duration::from_secs(1);
/// Askers that wait for it together, and as many that wait to join them.
pub const MOST_WAITING: usize = 16_384;
/// Bytes of all entries together; those beyond are left out.
const LARGEST: usize = 64 << 20;

/// Tells everybody who asks, for as long as anybody can. The workers are asked at most once at a time and once in
/// [`FRESH`]: who comes meanwhile shares the answer. One that is slow holds up nobody who wants something else.
pub async fn answer(publisher: Arc<Publisher>, fleet: Rc<Fleet>, mut calls: mpsc::Receiver<ModelsCall>) {
    let mut last: Option<(Instant, Union)> = None;
    while let Some(call) = calls.recv().await {
        if let Some((asked, union)) = &last
            && asked.elapsed() < FRESH
        {
            union.answer(call);
            continue;
        }
        let snapshot = publisher.current();
        let (mut asking, mut waiting) = (pin!(lists(&snapshot)), vec![call]);
        let lists = loop {
            tokio::select! {
                lists = &mut asking => break lists,
                Some(call) = calls.recv(), if waiting.len() < MOST_WAITING => waiting.push(call),
            }
            if waiting.len() == MOST_WAITING {
                waiting.retain(|call| !call.reply.is_closed());
            }
        };
        // Before anybody sees them in the list, requests for them find the right workers.
        if lists.iter().filter(|(worker, list)| worker.listing.is_followed() && worker.listing.read(list)).count() > 0 {
            fleet.publish();
        }
        let union = Union::of(lists.into_iter().flat_map(|(_, list)| list));
        waiting.into_iter().for_each(|call| union.answer(call));
        last = Some((Instant::now(), union));
    }
}

/// The list of each healthy worker; one that does not answer is left out.
async fn lists(snapshot: &Snapshot) -> Vec<(&Arc<Worker>, Vec<Entry>)> {
    join_all(snapshot.healthy().map(|worker| listed(snapshot, worker))).await.into_iter().flatten().collect()
}

async fn listed<'w>(snapshot: &Snapshot, worker: &'w Arc<Worker>) -> Option<(&'w Arc<Worker>, Vec<Entry>)> {
    let list = models::list(&snapshot.connector, worker, "smg").await;
    if list.is_none() {
        tracing::warn!(worker = %worker.label, "the worker did not list its models");
    }
    Some((worker, list?))
}

/// What the workers list together, each id once.
struct Union {
    list: Bytes,
    /// Parts of the list.
    entries: BTreeMap<String, Bytes>,
}

impl Union {
    fn of(listed: impl Iterator<Item = Entry>) -> Self {
        let (mut entries, mut room) = (BTreeMap::new(), LARGEST);
        for Entry { id, json } in listed {
            if json.get().len() <= room && !entries.contains_key(&id) {
                room -= json.get().len();
                entries.insert(id, json);
            }
        }
        let (mut text, mut places) = (String::from(r#"{"object":"list","data":["#), Vec::new());
        for (at, json) in entries.values().enumerate() {
            if at > 0 {
                text.push(',');
            }
            places.push(text.len()..text.len() + json.get().len());
            text.push_str(json.get());
        }
        text.push_str("]}");
        let list = Bytes::from(text);
        let entries = entries.into_keys().zip(places).map(|(id, place)| (id, list.slice(place))).collect();
        Self { list, entries }
    }

    /// Whoever asked may have left meanwhile.
    fn answer(&self, call: ModelsCall) {
        let body = match &call.asked {
            AskedModel::All => Some(&self.list),
            AskedModel::One(id) => self.entries.get(&**id),
        };
        let answer = body.map(|body| {
            let mut answer = Response::new(body.clone());
            *answer.status_mut() = StatusCode::OK;
            answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            answer
        });
        drop(call.reply.send(answer));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn entry(id: &str, json: &str) -> Entry {
        Entry { id: id.to_owned(), json: RawValue::from_string(json.to_owned()).expect("JSON") }
    }

    #[test]
    fn the_first_entry_of_an_id_counts_and_stays_as_it_is() {
        let first = r#"{"id":"b", "max_model_len" : 1}"#;
        let union =
            Union::of([entry("b", first), entry("a", r#"{"id":"a"}"#), entry("b", r#"{"id":"b"}"#)].into_iter());
        assert_eq!(union.list, format!(r#"{{"object":"list","data":[{{"id":"a"}},{first}]}}"#));
        assert_eq!(union.entries["b"], first);
        assert_eq!(union.entries["a"], r#"{"id":"a"}"#);
        assert_eq!(Union::of(std::iter::empty()).list, r#"{"object":"list","data":[]}"#);
    }
}
