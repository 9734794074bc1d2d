//! The requests that came to a scripted worker, to be looked at and waited for.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

pub(super) struct Requests<R> {
    list: Mutex<List<R>>,
    changed: Condvar,
}

struct List<R> {
    all: Vec<R>,
    /// How many of them were taken by [`Requests::next`].
    taken: usize,
}

impl<R> Default for Requests<R> {
    fn default() -> Self {
        Requests { list: Mutex::new(List { all: Vec::new(), taken: 0 }), changed: Condvar::new() }
    }
}

impl<R: Clone> Requests<R> {
    pub fn add(&self, request: R) {
        self.list().all.push(request);
        self.changed.notify_all();
    }

    /// In the order in which they came.
    pub fn all(&self) -> Vec<R> {
        self.list().all.clone()
    }

    /// The next one not yet taken by this call; waits for it.
    #[track_caller]
    pub fn next(&self) -> R {
        let waiting = |list: &mut List<R>| list.all.len() <= list.taken;
        let limit = Duration::from_secs(10);
        let (mut list, _) = self.changed.wait_timeout_while(self.list(), limit, waiting).unwrap();
        let request = list.all.get(list.taken).cloned();
        list.taken += 1;
        drop(list);
        request.expect("a request reaches the worker")
    }

    /// How many connections carried them.
    pub fn connections(&self, connection: impl Fn(&R) -> usize) -> usize {
        let mut ids: Vec<_> = self.list().all.iter().map(connection).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.len()
    }

    fn list(&self) -> MutexGuard<'_, List<R>> {
        self.list.lock().unwrap()
    }
}
