//! A breaker for a module that keeps failing.
//!
//! After [`THRESHOLD`] failures in a row the module is not called for [`REST`]; its failure policy applies
//! to those requests at once. Then one call tries it. Calls that succeed in between start the count anew, so
//! a single poisonous caller does not take a working module away from the others.

use std::cell::Cell;
use std::time::{Duration, Instant};

const THRESHOLD: u32 = 50;
const REST: Duration = Duration::from_secs(1);

/// The breaker of one module on one shard.
#[derive(Default)]
pub struct Breaker {
    failures_in_a_row: Cell<u32>,
    resting_until: Cell<Option<Instant>>,
}

impl Breaker {
    /// Whether a call may be made now. When the rest is over, one call is let through to try.
    pub fn admits(&self, now: impl FnOnce() -> Instant) -> bool {
        let Some(until) = self.resting_until.get() else { return true };
        let now = now();
        if now < until {
            return false;
        }
        self.resting_until.set(Some(now + REST));
        true
    }

    pub fn succeeded(&self) {
        self.failures_in_a_row.set(0);
        self.resting_until.set(None);
    }

    pub fn failed(&self, now: Instant) {
        let failures = self.failures_in_a_row.get().saturating_add(1);
        self.failures_in_a_row.set(failures);
        if failures >= THRESHOLD {
            self.resting_until.set(Some(now + REST));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_after_many_failures_in_a_row_and_tries_one_call() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        (0..THRESHOLD).for_each(|_| breaker.failed(start));
        assert!(!breaker.admits(|| start + REST / 2));
        assert!(breaker.admits(|| start + REST), "one call tries");
        assert!(!breaker.admits(|| start + REST), "only one");
        breaker.succeeded();
        assert!(breaker.admits(|| start + REST));
    }

    #[test]
    fn a_success_in_between_starts_the_count_anew() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..10 {
            (1..THRESHOLD).for_each(|_| breaker.failed(start));
            breaker.succeeded();
        }
        assert!(breaker.admits(|| start));
    }
}
