//! How long things took.

use std::fmt;
use std::time::{Duration, Instant};

/// Durations, the shortest first.
pub struct Timings(Vec<Duration>);

impl Timings {
    /// Does something `count` times.
    pub fn of(count: usize, mut work: impl FnMut()) -> Self {
        let mut took: Vec<_> = (0..count)
            .map(|_| {
                let start = Instant::now();
                work();
                start.elapsed()
            })
            .collect();
        took.sort_unstable();
        Timings(took)
    }

    /// Within which four of five were done: what the others took is the machine's doing as well as the gateway's.
    pub fn usual(&self) -> Duration {
        self.at(0.8)
    }

    pub fn slowest(&self) -> Duration {
        self.at(1.0)
    }

    fn at(&self, part: f64) -> Duration {
        self.0[((self.0.len() - 1) as f64 * part).round() as usize]
    }
}

impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "median {:?}, p99 {:?}, slowest {:?}", self.at(0.5), self.at(0.99), self.slowest())
    }
}
