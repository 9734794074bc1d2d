//! Tells when to read the configuration again: on SIGHUP, or when the file has changed.
//!
//! The file is read every second and compared by its digest. Times and inodes would save a read of some kilobytes,
//! and miss changes that keep the time, behind a symbolic link, or within one tick of the file system's clock.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::file::{self, FileDigest};

const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// Watches one file.
#[derive(Debug)]
pub struct Watch {
    path: Option<PathBuf>,
    settling: Settling,
    hangup: Signal,
    ticks: Interval,
}

/// Why the configuration should be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// SIGHUP: whether or not something changed.
    Hangup,
    /// The file says something else, and has said it for a second.
    File,
}

impl Watch {
    /// Watches the file from what it was when it was read; without a file there is only SIGHUP, which no longer
    /// ends the process.
    ///
    /// # Errors
    ///
    /// The system refuses the signal handler.
    pub fn new(file: Option<(PathBuf, FileDigest)>) -> io::Result<Self> {
        let (path, digest) = file.unzip();
        let mut ticks = interval(BETWEEN_LOOKS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { path, settling: Settling::new(digest), hangup: signal(SignalKind::hangup())?, ticks })
    }

    /// The file was read as this, whatever the cause was: it is no change any more.
    pub fn loaded(&mut self, digest: FileDigest) {
        self.settling = Settling::new(Some(digest));
    }

    /// Waits for the next cause. Nothing is lost when it is dropped half-way.
    pub async fn changed(&mut self) -> Cause {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => return Cause::Hangup,
                _ = self.ticks.tick(), if self.path.is_some() => {
                    let digest = look(self.path.as_ref()).await;
                    if self.settling.look(digest) == Look::Changed {
                        return Cause::File;
                    }
                }
            }
        }
    }
}

/// The file as it is now; nothing if it can't be read. A slow disk must not hold up the control plane.
async fn look(path: Option<&PathBuf>) -> Option<FileDigest> {
    let path = path?.clone();
    tokio::task::spawn_blocking(move || content(&path)).await.ok()?
}

/// A pipe was read once and has nothing more to say; an empty file is one whose writer has only begun.
fn content(path: &Path) -> Option<FileDigest> {
    let is_file = std::fs::metadata(path).ok()?.is_file();
    let bytes = if is_file { file::read(path).ok()? } else { return None };
    (!bytes.is_empty()).then(|| file::digest(&bytes))
}

/// Tells a changed file from one that is being written, or replaced.
#[derive(Debug)]
struct Settling {
    /// What was last taken for the file's content.
    known: Option<FileDigest>,
    /// Something else, seen once.
    candidate: Option<FileDigest>,
}

#[derive(Debug, PartialEq, Eq)]
enum Look {
    Same,
    Changed,
}

impl Settling {
    fn new(known: Option<FileDigest>) -> Self {
        Self { known, candidate: None }
    }

    /// A new content counts when it is seen twice in a row. A missing file is no content.
    fn look(&mut self, now: Option<FileDigest>) -> Look {
        if now.is_none() || now == self.known {
            self.candidate = None;
            return Look::Same;
        }
        if self.candidate != now {
            self.candidate = now;
            return Look::Same;
        }
        self.known = self.candidate.take();
        Look::Changed
    }
}

#[cfg(test)]
mod tests;
