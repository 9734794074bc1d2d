//! Where one worker is now. The control plane writes it, every shard reads it: a read is one atomic load and
//! takes no lock, so that a name that is slow to resolve costs no request anything.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::names::NameError;
use crate::config::WorkerUrl;

/// How long an address that took no connection comes after all others.
const DEAD_FOR: Duration = Duration::from_secs(30);

/// A worker's addresses: one for ever where the URL has an address, what the name resolves to otherwise.
pub struct Addresses {
    known: ArcSwap<Known>,
    base: Instant,
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
    At(Box<[Place]>),
}

/// One address, and what connects to it have shown.
struct Place {
    address: SocketAddr,
    /// Milliseconds after `base` until which it is taken for dead; 0 if the last connect to it was taken, or there was none.
    dead_until: AtomicU64,
}

impl Place {
    fn new(address: SocketAddr, dead_until: u64) -> Self {
        Self { address, dead_until: AtomicU64::new(dead_until) }
    }

    fn dead_until(&self) -> u64 {
        self.dead_until.load(Relaxed)
    }
}

impl Addresses {
    pub fn of(url: &WorkerUrl) -> Self {
        let known = match url.host().parse::<IpAddr>() {
            Ok(ip) => Known::At([Place::new(SocketAddr::new(ip, url.port()), 0)].into()),
            Err(_) => Known::Pending,
        };
        Self {
            known: ArcSwap::from_pointee(known),
            base: Instant::now(),
            turn: AtomicUsize::new(0),
            answered: Notify::new(),
        }
    }

    /// The addresses to try for one connection, in order. The first is another one each time, IPv6 comes after
    /// IPv4, and the two alternate so that neither uses up the time (RFC 8305 section 4). Those that have just taken no
    /// connection are last.
    pub fn next(&self) -> Result<Vec<SocketAddr>, Arc<NameError>> {
        match &**self.known.load() {
            Known::Pending => Err(Arc::new(NameError::Pending)),
            Known::Nowhere(why) => Err(why.clone()),
            Known::At(all) => Ok(in_turn(all, self.turn.fetch_add(1, Relaxed), self.now())),
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
        matches!(&**self.known.load(), Known::At(all) if all.iter().any(|place| place.address == address))
    }

    /// All of them, in ascending order.
    pub fn list(&self) -> Vec<SocketAddr> {
        match &**self.known.load() {
            Known::At(all) => all.iter().map(|place| place.address).collect(),
            Known::Pending | Known::Nowhere(_) => Vec::new(),
        }
    }

    /// A connect to this address was taken.
    pub fn reached(&self, address: SocketAddr) {
        self.mark(address, 0);
    }

    /// A connect to this address was refused, or not taken in time.
    pub fn not_reached(&self, address: SocketAddr) {
        self.mark(address, self.now() + DEAD_FOR.as_millis() as u64);
    }

    fn mark(&self, address: SocketAddr, dead_until: u64) {
        if let Known::At(all) = &**self.known.load()
            && let Some(place) = all.iter().find(|place| place.address == address)
            && place.dead_until() != dead_until
        {
            place.dead_until.store(dead_until, Relaxed);
        }
    }

    /// Milliseconds after `base`.
    fn now(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The worker is at these addresses from now on: sorted, at least one. What is known of those that stay is kept.
    pub(super) fn publish(&self, addresses: &[SocketAddr]) {
        let before = self.known.load();
        let dead_until = |address: &SocketAddr| match &**before {
            Known::At(all) => all.iter().find(|place| place.address == *address).map_or(0, Place::dead_until),
            Known::Pending | Known::Nowhere(_) => 0,
        };
        let places = addresses.iter().map(|address| Place::new(*address, dead_until(address)));
        self.know(Known::At(places.collect()));
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

fn in_turn(all: &[Place], turn: usize, now: u64) -> Vec<SocketAddr> {
    if let [only] = all {
        return vec![only.address];
    }
    let (usable, mut dead): (Vec<_>, Vec<_>) = all.iter().partition(|place| place.dead_until() <= now);
    let (v4, v6) = usable.split_at(usable.partition_point(|place| place.address.is_ipv4()));
    let (mut v4, mut v6) = (rotated(v4, turn), rotated(v6, turn));
    let mut order = Vec::with_capacity(all.len());
    while order.len() < usable.len() {
        order.extend(v4.next());
        order.extend(v6.next());
    }
    // The first may be one whose time as dead is over: one connect finds out, and has good ones behind it.
    if let Some((_, others)) = order.split_first_mut() {
        others.sort_by_key(|place| place.dead_until() > 0);
    }
    dead.sort_by_key(|place| place.dead_until());
    order.into_iter().chain(dead).map(|place| place.address).collect()
}

fn rotated<'a>(places: &'a [&'a Place], turn: usize) -> impl Iterator<Item = &'a Place> {
    let start = turn.checked_rem(places.len()).unwrap_or(0);
    places[start..].iter().chain(&places[..start]).copied()
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
        let expected = [
            ["10.0.0.1:80", "[fd00::1]:80", "10.0.0.2:80", "[fd00::2]:80", "10.0.0.3:80"],
            ["10.0.0.2:80", "[fd00::2]:80", "10.0.0.3:80", "[fd00::1]:80", "10.0.0.1:80"],
        ];
        assert_eq!(orders[..2], expected.map(|order| addresses(&order)));
        assert_eq!([orders[2][0], orders[3][0]], [all[2], all[0]]);
        worker.publish(&all[3..]);
        assert_eq!(worker.next().expect("addresses"), addresses(&["[fd00::1]:80", "[fd00::2]:80"]));
        assert!(worker.has(all[4]) && !worker.has(all[0]));
    }

    #[test]
    fn dead_addresses_come_last_until_one_connect_may_try_each_again() {
        let all = addresses(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"]);
        let dead_until = [500, 0, 900, 0];
        let places: Vec<_> = all.iter().zip(dead_until).map(|(address, until)| Place::new(*address, until)).collect();
        let order = |turn, now| {
            let order = in_turn(&places, turn, now);
            order.iter().map(|address| all.iter().position(|known| known == address).expect("known") + 1).collect()
        };
        let orders = |now| [0, 1, 2, 3].map(|turn| -> Vec<usize> { order(turn, now) });
        assert_eq!(orders(0), [[2, 4, 1, 3], [4, 2, 1, 3], [2, 4, 1, 3], [4, 2, 1, 3]]);
        assert_eq!(orders(500), [[1, 2, 4, 3], [2, 4, 1, 3], [4, 2, 1, 3], [1, 2, 4, 3]]);
        assert_eq!(orders(900), [[1, 2, 4, 3], [2, 4, 3, 1], [3, 4, 2, 1], [4, 2, 1, 3]]);
    }

    #[test]
    fn what_connects_have_shown_is_kept_for_addresses_that_stay() {
        let all = addresses(&["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
        let worker = named();
        worker.publish(&all[..2]);
        worker.not_reached(all[0]);
        worker.not_reached(all[2]);
        worker.publish(&all);
        for _ in 0..4 {
            assert_eq!(worker.next().expect("addresses")[2], all[0]);
        }
        worker.reached(all[0]);
        let firsts: Vec<_> = (0..3).map(|_| worker.next().expect("addresses")[0]).collect();
        assert!(all.iter().all(|address| firsts.contains(address)), "{firsts:?}");
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
