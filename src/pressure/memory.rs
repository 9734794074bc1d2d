//! The share of the memory that the gateway may use which it does use.
//!
//! The memory limits of all its cgroups count, of version 2 and version 1; without one, what the machine has left.
//! A cgroup's page cache that nobody has touched lately is not counted: the kernel gives it back when it is asked to.

mod files;
mod parse;

use std::path::{Component, Path, PathBuf};

use self::files::Source;
use self::parse::{Hierarchy, field, hierarchies, number, statistic};

/// Below this share the page cache need not be known. Reading `memory.stat` makes the kernel add up counters of
/// all its cores, and what is subtracted can only lower the share.
const WORTH_A_LOOK: f64 = super::TIGHT.1;

/// Levels of cgroups that are looked at, the innermost first.
const MOST_LEVELS: usize = 16;

pub struct Memory {
    cgroups: Vec<Cgroup>,
    machine: Option<Machine>,
}

/// One cgroup that has a file for its limit.
struct Cgroup {
    /// `memory.max`, at which it is killed, and `memory.high`, at which it is slowed down until it stands still.
    limits: Vec<Source>,
    current: Source,
    statistics: Source,
    /// The name of the page cache in the statistics.
    cache: &'static str,
}

struct Machine {
    memory: Source,
    process: Source,
}

impl Memory {
    /// Finds the files below `root`, with cgroups mounted where every distribution has them. A process that is
    /// moved to another cgroup later is not followed.
    pub fn open(root: &Path) -> Self {
        let text = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let cgroups = hierarchies(&text).flat_map(|(hierarchy, path)| {
            let directories = directories(&root.join(hierarchy.mount_point()), path);
            directories.into_iter().filter_map(move |directory| Cgroup::open(hierarchy, &directory))
        });
        Self { cgroups: cgroups.collect(), machine: Machine::open(root) }
    }

    /// The worst of all; `None` if nothing can be found out.
    pub fn share(&self) -> Option<f64> {
        let cgroups = self.cgroups.iter().filter_map(Cgroup::share);
        let machine = self.machine.as_ref().and_then(Machine::share);
        cgroups.chain(machine).reduce(f64::max)
    }
}

impl Cgroup {
    fn open(hierarchy: Hierarchy, directory: &Path) -> Option<Self> {
        let source = |name| Source::open(&directory.join(name));
        let names = hierarchy.names();
        let limits: Vec<_> = names.limits.iter().filter_map(source).collect();
        if limits.is_empty() {
            return None;
        }
        Some(Self {
            limits,
            current: source(&names.current)?,
            statistics: source(&names.statistics)?,
            cache: names.cache,
        })
    }

    /// `None` without a limit.
    fn share(&self) -> Option<f64> {
        let limit = self.limits.iter().filter_map(|limit| limit.read(number)).min()?;
        let current = self.current.read(number)?;
        let share = share(current, limit)?;
        if share < WORTH_A_LOOK {
            return Some(share);
        }
        let cache = self.statistics.read(|text| statistic(text, self.cache)).unwrap_or_default();
        self::share(current.saturating_sub(cache), limit)
    }
}

impl Machine {
    fn open(root: &Path) -> Option<Self> {
        let source = |path| Source::open(&root.join(path));
        Some(Self { memory: source("proc/meminfo")?, process: source("proc/self/status")? })
    }

    /// Of what this process could have, the part that it has. Others may have filled the machine, and refusing work
    /// here would not give any of that back.
    fn share(&self) -> Option<f64> {
        let available = self.memory.read(|text| field(text, "MemAvailable"))?;
        let resident = self.process.read(|text| field(text, "VmRSS"))?;
        share(resident, resident.saturating_add(available))
    }
}

/// A limit of nothing is no limit that anybody meant.
fn share(used: u64, limit: u64) -> Option<f64> {
    (limit > 0).then(|| used as f64 / limit as f64)
}

/// The cgroup's directory and those it is in, up to the mount point. In a container the path may be that of the host,
/// which is not there: the mount point is the container's own cgroup then.
fn directories(mount_point: &Path, path: &str) -> Vec<PathBuf> {
    let relative = Path::new(path.trim_start_matches('/'));
    let is_inside = relative.components().all(|component| matches!(component, Component::Normal(_)));
    let innermost = if is_inside { mount_point.join(relative) } else { mount_point.to_owned() };
    let levels = innermost.ancestors().take_while(|directory| directory.starts_with(mount_point));
    levels.take(MOST_LEVELS).map(Path::to_owned).collect()
}

#[cfg(test)]
mod tests;
