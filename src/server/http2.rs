//! Serves HTTP/2 (RFC 9113): the streams of one connection at once, each in a task of its own. hyper and h2 speak the
//! protocol; what is ours are the limits, the time that a connection and a stream may take, and the drain, and what
//! [`crate::http2`] keeps from h2.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header;
use http::{Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::spawn_local;

use crate::client::{Caller, Client, Http2Body, Late, RequestBody};
use crate::connection::LIMITS;
use crate::deadline::{Deadline, Deadlines};
use crate::gateway::body::{BodyError, GatewayBody};
use crate::gateway::{Gateway, Reply};
use crate::headers;
use crate::http1::head::{HeadError, Request};
use crate::http1::trailers;
use crate::http1::wire::Wire;
use crate::http2::{self, FilteredIo, Requests};
use crate::patience::{Patience, StreamClock};
use crate::stream::Stream;

/// Streams that a client may have open at once.
const MOST_STREAMS: u32 = 128;
/// Streams that were reset and not looked at yet: a client that has more of them opens streams only to reset them
/// (CVE-2023-44487).
const MOST_RESETS: usize = 32;
/// Faults of streams, in the life of a connection: a client that makes more of them makes the gateway reset what it has
/// begun to serve (CVE-2025-8671). h2 also counts what a client may not know better: streams that it opens before it
/// has read how many it may, and what was on its way to a stream for longer than h2 remembers that it was reset.
const MOST_FAULTS: usize = 1024;
/// Header lists that are refused: with more than the five pseudo-fields of requests (RFC 8441 adds one) beside the fields.
/// With so large a limit of bytes, h2 takes a block in up to seven frames.
const LISTS: http2::Limits = http2::Limits { bytes: LIMITS.bytes, fields: LIMITS.fields + 5, frames: 7 };
/// What a client may send before it is read, of one stream: an upload over 100 ms gets 1.3 MB/s of it.
const STREAM_WINDOW: u32 = 128 * 1024;
/// Of all: each stream has its whole window, for one whose body nobody reads must not hold up another. It is also what
/// a connection can make the gateway hold, as much as one to a worker.
const CONNECTION_WINDOW: u32 = MOST_STREAMS * STREAM_WINDOW;
/// What h2 keeps of an answer that its client does not take before it takes no other piece. One more piece waits in hyper.
const SEND_BUFFER: usize = 4 * 1024;
/// What is read at once of a worker's answer, which makes it the largest piece: while few streams are open, and while
/// there are more of them. A client that takes nothing makes the gateway hold up to two pieces and the buffer for each of
/// its streams: 52 KiB of each of a few, 2.5 MiB of all.
const PIECE: usize = 24 * 1024;
const SMALL_PIECE: usize = 8 * 1024;
const FEW_STREAMS: usize = 8;
/// A connection that is silent for so long is asked whether it is there, and has so long to answer.
const PING_AFTER: Duration = Duration::from_secs(30);
const PING_TIME: Duration = Duration::from_secs(20);
/// How long a connection may take to close.
const LINGER: Duration = Duration::from_secs(2);

tokio::task_local! {
    /// Of the stream whose task this is: between the task and what is ours in it, there is hyper.
    static CLOCK: Rc<StreamClock>;
}

/// Serves a connection until its client closes it, takes too long, or the gateway drains.
pub async fn serve(gateway: &Rc<Gateway>, wire: Wire<Stream>, client: Client, deadline: Deadline) {
    let patience = gateway.patience.clone();
    deadline.set(patience.get().head.min(patience.get().idle));
    let requests = Rc::new(Requests::default());
    let activity = Rc::new(Activity { requests: requests.clone(), closing: Cell::new(false), deadline, patience });
    let (client, late) = (Rc::new(client), Rc::new(Late::new(gateway.deadlines.register())));
    let service = service_fn(|request: http::Request<Incoming>| {
        gateway.keep_up();
        let (gateway, client, stream) = (gateway.clone(), client.clone(), activity.begin());
        let request = request.map(|body| RequestBody::Http2(Http2Body::new(body, &late)));
        async move { Ok::<_, Infallible>(answer(&gateway, &client, request, stream).await) }
    });
    let streams = Streams { deadlines: gateway.deadlines.clone(), activity: activity.clone() };
    let io = TokioIo::new(FilteredIo::with_client(wire.stream, wire.unread, LISTS, requests.clone()));
    let mut connection = pin!(builder(streams).serve_connection(io, service));
    let served = poll_fn(|cx| {
        if let Poll::Ready(served) = connection.as_mut().poll(cx) {
            return Poll::Ready(served);
        }
        late.look(cx);
        let expired = activity.deadline.poll_expired(cx).is_ready();
        let closing = activity.closing.get();
        if expired && closing {
            return Poll::Ready(Ok(()));
        }
        if !closing && (expired || gateway.is_draining() || requests.are_last.get()) {
            activity.closing.set(true);
            activity.look();
            connection.as_mut().graceful_shutdown();
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    });
    if let Err(error) = served.await {
        tracing::debug!(%error, "an HTTP/2 connection ended");
    }
}

fn builder(streams: Streams) -> Builder<Streams> {
    let mut builder = Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_pending_accept_reset_streams(MOST_RESETS)
        .max_local_error_reset_streams(MOST_FAULTS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(LIMITS.bytes as u32)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_TIME);
    builder
}

async fn answer(
    gateway: &Gateway,
    client: &Client,
    request: http::Request<RequestBody>,
    stream: OpenStream,
) -> Response<StreamBody> {
    let clock = CLOCK.with(Rc::clone);
    let (parts, body) = request.into_parts();
    let is_head = parts.method == Method::HEAD;
    let reply = if parts.headers.len() > LIMITS.fields {
        gateway.refuse(client, HeadError::TooLarge.into())
    } else {
        let http::request::Parts { method, uri, version, headers, .. } = parts;
        let mut request = Request { method, uri, version, headers };
        gateway.handle(&Caller::Http2(client, &clock), &mut request, None, body).await
    };
    let Reply { head, body } = reply;
    let mut response = Response::new(StreamBody { body, clock, stream });
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    let headers = response.headers_mut();
    // What belongs to a connection of HTTP/1.1 has no place here (RFC 9113 section 8.2.2).
    headers::strip_hop_by_hop(headers);
    if !is_head && head.status != StatusCode::NOT_MODIFIED {
        // hyper says the length of the body that there is.
        headers.remove(header::CONTENT_LENGTH);
    }
    response
}

/// What goes on on a connection, and how long it may.
struct Activity {
    /// Streams whose answers are not complete are open.
    requests: Rc<Requests>,
    /// No other is begun.
    closing: Cell<bool>,
    deadline: Deadline,
    patience: Rc<Cell<Patience>>,
}

impl Activity {
    fn begin(self: &Rc<Self>) -> OpenStream {
        self.requests.open.set(self.requests.open.get() + 1);
        self.look();
        OpenStream(self.clone())
    }

    /// Streams have clocks of their own; the connection's is for the time without any.
    fn look(&self) {
        match (self.requests.open.get(), self.closing.get()) {
            (0, true) => self.deadline.set(LINGER),
            (0, false) => self.deadline.set(self.patience.get().idle),
            _ => self.deadline.unset(),
        }
    }
}

/// Counts a stream as open while it lives.
struct OpenStream(Rc<Activity>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        let open = &self.0.requests.open;
        open.set(open.get() - 1);
        self.0.look();
    }
}

/// The body of an answer, on its stream.
struct StreamBody {
    body: GatewayBody,
    clock: Rc<StreamClock>,
    stream: OpenStream,
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let piece = if self.stream.0.requests.open.get() > FEW_STREAMS { SMALL_PIECE } else { PIECE };
        self.body.limit_reads(piece);
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match frame.is_ready() {
            true => self.clock.note_piece(),
            false => self.clock.note_pause(),
        }
        frame.map_ok(|frame| match frame.into_trailers() {
            Ok(fields) => Frame::trailers(trailers::allowed(fields)),
            Err(frame) => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Runs streams as tasks of the shard, each for as long as its clock says.
#[derive(Clone)]
struct Streams {
    deadlines: Deadlines,
    activity: Rc<Activity>,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, stream: F) {
        let clock = Rc::new(StreamClock::new(self.deadlines.register(), self.activity.patience.get()));
        spawn_local(CLOCK.scope(clock.clone(), async move {
            tokio::select! {
                biased;
                () = stream => {}
                () = clock.expired() => {}
            }
        }));
    }
}
