//! Filters frames on their way to h2 (RFC 9113 section 4.1). Header blocks with fields for which h2 would end the
//! connection are replaced, and blocks in several frames are put together. All other frames pass unchanged.

use bytes::{Buf, BytesMut};

use super::hpack::{Scanned, Scanner};
use super::{Budget, LONGEST_FRAME};

/// Length of a frame's header.
const HEADER: usize = 9;
/// CONTINUATION frames of a block: a client pays for each, a worker does not.
const MOST_CONTINUATIONS: usize = 2048;
/// A block that h2 refuses with PROTOCOL_ERROR, whatever came before: no table has an index 0.
const REFUSED: [u8; 1] = [0x80];
/// CONTINUATION frames without an end for which h2 ends a connection, with ENHANCE_YOUR_CALM, whatever its limits.
const FAR_TOO_MANY: usize = 64;

/// The types of frames that the filter examines (RFC 9113 section 6).
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PUSH_PROMISE: u8 = 5;
    pub const CONTINUATION: u8 = 9;
    #[cfg(test)]
    pub const PING: u8 = 6;
}

mod flag {
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// The peer sends too many frames that cause work without carrying anything.
#[derive(Debug, PartialEq, Eq)]
pub struct Flood;

/// Why a connection ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Flood,
    /// What h2 ends it for, or ought to.
    Error,
}

impl From<Flood> for End {
    fn from(Flood: Flood) -> Self {
        Self::Flood
    }
}

/// What a header list may be, beyond which it is refused.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub bytes: usize,
    pub fields: usize,
    /// Frames in which h2 takes a block, whose bytes may come in more of them.
    pub frames: usize,
}

