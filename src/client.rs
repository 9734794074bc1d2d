//! Who calls, and the body that they send, whichever version of HTTP they speak.

mod http2_body;

use std::cell::Cell;
use std::net::SocketAddr;
use std::ops::Deref;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http::header::HeaderValue;
use http::uri::Scheme;
use http_body::{Body, Frame, SizeHint};

pub use self::http2_body::{Http2Body, Late};
use crate::connection::ClientConnection;
use crate::headers;
use crate::http1::MessageError;
use crate::http1::head::Response;
use crate::patience::{Patience, StreamClock};
use crate::stream::Stream;

/// What a listener answers, besides the health endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offers {
    Everything,
    /// The admin API and `/metrics`.
    AdminApi,
    /// Requests for workers.
    DataPlane,
}

/// Where a client connects from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Address(SocketAddr),
    /// This machine, by a Unix socket.
    UnixSocket,
}

/// What a request must know of its connection.
pub struct Client {
    pub peer: Peer,
    /// The client's address without port, as `X-Forwarded-For` shows it; `unix` if it has none.
    pub address: HeaderValue,
    /// `https` if the connection is encrypted.
    pub scheme: Scheme,
    pub offers: Offers,
    /// The version of TLS, such as `1.3`; empty without.
    pub tls: &'static str,
    /// A request on the connection has been sent to a worker.
    pub has_asked: Cell<bool>,
}

impl Client {
    pub fn new(peer: Peer, stream: &Stream, offers: Offers) -> Self {
        let address = match peer {
            Peer::Address(peer) => HeaderValue::from_str(&peer.ip().to_canonical().to_string())
                .expect("an address is a valid header value"),
            Peer::UnixSocket => HeaderValue::from_static("unix"),
        };
        let tls = stream.tls_version();
        let scheme = if tls.is_empty() { Scheme::HTTP } else { Scheme::HTTPS };
        Self { peer, address, scheme, offers, tls, has_asked: Cell::default() }
    }
}

/// Whom the gateway answers, and what it can tell them before the answer.
pub enum Caller<'a> {
    /// With the version of the request.
    Http1(&'a ClientConnection, Version),
    Http2(&'a Client, &'a StreamClock),
}

/// What became of an interim answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interim {
    Sent,
    /// The client does not know of such, or has not taken what it was sent before.
    Withheld,
}

impl Caller<'_> {
    /// The request may take so long, whatever holds for others.
    pub fn allow(&self, request: Duration) {
        match self {
            Self::Http1(connection, _) => connection.allow(request),
            Self::Http2(_, clock) => clock.allow(Patience::exchange(request)),
        }
    }

    /// Passes on an interim answer of a worker, to clients that know of such (RFC 9110 section 15.2). hyper's server
    /// can't send any in HTTP/2.
    pub fn send_interim(&self, cx: &mut Context<'_>, mut answer: Response) -> Interim {
        let Self::Http1(connection, Version::HTTP_11) = self else { return Interim::Withheld };
        headers::strip_hop_by_hop(&mut answer.headers);
        connection.send_interim(cx, answer.status, &answer.headers)
    }
}

impl Deref for Caller<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        match self {
            Self::Http1(connection, _) => &connection.client,
            Self::Http2(client, _) => client,
        }
    }
}

/// Why a request's body can't be read.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    #[error(transparent)]
    Http1(#[from] MessageError),
    #[error(transparent)]
    Http2(#[from] hyper::Error),
    #[error("the stream was reset before its end")]
    Cut,
    #[error("the client has sent nothing for too long")]
    Slow,
}

/// The body of the request that is being answered, as it arrives.
pub enum RequestBody {
    Http1(Rc<ClientConnection>),
    Http2(Http2Body),
}

impl RequestBody {
    /// It will come in one piece, if that can be had: who wants it whole need not copy it together.
    pub fn expect_whole(&self) {
        if let Self::Http1(connection) = self {
            connection.expect_whole();
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        match &mut *self {
            Self::Http1(connection) => connection.poll_body(cx).map_err(RequestBodyError::Http1),
            Self::Http2(body) => match ready!(Pin::new(body.incoming_mut()).poll_frame(cx)) {
                // hyper takes a reset without an error for an end.
                None if !body.incoming().is_end_stream() => Poll::Ready(Some(Err(RequestBodyError::Cut))),
                frame => Poll::Ready(frame.map(|frame| frame.map_err(RequestBodyError::Http2))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_body_ended(),
            Self::Http2(body) => body.incoming().is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(connection) => connection.body_size_hint(),
            Self::Http2(body) => body.incoming().size_hint(),
        }
    }
}
