//! Waiting for what must come, and watching that something does not: always with a limit, never a hopeful sleep.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Upper bound for something that is immediate on an idle machine. Tests must pass at load 8 on two cores.
pub const BUSY: Duration = Duration::from_secs(10);

/// How many times longer than on an idle machine things may take.
const SLOWDOWN: u32 = 5;

/// Asks `condition` until it holds; panics at the caller's line after `timeout`, which is meant for a machine without
/// other work.
#[track_caller]
pub fn eventually(timeout: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + timeout.saturating_mul(SLOWDOWN);
    while !condition() {
        assert!(Instant::now() < deadline, "this did not come true within {timeout:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Asks `condition` for the whole of `period`; panics at the caller's line when it stops holding.
#[track_caller]
pub fn holds_for(period: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < period {
        assert!(condition(), "this stopped being true after {:?}", start.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Something that a script waits for and the test opens, or the other way round. Stays open.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub fn is_open(&self) -> bool {
        *self.0.0.lock().unwrap()
    }

    /// Blocks until the gate is open; panics at the caller's line after thirty seconds.
    #[track_caller]
    pub fn wait(&self) {
        self.wait_within(Duration::from_secs(30));
    }

    #[track_caller]
    pub fn wait_within(&self, limit: Duration) {
        let closed = self.0.0.lock().unwrap();
        let open = *self.0.1.wait_timeout_while(closed, limit, |open| !*open).unwrap().0;
        assert!(open, "nobody opened the gate within {limit:?}");
    }
}
