//! What many hashes were last given to, in memory that never grows: a set-associative table of atomics.
//!
//! An entry is one `u64`: part of a hash, a worker's number, and when it was used last. A hash belongs to one set of 16
//! entries, two neighbouring cache lines; a new entry takes a free one or the one that was unused for longest. There is
//! no lock and nothing is read twice: when two shards write to a set at once, one of the entries may be lost, or a hash
//! may have two, and both only cost a hit.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::roster::Number;

/// Entries of a set.
const WAYS: usize = 16;
/// Workers that are kept for one hash: a prompt that all have read must not push out everything else of its set.
const HOLDERS: usize = 8;

const TIME_BITS: u32 = 22;
const TIMES: u64 = 1 << TIME_BITS;
const TAG_SHIFT: u32 = TIME_BITS + Number::BITS;

/// Seconds, on a clock that starts anew after 48 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(u64);

impl Seconds {
    pub fn at(now: Duration) -> Self {
        Self(now.as_secs() % TIMES)
    }

    fn since(self, then: Self) -> u64 {
        self.0.wrapping_sub(then.0) % TIMES
    }
}

/// See the module's documentation. `AtomicU64` 0 is a free entry, for no worker has number 0.
pub struct Table(Vec<AtomicU64>);

#[derive(Clone, Copy)]
struct Entry(u64);

impl Entry {
    fn new(hash: u64, worker: Number, now: Seconds) -> Self {
        Self(hash << TAG_SHIFT | u64::from(worker) << TIME_BITS | now.0)
    }

    fn worker(self) -> Number {
        (self.0 >> TIME_BITS) as Number
    }

    fn used(self) -> Seconds {
        Seconds(self.0 % TIMES)
    }

    fn is_of(self, hash: u64) -> bool {
        self.worker() != 0 && self.0 >> TAG_SHIFT == hash << TAG_SHIFT >> TAG_SHIFT
    }

    /// Free entries are older than any.
    fn age(self, now: Seconds) -> u64 {
        if self.worker() == 0 { u64::MAX } else { now.since(self.used()) }
    }
}

impl Table {
    /// At most `bytes`, at least one set.
    pub fn new(bytes: usize) -> Self {
        let sets = (bytes / size_of::<[AtomicU64; WAYS]>()).max(1);
        // Zeroed memory that becomes atomics in place: its pages are the system's until they are written to.
        Self(vec![0; sets * WAYS].into_iter().map(AtomicU64::new).collect())
    }

    /// The high bits choose the set, the low ones are kept in the entry.
    fn set(&self, hash: u64) -> &[AtomicU64] {
        let sets = self.0.len() / WAYS;
        let set = ((u128::from(hash) * sets as u128) >> 64) as usize;
        &self.0[set * WAYS..(set + 1) * WAYS]
    }

    fn entries(&self, hash: u64) -> impl Iterator<Item = (&AtomicU64, Entry)> {
        let entries = self.set(hash).iter().map(|slot| (slot, Entry(slot.load(Relaxed))));
        entries.filter(move |(_, entry)| entry.is_of(hash))
    }

    /// The workers that have `hash`.
    pub fn holders(&self, hash: u64) -> impl Iterator<Item = Number> {
        self.entries(hash).map(|(_, entry)| entry.worker())
    }

    /// The worker that has `hash`, if that was used within `idle`.
    pub fn holder_within(&self, hash: u64, idle: Duration, now: Seconds) -> Option<Number> {
        let mut entries = self.entries(hash).map(|(_, entry)| entry);
        entries.find(|entry| entry.age(now) < idle.as_secs()).map(Entry::worker)
    }

    /// `worker` has `hash`, too.
    pub fn add(&self, hash: u64, worker: Number, now: Seconds) {
        let new = Entry::new(hash, worker, now);
        let (mut oldest, mut oldest_of_hash, mut holders) = ((&self.set(hash)[0], 0), (&self.set(hash)[0], 0), 0);
        for slot in self.set(hash) {
            let entry = Entry(slot.load(Relaxed));
            let age = entry.age(now);
            if entry.is_of(hash) {
                if entry.worker() == worker {
                    // Within one second nothing is written, so shards that share a prompt share its cache line.
                    return if entry.0 != new.0 {
                        slot.store(new.0, Relaxed)
                    };
                }
                holders += 1;
                if age >= oldest_of_hash.1 {
                    oldest_of_hash = (slot, age);
                }
            }
            if age > oldest.1 {
                oldest = (slot, age);
            }
        }
        let (slot, _) = if holders < HOLDERS { oldest } else { oldest_of_hash };
        slot.store(new.0, Relaxed);
    }

    /// `worker` has `hash`, and nobody else.
    pub fn assign(&self, hash: u64, worker: Number, now: Seconds) {
        let others = self.entries(hash).filter(|(_, entry)| entry.worker() != worker);
        others.for_each(|(slot, _)| slot.store(0, Relaxed));
        self.add(hash, worker, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Seconds {
        Seconds::at(Duration::from_secs(seconds))
    }

    fn holders(table: &Table, hash: u64) -> Vec<Number> {
        table.holders(hash).collect()
    }

    #[test]
    fn a_full_set_gives_up_what_was_unused_for_longest() {
        let table = Table::new(0);
        (0..16).for_each(|n| table.add(n, 1, at(n)));
        table.add(0, 1, at(20));
        table.add(99, 2, at(21));
        assert_eq!((holders(&table, 0), holders(&table, 1), holders(&table, 99)), (vec![1], vec![], vec![2]));
        (2..16).for_each(|n| assert_eq!(holders(&table, n), [1], "{n}"));
    }

    #[test]
    fn what_many_have_does_not_push_out_the_others() {
        let table = Table::new(0);
        (0..8).for_each(|n| table.add(n, 1, at(n)));
        (1..=20).for_each(|worker| table.add(77, worker, at(100 + u64::from(worker))));
        (0..8).for_each(|n| assert_eq!(holders(&table, n), [1], "{n}"));
        let mut kept = holders(&table, 77);
        kept.sort_unstable();
        assert_eq!(kept, (13..=20).collect::<Vec<_>>());
        table.assign(77, 5, at(200));
        assert_eq!(holders(&table, 77), [5]);
    }

    #[test]
    fn age_is_right_when_the_clock_starts_anew() {
        let (table, idle) = (Table::new(1 << 12), Duration::from_secs(100));
        table.add(5, 3, at(TIMES - 10));
        assert_eq!(table.holder_within(5, idle, at(TIMES + 80)), Some(3));
        assert_eq!(table.holder_within(5, idle, at(TIMES + 90)), None);
    }

    #[test]
    fn shards_may_write_at_once_and_every_entry_stays_whole() {
        let table = Table::new(1 << 14);
        let write = |worker: Number| {
            (0..20_000_u64).for_each(|n| table.add(super::super::hash::pair(n % 500, 0), worker, at(n)))
        };
        std::thread::scope(|scope| {
            let (table, write) = (&table, &write);
            (1..=3).for_each(|worker| drop(scope.spawn(move || write(worker))));
            (0..500).for_each(|n| assert!(table.holders(super::super::hash::pair(n, 0)).all(|worker| worker <= 3)));
        });
        assert!((0..500).all(|n| table.holders(super::super::hash::pair(n, 0)).count() > 0));
    }
}
