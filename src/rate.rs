//! A token bucket as one atomic word: requests per second, with a burst. A token is a request.
//!
//! It is the generic cell rate algorithm of ATM (ITU-T I.371): instead of a number of tokens the word holds the
//! time at which the bucket will be full again. Taking a token moves that time on by one interval; a bucket that
//! would need longer than its burst is empty. Nothing has to be refilled, and a refusal writes nothing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A rate that all shards share.
#[derive(Debug)]
pub struct Rate {
    base: Instant,
    /// Nanoseconds for one token to come back.
    interval: AtomicU64,
    /// Nanoseconds for a whole burst to come back.
    depth: AtomicU64,
    /// When the bucket is full, in nanoseconds after `base`.
    full_at: AtomicU64,
}

impl Rate {
    /// A full bucket of `burst` tokens (at least one) that gets `per_second` new ones: from one in eleven days
    /// to one in a nanosecond. Anything else, NaN too, counts as the nearest of these.
    pub fn new(per_second: f64, burst: u32) -> Self {
        let (interval, depth) = intervals(per_second, burst);
        Self {
            base: Instant::now(),
            interval: AtomicU64::new(interval),
            depth: AtomicU64::new(depth),
            full_at: AtomicU64::new(0),
        }
    }

    /// The same with a burst of what comes in one second, rounded up.
    pub fn per_second(per_second: f64) -> Self {
        Self::new(per_second, per_second.ceil() as u32)
    }

    /// Changes the rate while it is used. Nobody waits longer than the new rate's own burst takes.
    pub fn set(&self, per_second: f64, burst: u32, now: Instant) {
        let (interval, depth) = intervals(per_second, burst);
        self.interval.store(interval, Relaxed);
        self.depth.store(depth, Relaxed);
        self.full_at.fetch_min(self.ns(now).saturating_add(depth), Relaxed);
    }

    /// Takes one token. `Err` is the time until there is one again, if nobody else takes it.
    pub fn take(&self, now: Instant) -> Result<(), Duration> {
        let now = self.ns(now);
        let (interval, depth) = (self.interval.load(Relaxed), self.depth.load(Relaxed));
        let mut full_at = self.full_at.load(Relaxed);
        loop {
            let next = full_at.max(now).saturating_add(interval);
            let latest = now.saturating_add(depth);
            if next > latest {
                return Err(Duration::from_nanos(next - latest));
            }
            match self.full_at.compare_exchange_weak(full_at, next, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(newer) => full_at = newer,
            }
        }
    }

    fn ns(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.base).as_nanos()).unwrap_or(u64::MAX)
    }
}

fn intervals(per_second: f64, burst: u32) -> (u64, u64) {
    let per_second = if per_second > 1e-6 { per_second.min(1e9) } else { 1e-6 };
    let interval = (1e9 / per_second).round() as u64;
    (interval, interval.saturating_mul(u64::from(burst.max(1))))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn taken(rate: &Rate, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| rate.take(now).is_ok()).count()
    }

    #[test]
    fn a_burst_then_the_rate_and_how_long_to_wait() {
        let rate = Rate::new(4.0, 10);
        let start = rate.base;
        assert_eq!(taken(&rate, start, 100), 10);
        assert_eq!(rate.take(start), Err(SECOND / 4));
        assert_eq!(rate.take(start + SECOND / 8), Err(SECOND / 8));
        assert_eq!(rate.take(start + SECOND / 4), Ok(()));
        let steady = (2..=41).map(|quarter| taken(&rate, start + SECOND / 4 * quarter, 5)).sum::<usize>();
        assert_eq!(steady, 40, "refusals cost nothing");
        assert_eq!(taken(&rate, start + 3600 * SECOND, 100), 10, "no more than a burst is saved up");
    }

    #[test]
    fn without_a_burst_of_its_own_it_is_what_comes_in_a_second_and_at_least_one() {
        for (per_second, burst) in [(0.01, 1), (1.0, 1), (2.1, 3), (40.0, 40)] {
            let rate = Rate::per_second(per_second);
            assert_eq!(taken(&rate, rate.base, 100), burst, "{per_second}");
        }
    }

    #[test]
    fn a_new_rate_holds_at_once_both_ways() {
        let rate = Rate::new(1.0 / 60.0, 60);
        let start = rate.base;
        assert_eq!(taken(&rate, start, 100), 60);
        rate.set(100.0, 50, start);
        assert_eq!(rate.take(start), Err(SECOND / 100), "an hour's debt is not kept");
        assert_eq!(taken(&rate, start + SECOND, 1000), 50);
        rate.set(1.0, 1, start + SECOND);
        assert_eq!(rate.take(start + SECOND), Err(SECOND / 2), "the time of what was taken before stays");
    }

    #[test]
    fn nonsense_is_slow_and_never_free() {
        for nonsense in [f64::NAN, -1.0, 0.0, f64::NEG_INFINITY] {
            let rate = Rate::new(nonsense, 0);
            assert_eq!(taken(&rate, rate.base, 5), 1, "{nonsense}");
            assert!(rate.take(rate.base).is_err_and(|wait| wait > 3600 * SECOND), "{nonsense}");
        }
        assert_eq!(taken(&Rate::per_second(f64::NAN), Instant::now(), 5), 1);
        let rate = Rate::new(f64::INFINITY, u32::MAX);
        assert_eq!(taken(&rate, rate.base, 1000), 1000);
    }

    #[test]
    fn threads_together_get_the_burst_and_no_more() {
        let rate = Rate::new(0.001, 200_000);
        let together = Barrier::new(4);
        let count = || {
            together.wait();
            taken(&rate, rate.base, 100_000)
        };
        let sum: usize = thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(count));
            threads.map(|thread| thread.join().expect("no panic")).iter().sum()
        });
        assert_eq!(sum, 200_000);
    }
}
