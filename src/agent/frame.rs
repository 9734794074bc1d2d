//! Frames: a length of four bytes, big-endian, and that many bytes. Both versions of the protocol have them.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

/// The longest frame of any version.
pub const MAX_FRAME: usize = 16 << 20;
/// Time in which a frame that has begun must be complete.
const FRAME_TIME: Duration = Duration::from_secs(10);
/// Room that is made at a time: what a frame says of its length is no reason to set memory aside.
const READ_AT_ONCE: usize = 16 << 10;

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes; 1 to {MAX_FRAME} are allowed")]
    Length(u32),
    #[error("the connection was closed within a frame")]
    BrokenOff,
    #[error("a frame was not complete within {} s", FRAME_TIME.as_secs())]
    Slow,
    #[error("reading failed: {0}")]
    Io(#[from] io::Error),
}

/// The frames that a peer sends.
pub struct Frames<R> {
    reader: R,
    received: BytesMut,
    /// When the frame that is being received began.
    began: Option<Instant>,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    pub fn new(reader: R) -> Self {
        Self { reader, received: BytesMut::new(), began: None }
    }

    /// The content of the next frame, never empty; `None` when the peer is done. Nothing is lost when the
    /// future is dropped before it is ready.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(frame) = self.take()? {
                self.began = None;
                return Ok(Some(frame));
            }
            self.received.reserve(READ_AT_ONCE);
            if self.received.is_empty() {
                self.began = None;
            } else {
                self.began.get_or_insert_with(Instant::now);
            }
            let read = self.reader.read_buf(&mut self.received);
            let count = match self.began {
                None => read.await?,
                Some(began) => {
                    tokio::time::timeout_at(began + FRAME_TIME, read).await.map_err(|_| FrameError::Slow)??
                }
            };
            match count {
                0 if self.received.is_empty() => return Ok(None),
                0 => return Err(FrameError::BrokenOff),
                _ => {}
            }
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.received.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)) else { return Ok(None) };
        let size = length as usize;
        if size == 0 || size > MAX_FRAME {
            return Err(FrameError::Length(length));
        }
        if self.received.len() - 4 < size {
            return Ok(None);
        }
        self.received.advance(4);
        Ok(Some(self.received.split_to(size).freeze()))
    }
}

/// A frame around `parts`, in one piece.
pub fn framed(parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut frame = Vec::with_capacity(4 + length);
    frame.extend_from_slice(&u32::try_from(length).expect("what we write is bounded").to_be_bytes());
    parts.iter().for_each(|part| frame.extend_from_slice(part));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Result<Vec<Bytes>, FrameError> {
        let mut frames = Frames::new(bytes);
        let mut all = Vec::new();
        while let Some(frame) = frames.next().await? {
            all.push(frame);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn frames_follow_each_other() {
        let bytes = [framed(&[b"a", b"bc"]), framed(&[b"d"])].concat();
        assert_eq!(read(&bytes).await.expect("two frames"), [&b"abc"[..], b"d"]);
        assert!(read(b"").await.expect("no frame").is_empty());
    }

    #[tokio::test]
    async fn lengths_are_bounded_and_what_breaks_off_is_an_error() {
        assert!(matches!(read(&[0; 4]).await, Err(FrameError::Length(0))));
        assert!(matches!(read(&[0xff; 4]).await, Err(FrameError::Length(u32::MAX))));
        assert!(matches!(read(&[1, 0, 0, 1, 0]).await, Err(FrameError::Length(16_777_217))));
        assert!(matches!(read(&[0, 0]).await, Err(FrameError::BrokenOff)));
        assert!(matches!(read(&[0, 0, 0, 2, 1]).await, Err(FrameError::BrokenOff)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_has_begun_must_end_in_time() {
        let (mut peer, ours) = tokio::io::duplex(64);
        let mut frames = Frames::new(ours);
        let idle = tokio::time::timeout(Duration::from_secs(3600), frames.next()).await;
        assert!(idle.is_err(), "between frames there is no hurry");
        tokio::io::AsyncWriteExt::write_all(&mut peer, &[0, 0, 0, 9, 1]).await.expect("room for five bytes");
        assert!(matches!(frames.next().await, Err(FrameError::Slow)));
    }
}
