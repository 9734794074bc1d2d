//! The share of the process's file descriptors that is open.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

/// Looks from one counting of the directory to the next, where it has to be counted.
const LOOKS_BETWEEN_COUNTS: u32 = 8;

pub struct Descriptors {
    directory: PathBuf,
    counted: u64,
    looks_until_count: u32,
}

impl Descriptors {
    pub fn new(root: &Path) -> Self {
        Self { directory: root.join("proc/self/fd"), counted: 0, looks_until_count: 0 }
    }

    /// The limit is read each time: `prlimit` can change it.
    pub fn share(&mut self) -> Option<f64> {
        let limit = getrlimit(Resource::Nofile).current?;
        Some((self.open()? as f64 / limit.max(1) as f64).min(1.0))
    }

    /// How many more there may be up to this share of the limit; less than none beyond it.
    pub fn room(&mut self, share: f64) -> Option<i64> {
        let limit = getrlimit(Resource::Nofile).current?;
        let most = (limit as f64 * share) as i64;
        Some(most.saturating_sub(i64::try_from(self.open()?).unwrap_or(i64::MAX)))
    }

    /// Linux 6.2 and later gives the number as the directory's size, without walking it and without opening
    /// anything. Before that the directory is counted, now and then: that costs one or two microseconds for each
    /// descriptor, and one descriptor. Without that one there is certainly pressure, so the limit is assumed.
    fn open(&mut self) -> Option<u64> {
        let size = fs::metadata(&self.directory).ok()?.len();
        if size > 0 {
            return Some(size);
        }
        if self.looks_until_count == 0 {
            self.looks_until_count = LOOKS_BETWEEN_COUNTS;
            self.counted = fs::read_dir(&self.directory).map_or(u64::MAX, |entries| entries.count() as u64);
        }
        self.looks_until_count -= 1;
        Some(self.counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_number_is_that_of_the_directory_s_entries() {
        let before = fs::metadata("/proc/self/fd").expect("procfs").len();
        if before == 0 {
            return;
        }
        // Other tests open and close files meanwhile, so many are needed to tell.
        let files: Vec<_> = (0..300).map(|_| fs::File::open("/dev/null").expect("a file")).collect();
        let mut descriptors = Descriptors::new(Path::new("/"));
        let with_files = descriptors.open().expect("a number");
        assert_eq!(descriptors.looks_until_count, 0, "nothing was counted");
        assert!((200..400).contains(&with_files.abs_diff(before)), "{before} {with_files}");
        drop(files);
    }

    #[test]
    fn without_the_kernel_s_number_the_directory_is_counted_now_and_then() {
        // Like procfs before Linux 6.2, sysfs gives no size for a directory.
        let directory = PathBuf::from("/sys/class/net");
        let mut descriptors = Descriptors { directory, counted: 0, looks_until_count: 0 };
        let interfaces = fs::read_dir("/sys/class/net").expect("sysfs").count() as u64;
        assert_eq!(descriptors.open(), Some(interfaces));
        descriptors.counted = 7;
        let looks: Vec<_> = (0..8).map(|_| descriptors.open()).collect();
        assert_eq!((&looks[..7], looks[7]), (&[Some(7); 7][..], Some(interfaces)));
        descriptors.directory = PathBuf::from("/nowhere");
        assert_eq!(descriptors.share(), None);
    }
}
