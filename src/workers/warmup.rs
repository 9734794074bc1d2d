//! Slow start: a worker that came back gets its share of the requests little by little, so that cold caches
//! and compilers are not met by everything that its neighbours had to carry meanwhile.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The share of its full weight that a worker begins with.
const LEAST: f64 = 0.1;

/// Where one worker is in its slow start; shared by all shards.
#[derive(Debug)]
pub struct Warmup {
    slow_start: Duration,
    base: Instant,
    /// Nanoseconds after `base`, plus one; 0 while the worker has never come back.
    started: AtomicU64,
}

impl Warmup {
    /// A worker with its full weight. It takes `slow_start` to warm up; with zero it always is warm.
    pub fn new(slow_start: Duration) -> Self {
        Self { slow_start, base: Instant::now(), started: AtomicU64::new(0) }
    }

    /// The worker is back. Not for the first time it joins: at the gateway's start all workers are equally
    /// cold, and there is nobody else to carry their share.
    pub fn start(&self, now: Instant) {
        let since = now.saturating_duration_since(self.base).as_nanos();
        self.started.store(u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1), Relaxed);
    }

    /// From a tenth, when it came back, evenly up to 1.
    pub fn weight(&self, now: Instant) -> f64 {
        let started = self.started.load(Relaxed);
        if started == 0 || self.slow_start.is_zero() {
            return 1.0;
        }
        let warm_for = now.saturating_duration_since(self.base + Duration::from_nanos(started - 1));
        (LEAST + (1.0 - LEAST) * warm_for.div_duration_f64(self.slow_start)).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_grows_evenly_from_a_tenth_each_time_the_worker_comes_back() {
        let warmup = Warmup::new(Duration::from_secs(30));
        let at = |seconds| warmup.base + Duration::from_secs(seconds);
        assert_eq!(warmup.weight(at(5)), 1.0, "it has not been away");
        for back in [0, 10, 1000] {
            warmup.start(at(back));
            let weights = [0, 10, 20, 30, 500].map(|later| (warmup.weight(at(back + later)) * 100.0).round());
            assert_eq!(weights, [10.0, 40.0, 70.0, 100.0, 100.0]);
        }
        assert_eq!(warmup.weight(at(0)), LEAST, "an earlier look than the start is none");
    }

    #[test]
    fn without_a_slow_start_it_is_warm_at_once() {
        let warmup = Warmup::new(Duration::ZERO);
        warmup.start(warmup.base);
        assert_eq!(warmup.weight(warmup.base), 1.0);
    }
}
