//! Serves one client's connection (HTTP/1.1).

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::net::TcpStream;

use crate::connection::{ClientConnection, ClientIo, Patience};
use crate::gateway::Gateway;
use crate::gateway::record::CountedConnection;

/// Header lines and bytes of a request's head; 431 above.
const MAX_HEADERS: usize = 100;
const MAX_HEAD: usize = 64 * 1024;
/// What is read ahead of one connection's client at most.
const MAX_BUFFERED: usize = 128 * 1024;

/// Serves a connection until its client closes it, takes too long, or the gateway drains.
pub async fn serve(
    gateway: Rc<Gateway>,
    stream: TcpStream,
    peer: SocketAddr,
    _counted: CountedConnection,
    patience: Patience,
) {
    let connection = ClientConnection::new(stream, peer, &gateway.deadlines, patience);
    let service = service_fn({
        let (gateway, connection) = (gateway.clone(), connection.clone());
        move |request| gateway.clone().handle(connection.clone(), request)
    });
    let mut builder = http1::Builder::new();
    builder.max_headers(MAX_HEADERS).max_header_size(MAX_HEAD).max_buf_size(MAX_BUFFERED);
    builder.header_read_timeout(None);
    {
        let mut http = pin!(builder.serve_connection(ClientIo(connection.clone()), service));
        let mut told_to_close = false;
        let ended = poll_fn(|cx| {
            if connection.poll_expired(cx).is_ready() {
                connection.break_off_exchange();
                return Poll::Ready(Ended::Expired);
            }
            let polled = http.as_mut().poll(cx);
            // Only after a look at what has arrived: a request that is here already is answered.
            if polled.is_ready() || told_to_close || !gateway.is_draining() {
                return polled.map(|_| Ended::Closed);
            }
            told_to_close = true;
            http.as_mut().graceful_shutdown();
            http.as_mut().poll(cx).map(|_| Ended::Closed)
        });
        if let Ended::Expired = ended.await {
            return;
        }
    }
    connection.close().await;
}

enum Ended {
    Closed,
    Expired,
}
