//! The frames of HTTP/2 (RFC 9113 section 6), as bytes.

use super::hpack;
use super::message::latin1;
use std::fmt;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame: its type, flags and stream, and the bytes after its head of nine.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// Types of frames, their flags, and settings (RFC 9113 sections 6 and 11).
impl Frame {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;

    pub const END_STREAM: u8 = 0x1;
    pub const ACK: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITISED: u8 = 0x20;

    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
    pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;

    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Frame { kind, flags, stream, payload: payload.into() }
    }

    pub fn settings(values: &[(u16, u32)]) -> Self {
        let payload = values.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
        Frame::new(Frame::SETTINGS, 0, 0, payload.collect::<Vec<_>>())
    }

    pub fn window_update(stream: u32, more: u32) -> Self {
        Frame::new(Frame::WINDOW_UPDATE, 0, stream, more.to_be_bytes())
    }

    pub fn reset(stream: u32, code: Code) -> Self {
        Frame::new(Frame::RST_STREAM, 0, stream, code.0.to_be_bytes())
    }

    /// A whole header block; with `END_STREAM` in `flags` the request ends with it.
    pub fn headers<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        stream: u32,
        flags: u8,
        fields: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        Frame::new(Frame::HEADERS, flags | Frame::END_HEADERS, stream, hpack::encode(fields))
    }

    pub fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("a frame").to_be_bytes();
        let head = [&length[1..], &[self.kind, self.flags], &self.stream.to_be_bytes()];
        [&head.concat()[..], &self.payload].concat()
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The four bytes at `at`, as a number.
    #[track_caller]
    pub fn number(&self, at: usize) -> u32 {
        let bytes = self.payload.get(at..at + 4).unwrap_or_else(|| panic!("{self:?} is too short"));
        u32::from_be_bytes(bytes.try_into().expect("four bytes"))
    }

    /// The code of a RST_STREAM or GOAWAY.
    #[track_caller]
    pub fn code(&self) -> Code {
        Code(self.number(if self.kind == Frame::GOAWAY { 4 } else { 0 }))
    }

    /// What a SETTINGS frame says, in order.
    pub fn settings_values(&self) -> Vec<(u16, u32)> {
        let value = |s: &[u8]| (u16::from_be_bytes([s[0], s[1]]), u32::from_be_bytes([s[2], s[3], s[4], s[5]]));
        self.payload.chunks_exact(6).map(value).collect()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 10] = [
            "DATA",
            "HEADERS",
            "PRIORITY",
            "RST_STREAM",
            "SETTINGS",
            "PUSH_PROMISE",
            "PING",
            "GOAWAY",
            "WINDOW_UPDATE",
            "CONTINUATION",
        ];
        let name = NAMES.get(usize::from(self.kind)).copied().unwrap_or("UNKNOWN");
        write!(f, "{name} flags {:#x} stream {} of {} bytes", self.flags, self.stream, self.payload.len())?;
        match self.kind {
            Frame::RST_STREAM | Frame::GOAWAY => write!(f, " {:?} {:?}", self.code(), latin1(&self.payload)),
            _ => Ok(()),
        }
    }
}

/// An error code (RFC 9113 section 7).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    pub const NO_ERROR: Code = Code(0);
    pub const PROTOCOL_ERROR: Code = Code(1);
    pub const FLOW_CONTROL_ERROR: Code = Code(3);
    pub const STREAM_CLOSED: Code = Code(5);
    pub const FRAME_SIZE_ERROR: Code = Code(6);
    pub const REFUSED_STREAM: Code = Code(7);
    pub const CANCEL: Code = Code(8);
    pub const COMPRESSION_ERROR: Code = Code(9);
    pub const ENHANCE_YOUR_CALM: Code = Code(11);
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        f.write_str(NAMES.get(self.0 as usize).copied().unwrap_or("UNKNOWN"))
    }
}
