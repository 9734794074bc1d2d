//! WebSocket connections (RFC 6455), both ends of them: a client that checks the handshake, and what a worker's
//! script does on its side. Frames are read strictly and never put together.

use super::client::Response;
use super::conn::{Conn, ReceivedRequest};
use super::message::{Framing, latin1};
use super::tls::{Caller, Channel};
use super::upgrade::{assert_asks_for_a_websocket, assert_is_switching, switching, upgrade_request};
use super::wire::{Body, Wire};
use std::borrow::BorrowMut;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long either end waits for bytes before the test fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// The client's masking key; any will do.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Operation codes of frames.
pub mod opcode {
    pub const CONTINUATION: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
}

/// A frame, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub opcode: u8,
    pub part: Part,
    pub payload: Vec<u8>,
}

/// Whether more frames of the same message follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Last,
    MoreFollows,
}

impl Message {
    pub fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        Message { opcode, part: Part::Last, payload: payload.as_ref().to_vec() }
    }

    pub fn text(payload: &str) -> Self {
        Self::new(opcode::TEXT, payload)
    }

    pub fn close(code: u16, reason: &str) -> Self {
        Self::new(opcode::CLOSE, [&code.to_be_bytes(), reason.as_bytes()].concat())
    }

    pub fn more_follows(mut self) -> Self {
        self.part = Part::MoreFollows;
        self
    }
}

/// Which end this is: a client masks its frames, a server does not.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Client,
    Server,
}

/// One end of a WebSocket connection; `W` is its own connection, or one borrowed from a script.
pub struct WebSocket<W> {
    wire: W,
    side: Side,
}

impl WebSocket<Wire> {
    /// Opens a connection that is expected to succeed.
    #[track_caller]
    pub fn open(address: SocketAddr, path: &str) -> Self {
        Self::open_and_send(address, path, [])
    }

    /// Opens a connection and sends `early` in one piece with the handshake, before its answer.
    #[track_caller]
    pub fn open_and_send(address: SocketAddr, path: &str, early: impl AsRef<[u8]>) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap_or_else(|e| panic!("no connection: {e}"));
        Self::open_on(stream, address, path, early)
    }

    /// The same with TLS.
    #[track_caller]
    pub fn open_tls(address: SocketAddr, caller: Caller, path: &str) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap_or_else(|e| panic!("no connection: {e}"));
        Self::open_on(caller.connect(stream).unwrap_or_else(|e| panic!("no TLS: {e}")), address, path, [])
    }

    #[track_caller]
    fn open_on(channel: impl Into<Channel>, address: SocketAddr, path: &str, early: impl AsRef<[u8]>) -> Self {
        let mut wire = Wire::new(channel, PATIENCE);
        let ask = upgrade_request(address, path, "");
        wire.write(&[ask.as_bytes(), early.as_ref()].concat()).expect("a new connection takes bytes");
        let head = wire.read_head().unwrap_or_else(|e| panic!("no answer: {e}")).expect("an answer before the end");
        let status = head.line.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {:?}", head.raw));
        assert_is_switching(&Response { status, headers: head.headers, ..Response::default() });
        WebSocket { wire, side: Side::Client }
    }
}

impl<'a> WebSocket<&'a mut Wire> {
    /// The worker's side: checks the request and switches. The connection ends with the script.
    #[track_caller]
    pub fn accept(request: &ReceivedRequest, conn: &'a mut Conn) -> Self {
        Self::accept_and_send(request, conn, [])
    }

    /// Switches, and sends `early` in one piece with the head that says so.
    #[track_caller]
    pub fn accept_and_send(request: &ReceivedRequest, conn: &'a mut Conn, early: impl AsRef<[u8]>) -> Self {
        assert_asks_for_a_websocket(request);
        conn.send([switching("").as_bytes(), early.as_ref()].concat());
        conn.leave_http();
        WebSocket { wire: conn.wire(), side: Side::Server }
    }

    /// Sends back each message as it came, answers pings, and ends as the peer does.
    pub fn echo(mut self) {
        while let Ok(Some(message)) = self.try_read() {
            let ends = message.opcode == opcode::CLOSE;
            let answer = match message.opcode {
                opcode::PING => Message { opcode: opcode::PONG, ..message },
                _ => message,
            };
            if self.try_send(&answer).is_err() || ends {
                break;
            }
        }
    }
}

