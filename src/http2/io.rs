//! The connection that h2 reads and writes. The frames that it reads go through the filter.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::filter::{Filter, Limits};
use super::{Budget, PREFACE, Requests};

/// A connection whose first bytes may have been read already.
pub struct FilteredIo<S> {
    stream: S,
    /// Bytes that have been read but not filtered.
    unread: BytesMut,
    filter: Filter,
}

impl<S> FilteredIo<S> {
    /// A connection with a client, which begins with the preface.
    pub fn with_client(stream: S, unread: BytesMut, limits: Limits, requests: Rc<Requests>) -> Self {
        let filter = Filter::new(limits, Some(Budget::new(Instant::now(), requests)), PREFACE.len());
        Self { stream, unread, filter }
    }

    /// A connection with a worker.
    pub fn with_worker(stream: S, limits: Limits) -> Self {
        Self { stream, unread: BytesMut::new(), filter: Filter::new(limits, None, 0) }
    }

    fn note_write(&mut self) {
        if let Some(budget) = &mut self.filter.budget {
            budget.note_write();
        }
    }

    /// Fails a pending write if the peer is cut off, so that nothing waits for the peer.
    fn unless_cut_off<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Pending if self.filter.is_cut_off => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            written => written,
        }
    }
}

impl<S> AsyncRead for FilteredIo<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, unread, filter } = &mut *self;
        loop {
            if !filter.ready.is_empty() {
                move_into(buffer, &mut filter.ready);
                return Poll::Ready(Ok(()));
            }
            if filter.is_cut_off {
                return Poll::Ready(Err(io::Error::other("a flood of HTTP/2 frames")));
            }
            let before = buffer.filled().len();
            match unread.is_empty() {
                true => ready!(Pin::new(&mut *stream).poll_read(cx, buffer))?,
                false => move_into(buffer, unread),
            }
            let arrived = &buffer.filled()[before..];
            if arrived.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if let Some(budget) = &mut filter.budget {
                budget.note_time(Instant::now());
            }
            let passed = filter.take(arrived);
            buffer.set_filled(before + passed);
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// Moves as many bytes as there is room for. Frees the memory of `bytes` when it is empty.
fn move_into(buffer: &mut ReadBuf<'_>, bytes: &mut BytesMut) {
    let count = bytes.len().min(buffer.remaining());
    buffer.put_slice(&bytes[..count]);
    bytes.advance(count);
    if bytes.is_empty() {
        *bytes = BytesMut::new();
    }
}

impl<S> AsyncWrite for FilteredIo<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.note_write();
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.unless_cut_off(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.note_write();
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.unless_cut_off(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.unless_cut_off(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.unless_cut_off(shut)
    }
}
