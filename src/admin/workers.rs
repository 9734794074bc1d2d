//! `GET /workers` and `GET /workers/{id}`.

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::snapshot::Snapshot;
use crate::workers::{Health, Worker};

/// `below` is the path after `/workers`.
pub fn answer(snapshot: &Snapshot, method: &Method, below: &str) -> Response<Bytes> {
    if method != Method::GET {
        return super::method_not_allowed("GET");
    }
    match below.strip_prefix('/') {
        None => list(snapshot),
        Some(id) => match snapshot.pool.all.iter().find(|worker| worker.id == id) {
            Some(worker) => super::json(StatusCode::OK, &show(worker)),
            None => super::error(StatusCode::NOT_FOUND, "worker_not_found", "there is no worker with this id"),
        },
    }
}

fn list(snapshot: &Snapshot) -> Response<Bytes> {
    let pool = &snapshot.pool;
    let workers: Vec<_> = pool.all.iter().map(|worker| show(worker)).collect();
    let load: usize = pool.all.iter().map(|worker| worker.in_flight()).sum();
    let stats = json!({"total_workers": workers.len(), "healthy_workers": pool.healthy_count(), "total_load": load});
    super::json(StatusCode::OK, &json!({"total": workers.len(), "workers": workers, "stats": stats}))
}

/// Every worker serves every model and has the same priority and cost.
fn show(worker: &Worker) -> Value {
    json!({
        "id": worker.id,
        "url": worker.label,
        "model_id": "unknown",
        "is_healthy": worker.health() == Health::Healthy,
        "status": worker.health().label(),
        "load": worker.in_flight(),
        "priority": 50,
        "cost": 1.0,
    })
}
