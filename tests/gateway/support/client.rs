//! A client that sends exactly what it is told and reads answers strictly.

use super::message::{Framing, Head, Headers, latin1};
use super::tls::{Caller, Channel};
use super::wire::{Body, End, Wire};
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a client waits for bytes before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer. `interim` are the 1xx statuses that came before it.
#[derive(Debug, Default)]
pub struct Response {
    pub status: u16,
    pub version: String,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub trailers: Headers,
    pub framing: Framing,
    pub end: End,
    pub interim: Vec<u16>,
}

impl Response {
    fn of(head: Head, method: &str) -> io::Result<Self> {
        let bad = |why: String| io::Error::new(ErrorKind::InvalidData, format!("{why} in {:?}", head.raw));
        let mut words = head.line.splitn(3, ' ');
        let version = words.next().unwrap_or_default().to_owned();
        let status = words.next().and_then(|s| s.parse().ok()).ok_or_else(|| bad("no status".into()))?;
        let framing = match (method, status) {
            ("HEAD", _) | (_, 100..=199 | 204 | 304) => Framing::None,
            _ => Framing::of(&head.headers, Framing::UntilClose).map_err(bad)?,
        };
        Ok(Response { status, version, framing, headers: head.headers, ..Response::default() })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {}", self.text()))
    }

    /// Asserts that this is an error of the gateway's own: envelope and header agree on the code.
    #[track_caller]
    pub fn assert_error(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.headers.get("x-smg-error-code"), Some(code));
        assert_eq!(self.json()["error"]["code"], code);
    }
}

