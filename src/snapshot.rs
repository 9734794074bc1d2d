//! One immutable view of workers and modules, and how a new one takes the place of the old.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use tokio::sync::watch;

use crate::config::Policy;
use crate::modules::Module;
use crate::workers::{Pool, Worker};

/// What a request sees from its start to its last byte.
pub struct Snapshot {
    pub pool: Pool,
    /// All modules, in the order of the on-request chain.
    pub modules: Vec<Arc<Module>>,
}

/// A thread's own handle on the snapshot in force: looking whether it changed reads one shared word.
pub type SnapshotCache = Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>;

/// Builds snapshots and publishes them. The change is one swapped pointer: a request that starts after
/// [`Publisher::update`] has returned sees it, one that started before does not.
pub struct Publisher {
    current: Arc<ArcSwap<Snapshot>>,
    published: watch::Sender<()>,
    workers: Vec<Arc<Worker>>,
    policy: Policy,
    turn: Arc<AtomicUsize>,
    /// Held while a snapshot is built, so that no change overtakes another.
    building: Mutex<()>,
}

impl Publisher {
    pub fn new(workers: Vec<Arc<Worker>>, policy: Policy) -> Self {
        let turn = Arc::<AtomicUsize>::default();
        let pool = Pool::new(workers.clone(), policy, turn.clone());
        let current = Arc::new(ArcSwap::from_pointee(Snapshot { pool, modules: Vec::new() }));
        let published = watch::Sender::new(());
        Self { current, published, workers, policy, turn, building: Mutex::new(()) }
    }

    /// The snapshot in force.
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    pub fn cache(&self) -> SnapshotCache {
        Cache::new(self.current.clone())
    }

    /// Marked as changed after each publication, for threads that would not look otherwise.
    pub fn publications(&self) -> watch::Receiver<()> {
        self.published.subscribe()
    }

    /// Publishes the workers as their health is now, with the same modules.
    pub fn refresh(&self) {
        self.update(|modules| modules.to_vec());
    }

    /// Publishes a snapshot with the modules that `change` makes of those in force.
    pub fn update(&self, change: impl FnOnce(&[Arc<Module>]) -> Vec<Arc<Module>>) {
        let building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        let modules = change(&self.current.load().modules);
        let pool = Pool::new(self.workers.clone(), self.policy, self.turn.clone());
        self.current.store(Arc::new(Snapshot { pool, modules }));
        drop(building);
        self.published.send_replace(());
    }
}
