//! Slow start: a worker that came back gets its share of the requests little by little, so that cold caches
//! and compilers are not met by everything that its neighbours had to carry meanwhile.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The share of its full weight that a worker begins with.
const LEAST: f64 = 0.1;

/// Where one worker is in its slow start; shared by all shards.
#[derive(Debug)]
pub struct Warmup {
    base: Instant,
    /// Nanoseconds after `base`, plus one; 0 while the worker has never come back.
    started: AtomicU64,
}

impl Warmup {
    /// A worker with its full weight.
    pub fn new() -> Self {
        Self { base: Instant::now(), started: AtomicU64::new(0) }
    }

    /// The worker is back. Not for the first time it joins: at the gateway's start all workers are equally
    /// cold, and there is nobody else to carry their share.
    pub fn start(&self, now: Instant) {
        let since = now.saturating_duration_since(self.base).as_nanos();
        self.started.store(u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1), Relaxed);
    }

    /// From a tenth, when it came back, evenly up to 1 after `slow_start`; with zero it always is warm.
    pub fn weight(&self, now: Instant, slow_start: Duration) -> f64 {
        let started = self.started.load(Relaxed);
        if started == 0 || slow_start.is_zero() {
            return 1.0;
        }
        let warm_for = now.saturating_duration_since(self.base + Duration::from_nanos(started - 1));
        (LEAST + (1.0 - LEAST) * warm_for.div_duration_f64(slow_start)).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_grows_evenly_from_a_tenth_each_time_the_worker_comes_back() {
        let (warmup, slow_start) = (Warmup::new(), Duration::from_secs(30));
        let at = |seconds| warmup.base + Duration::from_secs(seconds);
        let weight = |seconds| warmup.weight(at(seconds), slow_start);
        assert_eq!(weight(5), 1.0, "it has not been away");
        for back in [0, 10, 1000] {
            warmup.start(at(back));
            let weights = [0, 10, 20, 30, 500].map(|later| (weight(back + later) * 100.0).round());
            assert_eq!(weights, [10.0, 40.0, 70.0, 100.0, 100.0]);
        }
        assert_eq!(weight(0), LEAST, "an earlier look than the start is none");
    }

    #[test]
    fn without_a_slow_start_it_is_warm_at_once() {
        let warmup = Warmup::new();
        warmup.start(warmup.base);
        assert_eq!(warmup.weight(warmup.base, Duration::ZERO), 1.0);
    }
}
