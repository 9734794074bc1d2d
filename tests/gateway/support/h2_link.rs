//! One connection of a scripted HTTP/2 worker: its streams and their windows.

use super::h2_frames::{Code, Frame};
use super::h2_worker::{Grants, shut};
use super::hpack::Table;
use super::message::{Headers, latin1};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The window that a peer has before it says otherwise.
const WINDOW: i64 = 65_535;

/// A request as the worker got it.
#[derive(Clone, Debug, Default)]
pub struct H2Request {
    pub method: String,
    pub path: String,
    pub scheme: String,
    pub authority: String,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub trailers: Headers,
    /// Which of the worker's connections it came on, from 0.
    pub connection: usize,
    pub stream: u32,
}

/// What a frame brought of a request.
#[derive(Default)]
pub(super) struct Taken {
    pub head: bool,
    pub end: bool,
}

#[derive(Default)]
pub(super) struct Open {
    pub request: H2Request,
    pub is_whole: bool,
    pub reset: Option<Code>,
    pub may_send: i64,
}

pub(super) struct State {
    pub streams: BTreeMap<u32, Open>,
    table: Table,
    /// The block of a HEADERS frame that CONTINUATION frames go on with.
    block: Option<(Frame, Vec<u8>)>,
    pub may_send: i64,
    initial: i64,
    pub ended: bool,
}

pub(super) struct Link {
    id: usize,
    grants: Grants,
    socket: Mutex<TcpStream>,
    /// Beside the writer's, which may be stuck in a write.
    end: TcpStream,
    state: Mutex<State>,
    changed: Condvar,
}

