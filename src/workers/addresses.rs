//! Where one worker is now. The control plane writes it, every shard reads it: a read is one atomic load and
//! takes no lock, so that a name that is slow to resolve costs no request anything.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::names::NameError;
use crate::config::WorkerUrl;

/// Addresses that one connect may try.
const MOST_TRIED: usize = 4;

/// A worker's addresses: one for ever where the URL has an address, what the name resolves to otherwise.
pub struct Addresses {
    known: ArcSwap<Known>,
    /// Where the rotation over several addresses goes on.
    turn: AtomicUsize,
    /// Wakes those that wait for the first answer about the name. Its lock is taken only by them.
    answered: Notify,
}

enum Known {
    /// Nothing yet: the first look-up is still under way.
    Pending,
    /// The name has never been resolved, and this is why.
    Nowhere(Arc<NameError>),
    /// Sorted: IPv4 before IPv6. Never empty.
    At(Box<[SocketAddr]>),
}

impl Addresses {
    pub fn of(url: &WorkerUrl) -> Self {
        let known = match url.host().parse::<IpAddr>() {
            Ok(ip) => Known::At([SocketAddr::new(ip, url.port())].into()),
            Err(_) => Known::Pending,
        };
        Self { known: ArcSwap::from_pointee(known), turn: AtomicUsize::new(0), answered: Notify::new() }
    }

    /// The addresses to try for one connection, in order. The first is another one each time, IPv6 comes after
    /// IPv4, and the two alternate so that neither uses up the tries (RFC 8305 section 4).
    pub fn next(&self) -> Result<Vec<SocketAddr>, Arc<NameError>> {
        match &**self.known.load() {
            Known::Pending => Err(Arc::new(NameError::Pending)),
            Known::Nowhere(why) => Err(why.clone()),
            Known::At(all) => Ok(in_turn(all, self.turn.fetch_add(1, Relaxed))),
        }
    }

    /// As [`Addresses::next`], but waits for the first look-up to end if none has.
    pub async fn first(&self) -> Result<Vec<SocketAddr>, Arc<NameError>> {
        while let Known::Pending = &**self.known.load() {
            let answered = self.answered.notified();
            // Looked at again: the answer may have come before we were on the list.
            if let Known::Pending = &**self.known.load() {
                answered.await;
            }
        }
        self.next()
    }

    /// Whether the worker is at this address still; a connection to another one is not to be used again.
    pub fn has(&self, address: SocketAddr) -> bool {
        matches!(&**self.known.load(), Known::At(all) if all.contains(&address))
    }

    /// All of them, in ascending order.
    pub fn list(&self) -> Vec<SocketAddr> {
        match &**self.known.load() {
            Known::At(all) => all.to_vec(),
            Known::Pending | Known::Nowhere(_) => Vec::new(),
        }
    }

    /// The worker is at these addresses from now on: sorted, at least one.
    pub(super) fn publish(&self, addresses: &[SocketAddr]) {
        self.know(Known::At(addresses.into()));
    }

    /// The name was not resolved. Addresses that were good before stay. Only one task writes, so nothing can come
    /// between the look and the change.
    pub(super) fn fail(&self, why: Arc<NameError>) {
        if !matches!(&**self.known.load(), Known::At(_)) {
            self.know(Known::Nowhere(why));
        }
    }

    fn know(&self, known: Known) {
        self.known.store(Arc::new(known));
        self.answered.notify_waiters();
    }
}

fn in_turn(all: &[SocketAddr], turn: usize) -> Vec<SocketAddr> {
    let (v4, v6) = all.split_at(all.partition_point(SocketAddr::is_ipv4));
    let (mut v4, mut v6) = (rotated(v4, turn), rotated(v6, turn));
    let mut order = Vec::with_capacity(MOST_TRIED.min(all.len()));
    while order.len() < MOST_TRIED {
        let before = order.len();
        order.extend(v4.next());
        order.extend(v6.next());
        if order.len() == before {
            break;
        }
    }
    order.truncate(MOST_TRIED);
    order
}

fn rotated(addresses: &[SocketAddr], turn: usize) -> impl Iterator<Item = SocketAddr> {
    let start = turn.checked_rem(addresses.len()).unwrap_or(0);
    addresses[start..].iter().chain(&addresses[..start]).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named() -> Addresses {
        Addresses::of(&"http://w.test:80".parse().expect("a URL"))
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[test]
    fn connects_take_turns_and_ipv6_comes_between() {
        let all = addresses(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "[fd00::1]:80", "[fd00::2]:80"]);
        let worker = named();
        worker.publish(&all);
        let orders: Vec<_> = (0..4).map(|_| worker.next().expect("addresses")).collect();
        assert_eq!(orders[0], addresses(&["10.0.0.1:80", "[fd00::1]:80", "10.0.0.2:80", "[fd00::2]:80"]));
        assert_eq!(orders[1], addresses(&["10.0.0.2:80", "[fd00::2]:80", "10.0.0.3:80", "[fd00::1]:80"]));
        assert_eq!([orders[2][0], orders[3][0]], [all[2], all[0]]);
        worker.publish(&all[3..]);
        assert_eq!(worker.next().expect("addresses"), addresses(&["[fd00::1]:80", "[fd00::2]:80"]));
        assert!(worker.has(all[4]) && !worker.has(all[0]));
    }

    #[test]
    fn a_failure_is_told_until_there_are_addresses_and_never_after() {
        let worker = named();
        assert!(matches!(*worker.next().expect_err("nothing known"), NameError::Pending));
        worker.fail(Arc::new(NameError::NotFound));
        assert!(matches!(*worker.next().expect_err("a failure"), NameError::NotFound));
        let good = addresses(&["10.0.0.1:80"]);
        worker.publish(&good);
        worker.fail(Arc::new(NameError::NotFound));
        assert_eq!(worker.list(), good);
        let fixed = Addresses::of(&"http://[::1]:9".parse().expect("a URL"));
        assert_eq!(fixed.list(), addresses(&["[::1]:9"]));
    }

    #[tokio::test]
    async fn who_comes_before_the_first_answer_waits_for_it() {
        let worker = Arc::new(named());
        let waiting = tokio::spawn({
            let worker = worker.clone();
            async move { worker.first().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let good = addresses(&["10.0.0.1:80"]);
        worker.publish(&good);
        assert_eq!(waiting.await.expect("no panic").expect("addresses"), good);
    }
}
