//! A well-behaved HTTP/2 client: several requests at once on one blocking connection, strict about the answers.

use super::gateway::Gateway;
use super::h2_answer::{Answer, StreamEnd};
use super::h2_frames::{Code, Frame};
use super::h2_raw::{PATIENCE, RawH2};
use super::tls::Caller;
use std::collections::{BTreeMap, HashSet};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What a connection and a stream may take before a WINDOW_UPDATE, unless settings say otherwise.
const WINDOW: i64 = 65_535;

/// The largest frame that any peer takes.
const FRAME: usize = 16_384;

/// Whether a frame is the last of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    Yes,
    No,
}

impl Last {
    fn flag(self) -> u8 {
        if self == Last::Yes { Frame::END_STREAM } else { 0 }
    }
}

/// What flows against us and what we may send on a stream.
#[derive(Default)]
struct Stream {
    answer: Answer,
    may_send: i64,
}

pub struct H2 {
    pub raw: RawH2,
    /// What the gateway's SETTINGS said.
    pub settings: Vec<(u16, u32)>,
    scheme: &'static str,
    authority: String,
    streams: BTreeMap<u32, Stream>,
    /// Streams that we take no more bytes of than their window has.
    held: HashSet<u32>,
    next: u32,
    may_send: i64,
    initial: i64,
    /// The block of a HEADERS frame that CONTINUATION frames go on with.
    block: Option<(Frame, Vec<u8>)>,
    goaway: Option<(u32, Code)>,
    ended: bool,
}

impl H2 {
    /// With the settings that RFC 9113 has as defaults.
    #[track_caller]
    pub fn connect(gateway: &Gateway) -> Self {
        match gateway.caller() {
            None => Self::connect_with(gateway.address, &[]),
            Some(caller) => Self::connect_tls(gateway.address, caller.clone()),
        }
    }

    #[track_caller]
    pub fn connect_with(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        Self::on(RawH2::open(address, settings), address, "http")
    }

    /// By ALPN.
    #[track_caller]
    pub fn connect_tls(address: SocketAddr, caller: Caller) -> Self {
        Self::on(RawH2::silent_tls(address, caller).opened(&[]), address, "https")
    }

    fn on((raw, theirs): (RawH2, Vec<(u16, u32)>), address: SocketAddr, scheme: &'static str) -> Self {
        let initial = theirs.iter().rev().find(|(id, _)| *id == Frame::INITIAL_WINDOW_SIZE);
        H2 {
            raw,
            scheme,
            authority: address.to_string(),
            streams: BTreeMap::new(),
            held: HashSet::new(),
            next: 1,
            may_send: WINDOW,
            initial: initial.map_or(WINDOW, |(_, size)| i64::from(*size)),
            block: None,
            goaway: None,
            ended: false,
            settings: theirs,
        }
    }

    /// The value of one of the gateway's settings.
    pub fn setting(&self, id: u16) -> Option<u32> {
        self.settings.iter().rev().find(|(i, _)| *i == id).map(|(_, value)| *value)
    }