impl Link {
    pub fn new(id: usize, socket: TcpStream, grants: Grants) -> Self {
        let end = socket.try_clone().expect("descriptors are left");
        socket.set_nodelay(true).expect("TCP sockets take nodelay");
        let (streams, table) = (BTreeMap::new(), Table::of(4096));
        let state = State { streams, table, block: None, may_send: WINDOW, initial: WINDOW, ended: false };
        Link { id, grants, socket: Mutex::new(socket), end, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.changed.notify_all();
        changed
    }

    /// Waits until `ready` says something; `None` after `limit`.
    pub fn wait<T>(&self, limit: Duration, mut ready: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        loop {
            if let Some(found) = ready(&mut state) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
    }

    /// A peer that is gone is no error here.
    pub fn send(&self, frame: &Frame) {
        let _ = self.try_send(frame);
    }

    pub fn try_send(&self, frame: &Frame) -> io::Result<()> {
        self.socket.lock().unwrap().write_all(&frame.encode())
    }

    pub fn goaway(&self, last: u32, code: Code) {
        self.send(&Frame::new(Frame::GOAWAY, 0, 0, [last.to_be_bytes(), code.0.to_be_bytes()].concat()));
    }

    pub fn hang_up(&self) {
        shut(&self.end);
    }

    pub fn end(&self) {
        self.change(|state| state.ended = true);
        self.hang_up();
    }

    pub fn request(&self, stream: u32) -> Option<H2Request> {
        self.state().streams.get(&stream).map(|open| open.request.clone())
    }

    pub fn received(&self) -> usize {
        self.state().streams.values().map(|open| open.request.body.len()).sum()
    }

    /// Does what a frame asks for; `Err` if it is none that may come.
    pub fn take(&self, frame: &Frame) -> Result<Taken, String> {
        let ends = frame.has(Frame::END_STREAM) && matches!(frame.kind, Frame::DATA | Frame::HEADERS);
        let mut taken = Taken::default();
        match frame.kind {
            Frame::HEADERS | Frame::CONTINUATION => return self.take_headers(frame),
            Frame::DATA => {
                self.change(|state| {
                    let open = state.streams.get_mut(&frame.stream).ok_or(format!("{frame:?} on an idle stream"))?;
                    open.request.body.extend(&frame.payload);
                    open.is_whole |= ends;
                    Ok::<_, String>(())
                })?;
                let size = frame.payload.len() as u32;
                if size > 0 && self.grants == Grants::Everything {
                    self.send(&Frame::window_update(0, size));
                    self.send(&Frame::window_update(frame.stream, size));
                }
                taken.end = ends;
            }
            Frame::RST_STREAM => self.change(|state| {
                if let Some(open) = state.streams.get_mut(&frame.stream) {
                    open.reset = Some(frame.code());
                }
            }),
            Frame::SETTINGS if !frame.has(Frame::ACK) => {
                self.change(|state| {
                    let values = frame.settings_values();
                    for (_, size) in values.iter().filter(|(id, _)| *id == Frame::INITIAL_WINDOW_SIZE) {
                        let more = i64::from(*size) - state.initial;
                        state.initial += more;
                        state.streams.values_mut().for_each(|open| open.may_send += more);
                    }
                });
                self.send(&Frame::new(Frame::SETTINGS, Frame::ACK, 0, []));
            }
            Frame::PING if !frame.has(Frame::ACK) => {
                self.send(&Frame::new(Frame::PING, Frame::ACK, 0, frame.payload.clone()));
            }
            Frame::WINDOW_UPDATE => self.change(|state| {
                let more = i64::from(frame.number(0));
                match state.streams.get_mut(&frame.stream) {
                    Some(open) => open.may_send += more,
                    None if frame.stream == 0 => state.may_send += more,
                    None => {}
                }
            }),
            _ => {}
        }
        Ok(taken)
    }

    fn take_headers(&self, frame: &Frame) -> Result<Taken, String> {
        self.change(|state| {
            let (head, mut block) = match state.block.take() {
                Some((head, block)) if frame.kind == Frame::CONTINUATION => (head, block),
                None if frame.kind == Frame::HEADERS => (frame.clone(), Vec::new()),
                _ => return Err(format!("{frame:?} out of order")),
            };
            block.extend(&frame.payload);
            if !frame.has(Frame::END_HEADERS) {
                state.block = Some((head, block));
                return Ok(Taken::default());
            }
            let fields = state.table.decode(&block)?;
            let end = head.has(Frame::END_STREAM);
            match state.streams.get_mut(&head.stream) {
                Some(open) => {
                    (open.request.trailers, open.is_whole) = (headers(&fields)?, end);
                    Ok(Taken { head: false, end })
                }
                None => {
                    let request = request(&fields, self.id, head.stream)?;
                    let open = Open { request, is_whole: end, reset: None, may_send: state.initial };
                    state.streams.insert(head.stream, open);
                    Ok(Taken { head: true, end })
                }
            }
        })
    }
}

fn request(fields: &[(Vec<u8>, Vec<u8>)], connection: usize, stream: u32) -> Result<H2Request, String> {
    let plain = fields.iter().position(|(name, _)| !name.starts_with(b":")).unwrap_or(fields.len());
    let (pseudo, rest) = fields.split_at(plain);
    let mut request = H2Request { connection, stream, headers: headers(rest)?, ..H2Request::default() };
    for (name, value) in pseudo {
        let into = match &name[..] {
            b":method" => &mut request.method,
            b":path" => &mut request.path,
            b":scheme" => &mut request.scheme,
            b":authority" => &mut request.authority,
            _ => return Err(format!("the pseudo-header {}", latin1(name))),
        };
        *into = latin1(value);
    }
    Ok(request)
}

/// Fields as RFC 9113 section 8.2 wants them.
fn headers(fields: &[(Vec<u8>, Vec<u8>)]) -> Result<Headers, String> {
    let lines: Vec<_> = fields.iter().map(|(name, value)| format!("{}: {}", latin1(name), latin1(value))).collect();
    for (name, value) in fields {
        let hop_by_hop = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host"];
        let is_wrong = name.iter().any(|b| b.is_ascii_uppercase() || *b == b':')
            || hop_by_hop.iter().any(|h| h.as_bytes() == name)
            || (name == b"te" && value != b"trailers");
        if is_wrong {
            return Err(format!("{}: {} is no field of a request", latin1(name), latin1(value)));
        }
    }
    Headers::parse(lines.iter().map(String::as_str))
}
