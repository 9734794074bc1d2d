//! Balancing policies: which of the candidates takes the next request. `docs/balancing.md` says when to choose which.
//!
//! A [`Balancer`] has two halves. What a policy has learnt (whose turn it is, who has read which prompt) is atomics
//! behind an `Arc`: all shards share it, and it outlives the pool. What follows from the pool's workers (rings,
//! numbers) is immutable and made by [`Balancer::over`] when the pool is made, never by a request. No policy takes a
//! lock.

mod blocks;
mod bucket;
mod cache_aware;
mod consistent_hashing;
mod hash;
mod least_load;
mod manual;
mod passthrough;
mod power_of_two;
mod prefix_hash;
mod random;
mod ring;
mod roster;
mod round_robin;
mod spill;
mod table;

use std::sync::Arc;
use std::time::Duration;

use self::bucket::Bucket;
use self::cache_aware::CacheAware;
use self::manual::Manual;
use self::ring::Ring;
use self::roster::Roster;
use self::round_robin::RoundRobin;
use crate::config::Policy;

/// What a policy may look at, of one request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask<'a> {
    /// `X-SMG-Routing-Key`.
    pub routing_key: Option<&'a [u8]>,
    /// `X-SMG-Target-Worker`: a position in the pool.
    pub target: Option<usize>,
    /// The prompt as [`crate::prompt`] reads it.
    pub prompt: Option<&'a str>,
    /// Time since an instant that stays the same for the balancer's life.
    pub now: Duration,
}

/// What the policies can be told.
#[derive(Debug, Clone)]
pub struct PolicySettings {
    /// `cache_aware`: the least share of a prompt that a worker must have read before to be preferred, 0 to 1.
    pub cache_threshold: f64,
    /// `cache_aware`, `bucket`: a worker whose load exceeds the mean by this many requests, and by
    /// `balance_rel_threshold` times, is passed over for the least loaded one.
    pub balance_abs_threshold: f64,
    pub balance_rel_threshold: f64,
    /// `cache_aware`: bytes of memory for what workers have read. The system gives them as they are used.
    pub cache_bytes: usize,
    /// `manual`: time without a request after which a routing key is forgotten, at most 48 days.
    pub manual_idle: Duration,
}

impl Default for PolicySettings {
    fn default() -> Self {
        Self {
            cache_threshold: 0.3,
            balance_abs_threshold: 64.0,
            balance_rel_threshold: 1.5,
            cache_bytes: 8 << 20,
            manual_idle: Duration::from_secs(14_400),
        }
    }
}

/// A policy with what it has learnt and what it knows of a pool's workers. Clones share what they learn.
#[derive(Clone)]
pub struct Balancer(State);

#[derive(Clone)]
enum State {
    Passthrough,
    Random,
    RoundRobin(Arc<RoundRobin>),
    PowerOfTwo,
    LeastLoad,
    ConsistentHashing(Arc<Ring>),
    PrefixHash(Arc<Ring>),
    Manual(Arc<Manual>, Arc<Roster>),
    Bucket(Arc<Bucket>),
    CacheAware(Arc<CacheAware>, Arc<Roster>),
}

impl Balancer {
    /// A balancer that knows no workers yet: see [`Balancer::over`].
    pub fn new(policy: Policy, settings: &PolicySettings) -> Self {
        Self(match policy {
            Policy::Passthrough => State::Passthrough,
            Policy::Random => State::Random,
            Policy::RoundRobin => State::RoundRobin(Arc::default()),
            Policy::PowerOfTwo => State::PowerOfTwo,
            Policy::LeastLoad => State::LeastLoad,
            Policy::ConsistentHashing => State::ConsistentHashing(Arc::default()),
            Policy::PrefixHash => State::PrefixHash(Arc::default()),
            Policy::Manual => State::Manual(Arc::new(Manual::new(settings)), Arc::default()),
            Policy::Bucket => State::Bucket(Arc::new(Bucket::new(settings))),
            Policy::CacheAware => State::CacheAware(Arc::new(CacheAware::new(settings)), Arc::default()),
        })
    }

    /// The same balancer for a pool of these workers. A key is a worker's own: it survives changes of the pool and is
    /// the same on every gateway. Cheap when the workers are those of before; otherwise it may sort a ring.
    #[must_use]
    pub fn over(&self, keys: &[u64]) -> Self {
        Self(match &self.0 {
            State::ConsistentHashing(ring) => State::ConsistentHashing(Ring::renewed(ring, keys)),
            State::PrefixHash(ring) => State::PrefixHash(Ring::renewed(ring, keys)),
            State::Manual(manual, roster) => State::Manual(manual.clone(), Roster::renewed(roster, keys)),
            State::CacheAware(cache, roster) => State::CacheAware(cache.clone(), Roster::renewed(roster, keys)),
            others => others.clone(),
        })
    }

    /// Whether [`Ask::prompt`] is looked at: if not, nobody needs to read the body.
    pub fn needs_prompt(&self) -> bool {
        matches!(self.0, State::PrefixHash(_) | State::Bucket(_) | State::CacheAware(..))
    }

    /// Whether [`Ask::routing_key`] is looked at.
    pub fn needs_key(&self) -> bool {
        matches!(self.0, State::ConsistentHashing(_) | State::Manual(..))
    }

    /// Chooses one of `among`, ascending positions in the pool; `None` if there is none. `load` says how many requests
    /// the worker at a position has in flight, scaled up while it warms up.
    pub fn choose(&self, ask: &Ask, among: &[usize], load: impl Fn(usize) -> f64) -> Option<usize> {
        match among {
            [] => None,
            [only] => Some(*only),
            _ => Some(self.choose_of_many(ask, among, &load)),
        }
    }

    /// `among` has two or more.
    fn choose_of_many(&self, ask: &Ask, among: &[usize], load: &impl Fn(usize) -> f64) -> usize {
        match &self.0 {
            State::Passthrough => passthrough::choose(among),
            State::Random => random::choose(among),
            State::RoundRobin(turn) => turn.choose(among),
            State::PowerOfTwo => power_of_two::choose(among, load),
            State::LeastLoad => least_load::choose(among, load),
            State::ConsistentHashing(ring) => consistent_hashing::choose(ring, ask, among, load),
            State::PrefixHash(ring) => prefix_hash::choose(ring, ask, among, load),
            State::Manual(manual, roster) => manual.choose(roster, ask, among, load),
            State::Bucket(bucket) => bucket.choose(ask, among, load),
            State::CacheAware(cache, roster) => cache.choose(roster, ask, among, load),
        }
    }
}

#[cfg(test)]
mod tests;
