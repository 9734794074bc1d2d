//! Frames of the Sentinel (Zentinel) proxy's agent protocol, on a blocking Unix socket.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long a proxy waits for an answer before the test fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// Frames on a socket: a length of four bytes, big-endian, and that many bytes.
pub struct Frames(UnixStream);

impl Frames {
    pub fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Frames(stream))
    }

    pub fn stream(&self) -> &UnixStream {
        &self.0
    }

    /// Writes bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Writes one frame.
    #[track_caller]
    pub fn send(&mut self, content: &[u8]) {
        self.try_send(content).unwrap_or_else(|e| panic!("the agent does not take our bytes: {e}"));
    }

    pub fn try_send(&mut self, content: &[u8]) -> io::Result<()> {
        let length = u32::try_from(content.len()).expect("a frame");
        self.write(&[&length.to_be_bytes(), content].concat())
    }

    /// The next frame; `None` if the agent ended the connection before it.
    pub fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut length = [0; 4];
        match self.0.read(&mut length) {
            Ok(0) => return Ok(None),
            Ok(read) => self.0.read_exact(&mut length[read..])?,
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(None),
            Err(e) => return Err(e),
        }
        let mut content = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut content)?;
        Ok(Some(content))
    }

    /// Whether nothing more comes and the connection ends in time.
    pub fn ends_within(&mut self, patience: Duration) -> bool {
        self.0.set_read_timeout(Some(patience)).expect("a timeout above zero");
        matches!(self.read(), Ok(None))
    }

    /// Whether no byte and no end comes for `period`.
    pub fn is_silent_for(&mut self, period: Duration) -> bool {
        self.0.set_read_timeout(Some(period)).expect("a timeout above zero");
        let silent = matches!(self.0.read(&mut [0]), Err(e) if e.kind() == ErrorKind::WouldBlock);
        self.0.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        silent
    }
}
