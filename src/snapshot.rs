//! One immutable view of configuration, workers and modules, and how a new one takes the place of the old.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;
use http::Uri;
use rustc_hash::FxHashSet;
use tokio::sync::watch;

use crate::config::Config;
use crate::keys::Keys;
use crate::modules::Module;
use crate::rate::Rate;
use crate::routes::Overrides;
use crate::workers::connector::Connector;
use crate::workers::{Pool, Worker};

/// What a request sees from its start to its last byte.
#[derive(Clone)]
pub struct Snapshot {
    pub config: Arc<Config>,
    pub keys: Arc<Keys>,
    pub overrides: Arc<Overrides>,
    /// Requests per second, if they are limited.
    pub rate: Option<Arc<Rate>>,
    pub connector: Arc<Connector>,
    /// At least one.
    pub pools: Vec<Arc<Pool>>,
    /// All modules, in the order of the on-request chain.
    pub modules: Vec<Arc<Module>>,
    /// An instant that stays the same for all snapshots.
    pub began: Instant,
}

impl Snapshot {
    /// The position of the pool that serves a model.
    pub fn pool_of(&self, model: &str) -> Option<usize> {
        let one = self.pools.iter().position(|pool| pool.serves.model(model));
        one.or_else(|| self.pool_of_all())
    }

    /// The position of the pool that serves all models, if there is one.
    pub fn pool_of_all(&self) -> Option<usize> {
        self.pools.iter().position(|pool| pool.serves.all())
    }

    /// The position of the pool for requests for this target that name no model: one that serves all, or that can serve,
    /// and has a worker that can be asked for the target.
    pub fn any_pool(&self, target: &Uri) -> usize {
        let is_able = |pool: &Pool| pool.able(target).is_none_or(|able| !able.is_empty());
        let can_serve = |pool: &&Arc<Pool>| pool.can_serve() && is_able(pool);
        let all = self.pools.iter().position(|pool| pool.serves.all() && can_serve(&pool));
        let able = all.or_else(|| self.pools.iter().position(|pool| can_serve(&pool)));
        let refusing = able.or_else(|| self.pools.iter().position(|pool| pool.is_refusing() && is_able(pool)));
        // For want of one, the answer is an error: that no worker is healthy rather than that the target is not served.
        refusing.or_else(|| self.pools.iter().position(|pool| pool.target_error(target).is_none())).unwrap_or(0)
    }

    /// Every worker once, in however many pools it is.
    pub fn workers(&self) -> impl Iterator<Item = &Arc<Worker>> {
        let mut seen = FxHashSet::default();
        self.pools.iter().flat_map(|pool| &pool.all).filter(move |worker| seen.insert(Arc::as_ptr(worker)))
    }

    /// Those of them that are used and take connections: the healthy ones, and in pools without any the others.
    pub fn healthy(&self) -> impl Iterator<Item = &Arc<Worker>> {
        let mut seen = FxHashSet::default();
        let pools = self.pools.iter().filter(|pool| pool.can_serve());
        pools.flat_map(|pool| pool.healthy()).filter(move |worker| seen.insert(Arc::as_ptr(worker)))
    }

    /// Those of them that take requests now.
    pub fn available(&self) -> impl Iterator<Item = &Arc<Worker>> {
        self.workers().filter(|worker| worker.is_available())
    }

    pub fn has_healthy(&self) -> bool {
        self.pools.iter().any(|pool| pool.can_serve())
    }
}

/// A thread's own handle on the snapshot in force: looking whether it changed reads one shared word.
pub type SnapshotCache = Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>;

/// Builds snapshots and publishes them. The change is one swapped pointer: a request that starts after
/// [`Publisher::update`] has returned sees it, one that started before does not.
pub struct Publisher {
    current: Arc<ArcSwap<Snapshot>>,
    published: watch::Sender<()>,
    /// Held while a snapshot is built, so that no change overtakes another.
    building: Mutex<()>,
}

impl Publisher {
    pub fn new(first: Snapshot) -> Self {
        let current = Arc::new(ArcSwap::from_pointee(first));
        Self { current, published: watch::Sender::new(()), building: Mutex::new(()) }
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

    /// Publishes the snapshot that `change` makes of the one in force.
    pub fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        let building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Snapshot::clone(&self.current.load());
        change(&mut next);
        self.current.store(Arc::new(next));
        drop(building);
        self.published.send_replace(());
    }
}
