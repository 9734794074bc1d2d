//! Connections that leave HTTP (RFC 9110 section 7.8), such as WebSocket: only after the worker has said 101 do bytes go
//! through, in both directions, until both sides have ended, one fails, or neither has said anything for too long.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Version};
use http_body::Body;
use tokio::io::AsyncWrite;

use crate::client::RequestBody;
use crate::connection::ClientConnection;
use crate::deadline::Deadline;
use crate::http1::head::{self, Request};
use crate::http1::wire::Wire;
use crate::stream::Stream;

/// The protocol that a client asks to switch to, if that is passed on: not with a body, which the worker would have to
/// read first, and not HTTP/2, whose every request would then pass unseen (RFC 9113 section 3.1 has removed it).
pub fn asked(request: &Request, body: &RequestBody) -> Option<HeaderValue> {
    let may_ask = request.method == Method::GET && request.version == Version::HTTP_11 && body.is_end_stream();
    if !may_ask {
        return None;
    }
    let mut protocols = request.headers.get_all(header::UPGRADE).iter();
    let protocol = protocols.next().filter(|_| protocols.next().is_none())?;
    let is_one = protocol.as_bytes().iter().all(|byte| byte.is_ascii_graphic() && *byte != b',');
    let is_http = protocol.as_bytes().get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"h2"))
        || protocol.as_bytes().get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"http"));
    let is_asked = head::names_option(&request.headers, "upgrade");
    (is_asked && is_one && !is_http && !protocol.is_empty()).then(|| protocol.clone())
}

/// A worker's connection that has left HTTP.
pub struct Tunnel {
    worker: Wire<Stream>,
    /// What the client is told of the protocol.
    pub protocol: HeaderValue,
    idle: Deadline,
    most_idle: Duration,
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both sides have ended.
    Complete,
    ClientLeft,
    WorkerLeft,
    Idle,
}

/// Bytes that went through.
#[derive(Debug, Default, Clone, Copy)]
pub struct Traffic {
    pub from_client: u64,
    pub from_worker: u64,
}

impl Tunnel {
    pub fn new(worker: Wire<Stream>, protocol: HeaderValue, idle: Deadline, most_idle: Duration) -> Self {
        Self { worker, protocol, idle, most_idle }
    }

    /// Passes bytes on until the tunnel ends.
    pub async fn run(mut self, client: &ClientConnection) -> (TunnelEnd, Traffic) {
        self.idle.set(self.most_idle);
        let (mut up, mut down) = (Way::default(), Way::default());
        let end = poll_fn(|cx| {
            client.with_wire(|client| {
                let before = up.passed + down.passed;
                let up_end = up.poll(client, &mut self.worker, cx);
                let down_end = down.poll(&mut self.worker, client, cx);
                if up.passed + down.passed > before {
                    self.idle.set(self.most_idle);
                }
                match (up_end, down_end) {
                    (Poll::Ready(Err(From)), _) | (_, Poll::Ready(Err(To))) => Poll::Ready(TunnelEnd::ClientLeft),
                    (Poll::Ready(Err(To)), _) | (_, Poll::Ready(Err(From))) => Poll::Ready(TunnelEnd::WorkerLeft),
                    (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(TunnelEnd::Complete),
                    _ => self.idle.poll_expired(cx).map(|()| TunnelEnd::Idle),
                }
            })
        });
        let end = end.await;
        (end, Traffic { from_client: up.passed, from_worker: down.passed })
    }
}

/// Whose connection has failed.
enum Failed {
    From,
    To,
}

use Failed::{From, To};

/// One direction.
#[derive(Default)]
struct Way {
    passed: u64,
    /// The sender has ended, which the receiver is told once it has taken everything.
    is_ended: bool,
    is_shut: bool,
}

impl Way {
    /// Passes on what is here, no more than the receiver takes; ready when the sender has ended.
    fn poll(
        &mut self,
        from: &mut Wire<Stream>,
        to: &mut Wire<Stream>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Failed>> {
        loop {
            if self.is_shut {
                return Poll::Ready(Ok(()));
            }
            ready!(to.poll_flush(cx)).map_err(|_| To)?;
            if self.is_ended {
                ready!(Pin::new(&mut to.stream).poll_shutdown(cx)).map_err(|_| To)?;
                self.is_shut = true;
            } else if from.unread.is_empty() {
                self.is_ended = ready!(from.poll_fill(cx, 0)).map_err(|_| From)? == 0;
            } else {
                let count = from.unread.len();
                let mut data: Bytes = from.take(count);
                to.send(cx, |_| {}, &mut data, b"").map_err(|_| To)?;
                self.passed += count as u64;
            }
        }
    }
}
