use std::fs;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::*;

/// From Linux 6.8, a container with cgroup v2; shortened.
const STAT_V2: &str = "anon 104857600\nfile 62914560\nkernel 8388608\nkernel_stack 1048576\nsock 4194304\nshmem 0\n\
    file_mapped 4194304\nfile_dirty 0\ninactive_anon 104448000\nactive_anon 409600\ninactive_file 41943040\n\
    active_file 20971520\nunevictable 0\nslab_reclaimable 1048576\nworkingset_refault_file 0\n";
/// From Linux 6.18 with cgroup v1; shortened.
const STAT_V1: &str = "cache 9646080\nrss 15228928\ninactive_file 45056\nactive_file 516096\n\
    hierarchical_memory_limit 9223372036854771712\ntotal_cache 1551306752\ntotal_inactive_file 41943040\n\
    total_active_file 764145664\n";
const MEMINFO: &str = "MemTotal:       24684084 kB\nMemFree:        19770616 kB\nMemAvailable:     921600 kB\n\
    Buffers:            3524 kB\nHugePages_Total:       0\n";
const STATUS: &str = "Name:\tsmg kB\nUmask:\t0022\nFDSize:\t256\nVmPeak:\t    2928 kB\nVmRSS:\t  102400 kB\n";

/// A root directory with these files, which goes away with it.
struct Root(PathBuf);

impl Root {
    fn new(files: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("smg-pressure-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let root = Self(std::env::temp_dir().join(name));
        files.iter().for_each(|(path, text)| root.write(path, text.as_bytes()));
        root
    }

    fn write(&self, path: &str, text: &[u8]) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    /// In thousandths.
    fn share(&self) -> Option<u64> {
        thousandths(&Memory::open(&self.0))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn thousandths(memory: &Memory) -> Option<u64> {
    memory.share().map(|share| (share * 1000.0).round() as u64)
}

fn container(cgroup: &str) -> Root {
    Root::new(&[
        ("proc/self/cgroup", cgroup),
        ("proc/meminfo", "MemAvailable: 22000496 kB\n"),
        ("proc/self/status", STATUS),
        ("sys/fs/cgroup/memory.max", "209715200\n"),
        ("sys/fs/cgroup/memory.high", "max\n"),
        ("sys/fs/cgroup/memory.current", "188743680\n"),
        ("sys/fs/cgroup/memory.stat", STAT_V2),
    ])
}

#[test]
fn cgroup_v2_without_the_idle_page_cache() {
    let root = container("0::/\n");
    assert_eq!(root.share(), Some(700), "(180 - 40) MiB of 200 MiB");
    let memory = Memory::open(&root.0);
    root.write("sys/fs/cgroup/memory.current", b"104857600\n");
    assert_eq!(thousandths(&memory), Some(500), "read anew, and the cache only where it matters");
    root.write("sys/fs/cgroup/memory.high", b"125829120\n");
    assert_eq!(thousandths(&memory), Some(833), "the lower limit");
    root.write("sys/fs/cgroup/memory.max", b"max\n");
    root.write("sys/fs/cgroup/memory.high", b"max\n");
    assert_eq!(thousandths(&memory), Some(5), "no limit: the machine's");
}

#[test]
fn the_limit_of_an_outer_cgroup_counts_and_a_path_of_the_host_does_no_harm() {
    let root = container("0::/pod/smg\n");
    assert_eq!(root.share(), Some(700), "the path is not there");
    root.write("sys/fs/cgroup/pod/memory.max", b"100000000\n");
    root.write("sys/fs/cgroup/pod/memory.current", b"80000000\n");
    root.write("sys/fs/cgroup/pod/memory.stat", b"");
    root.write("sys/fs/cgroup/pod/smg/memory.max", b"max\n");
    assert_eq!(root.share(), Some(800));
    for outside in ["0::/../pod\n", "0::/pod/../../..\n", "0::\n", "0::////\n"] {
        let root = container(outside);
        for (name, text) in [("max", "100"), ("current", "99"), ("stat", "")] {
            root.write(&format!("sys/fs/pod/memory.{name}"), text.as_bytes());
        }
        assert_eq!(root.share(), Some(700), "{outside}");
    }
}

#[test]
fn cgroup_v1() {
    let v1 = "sys/fs/cgroup/memory/docker/1/memory";
    let files = [("limit_in_bytes", "200000000\n"), ("usage_in_bytes", "190000000\n"), ("stat", STAT_V1)];
    let root = Root::new(&[("proc/self/cgroup", "5:devices:/\n4:cpu,memory:/docker/1\n1:name=systemd:/\n0::/\n")]);
    files.iter().for_each(|(name, text)| root.write(&format!("{v1}.{name}"), text.as_bytes()));
    assert_eq!(root.share(), Some(740), "(190,000,000 - 41,943,040) of 200,000,000");
    root.write(&format!("{v1}.limit_in_bytes"), b"9223372036854771712\n");
    assert_eq!(root.share(), None, "no limit, and nothing of the machine");
}

#[test]
fn the_machine_s_memory_is_what_this_process_could_have() {
    let root = Root::new(&[("proc/meminfo", MEMINFO), ("proc/self/status", STATUS)]);
    assert_eq!(root.share(), Some(100), "100 MiB of 100 + 900, though the machine is nearly full");
    root.write("proc/meminfo", b"MemAvailable: 0 kB\n");
    assert_eq!(root.share(), Some(1000));
}

#[test]
fn broken_files_say_nothing() {
    let long = "x".repeat(100_000);
    for broken in ["", "\n", "-1", "1e9", "99999999999999999999999", "\0\0", "max max", "0", &long] {
        let root = container("0::/\n");
        root.write("sys/fs/cgroup/memory.max", broken.as_bytes());
        assert_eq!(root.share(), Some(5), "limit {broken:.20}");
        let root = container("0::/\n");
        root.write("sys/fs/cgroup/memory.stat", broken.as_bytes());
        assert_eq!(root.share(), Some(900), "the cache of {broken:.20}");
        let root = container(broken);
        assert_eq!(root.share(), Some(5), "cgroups {broken:.20}");
        let root = Root::new(&[("proc/meminfo", broken), ("proc/self/status", STATUS)]);
        assert_eq!(root.share(), None, "meminfo {broken:.20}");
    }
    let root = container("0::/\n");
    root.write("sys/fs/cgroup/memory.current", b"\xff\xfe");
    assert_eq!(root.share(), Some(5));
    root.write("proc/self/status", b"VmRSS:\t 18446744073709551615 kB\n");
    assert_eq!(root.share(), None);
    assert!(Memory::open(Path::new("/nowhere")).share().is_none());
}

#[test]
fn names_are_not_mistaken_for_longer_ones() {
    assert_eq!(
        statistic("total_inactive_file 1\ninactive_file_x 2\ninactive_file7\ninactive_file 3\n", "inactive_file"),
        Some(3)
    );
    assert_eq!(field("VmRSSx: 1 kB\nVmRSS:2 kB\n", "VmRSS"), Some(2048));
    assert_eq!(field("VmRSS: 2 MB\n", "VmRSS"), None);
    let found: Vec<_> = hierarchies("4:memory,x:/a:b\n3:memoryx:/c\n0::/d\n0:\nmemory\n").collect();
    assert_eq!(found, [(Hierarchy::V1, "/a:b"), (Hierarchy::V2, "/d")]);
}
