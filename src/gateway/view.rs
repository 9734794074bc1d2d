//! A snapshot as one shard has it: with the shard's own guests and connections.

use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::upload::WorkerBody;
use crate::config::Workers;
use crate::modules::{ModuleGuests, ShardGuests};
use crate::snapshot::Snapshot;
use crate::workers::Worker;
use crate::workers::client::Connections;

/// See the module's documentation.
pub struct View {
    pub snapshot: Arc<Snapshot>,
    pub chain: Vec<Rc<ModuleGuests>>,
    /// At the positions of the snapshot's pools and of their workers.
    pub connections: Vec<Vec<Rc<Connections<WorkerBody>>>>,
}

impl View {
    /// The view of nothing, before the first.
    pub fn empty(snapshot: Arc<Snapshot>) -> Self {
        Self { snapshot, chain: Vec::new(), connections: Vec::new() }
    }

    /// The view of a new snapshot. Connections to workers that stay are kept, unless they would be made in another way
    /// now; requests in flight finish on the old ones.
    pub fn next(&self, snapshot: Arc<Snapshot>, guests: Option<&ShardGuests>) -> Self {
        let chain = guests.map(|guests| guests.arrange(&snapshot.modules)).unwrap_or_default();
        let known =
            self.connections.iter().flatten().map(|connections| (Arc::as_ptr(&connections.worker), connections));
        let mut known: FxHashMap<*const Worker, _> = known.collect();
        let config = &snapshot.config.workers;
        let settings = |config: &Workers| (config.upstream_pool_idle_timeout_secs, config.upstream_reuse);
        if !Arc::ptr_eq(&snapshot.connector, &self.snapshot.connector)
            || settings(config) != settings(&self.snapshot.config.workers)
        {
            known.drain().for_each(|(_, old)| old.retire());
        }
        let mut own: FxHashMap<*const Worker, Rc<Connections<WorkerBody>>> = FxHashMap::default();
        // A worker in several pools has one set of connections.
        let mut connections_to = |worker: &Arc<Worker>| {
            let own = own.entry(Arc::as_ptr(worker)).or_insert_with(|| match known.remove(&Arc::as_ptr(worker)) {
                Some(known) => known.clone(),
                None => Rc::new(Connections::new(worker.clone(), snapshot.connector.clone(), config)),
            });
            own.clone()
        };
        let connections =
            snapshot.pools.iter().map(|pool| pool.all.iter().map(&mut connections_to).collect()).collect();
        known.values().for_each(|left| left.retire());
        Self { snapshot, chain, connections }
    }

    /// Closes connections to workers that nobody has used for a while.
    pub fn close_aged_connections(&self) {
        self.connections.iter().flatten().for_each(|connections| connections.close_aged());
    }
}
