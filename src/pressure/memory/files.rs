//! Files of the kernel that are read again and again.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// More than any of these files has; the rest of a longer one is not looked at.
const MOST_BYTES: usize = 16 * 1024;

/// A file that stays open and is read from its start each time.
pub struct Source(File);

impl Source {
    pub fn open(path: &Path) -> Option<Self> {
        File::open(path).ok().map(Self)
    }

    /// What `parse` finds in it; `None` too if it can't be read, or is not text.
    pub fn read<T>(&self, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let mut buffer = [0; MOST_BYTES];
        let mut filled = 0;
        while filled < MOST_BYTES {
            match self.0.read_at(&mut buffer[filled..], filled as u64).ok()? {
                0 => break,
                more => filled += more,
            }
        }
        parse(std::str::from_utf8(&buffer[..filled]).ok()?)
    }
}
