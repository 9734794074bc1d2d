//! Compiled code, kept on disk for the next start.
//!
//! Loading an artefact runs it, so one that somebody else wrote must never be taken: the directory belongs to the
//! gateway's user and nobody else can write to it, and so does each file. A digest in front of each finds what was cut
//! off or decayed. The name of a file says what it was made of and for: the module's bytes, the engine's settings and
//! version, this processor's features.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timestamps};
use sha2::{Digest, Sha256};

use super::engine::Engine;

/// What is kept at most; those not used for longest go first.
const MAX_BYTES: u64 = 1 << 30;
const DIGEST: usize = 32;
const SUFFIX: &str = ".artefact";

#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    #[error("the cache directory {0} can't be used: {1}")]
    Io(PathBuf, io::Error),
    #[error("the cache directory {0} must belong to the gateway's user, and nobody else may write to it")]
    Foreign(PathBuf),
}

/// See the module's documentation.
pub struct Cache {
    directory: OwnedFd,
    /// What the engine's artefacts have in common.
    engine: u64,
}

impl Cache {
    /// In this directory, which is made if it is not there.
    pub fn open(path: &Path, engine: &Engine) -> Result<Self, CacheError> {
        let refused = |error: rustix::io::Errno| CacheError::Io(path.to_owned(), error.into());
        match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(refused(error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(refused)?;
        if !is_ours(&rustix::fs::fstat(&directory).map_err(refused)?) {
            return Err(CacheError::Foreign(path.to_owned()));
        }
        let mut hasher = DefaultHasher::new();
        engine.engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { directory, engine: hasher.finish() })
    }

    /// The artefact of the module with this SHA-256, if it is here.
    pub fn get(&self, sha256: &str) -> Option<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, self.name(sha256), flags, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        if !is_ours(&stat) || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            tracing::warn!(module = sha256, "a cached artefact is not ours alone, and is not used");
            return None;
        }
        let mut file = File::from(file);
        let mut digest = [0; DIGEST];
        let mut artefact = Vec::with_capacity(usize::try_from(stat.st_size).ok()?);
        file.read_exact(&mut digest).ok()?;
        (&mut file).take(MAX_BYTES).read_to_end(&mut artefact).ok()?;
        if Sha256::digest(&artefact)[..] != digest {
            tracing::warn!(module = sha256, "a cached artefact is damaged, and is not used");
            return None;
        }
        // When it was used last; if that can't be noted, it only goes sooner.
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let _ = rustix::fs::futimens(&file, &Timestamps { last_access: now, last_modification: now });
        Some(artefact)
    }

    /// Keeps an artefact. It appears whole, whatever happens meanwhile.
    pub fn put(&self, sha256: &str, artefact: &[u8]) -> io::Result<()> {
        let unfinished = format!("{:016x}.unfinished", fastrand::u64(..));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, &unfinished, flags, Mode::RUSR | Mode::WUSR)?;
        let written = write(File::from(file), artefact);
        let kept = written
            .and_then(|()| Ok(rustix::fs::renameat(&self.directory, &unfinished, &self.directory, self.name(sha256))?));
        if kept.is_err() {
            rustix::fs::unlinkat(&self.directory, &unfinished, AtFlags::empty())?;
        }
        kept.and_then(|()| self.tidy())
    }

    /// Removes what was not used for longest until the rest fits.
    fn tidy(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in Dir::read_from(&self.directory)? {
            let name = entry?.file_name().to_owned();
            let stat = rustix::fs::statat(&self.directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                files.push((stat.st_mtime, stat.st_size.unsigned_abs(), name));
            }
        }
        files.sort_unstable();
        let mut total: u64 = files.iter().map(|(_, size, _)| size).sum();
        for (_, size, name) in files {
            if total <= MAX_BYTES {
                break;
            }
            rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())?;
            total -= size;
        }
        Ok(())
    }

    fn name(&self, sha256: &str) -> String {
        format!("{sha256}-{:016x}-{}{SUFFIX}", self.engine, env!("CARGO_PKG_VERSION"))
    }
}

fn write(mut file: File, artefact: &[u8]) -> io::Result<()> {
    file.write_all(&Sha256::digest(artefact))?;
    file.write_all(artefact)?;
    file.sync_all()
}

/// Ours, and nobody else can write to it.
fn is_ours(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw()
        && !Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH)
}
