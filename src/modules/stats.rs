//! What is counted of modules. Each shard writes numbers of its own for each module; `GET /wasm` and
//! `/metrics` both sum the same numbers, so they cannot disagree.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::hook::Hook;
use super::outcome::Outcome;
use crate::metrics::{Counter, Exposition, Histogram, HistogramTotals, MICRO_BOUNDS, MICRO_BUCKETS};

/// The label under which removed modules are counted, so that totals never go down.
const REMOVED: &str = "(removed)";

/// Distinct tags of one module that are counted apart, and the label of all others.
const MOST_TAGS: usize = 64;
const OTHER_TAGS: &str = "(other)";

/// The numbers of one module on one shard.
pub struct ShardStats {
    hooks: [HookStats; Hook::ALL.len()],
    /// Milliseconds since the Unix epoch of the last call.
    last_call_ms: Counter,
    /// The lock is the shard's own: besides it, only a scrape takes it.
    tags: Mutex<HashMap<Arc<str>, Counter>>,
}

struct HookStats {
    outcomes: [Counter; Outcome::ALL.len()],
    seconds: Histogram<20>,
}

impl Default for ShardStats {
    fn default() -> Self {
        let hook = || HookStats {
            outcomes: std::array::from_fn(|_| Counter::default()),
            seconds: Histogram::new(&MICRO_BOUNDS),
        };
        Self { hooks: [hook(), hook()], last_call_ms: Counter::default(), tags: Mutex::default() }
    }
}

impl ShardStats {
    pub fn record(&self, hook: Hook, outcome: Outcome, took: Duration, now_ms: u64) {
        let stats = &self.hooks[hook as usize];
        stats.outcomes[outcome.index()].add(1);
        stats.seconds.observe(took);
        self.last_call_ms.raise_to(now_ms);
    }

    fn add_to(&self, totals: &mut Totals) {
        totals.last_call_ms = totals.last_call_ms.max(self.last_call_ms.get());
        for (tag, count) in lock(&self.tags).iter() {
            *totals.tags.entry(tag.clone()).or_default() += count.get();
        }
        for (sum, hook) in totals.hooks.iter_mut().zip(&self.hooks) {
            for (sum, counter) in sum.outcomes.iter_mut().zip(&hook.outcomes) {
                *sum += counter.get();
            }
            sum.seconds.add(&hook.seconds.totals());
        }
    }
}

/// What is counted of one module, over all shards.
#[derive(Default)]
pub struct ModuleStats {
    shards: Mutex<Vec<Arc<ShardStats>>>,
    /// What shards counted that no longer run the module.
    closed: Mutex<Totals>,
    /// The tags that are counted apart. Once there are as many as there can be, nothing locks this.
    tags: ArcSwap<HashSet<Arc<str>>>,
    /// Guests that exist, and those of them that wait in a pool.
    pub guests: AtomicI64,
    pub idle_guests: AtomicI64,
    /// Linear memory of the guests that exist.
    pub memory_bytes: AtomicI64,
}

impl ModuleStats {
    /// New numbers for a shard to write.
    pub fn shard(&self) -> Arc<ShardStats> {
        let stats = Arc::new(ShardStats::default());
        lock(&self.shards).push(stats.clone());
        stats
    }

    /// Takes over what a shard counted that is done with the module.
    pub fn close(&self, shard: &Arc<ShardStats>) {
        let mut shards = lock(&self.shards);
        shards.retain(|open| !Arc::ptr_eq(open, shard));
        shard.add_to(&mut lock(&self.closed));
    }

    /// Counts a tag for a shard, and gives the name that all who hold it share.
    pub fn count_tag(&self, shard: &ShardStats, tag: &str) -> Arc<str> {
        let mut counts = lock(&shard.tags);
        if let Some((name, count)) = counts.get_key_value(tag) {
            count.add(1);
            return name.clone();
        }
        let (name, counted) = self.admit_tag(tag);
        counts.entry(counted).or_default().add(1);
        name
    }

