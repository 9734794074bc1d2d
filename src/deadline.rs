//! Coarse deadlines: one sweep per shard instead of a timer per connection and per request.
//!
//! Arming or moving a deadline writes one cell. The sweep sleeps until the earliest deadline it
//! knows of, so a deadline fires at most [`GRAIN`] late and never early; because most deadlines move away
//! before they are due, sweeps are rare. A `tokio` timer for each would cost a wheel insertion and removal
//! per request for an event that almost never happens.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::sync::Notify;

/// The shortest time between two sweeps.
const GRAIN: Duration = Duration::from_millis(10);

/// The deadlines of one shard.
#[derive(Clone, Default)]
pub struct Deadlines(Rc<Table>);

#[derive(Default)]
struct Table {
    entries: RefCell<Slab<Entry>>,
    /// When the next sweep is due.
    next: Cell<Option<Instant>>,
    moved_forward: Notify,
    /// Entries whose tasks want to look at the world again before long.
    restless: Cell<usize>,
}

#[derive(Default)]
struct Entry {
    at: Option<Instant>,
    expired: bool,
    waker: Option<Waker>,
    is_restless: bool,
}

impl Entry {
    /// Notes the task that waits.
    fn remember(&mut self, cx: &mut Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }
}

impl Deadlines {
    /// A new, unarmed deadline. It leaves the table when it is dropped.
    pub fn register(&self) -> Deadline {
        let key = self.0.entries.borrow_mut().insert(Entry::default());
        Deadline { key, table: self.0.clone() }
    }

    /// Wakes every task that waits on a deadline of this table, so that it looks at the world again.
    pub fn wake_all(&self) {
        for (_, entry) in self.0.entries.borrow().iter() {
            if let Some(waker) = &entry.waker {
                waker.wake_by_ref();
            }
        }
    }

    /// Wakes the tasks that asked for it with [`Deadline::look_again`].
    pub fn wake_restless(&self) {
        if self.0.restless.take() == 0 {
            return;
        }
        for (_, entry) in self.0.entries.borrow_mut().iter_mut() {
            if std::mem::take(&mut entry.is_restless)
                && let Some(waker) = &entry.waker
            {
                waker.wake_by_ref();
            }
        }
    }

    /// Sweeps for as long as the shard lives.
    pub async fn run(&self) {
        loop {
            let moved = self.0.moved_forward.notified();
            match self.0.next.get() {
                None => moved.await,
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => {
                        self.sweep(Instant::now());
                        tokio::time::sleep(GRAIN).await;
                    }
                    () = moved => {}
                },
            }
        }
    }

    fn sweep(&self, now: Instant) {
        let mut next: Option<Instant> = None;
        for (_, entry) in self.0.entries.borrow_mut().iter_mut() {
            match entry.at {
                Some(at) if at <= now => {
                    entry.at = None;
                    entry.expired = true;
                    if let Some(waker) = entry.waker.take() {
                        waker.wake();
                    }
                }
                Some(at) => next = Some(next.map_or(at, |earliest| earliest.min(at))),
                None => {}
            }
        }
        self.0.next.set(next);
    }
}

/// One deadline; unarmed until [`Deadline::set`].
pub struct Deadline {
    key: usize,
    table: Rc<Table>,
}

impl Deadline {
    /// Arms (or moves) the deadline to `after` from now.
    pub fn set(&self, after: Duration) {
        self.set_at(Instant::now() + after);
    }

    /// The same for a point in time.
    pub fn set_at(&self, at: Instant) {
        self.with(|entry| {
            entry.at = Some(at);
            entry.expired = false;
        });
        if self.table.next.get().is_none_or(|next| at < next) {
            self.table.next.set(Some(at));
            self.table.moved_forward.notify_one();
        }
    }

    /// Ready once the deadline has passed; stays ready until it is set again. Also remembers the task
    /// for [`Deadlines::wake_all`].
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.with(|entry| {
            if entry.expired {
                return Poll::Ready(());
            }
            entry.remember(cx);
            Poll::Pending
        })
    }

    /// Whether it has passed.
    pub fn is_expired(&self) -> bool {
        self.with(|entry| entry.expired)
    }

    /// It will not pass until it is set again.
    pub fn unset(&self) {
        self.with(|entry| {
            entry.at = None;
            entry.expired = false;
        });
    }

    /// When it will pass.
    pub fn at(&self) -> Option<Instant> {
        self.with(|entry| entry.at)
    }

    /// The time that is left; for ever if it was never set.
    pub fn remaining(&self) -> Duration {
        self.at().map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()))
    }

    /// Wakes the task before long: for what the system does not wake it for.
    pub fn look_again(&self, cx: &mut Context<'_>) {
        let was_restless = self.with(|entry| {
            entry.remember(cx);
            std::mem::replace(&mut entry.is_restless, true)
        });
        self.table.restless.set(self.table.restless.get() + usize::from(!was_restless));
    }

    /// Waits until the deadline has passed.
    pub async fn expired(&self) {
        poll_fn(|cx| self.poll_expired(cx)).await
    }

    fn with<R>(&self, f: impl FnOnce(&mut Entry) -> R) -> R {
        f(&mut self.table.entries.borrow_mut()[self.key])
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.table.entries.borrow_mut().remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(test: impl AsyncFnOnce(Deadlines)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build_local(Default::default())
            .expect("a runtime");
        runtime.block_on(async {
            let deadlines = Deadlines::default();
            let sweeper = deadlines.clone();
            tokio::task::spawn_local(async move { sweeper.run().await });
            test(deadlines).await;
        });
    }

    #[test]
    fn an_earlier_deadline_fires_though_a_later_one_was_set_first() {
        run(async |deadlines| {
            let late = deadlines.register();
            late.set(Duration::from_secs(3600));
            tokio::task::yield_now().await;
            let early = deadlines.register();
            early.set(Duration::from_millis(5));
            early.expired().await;
            assert!(!late.with(|entry| entry.expired));
        });
    }

    #[test]
    fn a_moved_deadline_fires_at_its_new_time() {
        run(async |deadlines| {
            let moved = deadlines.register();
            moved.set(Duration::from_millis(5));
            let start = Instant::now();
            moved.set(Duration::from_millis(60));
            moved.expired().await;
            assert!(start.elapsed() >= Duration::from_millis(60));
        });
    }

    #[test]
    fn a_dropped_deadline_leaves_the_table() {
        run(async |deadlines| {
            drop(deadlines.register());
            assert!(deadlines.0.entries.borrow().is_empty());
        });
    }
}
