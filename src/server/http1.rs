//! Serves HTTP/1.1: request after request, each answered before the next is read.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, StatusCode, Version};
use http_body::Body;

use crate::client::{Caller, RequestBody};
use crate::connection::ClientConnection;
use crate::gateway::body::GatewayBody;
use crate::gateway::upgrade::{Tunnel, TunnelEnd};
use crate::gateway::{Gateway, Reply};
use crate::http1::MessageError;
use crate::http1::framing::{Framing, FramingError};
use crate::http1::head;
use crate::http1::outgoing::{OutgoingBody, Piece};
use crate::http1::write;
use crate::modules::ResponseHead;
use crate::pressure::Resource;

/// Serves a connection until its client closes it, takes too long, or the gateway drains.
pub async fn serve(gateway: &Gateway, connection: Rc<ClientConnection>) {
    loop {
        let next = match poll_fn(|cx| poll_next(gateway, &connection, cx)).await {
            Next::Request(mut request, unreadable) => answer(gateway, &connection, &mut request, unreadable).await,
            Next::Broken(error) => {
                let reply = gateway.refuse(&connection.client, error);
                let unknown = Terms { version: Version::HTTP_11, is_head: false, persistent: false };
                send(&connection, &unknown, reply).await
            }
            Next::Close => After::Close,
            Next::Gone => After::Gone,
        };
        match next {
            After::Keep if gateway.is_pressed(Resource::Descriptors) => connection.begin_brief_idle(),
            After::Keep => connection.begin_idle(),
            After::Close => return connection.close().await,
            After::Gone => return,
        }
    }
}

#[expect(clippy::large_enum_variant, reason = "the large one is the common one, and is taken apart at once")]
enum Next {
    /// And why its body can't be read, if that is so.
    Request(head::Request, Option<FramingError>),
    /// What arrived is not a request.
    Broken(MessageError),
    Close,
    /// Nobody is there to close it for.
    Gone,
}

fn poll_next(gateway: &Gateway, connection: &ClientConnection, cx: &mut Context<'_>) -> Poll<Next> {
    // The time of a request begins with its last byte, before anybody else looks at it.
    gateway.keep_up();
    match connection.poll_request(cx) {
        Poll::Ready(Ok(Some((request, unreadable)))) => Poll::Ready(Next::Request(request, unreadable)),
        Poll::Ready(Ok(None)) => Poll::Ready(Next::Close),
        Poll::Ready(Err(MessageError::Io(_) | MessageError::Incomplete)) => Poll::Ready(Next::Gone),
        Poll::Ready(Err(error)) => Poll::Ready(Next::Broken(error)),
        // Only after a look at what has arrived: a request that is here already is answered.
        Poll::Pending => {
            while connection.poll_expired(cx).is_ready() {
                if !connection.is_idle() {
                    return Poll::Ready(Next::Gone);
                }
                if connection.has_looked_again() {
                    connection.say_end(cx);
                    return Poll::Ready(Next::Gone);
                }
            }
            if gateway.is_draining() && connection.is_idle() {
                connection.begin_leaving();
            }
            Poll::Pending
        }
    }
}

/// What becomes of the connection after an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Keep,
    Close,
    /// The client has left or is cut off.
    Gone,
}

/// What an answer must know of its request.
struct Terms {
    version: Version,
    is_head: bool,
    /// The client would use the connection again.
    persistent: bool,
}

async fn answer(
    gateway: &Gateway,
    connection: &Rc<ClientConnection>,
    request: &mut head::Request,
    unreadable: Option<FramingError>,
) -> After {
    let mut terms = Terms {
        version: request.version,
        is_head: request.method == Method::HEAD,
        persistent: unreadable.is_none() && head::is_persistent(request.version, &request.headers),
    };
    let reply = {
        let body = RequestBody::Http1(connection.clone());
        let caller = Caller::Http1(connection, request.version);
        let mut handling = pin!(gateway.handle(&caller, request, unreadable, body));
        let handled = poll_fn(|cx| {
            if connection.poll_expired(cx).is_ready() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(reply) = handling.as_mut().poll(cx) {
                return Poll::Ready(Some(reply));
            }
            connection.poll_left(cx).map(|()| None)
        });
        match handled.await {
            Some(reply) => reply,
            None => return After::Gone,
        }
    };
    terms.persistent &= !gateway.is_stopping() && !gateway.is_pressed(Resource::Memory);
    send(connection, &terms, reply).await
}