    #[track_caller]
    pub fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, &[], b"")
    }

    #[track_caller]
    pub fn post(&mut self, path: &str, body: &[u8]) -> Answer {
        self.request("POST", path, &[], body)
    }

    /// A whole request and its answer, however that ends.
    #[track_caller]
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let last = if body.is_empty() { Last::Yes } else { Last::No };
        let stream = self.start(method, path, headers, last);
        if !body.is_empty() {
            self.data(stream, body, Last::Yes);
        }
        self.wait(stream)
    }

    /// Sends a request's head; its stream.
    #[track_caller]
    pub fn start(&mut self, method: &str, path: &str, headers: &[(&str, &str)], last: Last) -> u32 {
        let authority = self.authority.clone();
        let pseudo = [(":method", method), (":scheme", self.scheme), (":authority", &authority), (":path", path)];
        let fields: Vec<_> = pseudo.into_iter().chain(headers.iter().copied()).collect();
        self.start_with(&fields, last)
    }

    /// Sends exactly these fields as a request's head; its stream.
    #[track_caller]
    pub fn start_with<N: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, fields: &[(N, V)], last: Last) -> u32 {
        let stream = self.next;
        self.next += 2;
        self.streams.insert(stream, Stream { may_send: self.initial, ..Stream::default() });
        self.raw.send(&Frame::headers(stream, last.flag(), fields.iter().map(|(n, v)| (n, v))));
        stream
    }

    /// Sends exactly these fields as a request without a body, and waits.
    #[track_caller]
    pub fn request_with<N: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, fields: &[(N, V)]) -> Answer {
        let stream = self.start_with(fields, Last::Yes);
        self.wait(stream)
    }

    /// Sends body bytes, as far as the windows let it; stops early when the gateway has reset the stream.
    #[track_caller]
    pub fn data(&mut self, stream: u32, bytes: &[u8], last: Last) {
        let mut rest = bytes;
        loop {
            while !rest.is_empty() && self.room(stream) == 0 && !self.is_over(stream) {
                self.step();
            }
            if self.is_over(stream) {
                return;
            }
            let (piece, after) = rest.split_at(rest.len().min(self.room(stream)));
            rest = after;
            let flag = if rest.is_empty() { last.flag() } else { 0 };
            self.raw.send(&Frame::new(Frame::DATA, flag, stream, piece));
            self.may_send -= piece.len() as i64;
            self.streams.get_mut(&stream).expect("it was started").may_send -= piece.len() as i64;
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Sends trailers, which end the request.
    #[track_caller]
    pub fn trailers(&mut self, stream: u32, fields: &[(&str, &str)]) {
        self.raw.send(&Frame::headers(stream, Frame::END_STREAM, fields.iter().copied()));
    }

    #[track_caller]
    pub fn reset(&mut self, stream: u32) {
        self.raw.send(&Frame::reset(stream, Code::CANCEL));
    }

    /// Waits for what becomes of a stream that the test has started by itself, frame by frame.
    #[track_caller]
    pub fn wait_for_raw(&mut self, stream: u32) -> Answer {
        self.streams.insert(stream, Stream::default());
        self.wait(stream)
    }

    /// From now on the stream's window is not opened again.
    pub fn hold(&mut self, stream: u32) {
        self.held.insert(stream);
    }

    /// Opens a held stream's window by `more`.
    #[track_caller]
    pub fn grant(&mut self, stream: u32, more: u32) {
        self.raw.send(&Frame::window_update(stream, more));
    }

    /// What has come of an answer so far.
    pub fn answer(&self, stream: u32) -> &Answer {
        &self.streams[&stream].answer
    }

    /// Reads until the stream has ended, however; its answer.
    #[track_caller]
    pub fn wait(&mut self, stream: u32) -> Answer {
        self.wait_until(stream, |answer| answer.end != StreamEnd::Open);
        self.streams.remove(&stream).expect("it was waited for").answer
    }

    /// Reads until enough of the answer has come.
    #[track_caller]
    pub fn wait_until(&mut self, stream: u32, enough: impl Fn(&Answer) -> bool) {
        let start = Instant::now();
        while !enough(self.answer(stream)) {
            assert!(start.elapsed() < 3 * PATIENCE, "{:?} and no more", self.answer(stream));
            assert!(!self.ended || self.answer(stream).end == StreamEnd::Open, "{:?}", self.answer(stream));
            self.step();
        }
    }

    /// Takes whatever comes for `period`.
    #[track_caller]
    pub fn take_for(&mut self, period: Duration) {
        let start = Instant::now();
        while let (false, Some(left)) = (self.ended, period.checked_sub(start.elapsed())) {
            self.raw.set_patience(left);
            match self.raw.read() {
                Err(e) if e.kind() == ErrorKind::TimedOut => break,
                other => self.take(other.unwrap_or(None)),
            }
        }
        self.raw.set_patience(PATIENCE);
    }

    /// The last stream that the gateway's GOAWAY speaks of, and its code.
    pub fn goaway(&self) -> Option<(u32, Code)> {
        self.goaway
    }

    /// Whether the gateway ends the connection within `limit`; what still comes is taken.
    #[track_caller]
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        self.take_for(limit);
        self.ended
    }

    fn room(&self, stream: u32) -> usize {
        let room = self.streams.get(&stream).map_or(0, |s| s.may_send).min(self.may_send);
        usize::try_from(room).unwrap_or(0).min(FRAME)
    }

    fn is_over(&self, stream: u32) -> bool {
        let over = |s: &Stream| s.answer.reset_after.is_some() || matches!(s.answer.end, StreamEnd::Reset(_));
        self.ended || self.streams.get(&stream).is_none_or(over)
    }

    /// Reads one frame and does what it asks for.
    #[track_caller]
    fn step(&mut self) {
        match self.raw.read() {
            Ok(frame) => self.take(frame),
            Err(e) if e.kind() == ErrorKind::TimedOut => panic!("nothing comes; so far {}", self.raw.log()),
            Err(_) => self.take(None),
        }
    }

    #[track_caller]
    fn take(&mut self, frame: Option<Frame>) {
        let Some(frame) = frame else {
            self.ended = true;
            return self.lose(0);
        };
        match frame.kind {
            Frame::DATA => self.take_data(&frame),
            Frame::HEADERS if frame.has(Frame::END_HEADERS) => self.take_block(&frame, &frame.payload),
            Frame::HEADERS => self.block = Some((frame.clone(), frame.payload)),
            Frame::CONTINUATION => {
                let (head, mut block) = self.block.take().expect("CONTINUATION follows HEADERS");
                block.extend(&frame.payload);
                match frame.has(Frame::END_HEADERS) {
                    true => self.take_block(&head, &block),
                    false => self.block = Some((head, block)),
                }
            }
            Frame::RST_STREAM => {
                if let Some(stream) = self.streams.get_mut(&frame.stream) {
                    stream.answer.take_reset(frame.code());
                }
            }
            Frame::SETTINGS if !frame.has(Frame::ACK) => self.take_settings(&frame),
            Frame::PING if !frame.has(Frame::ACK) => {
                let _ = self.raw.try_send(&Frame::new(Frame::PING, Frame::ACK, 0, frame.payload));
            }
            Frame::GOAWAY => {
                self.goaway = Some((frame.number(0), frame.code()));
                self.lose(frame.number(0) + 1);
            }
            Frame::WINDOW_UPDATE => {
                let more = i64::from(frame.number(0));
                match self.streams.get_mut(&frame.stream) {
                    Some(stream) => stream.may_send += more,
                    None if frame.stream == 0 => self.may_send += more,
                    None => {}
                }
            }
            Frame::PUSH_PROMISE => panic!("nobody may push"),
            _ => {}
        }
    }

    /// The open streams from `first` on come to nothing.
    fn lose(&mut self, first: u32) {
        for stream in self.streams.range_mut(first..).map(|(_, stream)| stream) {
            if stream.answer.end == StreamEnd::Open {
                stream.answer.end = StreamEnd::Lost;
            }
        }
    }

    fn take_data(&mut self, frame: &Frame) {
        let size = frame.payload.len() as u32;
        if size > 0 {
            // The whole connection must not wait for one stream.
            let _ = self.raw.try_send(&Frame::window_update(0, size));
        }
        let Some(stream) = self.streams.get_mut(&frame.stream) else { return };
        stream.answer.take_data(frame);
        if stream.answer.end == StreamEnd::Open && size > 0 && !self.held.contains(&frame.stream) {
            let _ = self.raw.try_send(&Frame::window_update(frame.stream, size));
        }
    }

    #[track_caller]
    fn take_block(&mut self, head: &Frame, block: &[u8]) {
        if let Some(stream) = self.streams.get_mut(&head.stream) {
            stream.answer.take_block(head, block);
        }
    }

    fn take_settings(&mut self, frame: &Frame) {
        let values = frame.settings_values();
        for (_, size) in values.iter().filter(|(id, _)| *id == Frame::INITIAL_WINDOW_SIZE) {
            let more = i64::from(*size) - self.initial;
            self.initial += more;
            self.streams.values_mut().for_each(|stream| stream.may_send += more);
        }
        self.settings.extend(values);
        let _ = self.raw.try_send(&Frame::new(Frame::SETTINGS, Frame::ACK, 0, []));
    }
}