    /// The tag's name, and the one that it is counted under.
    fn admit_tag(&self, tag: &str) -> (Arc<str>, Arc<str>) {
        let name: Arc<str> = tag.into();
        loop {
            let known = self.tags.load();
            if let Some(name) = known.get(tag) {
                return (name.clone(), name.clone());
            }
            if known.len() >= MOST_TAGS {
                return (name, OTHER_TAGS.into());
            }
            let more = known.iter().chain([&name]).cloned().collect();
            let before = self.tags.compare_and_swap(&known, Arc::new(more));
            if Arc::ptr_eq(&before, &known) {
                return (name.clone(), name);
            }
        }
    }

    pub fn totals(&self) -> Totals {
        let shards = lock(&self.shards);
        let mut totals = lock(&self.closed).clone();
        shards.iter().for_each(|shard| shard.add_to(&mut totals));
        totals
    }
}

/// A sum over shards, hooks or modules.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    hooks: [HookTotals; Hook::ALL.len()],
    tags: BTreeMap<Arc<str>, u64>,
    pub last_call_ms: u64,
}

#[derive(Debug, Clone, Default)]
struct HookTotals {
    outcomes: [u64; Outcome::ALL.len()],
    seconds: HistogramTotals,
}

impl Totals {
    pub fn add(&mut self, other: &Totals) {
        self.last_call_ms = self.last_call_ms.max(other.last_call_ms);
        for (tag, count) in &other.tags {
            *self.tags.entry(tag.clone()).or_default() += count;
        }
        for (sum, more) in self.hooks.iter_mut().zip(&other.hooks) {
            for (sum, more) in sum.outcomes.iter_mut().zip(&more.outcomes) {
                *sum += more;
            }
            sum.seconds.add(&more.seconds);
        }
    }

    pub fn calls(&self) -> u64 {
        self.hooks.iter().flat_map(|hook| &hook.outcomes).sum()
    }

    pub fn failures(&self) -> u64 {
        self.failures_by_kind().into_values().sum()
    }

    /// Only the kinds that occurred.
    pub fn failures_by_kind(&self) -> BTreeMap<&'static str, u64> {
        let mut kinds = BTreeMap::new();
        for hook in &self.hooks {
            for (outcome, count) in Outcome::ALL.iter().zip(hook.outcomes) {
                if matches!(outcome, Outcome::Failure(_)) && count > 0 {
                    *kinds.entry(outcome.label()).or_default() += count;
                }
            }
        }
        kinds
    }

    /// Times of all calls.
    pub fn seconds(&self) -> HistogramTotals {
        let mut seconds = HistogramTotals::default();
        self.hooks.iter().for_each(|hook| seconds.add(&hook.seconds));
        seconds
    }

    fn expose(&self, exposition: &mut Exposition, module: &str) {
        for (tag, count) in &self.tags {
            let labels = [("module", module), ("tag", &**tag)];
            exposition.counter("smg_wasm_tags_total", "Tags that modules left on requests.", &labels, *count as f64);
        }
        for (hook, totals) in Hook::ALL.iter().zip(&self.hooks) {
            for (outcome, count) in Outcome::ALL.iter().zip(totals.outcomes) {
                if count > 0 {
                    let labels = [("module", module), ("hook", hook.label()), ("outcome", outcome.label())];
                    exposition.counter("smg_wasm_executions_total", "Calls of guests.", &labels, count as f64);
                }
            }
            if totals.seconds.count > 0 {
                let labels = [("module", module), ("hook", hook.label())];
                let help = "Time of a call of a guest, its instantiation included.";
                exposition.histogram("smg_wasm_execution_seconds", help, &labels, &totals.seconds, &MICRO_BUCKETS);
            }
        }
    }
}

/// A module that is counted; dropped when its last guest and the module itself are gone.
pub struct Registration {
    pub stats: Arc<ModuleStats>,
    metrics: Arc<ModuleMetrics>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.metrics.retire(&self.stats);
    }
}

/// The numbers of all modules that are or were deployed.
#[derive(Default)]
pub struct ModuleMetrics(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Modules with a version that is deployed or still finishing a request.
    live: Vec<(String, Arc<ModuleStats>)>,
    /// The sum of those that are gone.
    removed: Totals,
}

