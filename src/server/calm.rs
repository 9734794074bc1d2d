//! A client's connection under HTTP/2, and how many frames it may be sent that ask for nothing.
//!
//! h2 bounds what resets, heads and empty frames cost. PING, SETTINGS, PRIORITY, WINDOW_UPDATE and frames of unknown types
//! it answers or passes over for ever, and each costs work (CVE-2019-9512, CVE-2019-9515). So they are counted here, by
//! looking at the headers of frames as they pass (RFC 9113 section 4.1). Frames that carry something, what is written,
//! and time earn the right to more of them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http1::wire::Wire;

/// Length of the preface and of a frame's header.
const PREFACE: u64 = 24;
const HEADER: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// Frames that a client may send for nothing: at first and at most; more with each second, with each frame that carries
/// something, and with each write, which it may have to acknowledge.
const MOST: f64 = 2000.0;
const A_SECOND: f64 = 50.0;
const A_FRAME: f64 = 2.0;
const A_WRITE: f64 = 4.0;

/// A connection of which something may have been read.
pub struct CalmIo<S> {
    wire: Wire<S>,
    frames: Frames,
}

impl<S> CalmIo<S> {
    pub fn new(wire: Wire<S>) -> Self {
        Self { wire, frames: Frames::new(Instant::now()) }
    }
}

/// The frames of a connection as they pass.
struct Frames {
    header: [u8; HEADER],
    known: usize,
    /// Bytes up to the next header.
    skip: u64,
    credit: f64,
    since: Instant,
}

/// There were too many for nothing.
struct Flood;

impl Frames {
    fn new(now: Instant) -> Self {
        Self { header: [0; HEADER], known: 0, skip: PREFACE, credit: MOST, since: now }
    }

    fn earn(&mut self, credit: f64) {
        self.credit = (self.credit + credit).min(MOST);
    }

    fn pass(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        self.earn(now.saturating_duration_since(self.since).as_secs_f64() * A_SECOND);
        self.since = now;
        while !bytes.is_empty() {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= skipped as u64;
            bytes.advance(skipped);
            let count = (HEADER - self.known).min(bytes.len());
            self.header[self.known..self.known + count].copy_from_slice(&bytes[..count]);
            self.known += count;
            bytes.advance(count);
            if self.known == HEADER {
                self.begin()?;
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Flood> {
        let [high, middle, low, kind, ..] = self.header;
        self.skip = u64::from(u32::from_be_bytes([0, high, middle, low]));
        self.known = 0;
        match kind {
            DATA | HEADERS if self.skip > 0 => self.earn(A_FRAME),
            _ if self.credit < 1.0 => return Err(Flood),
            _ => self.credit -= 1.0,
        }
        Ok(())
    }
}

impl<S> AsyncRead for CalmIo<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { wire: Wire { unread, stream, .. }, frames } = &mut *self;
        let before = buffer.filled().len();
        if unread.is_empty() {
            ready!(Pin::new(stream).poll_read(cx, buffer))?;
        } else {
            let count = unread.len().min(buffer.remaining());
            buffer.put_slice(&unread[..count]);
            unread.advance(count);
        }
        let passed = frames.pass(&buffer.filled()[before..], Instant::now());
        Poll::Ready(passed.map_err(|Flood| io::Error::other("a flood of HTTP/2 frames")))
    }
}

impl<S> AsyncWrite for CalmIo<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.frames.earn(A_WRITE);
        Pin::new(&mut self.wire.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.frames.earn(A_WRITE);
        Pin::new(&mut self.wire.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let mut frame = (length as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, 0, 0, 0, 0, 0]);
        frame.resize(HEADER + length, 0);
        frame
    }

    /// How many of these frames pass, in pieces of `step` bytes.
    fn passed(frames: &mut Frames, now: Instant, wire: &[u8], step: usize) -> usize {
        wire.chunks(step).take_while(|piece| frames.pass(piece, now).is_ok()).count()
    }

    #[test]
    fn frames_for_nothing_are_bounded_however_they_arrive() {
        let ping = frame(6, 8);
        for step in [1, 5, ping.len()] {
            let now = Instant::now();
            let mut frames = Frames::new(now);
            assert_eq!(passed(&mut frames, now, &[0; 24], 24), 1);
            let flood = ping.repeat(MOST as usize + 1);
            assert_eq!(passed(&mut frames, now, &flood, step) * step / ping.len(), MOST as usize, "{step}");
            assert_eq!(passed(&mut frames, now + Duration::from_secs(1), &ping, ping.len()), 1, "time has passed");
        }
    }

    #[test]
    fn frames_that_carry_something_and_writes_earn_others() {
        let now = Instant::now();
        let mut frames = Frames::new(now);
        frames.skip = 0;
        let turn = [frame(DATA, 100), frame(8, 4), frame(8, 4)].concat();
        assert_eq!(passed(&mut frames, now, &turn.repeat(10_000), turn.len()), 10_000);
        let empty = frame(DATA, 0);
        assert!(passed(&mut frames, now, &empty.repeat(10_000), empty.len()) <= MOST as usize);
        frames.earn(A_WRITE);
        assert_eq!(passed(&mut frames, now, &frame(8, 4).repeat(10), HEADER + 4), 4);
    }
}
