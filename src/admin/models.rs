//! `GET /v1/models`: what the healthy workers offer together.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::gateway::control::Asker;
use crate::snapshot::{Publisher, Snapshot};
use crate::workers::{Worker, models};

/// Time for which a union is good.
const FRESH: Duration = Duration::from_secs(1);
/// Askers that wait for it together, and as many that wait to join them.
pub const MOST_WAITING: usize = 16_384;

/// Tells everybody who asks, for as long as anybody can. The workers are asked at most once at a time and once in
/// [`FRESH`]: who comes meanwhile shares the answer. One that is slow holds up nobody who wants something else.
pub async fn answer(publisher: Arc<Publisher>, mut askers: mpsc::Receiver<Asker>) {
    let mut last: Option<(Instant, Response<Bytes>)> = None;
    while let Some(asker) = askers.recv().await {
        if let Some((asked, list)) = &last
            && asked.elapsed() < FRESH
        {
            // Whoever asked may have left meanwhile.
            let _ = asker.send(list.clone());
            continue;
        }
        let snapshot = publisher.current();
        let (mut asking, mut waiting) = (pin!(union(&snapshot)), vec![asker]);
        let list = loop {
            tokio::select! {
                list = &mut asking => break list,
                Some(asker) = askers.recv(), if waiting.len() < MOST_WAITING => waiting.push(asker),
            }
            if waiting.len() == MOST_WAITING {
                waiting.retain(|asker| !asker.is_closed());
            }
        };
        waiting.into_iter().for_each(|asker| drop(asker.send(list.clone())));
        last = Some((Instant::now(), list));
    }
}

/// The union of the lists; a worker that does not answer is left out.
async fn union(snapshot: &Snapshot) -> Response<Bytes> {
    let lists = join_all(snapshot.healthy().map(|worker| models_of(snapshot, worker))).await;
    let mut union = BTreeMap::new();
    for model in lists.into_iter().flatten() {
        if let Some(id) = model["id"].as_str() {
            let entry = json!({
                "id": id,
                "object": "model",
                "created": model["created"].as_u64().unwrap_or(0),
                "owned_by": model["owned_by"].as_str().unwrap_or("unknown"),
            });
            union.entry(id.to_owned()).or_insert(entry);
        }
    }
    let data: Vec<Value> = union.into_values().collect();
    super::json(StatusCode::OK, &json!({"object": "list", "data": data}))
}

async fn models_of(snapshot: &Snapshot, worker: &Worker) -> Vec<Value> {
    let list = models::list(&snapshot.connector, worker, "smg").await;
    list.unwrap_or_else(|| {
        tracing::warn!(worker = %worker.label, "the worker did not list its models");
        Vec::new()
    })
}