impl ModuleMetrics {
    /// The numbers of a module, which are its own until the registration is dropped.
    pub fn register(self: &Arc<Self>, name: &str) -> Arc<Registration> {
        let stats = Arc::new(ModuleStats::default());
        lock(&self.0).live.push((name.to_owned(), stats.clone()));
        Arc::new(Registration { stats, metrics: self.clone() })
    }

    fn retire(&self, stats: &Arc<ModuleStats>) {
        let mut inner = lock(&self.0);
        inner.live.retain(|(_, live)| !Arc::ptr_eq(live, stats));
        let mut totals = stats.totals();
        // Of removed modules the number of tags is not bounded.
        let tags = std::mem::take(&mut totals.tags).into_values().sum();
        if tags > 0 {
            totals.tags.insert(OTHER_TAGS.into(), tags);
        }
        inner.removed.add(&totals);
    }

    /// The sum over all modules there ever were.
    pub fn totals(&self) -> Totals {
        let inner = lock(&self.0);
        let mut totals = inner.removed.clone();
        inner.live.iter().for_each(|(_, stats)| totals.add(&stats.totals()));
        totals
    }

    pub fn expose(&self, exposition: &mut Exposition) {
        let inner = lock(&self.0);
        let mut by_name: BTreeMap<&str, (Totals, [f64; 3])> = BTreeMap::new();
        by_name.insert(REMOVED, (inner.removed.clone(), [0.0; 3]));
        for (name, stats) in &inner.live {
            let (totals, [guests, idle, memory]) = by_name.entry(name).or_default();
            totals.add(&stats.totals());
            *guests += stats.guests.load(Relaxed) as f64;
            *idle += stats.idle_guests.load(Relaxed) as f64;
            *memory += stats.memory_bytes.load(Relaxed) as f64;
        }
        for (name, (totals, [guests, idle, memory])) in by_name {
            totals.expose(exposition, name);
            if name == REMOVED && guests == 0.0 {
                continue;
            }
            for (state, count) in [("busy", guests - idle), ("idle", idle)] {
                let labels = [("module", name), ("state", state)];
                exposition.gauge("smg_wasm_instances", "Guests that exist.", &labels, count);
            }
            let help = "Linear memory of the guests that exist.";
            exposition.gauge("smg_wasm_memory_bytes", help, &[("module", name)], memory);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::outcome::FailureKind;

    #[test]
    fn totals_survive_the_removal_of_a_module() {
        let metrics = Arc::<ModuleMetrics>::default();
        let registration = metrics.register("m");
        let stats = &registration.stats;
        let shard = stats.shard();
        shard.record(Hook::Request, Outcome::Reject, Duration::from_micros(3), 7);
        shard.record(Hook::Response, Outcome::Failure(FailureKind::Trap), Duration::from_micros(3), 9);
        assert_eq!((metrics.totals().calls(), metrics.totals().failures()), (2, 1));
        drop(registration);
        assert_eq!((metrics.totals().calls(), metrics.totals().failures()), (2, 1));
        let mut exposition = Exposition::default();
        metrics.expose(&mut exposition);
        let text = exposition.render();
        assert!(
            text.contains(r#"smg_wasm_executions_total{module="(removed)",hook="on-request",outcome="reject"} 1"#),
            "{text}"
        );
        assert!(!text.contains("module=\"m\""), "{text}");
    }

    #[test]
    fn distinct_tags_are_bounded_over_all_shards() {
        let metrics = Arc::<ModuleMetrics>::default();
        let registration = metrics.register("m");
        let stats = &registration.stats;
        let shards = [stats.shard(), stats.shard()];
        for at in 0..1000 {
            let tag = format!("tag-{at}");
            assert_eq!(*stats.count_tag(&shards[at % 2], &tag), *tag, "the name stays");
            stats.count_tag(&shards[(at + 1) % 2], &tag);
        }
        let tags = stats.totals().tags;
        assert_eq!((tags.len(), tags["tag-0"], tags[OTHER_TAGS]), (MOST_TAGS + 1, 2, 2 * (1000 - MOST_TAGS as u64)));
        drop(registration);
        let mut exposition = Exposition::default();
        metrics.expose(&mut exposition);
        let text = exposition.render();
        assert!(text.contains(r#"smg_wasm_tags_total{module="(removed)",tag="(other)"} 2000"#), "{text}");
    }
}
