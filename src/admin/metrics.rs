//! `GET /metrics`: everything that is counted, in the Prometheus text format.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::{Response, StatusCode};

use super::Admin;
use crate::gateway;
use crate::metrics::{Exposition, TEXT_FORMAT};
use crate::panics;

pub fn scrape(admin: &Admin) -> Response<Bytes> {
    let mut exposition = Exposition::default();
    gateway::metrics::expose(&admin.shards, &mut exposition);
    panics::expose(&mut exposition);
    let snapshot = admin.publisher.current();
    let workers = snapshot.workers().count() as f64;
    exposition.gauge("smg_worker_pool_size", "Workers that are configured.", &[], workers);
    snapshot.workers().for_each(|worker| worker.expose(&mut exposition));
    // By name: a worker may list a model that has the name for all.
    let mut panics: BTreeMap<&str, bool> = BTreeMap::new();
    for pool in &snapshot.pools {
        *panics.entry(pool.serves.label()).or_default() |= pool.is_in_panic();
    }
    for (model, is_in_panic) in panics {
        let help = "1 if no worker of the pool passes its checks and those that accept connections are used.";
        exposition.gauge("smg_pool_panic", help, &[("model", model)], f64::from(u8::from(is_in_panic)));
    }
    snapshot.keys.expose(&mut exposition);
    admin.expose_admission(&mut exposition);
    for (outcome, count) in [("taken", &admin.reloads.taken), ("refused", &admin.reloads.refused)] {
        let help = "Configurations that were read again.";
        exposition.counter("smg_reloads_total", help, &[("outcome", outcome)], count.get() as f64);
    }
    admin.traces.iter().for_each(|counts| counts.expose(&mut exposition));
    if let Some(registry) = &admin.registry {
        registry.metrics().expose(&mut exposition);
        exposition.gauge("smg_wasm_modules", "Modules that are deployed.", &[], snapshot.modules.len() as f64);
        for (outcome, count) in [("success", &registry.deployed), ("refused", &registry.refused)] {
            let labels = [("outcome", outcome)];
            exposition.counter("smg_wasm_deploys_total", "Deployments.", &labels, count.load(Relaxed) as f64);
        }
        for (source, count) in registry.loaded() {
            let help = "Modules by where their code came from.";
            exposition.counter("smg_wasm_loads_total", help, &[("source", source)], count as f64);
        }
    }
    super::answer(StatusCode::OK, TEXT_FORMAT, exposition.render())
}
