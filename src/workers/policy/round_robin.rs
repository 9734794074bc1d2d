//! One candidate after the other.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Whose turn it is; all shards take from the same row, so the shares are exact.
#[derive(Default)]
pub struct RoundRobin(AtomicUsize);

impl RoundRobin {
    pub fn choose(&self, among: &[usize]) -> usize {
        among[self.0.fetch_add(1, Relaxed) % among.len()]
    }
}
