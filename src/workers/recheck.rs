//! How a request that could not reach a worker has that worker checked at once.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::Notify;

/// Written by all shards, waited for by the task that checks the worker. Only requests that failed touch it.
#[derive(Default)]
pub struct Recheck {
    is_asked: AtomicBool,
    asked: Notify,
}

impl Recheck {
    /// Asks for a check. While one is asked for already, that is one read.
    pub fn ask(&self) {
        if !self.is_asked.load(Relaxed) && !self.is_asked.swap(true, Relaxed) {
            self.asked.notify_one();
        }
    }

    /// Waits until a check is asked for. It stays asked for until [`Recheck::take`].
    pub async fn asked(&self) {
        while !self.is_asked.load(Relaxed) {
            self.asked.notified().await;
        }
    }

    /// A check begins: whether it was asked for.
    pub fn take(&self) -> bool {
        self.is_asked.swap(false, Relaxed)
    }
}
