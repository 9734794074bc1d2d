//! One connection of a scripted worker, as its script sees it.

use super::message::{Framing, Head, Headers, latin1};
use super::tls::Channel;
use super::wire::{Body, Wire};
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::time::{Duration, Instant};

/// How long a worker's script waits for bytes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request as the worker got it. A script started on the head has an empty `body` and `trailers`.
#[derive(Clone, Debug, Default)]
pub struct ReceivedRequest {
    pub method: String,
    pub target: String,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub trailers: Headers,
    /// The head's bytes, line ends included.
    pub head: String,
    /// Which of the worker's connections it came on, from 0.
    pub connection: usize,
    /// Which request of its connection it is, from 0; health checks don't count.
    pub nth: usize,
}

/// When a script starts.
#[derive(Clone, Copy)]
pub(super) enum Start {
    OnHead,
    OnWholeRequest,
}

/// Whether the connection goes on after a script.
#[derive(Clone, Copy)]
enum Keep {
    Open,
    Closed,
    Reset,
}

/// The worker's side of a connection, for a script.
pub struct Conn {
    wire: Wire,
    id: usize,
    framing: Framing,
    keep: Keep,
}

impl Conn {
    /// Writes bytes; a peer that is gone is no error here, see [`Conn::try_send`].
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.try_send(bytes);
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.write(bytes.as_ref())
    }

    /// Writes a whole answer with a content-length.
    pub fn answer(&mut self, status: u16, body: impl AsRef<[u8]>) {
        self.answer_as(status, "text/plain", body);
    }

    pub fn answer_json(&mut self, body: &serde_json::Value) {
        self.answer_as(200, "application/json", body.to_string());
    }

    pub fn answer_as(&mut self, status: u16, kind: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let head = format!("HTTP/1.1 {status} S\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
        self.send([head.as_bytes(), body].concat());
    }

    /// Writes the head of a stream of server-sent events, in chunks.
    pub fn start_events(&mut self) {
        self.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
    }

    /// Writes `data` as one chunk.
    pub fn chunk(&mut self, data: impl AsRef<[u8]>) {
        let data = data.as_ref();
        self.send([format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat());
    }

    /// Reads the request's body, for a script that started on the head; what came is kept on an error.
    pub fn read_body(&mut self) -> (Vec<u8>, io::Result<()>) {
        let mut body = Body::default();
        let framing = std::mem::take(&mut self.framing);
        let ended = self.wire.read_body(framing, &mut body);
        (body.bytes, ended)
    }

    /// Reads the request's body without keeping it; its bytes.
    pub fn drop_body(&mut self) -> u64 {
        let Framing::Length(length) = std::mem::take(&mut self.framing) else { panic!("a length is said") };
        let mut left = length;
        while left > 0 {
            match self.wire.read_some() {
                Ok(some) if !some.is_empty() => left = left.saturating_sub(some.len() as u64),
                _ => break,
            }
        }
        length - left
    }

    /// Waits for `needle` among the raw bytes and takes everything up to its end.
    pub fn read_until(&mut self, needle: impl AsRef<[u8]>) -> io::Result<Option<Vec<u8>>> {
        self.wire.read_until(needle.as_ref())
    }

    /// Ends the connection after the script.
    pub fn close(&mut self) {
        self.keep = Keep::Closed;
        self.wire.end();
    }

    /// What comes after the script is no request: the connection ends with it.
    pub fn leave_http(&mut self) {
        self.keep = Keep::Closed;
    }

    /// Whether neither a byte nor an end comes for `period`.
    pub fn is_silent_for(&mut self, period: Duration) -> bool {
        self.wire.set_patience(period);
        let silent = matches!(self.wire.fill(), Err(e) if e.kind() == ErrorKind::TimedOut);
        self.wire.set_patience(PATIENCE);
        silent && self.wire.unread().is_empty()
    }

    /// The bare connection, for a script that has left HTTP.
    pub(super) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Ends the socket after the script, without a word of TLS.
    pub fn cut(&mut self) {
        self.keep = Keep::Closed;
        let _ = self.wire.stream().shutdown(Shutdown::Both);
    }

    /// The connection's TLS.
    pub fn channel(&self) -> &Channel {
        self.wire.channel()
    }

    /// Ends the connection with a reset instead of an end of stream.
    pub fn reset(&mut self) {
        self.keep = Keep::Reset;
        self.wire.set_reset();
    }

    /// Waits for the peer to end the connection, dropping what it still sends; false if `limit` comes first.
    pub fn wait_peer_closed(&mut self, limit: Duration) -> bool {
        let start = Instant::now();
        let mut ended = false;
        while !ended && start.elapsed() < limit {
            let left = limit.saturating_sub(start.elapsed()).max(Duration::from_millis(1));
            self.wire.set_patience(left);
            ended = match self.wire.read_some() {
                Ok(some) => some.is_empty(),
                Err(e) => e.kind() != ErrorKind::TimedOut,
            };
        }
        self.wire.set_patience(PATIENCE);
        if ended {
            self.keep = Keep::Closed;
        }
        ended
    }

    pub(super) fn new(channel: Channel, id: usize) -> Self {
        Conn { wire: Wire::new(channel, PATIENCE), id, framing: Framing::None, keep: Keep::Open }
    }

    pub(super) fn id(&self) -> usize {
        self.id
    }

    pub(super) fn is_kept(&self) -> bool {
        matches!(self.keep, Keep::Open)
    }

    pub(super) fn finish(mut self) {
        match self.keep {
            Keep::Reset => drop(self),
            Keep::Open | Keep::Closed => self.wire.end(),
        }
    }

    /// What to note after a failed read: nothing if the peer ended the connection between two requests.
    pub(super) fn left_over(&self, error: &io::Error) -> Option<String> {
        let left = latin1(self.wire.unread());
        let broken = error.kind() == ErrorKind::InvalidData || !left.is_empty() || self.framing != Framing::None;
        broken.then(|| format!("{error}, unread: {left:?}"))
    }

    pub(super) fn read_request(&mut self, start: Start, nth: usize) -> io::Result<Option<ReceivedRequest>> {
        // What a script left of the last body is not the next request.
        self.read_body().1?;
        let Some(head) = self.wire.read_head()? else {
            return Ok(None);
        };
        let mut request = self.request(head, nth)?;
        if let Start::OnWholeRequest = start {
            self.read_whole(&mut request)?;
        }
        Ok(Some(request))
    }

    fn request(&mut self, head: Head, nth: usize) -> io::Result<ReceivedRequest> {
        let bad = |why: String| io::Error::new(ErrorKind::InvalidData, format!("{why} in {:?}", head.raw));
        let words: Vec<&str> = head.line.split(' ').collect();
        let [method, target, "HTTP/1.1"] = words[..] else {
            return Err(bad("no request line".into()));
        };
        self.framing = Framing::of(&head.headers, Framing::None).map_err(bad)?;
        Ok(ReceivedRequest {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: head.headers,
            head: head.raw,
            connection: self.id,
            nth,
            ..ReceivedRequest::default()
        })
    }

    fn read_whole(&mut self, request: &mut ReceivedRequest) -> io::Result<()> {
        if request.headers.has("expect") {
            self.send("HTTP/1.1 100 Continue\r\n\r\n");
        }
        let mut body = Body::default();
        self.wire.read_body(self.framing, &mut body)?;
        self.framing = Framing::None;
        request.body = body.bytes;
        request.trailers = body.trailers;
        Ok(())
    }
}
