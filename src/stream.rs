//! The bytes between the gateway and a client or a worker: a TCP socket, TLS on it, or a Unix socket.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::mem::MaybeUninit;
use std::ops::DerefMut;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use rustls::{ConnectionCommon, ProtocolVersion, SideData};
use socket2::{SockRef, Socket as RawSocket};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

/// A connection.
///
/// Reading gives 0 bytes at an orderly end only: with TLS an end that was not announced (`close_notify`) is
/// [`io::ErrorKind::UnexpectedEof`], because anyone on the path can make it (RFC 9112 section 9.8). What TLS says to
/// itself, such as session tickets, is no data: a read takes it in and stays pending.
///
/// TLS keeps up to 64 KiB that the socket has not taken; [`AsyncWrite::poll_flush`] is ready when it has.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Stream {
    /// The socket, for its options and addresses; `None` if it is a Unix socket. Whoever writes to it directly breaks TLS.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Stream::Plain(tcp) => Some(tcp),
            Stream::Tls(tls) => Some(tls.get_ref().0),
            Stream::Unix(_) => None,
        }
    }

    /// What the system says of the socket now. Nobody is woken when that changes.
    pub fn look(&self, interest: Interest, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        match self {
            Stream::Plain(tcp) => pin!(tcp.ready(interest)).poll(cx),
            Stream::Tls(tls) => pin!(tls.get_ref().0.ready(interest)).poll(cx),
            Stream::Unix(unix) => pin!(unix.ready(interest)).poll(cx),
        }
    }
}

impl Stream {
    /// Whether nothing has arrived that has not been read: no byte, no end. The socket itself is asked. The runtime
    /// learns of what arrives when it next looks for events, which a task that computes can delay.
    pub fn is_silent(&mut self) -> bool {
        match self {
            Stream::Plain(tcp) => is_silent_socket(&SockRef::from(&*tcp)),
            Stream::Unix(unix) => is_silent_socket(&SockRef::from(&*unix)),
            Stream::Tls(tls) => match &mut **tls {
                TlsStream::Client(tls) => {
                    let (tcp, session) = tls.get_mut();
                    is_silent_session(session, &SockRef::from(&*tcp))
                }
                TlsStream::Server(tls) => {
                    let (tcp, session) = tls.get_mut();
                    is_silent_session(session, &SockRef::from(&*tcp))
                }
            },
        }
    }

    /// Whether the runtime has noticed that something has arrived.
    pub fn is_readable(&self) -> bool {
        match self {
            Stream::Plain(tcp) => tcp.try_io(Interest::READABLE, || Ok(())),
            Stream::Tls(tls) => tls.get_ref().0.try_io(Interest::READABLE, || Ok(())),
            Stream::Unix(unix) => unix.try_io(Interest::READABLE, || Ok(())),
        }
        .is_ok()
    }

    /// The version of TLS, such as `1.3`; empty without.
    pub fn tls_version(&self) -> &'static str {
        let Stream::Tls(tls) = self else { return "" };
        match tls.get_ref().1.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            _ => "unknown",
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_read(cx, into),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_read(cx, into),
            Stream::Unix(unix) => Pin::new(unix).poll_read(cx, into),
        }
    }
}

/// After an error of a write the socket has taken nothing of that write: whoever wrote may write it elsewhere.
impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Stream::Tls(tls) => poll_write_tls(tls, cx, &[IoSlice::new(bytes)]),
            Stream::Unix(unix) => Pin::new(unix).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Stream::Tls(tls) => poll_write_tls(tls, cx, slices),
            Stream::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(tcp) => tcp.is_write_vectored(),
            // Records are filled from one slice after the other.
            Stream::Tls(_) => true,
            Stream::Unix(unix) => unix.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_flush(cx),
            Stream::Unix(unix) => Pin::new(unix).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(cx),
            Stream::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
        }
    }
}

fn is_silent_socket(socket: &RawSocket) -> bool {
    socket.peek(&mut [MaybeUninit::uninit()]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// What TLS says to itself is taken in: it is no data.
fn is_silent_session<D: SideData>(
    session: &mut impl DerefMut<Target = ConnectionCommon<D>>,
    mut socket: &RawSocket,
) -> bool {
    loop {
        match session.process_new_packets() {
            Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {}
            Ok(_) | Err(_) => return false,
        }
        match session.read_tls(&mut socket) {
            Ok(1..) => {}
            Ok(0) => return false,
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

fn poll_write_tls(
    tls: &mut TlsStream<TcpStream>,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    match tls {
        TlsStream::Client(tls) => {
            let (tcp, session) = tls.get_mut();
            poll_write_session(session, &mut Socket { tcp, cx }, slices)
        }
        TlsStream::Server(tls) => {
            let (tcp, session) = tls.get_mut();
            poll_write_session(session, &mut Socket { tcp, cx }, slices)
        }
    }
}

/// The library's own `poll_write_vectored` may fail after the socket took some of the bytes, and a request that was
/// sent in part must not be sent again as if it had not been.
fn poll_write_session<D: SideData>(
    session: &mut impl DerefMut<Target = ConnectionCommon<D>>,
    socket: &mut dyn Write,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if slices.iter().all(|slice| slice.is_empty()) {
        return Poll::Ready(Ok(0));
    }
    let taken = session.writer().write_vectored(slices)?;
    let mut sent = 0;
    while session.wants_write() {
        match session.write_tls(socket) {
            Ok(count) if count > 0 => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // The next write or flush meets it again.
            _ if taken > 0 && sent > 0 => break,
            Ok(_) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
    if taken > 0 {
        return Poll::Ready(Ok(taken));
    }
    if session.wants_write() {
        return Poll::Pending;
    }
    // There was no room for anything, and now there is.
    match session.writer().write_vectored(slices)? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        taken => Poll::Ready(Ok(taken)),
    }
}

/// The socket as rustls writes to it; what the socket does not take now wakes the task later.
struct Socket<'a, 'b> {
    tcp: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

impl Write for Socket<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        blocking(Pin::new(&mut *self.tcp).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        blocking(Pin::new(&mut *self.tcp).poll_write_vectored(self.cx, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn blocking<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

#[cfg(test)]
mod tests;
