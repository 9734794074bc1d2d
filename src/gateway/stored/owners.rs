//! Maps the ids of stored objects to the workers that have them.
//!
//! Ids are learned from workers' answers only. Some workers let callers choose ids: the first worker that makes an id
//! keeps it until the object is deleted, or until that worker does not know the object and another one does. So nobody can
//! divert another caller's requests. Objects of different kinds may have the same id, and different owners. Only a keyed
//! hash of each kind and id is kept: an entry takes the same space for every id, and callers can't choose ids that collide.
//!
//! All shards share this. A request for a stored object takes a lock for one operation on a hash map; the map is split
//! into parts with a lock each, so that shards seldom wait for each other.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use rustc_hash::FxHashMap;

/// Longest id that is learned, in bytes.
pub const LONGEST_ID: usize = 256;
/// Number of parts, each with its own lock; a power of two.
const PARTS: usize = 16;
/// Ids in each generation of a part. In all, at least the 65,536 ids that were used last are known, and at most twice
/// as many.
const GENERATION: usize = 65_536 / PARTS;

/// The map from ids to owners. An owner is the key of a worker, which depends only on its URL: a worker that is removed
/// and added again still owns its objects.
pub struct Owners {
    hash: RandomState,
    is_empty: AtomicBool,
    parts: [Mutex<Part>; PARTS],
}

/// Two generations of ids. An id that is used moves to the young one. When the young one is full, it becomes the old one,
/// and the ids in the previous old one, which were not used meanwhile, are dropped.
#[derive(Default)]
struct Part {
    /// Keys are keyed hashes already: a fast hash on top is safe.
    young: FxHashMap<u64, u64>,
    old: FxHashMap<u64, u64>,
}

impl Part {
    fn put(&mut self, id: u64, owner: u64, most: usize) {
        self.old.remove(&id);
        if self.young.len() >= most && !self.young.contains_key(&id) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, owner);
    }

    fn get(&mut self, id: u64, most: usize) -> Option<u64> {
        if let Some(owner) = self.young.get(&id) {
            return Some(*owner);
        }
        let owner = self.old.get(&id).copied()?;
        self.put(id, owner, most);
        Some(owner)
    }
}

impl Default for Owners {
    fn default() -> Self {
        Self { hash: RandomState::new(), is_empty: AtomicBool::new(true), parts: Default::default() }
    }
}

impl Owners {
    /// Whether no id has been learned yet.
    pub fn is_empty(&self) -> bool {
        self.is_empty.load(Relaxed)
    }

    /// A worker has said that it has this object. An owner that is known stays.
    pub fn learn(&self, kind: &str, id: &[u8], owner: u64) {
        if (1..=LONGEST_ID).contains(&id.len()) {
            self.is_empty.store(false, Relaxed);
            self.with(kind, id, |part, id| {
                if part.get(id, GENERATION).is_none() {
                    part.put(id, owner, GENERATION);
                }
            });
        }
    }

    /// The worker that has this object.
    pub fn get(&self, kind: &str, id: &[u8]) -> Option<u64> {
        self.with(kind, id, |part, id| part.get(id, GENERATION))
    }

    /// The owner no longer has this object, and another worker has said that it has it.
    pub fn replace(&self, kind: &str, id: &[u8], owner: u64) {
        if (1..=LONGEST_ID).contains(&id.len()) {
            self.is_empty.store(false, Relaxed);
            self.with(kind, id, |part, id| part.put(id, owner, GENERATION));
        }
    }

    /// The object is deleted.
    pub fn forget(&self, kind: &str, id: &[u8]) {
        self.with(kind, id, |part, id| {
            part.young.remove(&id);
            part.old.remove(&id);
        });
    }

    fn with<T>(&self, kind: &str, id: &[u8], work: impl FnOnce(&mut Part, u64) -> T) -> T {
        let hash = self.hash.hash_one((kind, id));
        // Another part of the hash than the maps use.
        let part = &self.parts[(hash >> 32) as usize % PARTS];
        work(&mut part.lock().unwrap_or_else(PoisonError::into_inner), hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_owner_is_known_until_it_is_forgotten() {
        let owners = Owners::default();
        assert!(owners.is_empty() && owners.get("files", b"a").is_none());
        owners.learn("files", b"a", 1);
        owners.learn("files", b"b", 2);
        owners.learn("files", b"a", 3);
        assert_eq!(
            (owners.get("files", b"a"), owners.get("files", b"b"), owners.is_empty()),
            (Some(1), Some(2), false)
        );
        owners.forget("files", b"a");
        assert_eq!((owners.get("files", b"a"), owners.get("files", b"b")), (None, Some(2)));
        owners.learn("files", b"a", 3);
        assert_eq!(owners.get("files", b"a"), Some(3));
        owners.replace("files", b"a", 4);
        owners.learn("responses", b"a", 5);
        owners.forget("batches", b"a");
        assert_eq!((owners.get("files", b"a"), owners.get("responses", b"a")), (Some(4), Some(5)));
        owners.learn("files", &[b'x'; LONGEST_ID + 1], 1);
        owners.learn("files", b"", 1);
        assert_eq!((owners.get("files", &[b'x'; LONGEST_ID + 1]), owners.get("files", b"")), (None, None));
    }

    #[test]
    fn what_is_not_used_goes_first_and_the_number_is_bounded() {
        let mut part = Part::default();
        for id in 0..1000 {
            part.put(id, id, 10);
            assert_eq!(part.get(0, 10), Some(0), "it is used all the time");
            assert!(part.young.len() <= 10 && part.old.len() <= 10);
        }
        assert!((990..1000).all(|id| part.get(id, 10) == Some(id)), "the last ones are known");
        assert!((1..900).all(|id| part.get(id, 10).is_none()));
    }

    #[test]
    fn all_parts_are_used() {
        let owners = Owners::default();
        for id in 0_u32..1000 {
            owners.learn("files", &id.to_ne_bytes(), u64::from(id));
        }
        assert!((0_u32..1000).all(|id| owners.get("files", &id.to_ne_bytes()) == Some(u64::from(id))));
        assert!(owners.parts.iter().all(|part| part.lock().expect("no panic").young.len() > 10));
    }
}