impl<W: BorrowMut<Wire>> WebSocket<W> {
    fn wire(&mut self) -> &mut Wire {
        self.wire.borrow_mut()
    }

    /// A frame as this side writes it.
    pub fn encode(&self, message: &Message) -> Vec<u8> {
        let fin = if message.part == Part::Last { 0x80 } else { 0 };
        let masked = if self.side == Side::Client { 0x80 } else { 0 };
        let length = message.payload.len();
        let mut bytes = vec![fin | message.opcode];
        match length {
            0..126 => bytes.push(masked | length as u8),
            126..0x1_0000 => {
                bytes.push(masked | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(masked | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        match self.side {
            Side::Client => {
                bytes.extend(MASK);
                bytes.extend(mask(&message.payload));
            }
            Side::Server => bytes.extend(&message.payload),
        }
        bytes
    }

    #[track_caller]
    pub fn send(&mut self, message: &Message) {
        self.try_send(message).unwrap_or_else(|e| panic!("our frame is not taken: {e}"));
    }

    pub fn try_send(&mut self, message: &Message) -> io::Result<()> {
        let bytes = self.encode(message);
        self.send_bytes(bytes)
    }

    /// Writes bytes that may be no frame.
    pub fn send_bytes(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire().write(bytes.as_ref())
    }

    /// The next frame, which must come.
    #[track_caller]
    pub fn read(&mut self) -> Message {
        self.try_read().unwrap_or_else(|e| panic!("no frame: {e}")).expect("a frame before the end")
    }

    /// The next frame, `None` at the end of the stream.
    pub fn try_read(&mut self) -> io::Result<Option<Message>> {
        let head = match self.take(2) {
            Ok(head) => head,
            Err((e, taken)) if e.kind() == ErrorKind::UnexpectedEof && taken.is_empty() => return Ok(None),
            Err((e, _)) => return Err(e),
        };
        if (head[1] & 0x80 != 0) != (self.side == Side::Server) {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("masked by the wrong side: {}", latin1(&head))));
        }
        let length = match head[1] & 0x7f {
            126 => self.number(2)?,
            127 => self.number(8)?,
            length => u64::from(length),
        };
        let key = if self.side == Side::Server { self.exactly(4)? } else { Vec::new() };
        let payload = self.exactly(length)?;
        let payload = if key.is_empty() { payload } else { unmask(&payload, &key) };
        let part = if head[0] & 0x80 != 0 { Part::Last } else { Part::MoreFollows };
        Ok(Some(Message { opcode: head[0] & 0xf, part, payload }))
    }

    fn take(&mut self, length: u64) -> Result<Vec<u8>, (io::Error, Vec<u8>)> {
        let mut body = Body::default();
        match self.wire().read_body(Framing::Length(length), &mut body) {
            Ok(()) => Ok(body.bytes),
            Err(e) => Err((e, body.bytes)),
        }
    }

    fn exactly(&mut self, length: u64) -> io::Result<Vec<u8>> {
        self.take(length).map_err(|(e, _)| e)
    }

    fn number(&mut self, bytes: u64) -> io::Result<u64> {
        Ok(self.exactly(bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Sends `message` and reads what comes.
    #[track_caller]
    pub fn ask(&mut self, message: &Message) -> Message {
        self.send(message);
        self.read()
    }

    /// Ends the connection in our direction only.
    pub fn half_close(&mut self) {
        let _ = self.wire().stream().shutdown(Shutdown::Write);
    }

    /// How long a read waits from now on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.wire().set_patience(patience);
    }

    /// Whether neither a byte nor an end comes for `period`.
    pub fn is_silent_for(&mut self, period: Duration) -> bool {
        self.set_patience(period);
        let silent = matches!(self.wire().stream().peek(&mut [0]), Err(e) if e.kind() == ErrorKind::WouldBlock);
        self.set_patience(PATIENCE);
        silent && self.wire().unread().is_empty()
    }

    /// Whether the stream ends within `limit`, cleanly or not; frames that still come are dropped.
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        self.set_patience(limit);
        loop {
            match self.wire().read_some() {
                Ok(some) if some.is_empty() => return true,
                Ok(_) => {}
                Err(e) => return e.kind() != ErrorKind::TimedOut,
            }
        }
    }
}

fn mask(payload: &[u8]) -> Vec<u8> {
    unmask(payload, &MASK)
}

fn unmask(payload: &[u8], key: &[u8]) -> Vec<u8> {
    payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
}