async fn send(connection: &ClientConnection, terms: &Terms, reply: Reply) -> After {
    let Reply { head, mut body } = reply;
    if let Some(tunnel) = body.take_tunnel() {
        return switch(connection, &head, body, *tunnel).await;
    }
    let framing = framing_of(terms, head.status, &body);
    let ends_with_connection = framing == Framing::Unsaid && !body.is_end_stream();
    let mut persistent = terms.persistent && !ends_with_connection;
    let mut sending = Sending { body: OutgoingBody::new(body, framing, &head.headers), unsent: usize::MAX };
    let mut begun = false;
    let sent = poll_fn(|cx| {
        if connection.poll_expired(cx).is_ready() {
            return Poll::Ready(Err(Stop::Expired));
        }
        if !begun {
            // An interim answer may still be on its way.
            if ready!(connection.poll_flush(cx)).is_err() {
                return Poll::Ready(Err(Stop::Left));
            }
            begun = true;
            persistent &= connection.begin_answer(cx, sending.body.body().is_arriving());
            sending.start(connection, cx, |out| {
                persistent = write::response(out, head.status, &head.headers, framing, terms.version, persistent);
            })?;
        }
        sending.poll(connection, cx)
    });
    match sent.await {
        Ok(()) if !persistent => After::Close,
        Ok(()) => discard(connection).await,
        Err(Stop::Left) => After::Gone,
        Err(Stop::Broke) if !ends_with_connection => After::Close,
        Err(Stop::Broke | Stop::Expired) => {
            connection.reset();
            After::Gone
        }
    }
}

/// Leaves HTTP: says so, then passes bytes on in both directions.
async fn switch(connection: &ClientConnection, head: &ResponseHead, mut body: GatewayBody, tunnel: Tunnel) -> After {
    let write = |out: &mut Vec<u8>| write::interim(out, head.status, &head.headers, Some(&tunnel.protocol));
    let sent = poll_fn(|cx| {
        if connection.poll_expired(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        ready!(connection.poll_flush(cx))?;
        Poll::Ready(connection.with_wire(|wire| wire.send(cx, write, &mut Bytes::new(), b"")))
    });
    if sent.await.is_err() {
        return After::Gone;
    }
    let (end, traffic) = tunnel.run(connection).await;
    body.tunnelled(end, traffic);
    if end == TunnelEnd::Complete { After::Close } else { After::Gone }
}

/// Passes over what is left of a body that nobody wanted: the next request is behind it.
async fn discard(connection: &ClientConnection) -> After {
    if poll_fn(|cx| Poll::Ready(connection.poll_discard(cx))).await == Poll::Ready(true) {
        return After::Keep;
    }
    connection.begin_discard();
    let discarded = poll_fn(|cx| match connection.poll_expired(cx) {
        Poll::Ready(()) => Poll::Ready(false),
        Poll::Pending => connection.poll_discard(cx),
    });
    if discarded.await { After::Keep } else { After::Close }
}

/// How the body is framed for this client (RFC 9112 section 6).
fn framing_of(terms: &Terms, status: StatusCode, body: &GatewayBody) -> Framing {
    if terms.is_head || status == StatusCode::NOT_MODIFIED {
        return Framing::AsSaid;
    }
    if status == StatusCode::NO_CONTENT {
        return Framing::Unsaid;
    }
    match body.size_hint().exact() {
        Some(length) => Framing::Length(length),
        None if terms.version >= Version::HTTP_11 => Framing::Chunked,
        None => Framing::Unsaid,
    }
}

/// Why an answer ends before its end.
enum Stop {
    /// The client has closed, or can't be written to.
    Left,
    /// What we had to send broke off.
    Broke,
    Expired,
}

/// An answer on its way to the client.
struct Sending {
    body: OutgoingBody<GatewayBody>,
    /// Bytes that the client had not taken when we last looked; the most there can be when it had taken all.
    unsent: usize,
}

impl Sending {
    /// Sends the head, and with it what is ready of the body.
    fn start(
        &mut self,
        connection: &ClientConnection,
        cx: &mut Context<'_>,
        head: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Stop> {
        let (piece, stop) = match self.body.poll_next(cx) {
            Poll::Ready(Ok(piece)) => (piece, Ok(())),
            Poll::Pending => (Piece::default(), Ok(())),
            // The client is told the head all the same.
            Poll::Ready(Err(_)) => (Piece::default(), Err(Stop::Broke)),
        };
        connection.send(cx, &self.body, head, piece).map_err(|_| Stop::Left)?;
        stop
    }

    fn poll(&mut self, connection: &ClientConnection, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        loop {
            match connection.poll_flush(cx) {
                Poll::Ready(Ok(())) if self.body.is_ended() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) if self.unsent != usize::MAX => {
                    self.unsent = usize::MAX;
                    connection.await_worker();
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Stop::Left)),
                Poll::Pending => {
                    let unsent = connection.unsent();
                    if std::mem::replace(&mut self.unsent, unsent) != unsent {
                        match self.body.is_ended() {
                            true => connection.note_progress(),
                            false => connection.await_client(),
                        }
                    }
                    return connection.poll_left(cx).map(|()| Err(Stop::Left));
                }
            }
            match self.body.poll_next(cx) {
                Poll::Ready(Ok(piece)) => connection.send(cx, &self.body, |_| {}, piece).map_err(|_| Stop::Left)?,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Stop::Broke)),
                Poll::Pending => return connection.poll_left(cx).map(|()| Err(Stop::Left)),
            }
        }
    }
}
