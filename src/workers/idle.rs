//! A shard's idle HTTP/1.1 connections to one worker, and the rules for their reuse.
//!
//! Bytes that arrive on an idle connection answer no request, so the gateway closes such a connection instead of
//! reusing it. Bytes that arrive just after the reuse can't be told from the answer. With [`UpstreamReuse::Safe`], the
//! first request on a client connection therefore uses only a proven connection: one that has been reused before, or
//! that has been silent for a while. If there is none, the request gets a new connection.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;

use super::link::Link;
use crate::config::UpstreamReuse;

/// Number of idle connections to one worker that a shard keeps.
const MOST_IDLE: usize = 256;
/// A connection that has been silent for this long after an answer is proven, because workers send unsolicited bytes
/// mostly soon after an answer. If clients use a new connection for each request, so does the gateway, but only until
/// idle connections have reached this age.
const PROVING_TIME: Duration = Duration::from_millis(100);

/// The kind of request that needs a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// The first request on a client connection.
    FirstRequest,
    LaterRequest,
}

/// The idle connections. Both queues are in the order in which their connections became idle.
pub struct IdleConnections<B> {
    proven: RefCell<VecDeque<Box<Link<B>>>>,
    /// Connections that have carried only one exchange.
    unproven: RefCell<VecDeque<Box<Link<B>>>>,
    reuse: UpstreamReuse,
    proving_time: Duration,
    max_idle_time: Duration,
}

impl<B> IdleConnections<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    pub fn new(reuse: UpstreamReuse, max_idle_time: Duration) -> Self {
        let proving_time = PROVING_TIME.min(max_idle_time / 2);
        Self { proven: RefCell::default(), unproven: RefCell::default(), reuse, proving_time, max_idle_time }
    }

    /// The most recently used connection that `asker` may use and that is still usable, if there is one.
    pub fn take(&self, asker: Asker, is_current: impl Fn(&Link<B>) -> bool) -> Option<Box<Link<B>>> {
        loop {
            let mut link = self.next(asker)?;
            let idle = link.idle_since.elapsed();
            if idle < self.max_idle_time && is_current(&link) && link.is_silent(idle) {
                return Some(link);
            }
        }
    }

    fn next(&self, asker: Asker) -> Option<Box<Link<B>>> {
        if let Some(link) = self.proven.borrow_mut().pop_back() {
            return Some(link);
        }
        let mut unproven = self.unproven.borrow_mut();
        match asker {
            Asker::LaterRequest => unproven.pop_back(),
            Asker::FirstRequest => unproven.pop_front_if(|oldest| oldest.idle_since.elapsed() >= self.proving_time),
        }
    }

    pub fn keep(&self, link: Box<Link<B>>) {
        let is_proven = link.reused || self.reuse == UpstreamReuse::Always;
        let (mut proven, mut unproven) = (self.proven.borrow_mut(), self.unproven.borrow_mut());
        if proven.len() + unproven.len() < MOST_IDLE {
            if is_proven { proven.push_back(link) } else { unproven.push_back(link) }
        }
    }

    pub fn clear(&self) {
        self.proven.take();
        self.unproven.take();
    }

    /// Closes connections that have been idle for too long.
    pub fn close_aged(&self) {
        for links in [&self.proven, &self.unproven] {
            let mut links = links.borrow_mut();
            let aged = links.iter().take_while(|link| link.idle_since.elapsed() >= self.max_idle_time).count();
            links.drain(..aged);
        }
    }
}
