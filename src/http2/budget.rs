//! How many frames a client may send that cause work for nothing.
//!
//! h2 bounds what resets, heads and empty frames cost. PING, SETTINGS, PRIORITY, WINDOW_UPDATE and frames of unknown types
//! it answers or ignores for ever, and each costs work (CVE-2019-9512, CVE-2019-9515); and it refuses header lists that
//! are too large as often as they come, which takes ten times the work of sending them. Each of these has a price.
//! Frames that carry something, writes, and time earn the right to more.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use super::filter::{Flood, Header, kind};

/// The credit at first and at most.
const MOST: f64 = 2000.0;
const A_SECOND: f64 = 50.0;
/// For a frame that carries something.
const A_FRAME: f64 = 2.0;
/// For what is written, which the client may have to acknowledge.
const A_WRITE: f64 = 4.0;
/// What a header list over the limits costs, by its size: 1 MB of them at once, then 25 kB a second.
const A_BYTE: f64 = 1.0 / 512.0;

/// What the connection's server and its budget tell each other.
#[derive(Debug, Default)]
pub struct Requests {
    /// Streams that are being served.
    pub open: Cell<usize>,
    /// The connection is to end once they are.
    pub are_last: Cell<bool>,
}

#[derive(Debug)]
pub struct Budget {
    credit: f64,
    since: Instant,
    requests: Rc<Requests>,
}

impl Budget {
    pub fn new(now: Instant, requests: Rc<Requests>) -> Self {
        Self { credit: MOST, since: now, requests }
    }

    pub fn note_time(&mut self, now: Instant) {
        self.earn(now.saturating_duration_since(self.since).as_secs_f64() * A_SECOND);
        self.since = now;
    }

    pub fn note_write(&mut self) {
        self.earn(A_WRITE);
    }

    pub(super) fn note_frame(&mut self, header: &Header) -> Result<(), Flood> {
        match header.kind {
            kind::DATA | kind::HEADERS if header.length > 0 => self.earn(A_FRAME),
            _ => self.pay(1.0)?,
        }
        Ok(())
    }

    /// Behind an ingress, the requests that are being served may be those of others: they may finish. A client that goes
    /// on meanwhile is cut off all the same.
    pub(super) fn note_large_list(&mut self, size: usize) -> Result<(), Flood> {
        let price = size as f64 * A_BYTE;
        if self.credit < price && self.requests.open.get() > 0 && !self.requests.are_last.replace(true) {
            self.credit = MOST;
        }
        self.pay(price)
    }

    fn earn(&mut self, credit: f64) {
        self.credit = (self.credit + credit).min(MOST);
    }

    fn pay(&mut self, price: f64) -> Result<(), Flood> {
        if self.credit < price {
            return Err(Flood);
        }
        self.credit -= price;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// How many of these frames are let through.
    fn passed(budget: &mut Budget, kind: u8, length: usize, count: usize) -> usize {
        let header = Header { length, kind, flags: 0, stream: 1 };
        (0..count).take_while(|_| budget.note_frame(&header).is_ok()).count()
    }

    #[test]
    fn frames_for_nothing_are_bounded() {
        let now = Instant::now();
        let mut budget = Budget::new(now, Rc::default());
        assert_eq!(passed(&mut budget, kind::PING, 8, 10_000), MOST as usize);
        budget.note_time(now + Duration::from_secs(1));
        assert_eq!(passed(&mut budget, kind::PING, 8, 10_000), A_SECOND as usize);
        budget.note_write();
        assert_eq!(passed(&mut budget, kind::PING, 8, 10_000), A_WRITE as usize);
        assert_eq!(passed(&mut budget, kind::DATA, 0, 10_000), 0, "an empty frame carries nothing");
        assert_eq!(passed(&mut budget, kind::DATA, 100, 10_000), 10_000);
    }

    #[test]
    fn large_lists_are_bounded_and_other_requests_earn_few() {
        let mut budget = Budget::new(Instant::now(), Rc::default());
        let passed_lists =
            |budget: &mut Budget| (0..100).take_while(|_| budget.note_large_list(1 << 17).is_ok()).count();
        assert_eq!(passed_lists(&mut budget), 7);
        assert_eq!(passed(&mut budget, kind::HEADERS, 10, 100), 100);
        assert_eq!(passed_lists(&mut budget), 1);
        assert!(!budget.requests.are_last.get());
        budget.requests.open.set(1);
        assert_eq!(passed_lists(&mut budget), 7, "until those that are being served have finished");
        assert!(budget.requests.are_last.get());
    }
}
