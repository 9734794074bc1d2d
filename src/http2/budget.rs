//! Limits frames from a client that cause work without carrying anything.
//!
//! h2 limits the cost of resets, headers and empty frames. But it answers or ignores any number of PING, SETTINGS,
//! PRIORITY, WINDOW_UPDATE and unknown frames, each of which costs work (CVE-2019-9512, CVE-2019-9515). It also refuses
//! any number of oversized header lists, which takes ten times the work of sending them. In this budget, each of these
//! has a price. Frames with a payload, writes, and time earn credit.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use super::filter::{Flood, Header, kind};

/// The initial and maximum credit.
const MOST: f64 = 2000.0;
/// Credit for each second.
const A_SECOND: f64 = 50.0;
/// Credit for a DATA or HEADERS frame with a payload.
const A_FRAME: f64 = 2.0;
/// Credit for a write, which the client may have to acknowledge.
const A_WRITE: f64 = 4.0;
/// Price of a header list over the limits, for each byte: allows 1 MB at once, then 25 kB a second.
const A_BYTE: f64 = 1.0 / 512.0;

/// State shared between a connection's server and its budget.
#[derive(Debug, Default)]
pub struct Requests {
    /// Number of requests in flight.
    pub open: Cell<usize>,
    /// Whether the connection ends after the requests in flight.
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

    /// Behind an ingress, the requests in flight may belong to other users, so they may finish. If the client continues
    /// meanwhile, the connection is cut off.
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