pub struct Client {
    wire: Wire,
    peer: SocketAddr,
}

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE);
        let stream = stream.unwrap_or_else(|e| panic!("no connection to {address}: {e}"));
        Client { wire: Wire::new(stream, PATIENCE), peer: address }
    }

    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Client { wire: Wire::new(TcpStream::connect_timeout(&address, PATIENCE)?, PATIENCE), peer: address })
    }

    /// Connects with TLS; the handshake must not fail.
    #[track_caller]
    pub fn connect_tls(address: SocketAddr, caller: Caller) -> Self {
        Self::try_connect_tls(address, caller).unwrap_or_else(|e| panic!("no TLS with {address}: {e}"))
    }

    pub fn try_connect_tls(address: SocketAddr, caller: Caller) -> io::Result<Self> {
        let channel = caller.connect(TcpStream::connect_timeout(&address, PATIENCE)?)?;
        Ok(Client { wire: Wire::new(channel, PATIENCE), peer: address })
    }

    /// The client's own end.
    pub fn address(&self) -> SocketAddr {
        self.wire.stream().local_addr().expect("a connected socket has one")
    }

    /// The gateway's end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The connection's TLS.
    pub fn channel(&self) -> &Channel {
        self.wire.channel()
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).unwrap_or_else(|e| panic!("the gateway does not take our bytes: {e}"));
        self
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.write(bytes.as_ref())
    }

    /// Sends a whole request for this connection's peer, see [`request`].
    #[track_caller]
    pub fn send_request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let request = request(&self.peer.to_string(), method, path, headers, body);
        self.send(request);
    }

    /// Sends a GET and reads its answer.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Response {
        self.send_request("GET", path, &[], b"");
        self.read_response()
    }

    /// The next final answer, whole; its end must be clean.
    #[track_caller]
    pub fn read_response(&mut self) -> Response {
        self.read_response_to("GET")
    }

    #[track_caller]
    pub fn read_response_to(&mut self, method: &str) -> Response {
        let response = self.read_response_however(method);
        assert_eq!(response.end, End::Clean, "{response:?}");
        response
    }

    /// The next final answer, which may be cut short: see its `end`.
    #[track_caller]
    pub fn read_response_however(&mut self, method: &str) -> Response {
        let mut interim = Vec::new();
        let mut response = loop {
            match self.read_head_to(method) {
                head if head.status < 200 => interim.push(head.status),
                head => break head,
            }
        };
        let mut body = Body::default();
        let ended = self.wire.read_body(response.framing, &mut body);
        response.end = ended.map_or_else(|e| End::Broken(e.kind()), |()| End::Clean);
        Response { interim, body: body.bytes, trailers: body.trailers, ..response }
    }

    /// The next head only, which may be a 1xx.
    #[track_caller]
    pub fn read_head(&mut self) -> Response {
        self.read_head_to("GET")
    }

    #[track_caller]
    fn read_head_to(&mut self, method: &str) -> Response {
        match self.try_read_head(method) {
            Ok(Some(response)) => response,
            Ok(None) => panic!("the gateway closed the connection without an answer"),
            Err(e) => panic!("no answer: {e}; received so far: {:?}", latin1(self.wire.unread())),
        }
    }

    /// The next head, `None` if the connection ended before it.
    pub fn try_read_head(&mut self, method: &str) -> io::Result<Option<Response>> {
        self.wire.read_head()?.map(|head| Response::of(head, method)).transpose()
    }

    /// Takes everything up to the end of `needle`, which must come.
    #[track_caller]
    pub fn read_until(&mut self, needle: impl AsRef<[u8]>) -> Vec<u8> {
        match self.wire.read_until(needle.as_ref()) {
            Ok(Some(bytes)) => bytes,
            other => panic!("{other:?} before {:?} came", latin1(needle.as_ref())),
        }
    }

    /// Takes what is there, or waits for something; empty at the end.
    #[track_caller]
    pub fn read_some(&mut self) -> Vec<u8> {
        self.wire.read_some().unwrap_or_else(|e| panic!("nothing comes: {e}"))
    }

    /// Everything up to the end of the connection, which must come; a reset counts as an end.
    #[track_caller]
    pub fn read_until_close(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        assert!(self.drain(&mut all), "the connection stays open after {:?}", latin1(&all));
        all
    }

    /// Whether the connection ends, with each read waiting `patience` at most; what still comes is dropped.
    pub fn ends_within(&mut self, patience: Duration) -> bool {
        self.set_patience(patience);
        self.drain(&mut Vec::new())
    }

    /// Reads to the end; false if it does not come.
    fn drain(&mut self, into: &mut Vec<u8>) -> bool {
        loop {
            match self.wire.read_some() {
                Ok(some) if some.is_empty() => return true,
                Ok(mut some) => into.append(&mut some),
                Err(e) => return e.kind() != ErrorKind::TimedOut,
            }
        }
    }

    /// Drops what still comes; whether the connection then ends as it should, or is reset.
    pub fn read_end(&mut self) -> End {
        let ended = self.wire.read_body(Framing::UntilClose, &mut Body::default());
        ended.map_or_else(|e| End::Broken(e.kind()), |()| End::Clean)
    }

    /// Asserts that nothing more comes and the connection ends.
    #[track_caller]
    pub fn assert_closed(&mut self) {
        let rest = self.read_until_close();
        assert!(rest.is_empty(), "unexpected bytes before the end: {:?}", latin1(&rest));
    }

    /// Whether no byte and no end comes for `period`.
    pub fn is_silent_for(&mut self, period: Duration) -> bool {
        self.set_patience(period);
        // What comes stays unread; session tickets of TLS are no bytes.
        let silent = matches!(self.wire.fill(), Err(e) if e.kind() == ErrorKind::TimedOut);
        self.set_patience(PATIENCE);
        silent && self.wire.unread().is_empty()
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub fn half_close(&self) {
        self.wire.stream().shutdown(Shutdown::Write).expect("it is connected");
    }

    /// Leaves with a reset instead of an end of stream.
    pub fn reset(self) {
        self.wire.set_reset();
    }

    /// How long a read waits from now on.
    pub fn set_patience(&self, patience: Duration) {
        self.wire.set_patience(patience);
    }

    /// A second handle on the connection, to write from another thread; not with TLS.
    pub fn writer(&self) -> TcpStream {
        assert!(matches!(self.wire.channel(), Channel::Plain(_)), "a second handle can't encrypt");
        self.wire.stream().try_clone().expect("descriptors are left")
    }
}

/// A request as bytes. A body brings its content-length unless `headers` already frame it.
pub fn request(host: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let framed = headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding"));
    if !body.is_empty() && !framed {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    [head.as_bytes(), b"\r\n", body].concat()
}
