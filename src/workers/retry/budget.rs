//! How many retries a shard may add to its requests: when most workers are down, retries must not be the load
//! that takes the rest down.

use std::cell::Cell;
use std::num::NonZeroU16;
use std::time::Instant;

/// Seconds that are looked back on.
const WINDOW: usize = 10;
/// Of so many requests one may be retried once.
const ONE_IN: u64 = 5;
/// Retries in a window that the whole gateway may make however few requests it has: 3 a second.
const FLOOR: u64 = 3 * WINDOW as u64;
/// Of these each shard has at least so many, or on a machine with many cores a shard with one request now and then
/// could never retry it.
const SHARD_FLOOR: u64 = 3;

/// The budget of one shard: over ten seconds a fifth of the requests, or the shard's part of the floor if
/// that is more. The larger of the two and not their sum: a fifth is meant as a bound.
#[derive(Debug)]
pub struct Budget {
    base: Instant,
    floor: u64,
    /// The current second, in seconds after `base`.
    second: Cell<u64>,
    /// One for each second of the window; `second % WINDOW` is the current one.
    past: [Second; WINDOW],
    /// The sum of `past`.
    all: Second,
}

#[derive(Debug, Default)]
struct Second {
    requests: Cell<u64>,
    retries: Cell<u64>,
}

impl Budget {
    /// For one of `shards` shards.
    pub fn new(shards: NonZeroU16) -> Self {
        Self {
            base: Instant::now(),
            floor: (FLOOR / u64::from(shards.get())).max(SHARD_FLOOR),
            second: Cell::new(0),
            past: Default::default(),
            all: Second::default(),
        }
    }

    /// A request begins; its retries are not requests of their own.
    pub fn request(&self, now: Instant) {
        add(&self.current(now).requests, 1);
        add(&self.all.requests, 1);
    }

    /// Takes one retry from the budget; `false` when there is none left.
    pub fn take(&self, now: Instant) -> bool {
        let current = self.current(now);
        if self.all.retries.get() >= (self.all.requests.get() / ONE_IN).max(self.floor) {
            return false;
        }
        add(&current.retries, 1);
        add(&self.all.retries, 1);
        true
    }

    /// Forgets what has left the window, at most ten seconds of it.
    fn current(&self, now: Instant) -> &Second {
        let second = now.saturating_duration_since(self.base).as_secs();
        let last = self.second.get();
        if second > last {
            for gone in (last + 1..=second).take(WINDOW) {
                let gone = self.slot(gone);
                self.all.requests.set(self.all.requests.get() - gone.requests.take());
                self.all.retries.set(self.all.retries.get() - gone.retries.take());
            }
            self.second.set(second);
        }
        self.slot(second.max(last))
    }

    fn slot(&self, second: u64) -> &Second {
        &self.past[(second % WINDOW as u64) as usize]
    }
}

fn add(cell: &Cell<u64>, by: u64) {
    cell.set(cell.get() + by);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn budget(shards: u16) -> Budget {
        Budget::new(NonZeroU16::new(shards).expect("not zero"))
    }

    /// Requests come evenly, and each wants `wanted` retries. The retries of each second.
    fn retries(budget: &Budget, per_second: u64, wanted: u64, seconds: u64) -> Vec<u64> {
        let second = |second| {
            let moments = (0..per_second).map(|at| {
                let now =
                    budget.base + Duration::from_secs(second) + Duration::from_secs(1) / per_second as u32 * at as u32;
                budget.request(now);
                (0..wanted).filter(|_| budget.take(now)).count() as u64
            });
            moments.sum()
        };
        (0..seconds).map(second).collect()
    }

    #[test]
    fn a_storm_gets_a_fifth_on_any_number_of_shards() {
        for (shards, per_second) in [(1, 100), (2, 50), (5, 20), (20, 5)] {
            let all: u64 = (0..shards).map(|_| retries(&budget(shards), per_second, 4, 60).iter().sum::<u64>()).sum();
            assert!((1000..=1200).contains(&all), "{shards} shards: {all} of 6000");
        }
    }

    #[test]
    fn a_quiet_shard_can_retry_and_a_burst_of_failures_has_an_end() {
        assert_eq!(retries(&budget(2), 1, 1, 30), [1; 30]);
        assert_eq!(retries(&budget(64), 1, 4, 12), [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0]);
    }

    #[test]
    fn what_was_before_the_window_counts_no_more() {
        let budget = budget(1);
        let at = |second| budget.base + Duration::from_secs(second);
        (0..1000).for_each(|_| budget.request(at(3)));
        assert!((0..200).all(|_| budget.take(at(12))), "nine seconds later it counts");
        assert!(!budget.take(at(12)));
        assert_eq!((0..100).filter(|_| budget.take(at(22))).count(), 30, "the floor again");
        assert!(!budget.take(at(2)), "a clock that goes back finds the present");
        assert!(budget.take(at(1_000_000)), "a long rest");
    }
}
