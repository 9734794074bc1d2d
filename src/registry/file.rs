//! Reading a module's file without being led elsewhere.
//!
//! The path is opened without touching what is there (no FIFO blocks, no device wakes), looked at, and only
//! then read, through the very handle that was looked at: what is checked is what is read.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

/// The largest module file.
const MAX_FILE: u64 = 64 << 20;

/// Directories that no module is deployed from.
const SYSTEM: [&str; 8] = ["/etc", "/proc", "/sys", "/dev", "/boot", "/root", "/var/log", "/var/run"];
/// Where `/var/run` leads to on current systems.
const RUN: &str = "/run";

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("the path is empty")]
    EmptyPath,
    #[error("the path must be absolute")]
    Relative,
    #[error("the path must not contain `..`")]
    Parent,
    #[error("the file's name must end in .wasm")]
    Suffix,
    #[error("no such file")]
    Missing,
    #[error(
        "files in {} are not allowed; keep the file elsewhere, or allow its directory with --wasm-module-dir",
        system_directories()
    )]
    Forbidden,
    #[error("files outside {} are not allowed (--wasm-module-dir)", .0.display())]
    Outside(PathBuf),
    #[error("not a regular file")]
    NotRegular,
    #[error("the file is empty")]
    Empty,
    #[error("the file is larger than {} MiB", MAX_FILE >> 20)]
    TooLarge,
    #[error("the file can't be read: {0}")]
    Io(#[from] io::Error),
}

/// The bytes of the module file at `path`, which must be below `directory` if there is one.
pub fn read(path: &Path, directory: Option<&Path>) -> Result<Vec<u8>, FileError> {
    check_path(path)?;
    let handle = match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(handle) => handle,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Err(FileError::Missing),
        Err(error) => return Err(FileError::Io(error.into())),
    };
    let own_name = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
    check_place(&std::fs::read_link(&own_name)?, directory)?;
    check_regular(&handle)?;
    read_bounded(File::open(&own_name)?)
}

/// The bytes of a file that the operator named on the command line: it may be anywhere, but it must be a file.
pub fn read_trusted(path: &Path) -> Result<Vec<u8>, FileError> {
    // Without waiting for the other end of a FIFO.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)?;
    check_regular(&file)?;
    read_bounded(File::from(file))
}

fn check_regular(file: &OwnedFd) -> Result<(), FileError> {
    let stat = rustix::fs::fstat(file).map_err(io::Error::from)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        _ => Err(FileError::NotRegular),
    }
}

fn check_path(path: &Path) -> Result<(), FileError> {
    if path.as_os_str().is_empty() {
        return Err(FileError::EmptyPath);
    }
    if !path.is_absolute() {
        return Err(FileError::Relative);
    }
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(FileError::Parent);
    }
    if path.extension().is_none_or(|extension| extension != "wasm") {
        return Err(FileError::Suffix);
    }
    Ok(())
}

/// `real` is where the file is, with every link followed.
fn check_place(real: &Path, directory: Option<&Path>) -> Result<(), FileError> {
    if let Some(directory) = directory {
        let allowed = directory.canonicalize()?;
        return if real.starts_with(allowed) { Ok(()) } else { Err(FileError::Outside(directory.to_owned())) };
    }
    if SYSTEM.iter().chain([&RUN]).any(|system| real.starts_with(system)) {
        return Err(FileError::Forbidden);
    }
    Ok(())
}

fn system_directories() -> String {
    format!("{} and {RUN}", SYSTEM.join(", "))
}

/// The size is checked while reading, too: a file can grow after it was looked at.
fn read_bounded(file: File) -> Result<Vec<u8>, FileError> {
    let size = file.metadata()?.len();
    if size > MAX_FILE {
        return Err(FileError::TooLarge);
    }
    let mut bytes = Vec::with_capacity(size as usize);
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        0 => Err(FileError::Empty),
        length if length > MAX_FILE => Err(FileError::TooLarge),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_refused_with_the_reason() {
        for (path, wanted) in [
            ("", "empty"),
            ("a.wasm", "absolute"),
            ("/a/../b.wasm", "`..`"),
            ("/a/b.wat", ".wasm"),
            ("/a/wasm", ".wasm"),
            ("/nowhere/at/all.wasm", "no such file"),
        ] {
            let error = read(Path::new(path), None).expect_err(path).to_string();
            assert!(error.contains(wanted), "{path}: {error}");
        }
    }

    #[test]
    fn system_directories_are_told_from_their_namesakes() {
        for (real, good) in
            [("/etc/a.wasm", false), ("/run/a.wasm", false), ("/etcetera/a.wasm", true), ("/srv/etc/a.wasm", true)]
        {
            assert_eq!(check_place(Path::new(real), None).is_ok(), good, "{real}");
        }
    }
}
