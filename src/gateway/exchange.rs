//! One request that is being answered, and what answering it needs.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::Gateway;
use super::record::Record;
use super::view::View;
use crate::client::Caller;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::keys::Key;
use crate::routes::Override;

pub struct Exchange<'a> {
    pub gateway: &'a Gateway,
    pub view: &'a Rc<View>,
    pub caller: &'a Caller<'a>,
    pub record: &'a mut Record,
    /// Its end at the latest.
    pub deadline: &'a Deadline,
    /// The protocol that the client would switch to.
    pub upgrade: Option<HeaderValue>,
    /// What is different for its path.
    pub route: Option<Arc<Override>>,
    /// The client has been sent something: an interim answer of a worker.
    pub has_begun: Cell<bool>,
    /// The only worker that it may be sent to.
    pub only: Option<WorkerIndex>,
    /// Whose request it is.
    pub key: Option<Arc<Key>>,
}

/// Where a worker is in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerIndex {
    /// The pool's position.
    pub pool: usize,
    /// The worker's position in the pool.
    pub worker: usize,
}

impl Exchange<'_> {
    pub fn config(&self) -> &Config {
        &self.view.snapshot.config
    }

    /// Largest request body, in bytes.
    pub fn max_payload_size(&self) -> u64 {
        let own = self.route.as_ref().and_then(|route| route.route.max_payload_size);
        own.unwrap_or(self.config().limits.max_payload_size)
    }

    pub fn request_timeout(&self) -> Duration {
        let own = self.route.as_ref().and_then(|route| route.route.request_timeout_secs);
        own.unwrap_or(self.config().limits.request_timeout_secs)
    }

    /// How long a worker may take until its answer begins.
    pub fn first_byte_timeout(&self) -> Option<Duration> {
        let own = self.route.as_ref().and_then(|route| route.route.first_byte_timeout_secs);
        own.or(self.config().limits.first_byte_timeout_secs)
    }

    /// Attempts at it, the first included.
    pub fn most_attempts(&self) -> u32 {
        match self.route.as_ref().and_then(|route| route.route.retries) {
            Some(false) => 1,
            Some(true) | None => self.config().retries.settings().max_attempts,
        }
    }
}
