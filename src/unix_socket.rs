//! A Unix socket to listen on: for its owner only, in place of a stale one but not of one that somebody listens on.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use tokio::net::{UnixListener, UnixStream};

/// Read and write for the owner, nothing for others.
const OWNER_ONLY: Mode = Mode::from_bits_retain(0o177);

/// Names to try before the path is taken.
const MOST_NAMES: u32 = 16;

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("another process listens on it")]
    InUse,
    #[error("there is something else than a socket")]
    NotASocket,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A socket that is listened on.
pub struct Bound {
    pub listener: UnixListener,
    pub file: SocketFile,
}

/// The file of a socket. Dropping it removes the file, unless a successor has taken the path.
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

/// What becomes of a socket that another process listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InUse {
    Refuse,
    /// This process is its successor.
    TakeOver,
}

impl Bound {
    /// Listens under another name first and then takes the path, so that whoever connects there finds a
    /// listener with the right mode at any time.
    pub async fn new(path: &Path, in_use: InUse) -> Result<Self, SocketError> {
        match check_free(path).await {
            Err(SocketError::InUse) if in_use == InUse::TakeOver => {}
            checked => checked?,
        }
        // Whether a socket can have this path at all; the other name is a short one.
        SocketAddr::from_pathname(path)?;
        let (listener, unready) = bind_beside(path)?;
        let taken = listener.set_nonblocking(true).and_then(|()| fs::rename(&unready, path));
        if let Err(error) = taken {
            // The path was not taken; what is left of the attempt goes away.
            let _ = fs::remove_file(&unready);
            return Err(error.into());
        }
        let file = fs::symlink_metadata(path)?;
        let file = SocketFile { path: path.to_owned(), id: (file.dev(), file.ino()) };
        Ok(Self { listener: UnixListener::from_std(listener)?, file })
    }
}

/// Binds to a name beside `path` that nobody has. A process that was killed may have left such a name behind, and in a
/// container the next one has the same process id; so names are random.
fn bind_beside(path: &Path) -> io::Result<(StdListener, PathBuf)> {
    let mut attempts = 0;
    loop {
        let unready = path.with_file_name(format!(".{:06x}", fastrand::u32(..1 << 24)));
        let others = rustix::process::umask(OWNER_ONLY);
        let bound = StdListener::bind(&unready);
        rustix::process::umask(others);
        attempts += 1;
        match bound {
            Err(error) if error.kind() == ErrorKind::AddrInUse && attempts < MOST_NAMES => {}
            bound => return Ok((bound?, unready)),
        }
    }
}

async fn check_free(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(file) if !file.file_type().is_socket() => return Err(SocketError::NotASocket),
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(SocketError::InUse),
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(()),
        // Its queue is full: somebody listens.
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(SocketError::InUse),
        Err(error) => Err(error.into()),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.id);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_killed_process_left_behind_is_no_obstacle() {
        let directory = std::env::temp_dir().join(format!("smg-unix-socket-{:x}", fastrand::u64(..)));
        fs::create_dir(&directory).expect("a directory");
        let left = directory.join(format!(".{:x}", std::process::id()));
        drop(StdListener::bind(&left).expect("a socket"));
        let path = directory.join("s");
        let bound = Bound::new(&path, InUse::Refuse).await.expect("the path is free");
        let names = || fs::read_dir(&directory).expect("a directory").count();
        assert_eq!(names(), 2);
        drop(bound);
        assert_eq!(names(), 1);
        fs::remove_dir_all(&directory).expect("it is ours");
    }
}
