//! Fixed windows, one for each caller, from its first request on.
//!
//! All windows are equally long, so the order in which they start is the order in which they end: a queue beside the
//! map is all that is needed to drop them, and a caller is in the map exactly while its window lasts.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};

/// Requests that one caller may send in one window.
const REQUESTS: u32 = 60;
const WINDOW_MS: u64 = 60_000;
/// Callers remembered; past it the oldest window is forgotten, and its caller starts anew.
const CALLERS: usize = 10_000;

/// A caller is kept as a keyed hash: its own text may be long, and guest memory is small.
type CallerHash = u64;

#[derive(Default)]
pub struct Limiter {
    hasher: RandomState,
    used: HashMap<CallerHash, u32>,
    oldest_first: VecDeque<Window>,
    latest_ms: u64,
}

struct Window {
    caller: CallerHash,
    start_ms: u64,
}

impl Limiter {
    /// Counts a request at `now_ms` and says whether it is within the caller's budget. What is refused does not
    /// count, so a caller is let in again when its window ends, however often it tried.
    pub fn admits(&mut self, caller: impl Hash, now_ms: u64) -> bool {
        let now_ms = self.follow_clock(now_ms);
        self.forget_ended(now_ms);
        let caller = self.hasher.hash_one(caller);
        if let Some(used) = self.used.get_mut(&caller) {
            let within = *used < REQUESTS;
            *used += u32::from(within);
            return within;
        }
        if self.used.len() == CALLERS {
            self.forget_oldest();
        }
        self.used.insert(caller, 1);
        self.oldest_first.push_back(Window {
            caller,
            start_ms: now_ms,
        });
        true
    }

    /// The wall clock may be set back. A little is taken as no time passing; after more than a window, nothing that
    /// is remembered means anything, and keeping it would lock callers out until the old time comes again.
    fn follow_clock(&mut self, now_ms: u64) -> u64 {
        if self.latest_ms.saturating_sub(now_ms) > WINDOW_MS {
            self.used.clear();
            self.oldest_first.clear();
            self.latest_ms = now_ms;
        }
        self.latest_ms = self.latest_ms.max(now_ms);
        self.latest_ms
    }

    fn forget_ended(&mut self, now_ms: u64) {
        while self
            .oldest_first
            .front()
            .is_some_and(|window| now_ms - window.start_ms >= WINDOW_MS)
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(window) = self.oldest_first.pop_front() {
            self.used.remove(&window.caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000_000;

    #[test]
    fn the_sixty_first_in_a_minute_is_refused() {
        let mut limiter = Limiter::default();
        for n in 0..60 {
            assert!(limiter.admits("a", START + n * 900), "request {n}");
        }
        assert!(!limiter.admits("a", START + 59_999));
        assert!(
            limiter.admits("b", START + 59_999),
            "another caller has a budget of its own"
        );
    }

    #[test]
    fn a_new_minute_is_a_new_budget() {
        let mut limiter = Limiter::default();
        (0..100).for_each(|_| {
            limiter.admits("a", START);
        });
        assert!(!limiter.admits("a", START + 59_999));
        let admitted = (0..100)
            .filter(|_| limiter.admits("a", START + 60_000))
            .count();
        assert_eq!(admitted, 60);
    }

    #[test]
    fn callers_are_bounded_and_the_oldest_goes_first() {
        let mut limiter = Limiter::default();
        for caller in 0..10_000 {
            for _ in 0..60 {
                assert!(limiter.admits(caller, START + caller));
            }
        }
        assert!(limiter.admits("one more", START + 10_000));
        assert_eq!(limiter.used.len(), CALLERS);
        assert_eq!(limiter.oldest_first.len(), CALLERS);
        assert!(
            !limiter.admits(1_u64, START + 10_000),
            "the second oldest is still known"
        );
        assert!(
            limiter.admits(0_u64, START + 10_000),
            "the oldest was forgotten"
        );
    }

    #[test]
    fn ended_windows_leave_no_trace() {
        let mut limiter = Limiter::default();
        for caller in 0..500 {
            limiter.admits(caller, START);
        }
        limiter.admits("a", START + WINDOW_MS);
        assert_eq!(limiter.used.len(), 1);
        assert_eq!(limiter.oldest_first.len(), 1);
    }

    #[test]
    fn a_clock_set_back_locks_nobody_out() {
        let mut limiter = Limiter::default();
        (0..60).for_each(|_| {
            limiter.admits("a", START);
        });
        assert!(
            !limiter.admits("a", START - 5_000),
            "a small step back gives no new budget"
        );
        assert!(!limiter.admits("a", START + 59_999));
        assert!(
            limiter.admits("a", START - 3_600_000),
            "an hour back starts over"
        );
    }
}
