//! Serves one client's connection, in the version of HTTP that the client speaks.

mod http1;
mod http2;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::uri::Scheme;
use tokio::net::TcpStream;

use crate::client::Client;
use crate::connection::{ClientConnection, Patience};
use crate::deadline::Deadline;
use crate::gateway::Gateway;
use crate::gateway::record::CountedConnection;
use crate::http1::wire::Wire;

/// What a client that knows the gateway speaks HTTP/2 sends first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection until its client closes it, takes too long, or the gateway drains.
pub async fn serve(
    gateway: Rc<Gateway>,
    stream: TcpStream,
    peer: SocketAddr,
    _counted: CountedConnection,
    patience: Patience,
) {
    let deadline = gateway.deadlines.register();
    deadline.set(patience.head);
    let client = Client::new(peer, Scheme::HTTP);
    let mut wire = Wire::new(stream);
    match poll_fn(|cx| poll_protocol(&gateway, &mut wire, &deadline, cx)).await {
        Protocol::Http1 => http1::serve(&gateway, ClientConnection::new(wire, client, deadline, patience)).await,
        Protocol::Http2 => http2::serve(&gateway, wire, client, deadline, patience).await,
        Protocol::None => {}
    }
}

/// What a client speaks.
enum Protocol {
    Http1,
    Http2,
    /// It has left, or has said nothing in time.
    None,
}

/// Looks at the first bytes: the preface of HTTP/2 is no request of HTTP/1.1.
fn poll_protocol(
    gateway: &Gateway,
    wire: &mut Wire<TcpStream>,
    deadline: &Deadline,
    cx: &mut Context<'_>,
) -> Poll<Protocol> {
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
            Poll::Pending if gateway.is_draining() && read == 0 => return Poll::Ready(Protocol::None),
            Poll::Pending => return Poll::Pending,
        }
    }
}
