//! What follows from each look-up of one name: the addresses, the pause before the next look-up, and what is
//! worth a line in the log.

use std::mem::{Discriminant, discriminant};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::super::guard::{Guard, is_local};
use super::resolver::{Found, NameError};

/// A time to live is taken as no less and no more than this.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// The pause after a failure doubles up to this.
const LONGEST_AFTER_FAILURE: Duration = Duration::from_secs(30);
/// Addresses that are kept of one answer.
const MOST_ADDRESSES: usize = 64;

/// What is known of one name so far.
pub struct Course {
    port: u16,
    guard: Guard,
    /// Sorted; empty until the first success.
    good: Vec<SocketAddr>,
    /// How long the last success was good for.
    ttl: Duration,
    failures: u32,
    failing: Option<Discriminant<NameError>>,
}

/// What changed.
#[derive(Debug)]
pub enum News {
    Same,
    /// There are other addresses than `old`.
    Moved {
        old: Vec<SocketAddr>,
    },
    /// The same addresses, after failures.
    Again,
    /// It fails, or in another way than before.
    Failing(Arc<NameError>),
}

impl Course {
    pub fn new(port: u16, guard: Guard) -> Self {
        Self { port, guard, good: Vec::new(), ttl: LONGEST_AFTER_FAILURE, failures: 0, failing: None }
    }

    /// The last good addresses.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.good
    }

    /// Takes the result of a look-up; the pause until the next one follows.
    pub fn after(&mut self, result: Result<Found, NameError>) -> (News, Duration) {
        match result.and_then(|found| self.accept(found)) {
            Ok((addresses, ttl)) => {
                (self.ttl, self.failures) = (ttl.clamp(SHORTEST, LONGEST), 0);
                let failed = self.failing.take().is_some();
                let news = match (addresses == self.good, failed) {
                    (false, _) => News::Moved { old: std::mem::replace(&mut self.good, addresses) },
                    (true, true) => News::Again,
                    (true, false) => News::Same,
                };
                (news, self.ttl)
            }
            Err(error) => {
                let pause = LONGEST_AFTER_FAILURE.min(SHORTEST * 2_u32.saturating_pow(self.failures));
                self.failures = self.failures.saturating_add(1);
                let kind = Some(discriminant(&error));
                let news = if self.failing == kind { News::Same } else { News::Failing(Arc::new(error)) };
                self.failing = kind;
                // Never later than the answer would have been asked for again: a new address is found within its
                // predecessor's time to live, however long the failure was.
                (news, pause.min(self.ttl))
            }
        }
    }

    /// The addresses of an answer. One that a worker must not have refuses all of it: a name that points there,
    /// even in part, is not to be trusted.
    fn accept(&self, found: Found) -> Result<(Vec<SocketAddr>, Duration), NameError> {
        let found_addresses = found.ips.into_iter().map(|ip| SocketAddr::new(ip, self.port));
        let mut addresses: Vec<_> = found_addresses.collect();
        for address in &addresses {
            let refused = |why| NameError::Refused { ip: address.ip(), why };
            self.guard.check(*address, is_local).map_err(refused)?;
        }
        // Of the family that nothing was heard of, the last good addresses stay.
        addresses.extend(self.good.iter().filter(|good| match good.ip() {
            IpAddr::V4(_) => found.v4_unknown,
            IpAddr::V6(_) => found.v6_unknown,
        }));
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MOST_ADDRESSES);
        if addresses.is_empty() { Err(NameError::NotFound) } else { Ok((addresses, found.ttl)) }
    }
}

#[cfg(test)]
mod tests;
