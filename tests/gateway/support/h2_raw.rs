//! HTTP/2 frame by frame, on a blocking socket: writes whatever it is told, and notes what comes.

use super::h2_frames::{Code, Frame, PREFACE};
use super::tls::{Caller, Channel};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long a client waits for bytes before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Frames that the log keeps.
const LOGGED: usize = 60;

/// A connection of frames. Nothing is answered unless the test does it.
pub struct RawH2 {
    channel: Channel,
    unread: VecDeque<u8>,
    log: VecDeque<String>,
}

impl RawH2 {
    /// A TCP connection on which nothing was sent.
    #[track_caller]
    pub fn silent(address: SocketAddr) -> Self {
        Self::on(connect(address))
    }

    /// A TLS connection on which nothing else was sent; it is for HTTP/2.
    #[track_caller]
    pub fn silent_tls(address: SocketAddr, caller: Caller) -> Self {
        let channel = caller.alpn(&["h2"]).connect(connect(address));
        let channel = channel.unwrap_or_else(|e| panic!("no TLS with {address}: {e}"));
        assert_eq!(channel.alpn().as_deref(), Some("h2"));
        Self::on(channel)
    }

    pub(super) fn on(channel: impl Into<Channel>) -> Self {
        let raw = RawH2 { channel: channel.into(), unread: VecDeque::new(), log: VecDeque::new() };
        raw.channel.tcp().set_nodelay(true).expect("TCP sockets take nodelay");
        raw.set_write_patience(PATIENCE);
        raw.set_patience(PATIENCE);
        raw
    }

    /// Sends the preface with `settings`, beside which the header table is always of size zero, and exchanges
    /// acknowledgements; also what the gateway's settings were.
    #[track_caller]
    pub fn open(address: SocketAddr, settings: &[(u16, u32)]) -> (Self, Vec<(u16, u32)>) {
        Self::silent(address).opened(settings)
    }

    #[track_caller]
    pub fn opened(self, settings: &[(u16, u32)]) -> (Self, Vec<(u16, u32)>) {
        let mut raw = self;
        let ours = [&[(Frame::HEADER_TABLE_SIZE, 0)], settings].concat();
        raw.write([PREFACE, &Frame::settings(&ours).encode()].concat()).expect("a new connection takes bytes");
        let theirs = raw.expect(|f| f.kind == Frame::SETTINGS && !f.has(Frame::ACK));
        raw.send(&Frame::new(Frame::SETTINGS, Frame::ACK, 0, []));
        raw.expect(|f| f.kind == Frame::SETTINGS && f.has(Frame::ACK));
        (raw, theirs.settings_values())
    }

    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.channel.write_all(bytes.as_ref())
    }

    #[track_caller]
    pub fn send(&mut self, frame: &Frame) {
        self.try_send(frame).unwrap_or_else(|e| panic!("{frame:?} is not taken: {e}; so far {:#?}", self.log));
    }

    pub fn try_send(&mut self, frame: &Frame) -> io::Result<()> {
        self.write(frame.encode())
    }

    /// How long a read waits from now on.
    pub fn set_patience(&self, patience: Duration) {
        let patience = patience.max(Duration::from_millis(1));
        self.channel.tcp().set_read_timeout(Some(patience)).expect("a timeout above zero is accepted");
    }

    /// How long a write waits from now on.
    pub fn set_write_patience(&self, patience: Duration) {
        self.channel.tcp().set_write_timeout(Some(patience)).expect("a timeout above zero is accepted");
    }

    /// A second handle that goes on reading while this one only writes; not with TLS.
    pub fn split_reader(&mut self) -> Self {
        assert!(matches!(self.channel, Channel::Plain(_)), "a second handle can't decrypt");
        let channel = Channel::Plain(self.channel.tcp().try_clone().expect("descriptors are left"));
        RawH2 { channel, unread: std::mem::take(&mut self.unread), log: VecDeque::new() }
    }

    /// The next frame, `None` at the end of the connection; a reset counts as an end.
    pub fn read(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take() {
                if self.log.len() == LOGGED {
                    self.log.pop_front();
                }
                self.log.push_back(format!("{frame:?}"));
                return Ok(Some(frame));
            }
            let mut piece = [0; 64 * 1024];
            match self.channel.read(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(n) => self.unread.extend(&piece[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(e) => return Err(e),
            }
        }
    }

    fn take(&mut self) -> Option<Frame> {
        let head = self.unread.get(8).map(|_| self.unread.range(..9).copied().collect::<Vec<_>>())?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if self.unread.len() < 9 + length {
            return None;
        }
        self.unread.drain(..9);
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Some(Frame::new(head[3], head[4], stream, self.unread.drain(..length).collect::<Vec<_>>()))
    }

    /// The first frame that `wanted` accepts; what comes before it is dropped.
    #[track_caller]
    pub fn expect(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        let start = Instant::now();
        loop {
            match self.read() {
                Ok(Some(frame)) if wanted(&frame) => return frame,
                Ok(Some(_)) if start.elapsed() < PATIENCE => {}
                other => panic!("{other:?} instead of the wanted frame; so far {:#?}", self.log),
            }
        }
    }

    /// How the connection ends if it does within `limit`, dropping what comes before; `None` if it goes on.
    pub fn ending(&mut self, limit: Duration) -> Option<Ending> {
        let start = Instant::now();
        let mut ending = Ending::default();
        while start.elapsed() < limit {
            self.set_patience(limit.saturating_sub(start.elapsed()));
            match self.read() {
                Ok(Some(frame)) if frame.kind == Frame::GOAWAY => ending.goaway = Some(frame.code()),
                Ok(Some(frame)) if frame.kind == Frame::RST_STREAM => ending.resets.push((frame.stream, frame.code())),
                Ok(Some(_)) => {}
                Err(e) if e.kind() == ErrorKind::TimedOut => break,
                Ok(None) | Err(_) => return Some(ending),
            }
        }
        self.set_patience(PATIENCE);
        None
    }

    /// Whether the gateway answers a ping: it has then also seen all that was sent before.
    pub fn is_alive(&mut self) -> bool {
        let ping = Frame::new(Frame::PING, 0, 0, *b"alive?!?");
        let is_pong = |f: &Frame| f.kind == Frame::PING && f.has(Frame::ACK) && f.payload == ping.payload;
        let start = Instant::now();
        let mut goes_on = self.try_send(&ping).is_ok();
        while goes_on && start.elapsed() < PATIENCE {
            match self.read() {
                Ok(Some(frame)) if is_pong(&frame) => return true,
                other => goes_on = matches!(other, Ok(Some(_))),
            }
        }
        false
    }

    /// What came last, for a message.
    pub fn log(&self) -> String {
        format!("{:#?}", self.log)
    }
}

#[track_caller]
fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE);
    stream.unwrap_or_else(|e| panic!("no connection to {address}: {e}"))
}

/// How a connection ended.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// The last GOAWAY's code.
    pub goaway: Option<Code>,
    /// Streams that were reset before.
    pub resets: Vec<(u32, Code)>,
}
