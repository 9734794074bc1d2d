//! How near the gateway is to the end of its memory and of its file descriptors, so that it refuses work before
//! the system kills it or accepting fails.
//!
//! The control plane looks ([`Lookout::look`], every 100 to 250 ms) and the shards read the level: two loads.
//! What each level asks for is theirs to do:
//!
//! - tight: with memory, connections are not kept alive; with descriptors, idle ones are closed after a second;
//! - critical: no connection is accepted, and with memory new requests get 503 with `Retry-After`.
//!
//! Who has a connection already needs no other descriptor, or one for a worker: that much is left, since what is
//! accepted between two looks is counted ([`Pressure::most_connections`]).
//!
//! A level is entered at a higher share than it is left at, so that it doesn't flicker.

mod descriptors;
mod memory;

use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering::Relaxed};

use self::descriptors::Descriptors;
use self::memory::Memory;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    Calm,
    Tight,
    Critical,
}

/// Shares at which a level is entered, and below which it is left.
const TIGHT: (f64, f64) = (0.90, 0.85);
const CRITICAL: (f64, f64) = (0.95, 0.92);

impl Level {
    pub fn label(self) -> &'static str {
        match self {
            Level::Calm => "calm",
            Level::Tight => "tight",
            Level::Critical => "critical",
        }
    }

    /// The level after this one, when `share` (0 to 1) is used.
    fn after(self, share: f64) -> Self {
        let holds = |level, (enter, leave)| share >= if self >= level { leave } else { enter };
        match () {
            () if holds(Level::Critical, CRITICAL) => Level::Critical,
            () if holds(Level::Tight, TIGHT) => Level::Tight,
            () => Level::Calm,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    Memory,
    Descriptors,
}

impl Resource {
    pub fn label(self) -> &'static str {
        match self {
            Resource::Memory => "memory",
            Resource::Descriptors => "file_descriptors",
        }
    }
}

/// The pressure that was found last. The control plane writes it, the shards read it.
#[derive(Debug, Default)]
pub struct Pressure {
    memory: Reading,
    descriptors: Reading,
    most_connections: AtomicU64,
}

#[derive(Debug, Default)]
struct Reading {
    level: AtomicU8,
    permille: AtomicU16,
}

impl Pressure {
    /// The worse of the two.
    pub fn level(&self) -> Level {
        self.memory.level().max(self.descriptors.level())
    }

    /// Clients' connections that there may be before descriptors are critical, as far as the last look tells.
    pub fn most_connections(&self) -> u64 {
        self.most_connections.load(Relaxed)
    }

    pub fn level_of(&self, resource: Resource) -> Level {
        self.reading(resource).level()
    }

    /// The share that is used (0 to 1, in thousandths), for a gauge; 0 where it can't be found out.
    pub fn share_of(&self, resource: Resource) -> f64 {
        f64::from(self.reading(resource).permille.load(Relaxed)) / 1000.0
    }

    fn reading(&self, resource: Resource) -> &Reading {
        match resource {
            Resource::Memory => &self.memory,
            Resource::Descriptors => &self.descriptors,
        }
    }
}

impl Reading {
    fn level(&self) -> Level {
        match self.level.load(Relaxed) {
            0 => Level::Calm,
            1 => Level::Tight,
            _ => Level::Critical,
        }
    }
}

/// A level that has changed, for the log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    pub resource: Resource,
    pub from: Level,
    pub to: Level,
    /// The share that is used.
    pub share: f64,
}

/// Where to look. What it reads stays open, since under pressure there may be no descriptor left to open it with.
pub struct Lookout {
    memory: Memory,
    descriptors: Descriptors,
}

impl Lookout {
    /// Opens what the system offers; what it doesn't offer counts as no pressure.
    pub fn new() -> Self {
        let root = Path::new("/");
        Self { memory: Memory::open(root), descriptors: Descriptors::new(root) }
    }

    /// Looks once, without waiting: a few reads from the kernel's memory. `connections` are those of clients now.
    pub fn look(&mut self, pressure: &Pressure, connections: u64) -> Vec<Change> {
        let room = self.descriptors.room(CRITICAL.0);
        let most = room.map_or(u64::MAX, |room| connections.saturating_add_signed(room).max(1));
        pressure.most_connections.store(most, Relaxed);
        let shares = [(Resource::Memory, self.memory.share()), (Resource::Descriptors, self.descriptors.share())];
        shares.into_iter().filter_map(|(resource, share)| note(pressure, resource, share?)).collect()
    }
}

impl Default for Lookout {
    fn default() -> Self {
        Self::new()
    }
}

fn note(pressure: &Pressure, resource: Resource, share: f64) -> Option<Change> {
    let reading = pressure.reading(resource);
    let (from, to) = (reading.level(), reading.level().after(share));
    reading.level.store(to as u8, Relaxed);
    reading.permille.store((share * 1000.0) as u16, Relaxed);
    (from != to).then_some(Change { resource, from, to, share })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_left_later_than_entered() {
        let shares = [0.5, 0.899, 0.90, 0.86, 0.949, 0.95, 0.93, 0.92, 0.919, 0.85, 0.849, 0.96, 0.5, f64::NAN];
        let mut level = Level::Calm;
        let levels = shares.map(|share| {
            level = level.after(share);
            level
        });
        use Level::{Calm as C, Critical as X, Tight as T};
        assert_eq!(levels, [C, C, T, T, T, X, X, X, T, T, C, X, C, C]);
    }

    #[test]
    fn the_worse_resource_decides_and_each_change_is_told_once() {
        let pressure = Pressure::default();
        assert_eq!(note(&pressure, Resource::Memory, 0.5), None);
        let change = Change { resource: Resource::Descriptors, from: Level::Calm, to: Level::Critical, share: 7.0 };
        assert_eq!(note(&pressure, Resource::Descriptors, 7.0), Some(change));
        assert_eq!(note(&pressure, Resource::Descriptors, 0.99), None);
        assert_eq!((pressure.level(), pressure.level_of(Resource::Memory)), (Level::Critical, Level::Calm));
        assert_eq!([Resource::Memory, Resource::Descriptors].map(|it| pressure.share_of(it)), [0.5, 0.99]);
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let pressure = Pressure::default();
        let mut lookout = Lookout::new();
        let _ = (lookout.look(&pressure, 0), lookout.look(&pressure, 0));
        assert!(pressure.most_connections() > 100);
        for resource in [Resource::Memory, Resource::Descriptors] {
            let share = pressure.share_of(resource);
            assert!((0.0..=1.0).contains(&share), "{}: {share}", resource.label());
        }
        assert!(lookout.memory.share().is_some_and(|share| share > 0.0));
        assert!(lookout.descriptors.share().is_some_and(|share| share > 0.0));
    }
}