/// The header of a frame.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    pub length: usize,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let [high, middle, low, kind, flags, stream @ ..] = *bytes.first_chunk::<HEADER>()?;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        Some(Self { length, kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1) })
    }

    fn write(&self, frames: &mut BytesMut) {
        frames.extend_from_slice(&(self.length as u32).to_be_bytes()[1..]);
        frames.extend_from_slice(&[self.kind, self.flags]);
        frames.extend_from_slice(&self.stream.to_be_bytes());
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// What to do with the bytes that have arrived.
enum Step {
    /// Pass this many bytes unchanged. Nothing was written to `ready`.
    Pass(usize),
    /// Drop this many bytes. Their replacement, if any, is in `ready`.
    Replace(usize),
    /// Wait for more bytes.
    Wait,
}

/// An incomplete header block.
#[derive(Debug)]
struct Partial {
    stream: u32,
    end_stream: u8,
    is_malformed: bool,
    continuations: usize,
    block: Vec<u8>,
}

/// Filters the frames of one direction of a connection.
#[derive(Debug)]
pub struct Filter {
    limits: Limits,
    pub budget: Option<Budget>,
    scanner: Scanner,
    partial: Option<Box<Partial>>,
    /// Number of bytes left to pass: of the preface, or of a frame whose header has passed.
    skip: usize,
    /// Bytes that have arrived and wait for more.
    held: BytesMut,
    /// The bytes that h2 reads next.
    pub ready: BytesMut,
    /// Whether the connection is cut off. The gateway sends a GOAWAY but does not wait for the peer to read it.
    pub is_cut_off: bool,
}

impl Filter {
    /// `preface` is the number of bytes before the first frame.
    pub fn new(limits: Limits, budget: Option<Budget>, preface: usize) -> Self {
        Self {
            limits,
            budget,
            scanner: Scanner::new(limits.bytes),
            partial: None,
            skip: preface,
            held: BytesMut::new(),
            ready: BytesMut::new(),
            is_cut_off: false,
        }
    }

    /// Takes bytes that have arrived. Returns how many of the first ones pass; the rest is held, and later `ready`.
    pub fn take(&mut self, arrived: &[u8]) -> usize {
        let taken = match self.held.is_empty() {
            true => self.pass(arrived),
            false => {
                self.held.extend_from_slice(arrived);
                0
            }
        };
        if !self.held.is_empty() {
            self.go_on();
        }
        taken
    }

    /// Takes bytes that have arrived while none are held.
    fn pass(&mut self, arrived: &[u8]) -> usize {
        let mut passed = 0;
        loop {
            match self.step(&arrived[passed..]) {
                Ok(Step::Pass(0)) => return passed,
                Ok(Step::Pass(count)) => passed += count,
                Ok(Step::Replace(count)) => {
                    self.held.extend_from_slice(&arrived[passed + count..]);
                    return passed;
                }
                Ok(Step::Wait) => {
                    self.held.extend_from_slice(&arrived[passed..]);
                    return passed;
                }
                Err(end) => {
                    self.cut_off(&end);
                    return passed;
                }
            }
        }
    }

    /// Processes the held bytes.
    fn go_on(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        loop {
            match self.step(&held) {
                Ok(Step::Pass(0)) => return,
                Ok(Step::Pass(count)) => {
                    self.ready.extend_from_slice(&held[..count]);
                    held.advance(count);
                }
                Ok(Step::Replace(count)) => held.advance(count),
                Ok(Step::Wait) => {
                    self.held = held;
                    return;
                }
                Err(end) => return self.cut_off(&end),
            }
        }
    }

    /// Has h2 end the connection with PROTOCOL_ERROR or ENHANCE_YOUR_CALM, by frames for which it does that; what it says of
    /// the last stream is right. Nothing more of what arrives is for h2, so that it does not matter what h2 would make of it.
    fn cut_off(&mut self, end: &End) {
        self.is_cut_off = true;
        if *end == End::Error {
            return self.write(1, flag::END_STREAM, &REFUSED);
        }
        let header = Header { length: 0, kind: kind::HEADERS, flags: 0, stream: 1 };
        header.write(&mut self.ready);
        for _ in 0..FAR_TOO_MANY {
            Header { kind: kind::CONTINUATION, ..header }.write(&mut self.ready);
        }
    }

    /// What becomes of the first thing in `bytes`, which is what is left of a frame, or a frame.
    fn step(&mut self, bytes: &[u8]) -> Result<Step, End> {
        if self.skip > 0 || bytes.is_empty() {
            let count = self.skip.min(bytes.len());
            self.skip -= count;
            return Ok(Step::Pass(count));
        }
        let Some(header) = Header::read(bytes) else { return Ok(Step::Wait) };
        if header.kind == kind::HEADERS || self.partial.is_some() {
            if header.length > LONGEST_FRAME {
                return Err(End::Error);
            }
            let Some(payload) = bytes.get(HEADER..HEADER + header.length) else { return Ok(Step::Wait) };
            self.note(&header)?;
            return self.block(&header, payload);
        }
        // Nobody may push to the gateway, and h2 would decode the block.
        if matches!(header.kind, kind::CONTINUATION | kind::PUSH_PROMISE) {
            return Err(End::Error);
        }
        self.note(&header)?;
        self.skip = header.length;
        Ok(Step::Pass(HEADER))
    }

    fn note(&mut self, header: &Header) -> Result<(), Flood> {
        self.budget.as_mut().map_or(Ok(()), |budget| budget.note_frame(header))
    }

    /// A frame of a header block, or one that must not be within a block.
    fn block(&mut self, header: &Header, payload: &[u8]) -> Result<Step, End> {
        let whole = HEADER + header.length;
        match self.partial.take() {
            None => {
                let (block, is_malformed) = block_of(header, payload).ok_or(End::Error)?;
                if !header.has(flag::END_HEADERS) {
                    let (stream, end_stream) = (header.stream, header.flags & flag::END_STREAM);
                    let block = block.to_vec();
                    self.partial =
                        Some(Box::new(Partial { stream, end_stream, is_malformed, continuations: 0, block }));
                    return Ok(Step::Replace(whole));
                }
                let Some(replacement) = self.scan(block, is_malformed)?.replacement else {
                    return Ok(Step::Pass(whole));
                };
                self.write(header.stream, header.flags & flag::END_STREAM, &replacement);
                Ok(Step::Replace(whole))
            }
            Some(mut partial) if header.kind == kind::CONTINUATION && header.stream == partial.stream => {
                partial.continuations += 1;
                let length = partial.block.len() + payload.len();
                if length > self.limits.frames * LONGEST_FRAME || partial.continuations > MOST_CONTINUATIONS {
                    return Err(End::Flood);
                }
                partial.block.extend_from_slice(payload);
                if !header.has(flag::END_HEADERS) {
                    self.partial = Some(partial);
                    return Ok(Step::Replace(whole));
                }
                let Partial { stream, end_stream, is_malformed, block, .. } = *partial;
                let replacement = self.scan(&block, is_malformed)?.replacement;
                self.write(stream, end_stream, &replacement.unwrap_or(block));
                Ok(Step::Replace(whole))
            }
            Some(_) => Err(End::Error),
        }
    }

    /// What there is to know of a block.
    fn scan(&mut self, block: &[u8], is_malformed: bool) -> Result<Scanned, End> {
        let scanned = self.scanner.scan(block, is_malformed).map_err(|_| End::Error)?;
        if (scanned.size >= self.limits.bytes || scanned.fields > self.limits.fields)
            && let Some(budget) = &mut self.budget
        {
            budget.note_large_list(scanned.size)?;
        }
        Ok(scanned)
    }

    /// Writes a block in as many frames as it takes.
    fn write(&mut self, stream: u32, end_stream: u8, block: &[u8]) {
        let frames = block.len().div_ceil(LONGEST_FRAME).max(1);
        for frame in 0..frames {
            let payload = &block[frame * LONGEST_FRAME..block.len().min((frame + 1) * LONGEST_FRAME)];
            let (kind, flags) = if frame == 0 { (kind::HEADERS, end_stream) } else { (kind::CONTINUATION, 0) };
            let flags = if frame + 1 == frames { flags | flag::END_HEADERS } else { flags };
            Header { length: payload.len(), kind, flags, stream }.write(&mut self.ready);
            self.ready.extend_from_slice(payload);
        }
    }
}

/// The part of a block in a HEADERS frame, and whether the frame makes the message malformed; `None` if it ends the
/// connection, even where h2 would only reset the stream: of a stream that depends on itself h2 does not look at the padding,
/// and where its block would end nobody knows.
fn block_of<'a>(header: &Header, mut payload: &'a [u8]) -> Option<(&'a [u8], bool)> {
    if header.kind != kind::HEADERS || header.stream == 0 {
        return None;
    }
    let mut padding = 0;
    if header.has(flag::PADDED) {
        let (length, rest) = payload.split_first()?;
        (padding, payload) = (usize::from(*length), rest);
    }
    let mut is_malformed = false;
    if header.has(flag::PRIORITY) {
        let (dependency, rest) = payload.split_first_chunk::<5>()?;
        let [first, second, third, fourth, _weight] = *dependency;
        // h2 does not decode the block of a stream that depends on itself, so its dynamic table would be wrong.
        is_malformed = u32::from_be_bytes([first & 0x7f, second, third, fourth]) == header.stream;
        payload = rest;
    }
    let block = payload.get(..payload.len().checked_sub(padding)?)?;
    Some((block, is_malformed))
}

#[cfg(test)]
mod tests;
