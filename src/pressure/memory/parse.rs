//! What stands in the kernel's files. Whatever else stands there is `None`.

/// Where a version of cgroups keeps its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hierarchy {
    V1,
    V2,
}

pub struct Names {
    pub limits: &'static [&'static str],
    pub current: &'static str,
    pub statistics: &'static str,
    pub cache: &'static str,
}

impl Hierarchy {
    pub fn mount_point(self) -> &'static str {
        match self {
            Hierarchy::V1 => "sys/fs/cgroup/memory",
            Hierarchy::V2 => "sys/fs/cgroup",
        }
    }

    pub fn names(self) -> Names {
        match self {
            Hierarchy::V1 => Names {
                limits: &["memory.limit_in_bytes"],
                current: "memory.usage_in_bytes",
                statistics: "memory.stat",
                cache: "total_inactive_file",
            },
            Hierarchy::V2 => Names {
                limits: &["memory.max", "memory.high"],
                current: "memory.current",
                statistics: "memory.stat",
                cache: "inactive_file",
            },
        }
    }
}

/// The hierarchies in `/proc/self/cgroup` that may limit memory, with the process's path in each. A line is
/// `number:controllers:path`; version 2 has number 0 and no controllers.
pub fn hierarchies(text: &str) -> impl Iterator<Item = (Hierarchy, &str)> {
    text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        match (number, controllers) {
            ("0", "") => Some((Hierarchy::V2, path)),
            _ if controllers.split(',').any(|name| name == "memory") => Some((Hierarchy::V1, path)),
            _ => None,
        }
    })
}

/// A number of bytes. `max` and the huge number that version 1 has for it are none.
pub fn number(text: &str) -> Option<u64> {
    text.trim_end().parse().ok().filter(|bytes| *bytes < 1 << 62)
}

/// A line `name number` of `memory.stat`, in bytes.
pub fn statistic(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// A line `name: number kB` of `/proc/meminfo` or `/proc/self/status`, in bytes.
pub fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}
