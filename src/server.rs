//! Serves one client's connection, in the version of HTTP that the client speaks.

mod http1;
mod http2;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::net::{TcpStream, UnixStream};

use crate::client::{Client, Offers, Peer};
use crate::connection::{ClientConnection, LEAVE};
use crate::deadline::Deadline;
use crate::gateway::Gateway;
use crate::gateway::metrics::CountedConnection;
use crate::http1::wire::Wire;
use crate::http2::PREFACE;
use crate::stream::Stream;
use crate::tls::{self, Alpn, ServerTls};

/// A connection that has been accepted.
pub struct Arrival {
    pub socket: ClientSocket,
    /// `None` where its listener speaks no TLS.
    pub tls: Option<Arc<ServerTls>>,
    pub offers: Offers,
    pub counted: CountedConnection,
}

/// The socket of a client's connection; it does not block.
pub enum ClientSocket {
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

impl ClientSocket {
    /// Gives it to the runtime of this thread.
    fn open(self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(stream, peer) => Ok((Stream::Plain(TcpStream::from_std(stream)?), Peer::Address(peer))),
            Self::Unix(stream) => Ok((Stream::Unix(UnixStream::from_std(stream)?), Peer::UnixSocket)),
        }
    }
}

/// Serves a connection until its client closes it, takes too long, or the gateway drains.
pub async fn serve(gateway: Rc<Gateway>, arrival: Arrival) {
    let Arrival { socket, tls, offers, counted: _counted } = arrival;
    let (stream, peer) = match socket.open() {
        Ok(opened) => opened,
        Err(error) => return tracing::warn!(%error, "a connection can't be served"),
    };
    let deadline = gateway.deadlines.register();
    gateway.keep_up();
    let patience = gateway.patience.clone();
    deadline.set(patience.get().head);
    let (stream, alpn) = match (stream, tls) {
        (Stream::Plain(stream), Some(tls)) => match shake_hands(&gateway, &tls, stream, &deadline).await {
            Some(accepted) => (accepted.stream, Some(accepted.alpn)),
            None => return,
        },
        (stream, _) => (stream, None),
    };
    let client = Client::new(peer, &stream, offers);
    let mut wire = Wire::new(stream);
    let protocol = match alpn {
        Some(Alpn::Http2) => Protocol::Http2,
        Some(Alpn::Http1) | None => {
            let mut is_leaving = false;
            poll_fn(|cx| {
                let protocol = poll_protocol(&mut wire, &deadline, cx);
                if protocol.is_pending() && gateway.is_draining() && !is_leaving {
                    // It may not know yet, and have a request on its way.
                    is_leaving = true;
                    deadline.set(LEAVE);
                }
                protocol
            })
            .await
        }
    };
    match protocol {
        Protocol::Http2 if alpn != Some(Alpn::Http1) => {
            gateway.metrics.protocols.http2.add(1);
            http2::serve(&gateway, wire, client, deadline).await
        }
        // Over TLS, HTTP/2 must be agreed on by ALPN (RFC 9113 section 3.2): read as HTTP/1.1, its preface is a 505.
        Protocol::Http1 | Protocol::Http2 => {
            gateway.metrics.protocols.http1.add(1);
            http1::serve(&gateway, ClientConnection::new(wire, client, deadline, patience)).await
        }
        Protocol::None => {}
    }
}

/// The handshake of TLS, in the connection's own task and time; a drain does not wait for it.
async fn shake_hands(
    gateway: &Gateway,
    tls: &ServerTls,
    stream: TcpStream,
    deadline: &Deadline,
) -> Option<tls::Accepted> {
    let given_up = poll_fn(|cx| match deadline.poll_expired(cx) {
        Poll::Pending if !gateway.is_draining() => Poll::Pending,
        _ => Poll::Ready(()),
    });
    let shaken = tokio::select! {
        biased;
        shaken = tls.accept(stream) => shaken,
        () = given_up => Err(io::ErrorKind::TimedOut.into()),
    };
    gateway.metrics.handshakes.count(shaken.is_ok());
    shaken.inspect_err(|error| tracing::debug!(%error, "a TLS handshake failed")).ok()
}

/// What a client speaks.
enum Protocol {
    Http1,
    Http2,
    /// It has left, or has said nothing in time.
    None,
}

/// Looks at the first bytes: the preface of HTTP/2 is no request of HTTP/1.1.
fn poll_protocol(wire: &mut Wire<Stream>, deadline: &Deadline, cx: &mut Context<'_>) -> Poll<Protocol> {
    loop {
        let read = wire.unread.len();
        if read >= PREFACE.len() && wire.unread.starts_with(PREFACE) {
            return Poll::Ready(Protocol::Http2);
        }
        if read > 0 && !PREFACE.starts_with(&wire.unread) {
            return Poll::Ready(Protocol::Http1);
        }
        if deadline.poll_expired(cx).is_ready() {
            return Poll::Ready(Protocol::None);
        }
        match wire.poll_fill(cx, 0) {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Protocol::None),
            Poll::Ready(Ok(_)) => {}
            Poll::Pending => return Poll::Pending,
        }
    }
}
