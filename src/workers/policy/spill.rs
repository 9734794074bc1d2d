//! When a worker has so much more to do than the others that its advantages no longer count.

use super::PolicySettings;
use super::least_load::Survey;

/// A worker is overloaded when its load exceeds the mean by `abs` requests and by `rel` times.
#[derive(Debug, Clone, Copy)]
pub struct Spill {
    abs: f64,
    rel: f64,
}

impl Spill {
    pub fn new(settings: &PolicySettings) -> Self {
        Self { abs: settings.balance_abs_threshold, rel: settings.balance_rel_threshold }
    }

    /// The worker at `at`, which has this `load`, or the least loaded one in its place.
    pub fn relieve(self, at: usize, load: f64, survey: &Survey) -> usize {
        let overloaded = load - survey.mean() > self.abs && load > survey.mean() * self.rel;
        if overloaded { survey.least } else { at }
    }
}
