//! A file that is read again when it has changed.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::SystemTime;

/// Bytes that are read of a file at most.
const MAX_FILE: u64 = 1 << 20;

/// What a file says. Looking whether it changed costs one call of the system; a change within the clock tick of the
/// last one that leaves the length as it was is not seen.
pub struct Followed<T> {
    path: PathBuf,
    parse: fn(io::Result<Vec<u8>>) -> T,
    read: Option<(Option<Stamp>, T)>,
}

type Stamp = (SystemTime, u64);

impl<T> Followed<T> {
    pub fn new(path: impl Into<PathBuf>, parse: fn(io::Result<Vec<u8>>) -> T) -> Self {
        Self { path: path.into(), parse, read: None }
    }

    pub fn get(&mut self) -> &T {
        // Before it is read, so that a change in between is seen next time.
        let stamp = self.stamp();
        if self.read.as_ref().is_none_or(|(read, _)| *read != stamp) {
            self.read = None;
        }
        let (path, parse) = (&self.path, self.parse);
        let (_, value) = self.read.get_or_insert_with(|| {
            let bytes = File::open(path).and_then(|file| {
                let mut bytes = Vec::new();
                file.take(MAX_FILE).read_to_end(&mut bytes).map(|_| bytes)
            });
            (stamp, parse(bytes))
        });
        value
    }

    fn stamp(&self) -> Option<Stamp> {
        let metadata = std::fs::metadata(&self.path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    }
}
