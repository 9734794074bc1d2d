//! How many requests the whole gateway, or the holder of one key, may have in flight: a permit for each, and a
//! bounded queue for those that have to wait for one.
//!
//! Shards share it. Taking a permit while some are left is one compare-and-swap; giving one back while nobody waits is
//! one subtraction. Only those that wait, and those that give back while others wait, take a lock, for the time of
//! one step in a map; tasks are woken after it is released.
//!
//! One atomic word counts both the permits in use and the waiters. A request joins the queue by a compare-and-swap on
//! that word, so that a permit given back at the same moment either is seen by the newcomer or sees them: no
//! wake-up is lost between two variables. While anybody waits, nobody gets past the queue.
//!
//! First come, first served. To serve the newest first would answer more requests in time under a long
//! overload, but this queue is short and bounded, no worker has spent time on what is in it, and a client
//! that waited for most of its time would be the one to lose.

mod wait;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::metrics::Counter;

pub use self::wait::Wait;

const ONE_IN_FLIGHT: u64 = 1;
const ONE_WAITING: u64 = 1 << 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionSettings {
    /// Requests in flight at a time; with 0 nothing is admitted.
    pub limit: u32,
    /// Requests that may wait; with 0 none waits.
    pub queue: u32,
}

/// Why a request was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    #[error("too many requests are in flight, and too many wait")]
    QueueFull,
    #[error("the request waited for too long")]
    QueueTimeout,
}

/// What one shard's requests met with. Each shard writes its own; the sum is what is shown.
#[derive(Debug, Default)]
pub struct AdmissionCounts {
    /// Admitted without waiting.
    pub at_once: Counter,
    /// Had to wait, whatever came of it.
    pub queued: Counter,
    pub queue_full: Counter,
    pub queue_timeout: Counter,
}

/// What a request gets.
#[must_use]
pub enum Entry {
    Admitted(Permit),
    /// Its place in the queue.
    Queued(Wait),
}

/// A limit on requests in flight.
#[derive(Debug)]
pub struct Admission {
    /// Permits in use in the lower half, waiters in the upper. The waiters change only under the queue's lock.
    word: AtomicU64,
    /// Written only under the queue's lock.
    limit: AtomicU32,
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    /// By number, the first to come first. One without a waker has not been polled yet.
    waiters: BTreeMap<u64, Option<Waker>>,
    next: u64,
    capacity: u32,
}

impl Admission {
    pub fn new(settings: AdmissionSettings) -> Arc<Self> {
        let queue = Queue { waiters: BTreeMap::new(), next: 0, capacity: settings.queue };
        let (word, limit) = (AtomicU64::new(0), AtomicU32::new(settings.limit));
        Arc::new(Self { word, limit, queue: Mutex::new(queue) })
    }

    /// A permit if one is left and nobody waits for it.
    pub fn try_enter(self: &Arc<Self>) -> Option<Permit> {
        let mut word = self.word.load(Relaxed);
        while has_room(word, self.limit.load(Relaxed)) {
            match self.word.compare_exchange_weak(word, word + ONE_IN_FLIGHT, AcqRel, Relaxed) {
                Ok(_) => return Some(Permit(self.clone())),
                Err(newer) => word = newer,
            }
        }
        None
    }

    /// A permit, or else a place in the queue. Fails with [`AdmissionError::QueueFull`] only.
    pub fn enter(self: &Arc<Self>, counts: &AdmissionCounts) -> Result<Entry, AdmissionError> {
        let entry = match self.try_enter() {
            Some(permit) => Some(Entry::Admitted(permit)),
            None => self.join(),
        };
        match &entry {
            Some(Entry::Admitted(_)) => counts.at_once.add(1),
            Some(Entry::Queued(_)) => counts.queued.add(1),
            None => counts.queue_full.add(1),
        }
        entry.ok_or(AdmissionError::QueueFull)
    }

    /// Joins the queue, unless there turns out to be a permit; `None` if it is full.
    fn join(self: &Arc<Self>) -> Option<Entry> {
        let mut queue = self.lock();
        let limit = self.limit.load(Relaxed);
        let mut word = self.word.load(Relaxed);
        loop {
            let admits = has_room(word, limit);
            if !admits && waiting(word) >= queue.capacity {
                return None;
            }
            let step = if admits { ONE_IN_FLIGHT } else { ONE_WAITING };
            match self.word.compare_exchange_weak(word, word + step, AcqRel, Relaxed) {
                Ok(_) if admits => return Some(Entry::Admitted(Permit(self.clone()))),
                Ok(_) => return Some(Entry::Queued(Wait::new(self.clone(), queue.push()))),
                Err(newer) => word = newer,
            }
        }
    }

    /// Changes the limits while they are in use. What is in flight stays so and what waits goes on waiting,
    /// whatever the new limits say; a higher limit admits those that wait.
    pub fn set(&self, settings: AdmissionSettings) {
        let mut queue = self.lock();
        queue.capacity = settings.queue;
        self.limit.store(settings.limit, Relaxed);
        drop(queue);
        self.hand_over();
    }

    pub fn in_flight(&self) -> u32 {
        in_flight(self.word.load(Relaxed))
    }

    /// The depth of the queue.
    pub fn waiting(&self) -> u32 {
        waiting(self.word.load(Relaxed))
    }

    fn release(&self) {
        let before = self.word.fetch_sub(ONE_IN_FLIGHT, AcqRel);
        if waiting(before) > 0 {
            self.hand_over();
        }
    }

    /// Gives the permits that are left to the first in the queue.
    fn hand_over(&self) {
        loop {
            let mut queue = self.lock();
            let limit = self.limit.load(Relaxed);
            // It may fall meanwhile, but not rise: nobody else is admitted while somebody waits.
            if in_flight(self.word.load(Acquire)) >= limit {
                return;
            }
            let Some((_, waker)) = queue.waiters.pop_first() else { return };
            let before = self.word.fetch_sub(ONE_WAITING - ONE_IN_FLIGHT, AcqRel);
            let is_done = queue.waiters.is_empty() || in_flight(before) + 1 >= limit;
            drop(queue);
            if let Some(waker) = waker {
                waker.wake();
            }
            if is_done {
                return;
            }
        }
    }

    /// Under it wakers are cloned, but neither woken nor dropped: that may run the code of others, and come back here.
    /// Nothing panics halfway through a step, so a poisoned lock still holds a whole queue.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiters.insert(number, None);
        number
    }
}

fn has_room(word: u64, limit: u32) -> bool {
    waiting(word) == 0 && in_flight(word) < limit
}

fn in_flight(word: u64) -> u32 {
    word as u32
}

fn waiting(word: u64) -> u32 {
    (word >> 32) as u32
}

/// The right to have one request in flight; it ends when this is dropped, which is when the body ends.
#[derive(Debug)]
#[must_use]
pub struct Permit(Arc<Admission>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Seconds for `Retry-After`, 1 to 30, for a request that is refused while `waiting` others are in the queue: the
/// time in which as many finish, or a guess of 5 when none has finished lately. `random` (0 to 1) stretches it by
/// up to a half, so that the refused don't all come back together.
pub fn retry_after(waiting: u32, finished_per_second: f64, random: f64) -> u64 {
    const MOST: f64 = 30.0;
    const GUESS: f64 = 5.0;
    let rate_is_known = finished_per_second > 0.0;
    let expected = if rate_is_known { (f64::from(waiting) + 1.0) / finished_per_second } else { GUESS };
    (expected.min(MOST) * (1.0 + random / 2.0)).ceil().clamp(1.0, MOST) as u64
}

#[cfg(test)]
mod tests;
