//! A socket with what has been read ahead and what it did not take yet.
//!
//! Reading goes through one buffer of the thread, so a connection that waits holds no buffer at all: what has
//! arrived is copied once, into an allocation of its size. A body that flows is read straight into its own memory.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What is read at once through the thread's buffer.
const SCRATCH: usize = 16 * 1024;
/// What is read at once of a larger body.
const MOST: usize = 256 * 1024;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
    static WRITE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Wire<S> {
    pub stream: S,
    /// Read and not yet understood.
    pub unread: BytesMut,
    unwritten: Unwritten,
    /// The last read took all there was room for: more is likely to be there.
    pub flows: bool,
    max_read: usize,
    /// When the last read took everything that had arrived, if whoever read has noted it.
    pub drained_at: Option<Instant>,
}

/// What is left of one piece: a front of our own making, data, and a closing.
#[derive(Debug, Default)]
struct Unwritten {
    front: BytesMut,
    data: Bytes,
    back: &'static [u8],
}

impl Unwritten {
    fn len(&self) -> usize {
        self.front.len() + self.data.len() + self.back.len()
    }

    fn advance(&mut self, mut written: usize) {
        let front = written.min(self.front.len());
        self.front.advance(front);
        written -= front;
        let data = written.min(self.data.len());
        self.data.advance(data);
        written -= data;
        self.back = &self.back[written.min(self.back.len())..];
    }
}

impl<S> Wire<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            unread: BytesMut::new(),
            unwritten: Unwritten::default(),
            flows: false,
            max_read: MOST,
            drained_at: None,
        }
    }

    /// Reads what has arrived and appends it to `unread`; 0 at the end. `want` is what the message still lacks, as
    /// far as that is known: what flows of it is read without the copy.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, want: u64) -> Poll<io::Result<usize>> {
        self.poll_fill_up_to(cx, want.min(self.max_read as u64))
    }

    /// The same for a piece that is wanted whole: once it flows there is room for all of it, so it is never moved.
    pub fn poll_fill_whole(&mut self, cx: &mut Context<'_>, want: u64) -> Poll<io::Result<usize>> {
        self.poll_fill_up_to(cx, want)
    }

    fn poll_fill_up_to(&mut self, cx: &mut Context<'_>, room: u64) -> Poll<io::Result<usize>> {
        let read = if self.flows && room > SCRATCH as u64 {
            self.unread.reserve(usize::try_from(room).unwrap_or(SCRATCH));
            let read = ready!(pin!(self.stream.read_buf(&mut self.unread)).poll(cx))?;
            self.flows = read >= SCRATCH;
            read
        } else {
            let read = ready!(self.poll_fill_by_copy(cx))?;
            self.flows = read >= self.max_read.min(SCRATCH);
            read
        };
        self.drained_at = None;
        Poll::Ready(Ok(read))
    }

    fn poll_fill_by_copy(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let most = self.max_read.min(SCRATCH);
        READ.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(&mut scratch[..most]);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            self.unread.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }

    /// Reads no more than `count` bytes at once.
    pub fn limit_reads(&mut self, count: usize) {
        self.max_read = count;
    }

    /// Keeps no more memory than what is unread needs: what was read with it may be gone, and its memory not.
    pub fn compact(&mut self) {
        self.unread = match self.unread.is_empty() {
            true => BytesMut::new(),
            false => BytesMut::from(&self.unread[..]),
        };
        self.flows = false;
    }

    /// Bytes that the socket has not taken yet.
    pub fn unwritten(&self) -> usize {
        self.unwritten.len()
    }

    /// Takes the first `count` bytes of what is unread.
    pub fn take(&mut self, count: usize) -> Bytes {
        take(&mut self.unread, count)
    }

    /// Writes a piece: what `front` writes, `data`, `back`. What the socket does not take at once is kept for
    /// [`Wire::poll_flush`], which must have been ready before. After an error nothing of it was written, and `data`
    /// is still there.
    pub fn send(
        &mut self,
        cx: &mut Context<'_>,
        front: impl FnOnce(&mut Vec<u8>),
        data: &mut Bytes,
        back: &'static [u8],
    ) -> io::Result<()> {
        debug_assert!(self.unwritten() == 0, "one piece at a time");
        WRITE.with_borrow_mut(|scratch| {
            scratch.clear();
            front(scratch);
            let slices = [IoSlice::new(scratch), IoSlice::new(data), IoSlice::new(back)];
            let written = match Pin::new(&mut self.stream).poll_write_vectored(cx, &slices) {
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => 0,
            };
            let (length, data) = (scratch.len() + data.len() + back.len(), std::mem::take(data));
            if written < length {
                let rest = &scratch[written.min(scratch.len())..];
                self.unwritten = Unwritten { front: BytesMut::from(rest), data, back };
                self.unwritten.advance(written.saturating_sub(scratch.len()));
            }
            Ok(())
        })
    }

    /// Ready when everything has been given to the socket.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unwritten() > 0 {
            let Unwritten { front, data, back } = &self.unwritten;
            let slices = [IoSlice::new(front), IoSlice::new(data), IoSlice::new(back)];
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unwritten.advance(written);
        }
        // Buffers between us and the socket, such as those of TLS.
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

/// Takes the first `count` bytes; all of them without sharing the memory with what is left.
pub fn take(unread: &mut BytesMut, count: usize) -> Bytes {
    match count == unread.len() {
        true => std::mem::take(unread).freeze(),
        false => unread.split_to(count).freeze(),
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;

    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(test)
    }

    #[test]
    fn a_piece_is_whole_however_little_the_socket_takes() {
        for capacity in 1..24 {
            let (near, mut far) = tokio::io::duplex(capacity);
            run(async {
                let mut wire = Wire::new(near);
                let writing = async {
                    poll_fn(|cx| {
                        let mut data = Bytes::from_static(b"some data");
                        wire.send(cx, |front| front.extend_from_slice(b"front:"), &mut data, b"\r\n").expect("open");
                        Poll::Ready(())
                    })
                    .await;
                    poll_fn(|cx| wire.poll_flush(cx)).await.expect("open");
                    drop(wire);
                };
                let mut text = String::new();
                let (_, read) = tokio::join!(writing, far.read_to_string(&mut text));
                read.expect("text");
                assert_eq!(text, "front:some data\r\n", "{capacity}");
            });
        }
    }

    #[test]
    fn what_arrives_is_appended_either_way() {
        let (near, far) = tokio::io::duplex(64);
        run(async {
            let (mut wire, mut far) = (Wire::new(near), Wire::new(far));
            for want in [0, 1 << 20] {
                poll_fn(|cx| Poll::Ready(far.send(cx, |_| {}, &mut Bytes::from_static(b"abc"), b"")))
                    .await
                    .expect("open");
                assert_eq!(poll_fn(|cx| wire.poll_fill(cx, want)).await.expect("open"), 3);
            }
            assert_eq!((&wire.take(4)[..], &wire.take(2)[..]), (&b"abca"[..], &b"bc"[..]));
            drop(far);
            assert_eq!(poll_fn(|cx| wire.poll_fill(cx, 0)).await.expect("the end"), 0);
        });
    }
}
