//! Files that belong together and may be replaced.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::files::{self, FileError};

/// A file that changed less than this before a look may change again without a trace: the clock of file systems
/// ticks every few milliseconds, on some every two seconds.
const SETTLING: Duration = Duration::from_secs(3);

/// Files that are used together, and what was seen of them last.
///
/// A look costs one `stat` for each; only what has changed, or may have, is read. Links are followed, so the files
/// are other ones when any link on the way to them leads elsewhere, as with Kubernetes' `..data`.
#[derive(Debug)]
pub struct Watched {
    paths: Vec<PathBuf>,
    stamps: Vec<Option<Stamp>>,
    digest: [u8; 32],
    settled: bool,
}

/// What says that a file is another one, or has other contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Also moves when `modified` is set back.
    changed: (i64, i64),
}

/// What is in the files, in their order.
pub type Contents = Result<Vec<Vec<u8>>, FileError>;

impl Watched {
    /// Also reads the files.
    pub fn new(paths: Vec<PathBuf>) -> (Self, Contents) {
        let stamps = stamps(&paths);
        let contents = read(&paths);
        let digest = digest(&contents);
        (Self { paths, stamps, digest, settled: false }, contents)
    }

    /// What is in the files, or why they can't be read, if that is not as it was; `None` also while they change.
    pub fn look(&mut self) -> Option<Contents> {
        self.look_at(SystemTime::now())
    }

    fn look_at(&mut self, now: SystemTime) -> Option<Contents> {
        let before = stamps(&self.paths);
        if self.settled && before == self.stamps {
            return None;
        }
        let contents = read(&self.paths);
        if stamps(&self.paths) != before {
            return None;
        }
        // What can't be read may be readable again without any change.
        self.settled = contents.is_ok() && before.iter().flatten().all(|stamp| stamp.is_settled(now));
        self.stamps = before;
        let digest = digest(&contents);
        if digest == self.digest {
            return None;
        }
        self.digest = digest;
        Some(contents)
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = path.metadata().ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    fn is_settled(&self, now: SystemTime) -> bool {
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(self.changed.0.try_into().unwrap_or(0));
        now.duration_since(changed).is_ok_and(|age| age > SETTLING)
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    paths.iter().map(|path| Stamp::of(path)).collect()
}

fn read(paths: &[PathBuf]) -> Contents {
    paths.iter().map(|path| files::read(path)).collect()
}

/// The same for the same contents, and for the same reason why there are none.
fn digest(contents: &Contents) -> [u8; 32] {
    let mut hash = Sha256::new();
    match contents {
        Ok(files) => files.iter().for_each(|file| hash.update(Sha256::digest(file))),
        Err(error) => hash.update(error.to_string()),
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
