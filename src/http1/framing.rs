//! Where a message's body ends (RFC 9112 sections 6 and 7).

use std::io::Write;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName};
use http::{Method, StatusCode, Version};

use super::{head, wire};

/// Bytes of chunk extensions and of trailers that one body may have; nobody here reads the former.
const MAX_EXTENSIONS: usize = 16 * 1024;
const MAX_TRAILERS: usize = 16 * 1024;
/// Digits of a chunk's size: more would not fit 64 bits.
const MAX_DIGITS: usize = 16;

/// Why a body can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    #[error("Content-Length is not one number")]
    Length,
    #[error("Content-Length and Transfer-Encoding are both there")]
    Both,
    #[error("the transfer coding is not `chunked`")]
    Coding,
    #[error("a chunk is not valid: {0}")]
    Chunk(&'static str),
    #[error("the trailer section is not valid")]
    Trailers,
}

/// How a body that we send is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none, and the fields say what there would be (the answer to `HEAD`, 304).
    AsSaid,
    /// No field says anything: a request without a body, an answer that the end of its connection ends.
    Unsaid,
    Length(u64),
    Chunked,
}

impl Framing {
    /// Writes the field line that says so.
    pub fn write(self, out: &mut Vec<u8>) {
        match self {
            Framing::AsSaid | Framing::Unsaid => {}
            Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Framing::Length(length) => {
                head::write_field(out, "content-length", itoa::Buffer::new().format(length).as_bytes());
            }
        }
    }

    /// What goes before `length` bytes of data.
    pub fn write_front(self, out: &mut Vec<u8>, length: usize) {
        if self == Framing::Chunked && length > 0 {
            write!(out, "{length:x}\r\n").expect("memory takes everything");
        }
    }

    /// What goes behind `length` bytes of data, which are the last of the body or aren't.
    pub fn back(self, length: usize, is_last: bool) -> &'static [u8] {
        match (self, length == 0, is_last) {
            (Framing::Chunked, false, false) => b"\r\n",
            (Framing::Chunked, false, true) => b"\r\n0\r\n\r\n",
            (Framing::Chunked, true, true) => b"0\r\n\r\n",
            _ => b"",
        }
    }
}

/// The fields that a message says it ends with (RFC 9110 section 6.6.2): those alone are passed on.
#[derive(Debug, Default)]
pub struct Announced(Vec<HeaderName>);

impl Announced {
    pub fn by(headers: &HeaderMap) -> Self {
        let lists = headers.get_all(header::TRAILER).iter().filter_map(|value| value.to_str().ok());
        let names = lists.flat_map(|list| list.split(',')).filter_map(|name| name.trim().parse().ok());
        Self(names.filter(is_trailer).collect())
    }

    /// Writes the last chunk and the trailer section (RFC 9112 section 7.1.2).
    pub fn write(&self, out: &mut Vec<u8>, trailers: &HeaderMap) {
        out.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.iter().filter(|(name, _)| self.0.contains(name)) {
            head::write_field(out, name.as_str(), value.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Fields that frame, route, authenticate or describe a message do not belong behind it (RFC 9110 section 6.5.1), and
/// what a proxy says of it does not come from others.
fn is_trailer(name: &HeaderName) -> bool {
    use header as h;
    let text = name.as_str();
    if text.starts_with("x-forwarded-") || ["keep-alive", "proxy", "proxy-connection", "x-request-id"].contains(&text) {
        return false;
    }
    ![
        h::DATE,
        h::FORWARDED,
        h::VIA,
        h::AUTHORIZATION,
        h::CACHE_CONTROL,
        h::CONNECTION,
        h::CONTENT_ENCODING,
        h::CONTENT_LENGTH,
        h::CONTENT_RANGE,
        h::CONTENT_TYPE,
        h::COOKIE,
        h::EXPECT,
        h::HOST,
        h::MAX_FORWARDS,
        h::PROXY_AUTHENTICATE,
        h::PROXY_AUTHORIZATION,
        h::RANGE,
        h::SET_COOKIE,
        h::TE,
        h::TRAILER,
        h::TRANSFER_ENCODING,
        h::UPGRADE,
        h::WWW_AUTHENTICATE,
    ]
    .contains(name)
}

/// Reads a body out of what has arrived.
#[derive(Debug)]
pub enum Decoder {
    Ended,
    /// Bytes that are still missing.
    Length(u64),
    Chunked(Chunks),
    UntilClose,
}

/// What [`Decoder::decode`] found.
#[derive(Debug)]
pub enum Decoded {
    Data(Bytes),
    Trailers(HeaderMap),
    /// The body is not at its end, and nothing of it is here.
    More,
    End,
}

impl Decoder {
    /// Of a request. Two framings at once are an error: this is how requests are smuggled (RFC 9112 section 11.2).
    pub fn of_request(version: Version, headers: &HeaderMap) -> Result<Self, FramingError> {
        match (is_chunked(version, headers)?, length(headers)?) {
            (true, Some(_)) => Err(FramingError::Both),
            (true, None) => Ok(Self::chunked()),
            (false, length) => Ok(Self::length(length.unwrap_or(0))),
        }
    }

    /// Of the response to a request with this method (RFC 9112 section 6.3), and whether the connection can be used
    /// for another: with both framings at once the transfer coding counts, and nobody knows what follows.
    pub fn of_response(method: &Method, response: &head::Response) -> Result<(Self, bool), FramingError> {
        let head::Response { status, version, headers } = response;
        let (is_chunked, length) = (is_chunked(*version, headers)?, length(headers)?);
        let is_bodiless = status.is_informational()
            || matches!(*status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || *method == Method::HEAD;
        let decoder = match length {
            _ if is_bodiless => Self::Ended,
            _ if is_chunked => Self::chunked(),
            Some(length) => Self::length(length),
            None => Self::UntilClose,
        };
        let is_unclear = (is_chunked && length.is_some()) || matches!(decoder, Self::UntilClose);
        Ok((decoder, !is_unclear && head::is_persistent(*version, headers)))
    }

    fn chunked() -> Self {
        Self::Chunked(Chunks { state: ChunkState::Size { digits: 0, size: 0 }, extensions: 0 })
    }

    fn length(length: u64) -> Self {
        if length == 0 { Self::Ended } else { Self::Length(length) }
    }

    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// Bytes that the body still has, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self {
            Self::Ended => Some(0),
            Self::Length(remaining) => Some(*remaining),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Bytes that are certain to come next.
    pub fn expected(&self) -> u64 {
        match self {
            Self::Length(remaining) | Self::Chunked(Chunks { state: ChunkState::Data(remaining), .. }) => *remaining,
            Self::Ended | Self::Chunked(_) | Self::UntilClose => 0,
        }
    }

    /// Bytes that are missing before the rest of the body can be taken as one piece, if its length is known.
    pub fn missing(&self, unread: &[u8]) -> u64 {
        match self {
            Self::Length(remaining) => remaining.saturating_sub(unread.len() as u64),
            Self::Ended | Self::Chunked(_) | Self::UntilClose => 0,
        }
    }

    /// Takes what is here of the body, as one piece: chunks that arrived together are joined.
    pub fn decode(&mut self, unread: &mut BytesMut) -> Result<Decoded, FramingError> {
        match self {
            Self::Ended => Ok(Decoded::End),
            _ if unread.is_empty() => Ok(Decoded::More),
            Self::UntilClose => Ok(Decoded::Data(std::mem::take(unread).freeze())),
            Self::Length(remaining) => {
                let count = unread.len().min(usize::try_from(*remaining).unwrap_or(usize::MAX));
                *remaining -= count as u64;
                if *remaining == 0 {
                    *self = Self::Ended;
                }
                Ok(Decoded::Data(wire::take(unread, count)))
            }
            Self::Chunked(chunks) => {
                let decoded = chunks.decode(unread)?;
                if matches!(chunks.state, ChunkState::Ended) {
                    *self = Self::Ended;
                }
                Ok(decoded)
            }
        }
    }
}

/// Whether the body is chunked; an error if it is in any other transfer coding, which a worker and we might read
/// differently (RFC 9112 section 6.1). HTTP/1.0 has none.
fn is_chunked(version: Version, headers: &HeaderMap) -> Result<bool, FramingError> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(false),
        (Some(only), None)
            if version >= Version::HTTP_11 && only.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") =>
        {
            Ok(true)
        }
        _ => Err(FramingError::Coding),
    }
}

/// `Content-Length`: digits only, and the same in every field that is there (RFC 9110 section 8.6).
pub fn length(headers: &HeaderMap) -> Result<Option<u64>, FramingError> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.any(|value| value != first) || !first.as_bytes().iter().all(u8::is_ascii_digit) {
        return Err(FramingError::Length);
    }
    let length = first.to_str().ok().and_then(|digits| digits.parse().ok());
    length.map(Some).ok_or(FramingError::Length)
}

/// Where in a chunked body we are.
#[derive(Debug)]
pub struct Chunks {
    state: ChunkState,
    /// Bytes of extensions so far.
    extensions: usize,
}

#[derive(Debug, Clone, Copy)]
enum ChunkState {
    Size {
        digits: usize,
        size: u64,
    },
    /// White space or an extension; `cr` once it was seen, after which only LF may follow.
    Extension {
        size: u64,
        begun: bool,
        cr: bool,
    },
    Data(u64),
    DataEnd,
    Trailers,
    Ended,
}

impl Chunks {
    fn decode(&mut self, unread: &mut BytesMut) -> Result<Decoded, FramingError> {
        let mut first = Bytes::new();
        let mut joined = BytesMut::new();
        let mut trailers = None;
        while !unread.is_empty() {
            match self.state {
                ChunkState::Size { .. } | ChunkState::Extension { .. } => self.read_size(unread)?,
                ChunkState::Data(remaining) => {
                    let count = unread.len().min(usize::try_from(remaining).unwrap_or(usize::MAX));
                    self.state = match remaining - count as u64 {
                        0 => ChunkState::DataEnd,
                        remaining => ChunkState::Data(remaining),
                    };
                    if first.is_empty() {
                        first = wire::take(unread, count);
                    } else {
                        if joined.is_empty() {
                            joined.reserve(first.len() + unread.len());
                            joined.extend_from_slice(&first);
                        }
                        joined.extend_from_slice(&unread[..count]);
                        unread.advance(count);
                    }
                }
                ChunkState::DataEnd => {
                    if !b"\r\n".starts_with(&unread[..unread.len().min(2)]) {
                        return Err(FramingError::Chunk("its data is longer than its size"));
                    }
                    if unread.len() < 2 {
                        break;
                    }
                    unread.advance(2);
                    self.state = ChunkState::Size { digits: 0, size: 0 };
                }
                ChunkState::Trailers => match trailers_end(unread)? {
                    Some(2) => {
                        unread.advance(2);
                        self.state = ChunkState::Ended;
                    }
                    // What came before them goes first.
                    Some(end) if first.is_empty() => {
                        self.state = ChunkState::Ended;
                        let section = wire::take(unread, end);
                        trailers = Some(head::trailers(&section).map_err(|_| FramingError::Trailers)?);
                    }
                    Some(_) | None => break,
                },
                ChunkState::Ended => break,
            }
        }
        let data = if joined.is_empty() { first } else { joined.freeze() };
        match (data.is_empty(), trailers) {
            (false, _) => Ok(Decoded::Data(data)),
            (true, Some(trailers)) => Ok(Decoded::Trailers(trailers)),
            (true, None) if matches!(self.state, ChunkState::Ended) => Ok(Decoded::End),
            (true, None) => Ok(Decoded::More),
        }
    }

    /// Reads the line that says how long a chunk is, as far as it is here.
    fn read_size(&mut self, unread: &mut BytesMut) -> Result<(), FramingError> {
        while let (ChunkState::Size { .. } | ChunkState::Extension { .. }, Some(&byte)) = (self.state, unread.first()) {
            unread.advance(1);
            self.state = match self.state {
                ChunkState::Size { digits, size } if byte.is_ascii_hexdigit() => {
                    if digits == MAX_DIGITS {
                        return Err(FramingError::Chunk("its size is too large"));
                    }
                    let value = char::from(byte).to_digit(16).unwrap_or_default();
                    ChunkState::Size { digits: digits + 1, size: size << 4 | u64::from(value) }
                }
                ChunkState::Size { digits: 0, .. } => return Err(FramingError::Chunk("it has no size")),
                ChunkState::Size { size, .. } => self.extension(byte, size, false)?,
                ChunkState::Extension { size: 0, cr: true, .. } if byte == b'\n' => ChunkState::Trailers,
                ChunkState::Extension { size, cr: true, .. } if byte == b'\n' => ChunkState::Data(size),
                ChunkState::Extension { size, begun, cr: false } => self.extension(byte, size, begun)?,
                _ => return Err(FramingError::Chunk("the line of its size")),
            };
        }
        Ok(())
    }

    /// A byte behind a chunk's size: white space, then perhaps an extension, which is passed over.
    fn extension(&mut self, byte: u8, size: u64, begun: bool) -> Result<ChunkState, FramingError> {
        let (begun, cr) = match byte {
            b'\r' => return Ok(ChunkState::Extension { size, begun, cr: true }),
            b';' => (true, false),
            b' ' | b'\t' => (begun, false),
            byte if begun && byte > b' ' => (true, false),
            _ => return Err(FramingError::Chunk("the line of its size")),
        };
        self.extensions += 1;
        if self.extensions > MAX_EXTENSIONS {
            return Err(FramingError::Chunk("its extensions are too long"));
        }
        Ok(ChunkState::Extension { size, begun, cr })
    }
}

/// Where the trailer section ends, its empty line included.
fn trailers_end(unread: &[u8]) -> Result<Option<usize>, FramingError> {
    let mut line = 0;
    for at in memchr::memchr_iter(b'\n', unread) {
        if at == 0 || unread[at - 1] != b'\r' || at > MAX_TRAILERS {
            return Err(FramingError::Trailers);
        }
        if at - 1 == line {
            return Ok(Some(at + 1));
        }
        line = at + 1;
    }
    if unread.len() > MAX_TRAILERS { Err(FramingError::Trailers) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The body, whether it has ended, and its trailers; fed in pieces of `step` bytes.
    fn read(wire: &[u8], step: usize) -> Result<(Vec<u8>, bool, HeaderMap), FramingError> {
        let (mut decoder, mut unread) = (Decoder::chunked(), BytesMut::new());
        let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
        for piece in wire.chunks(step) {
            unread.extend_from_slice(piece);
            loop {
                match decoder.decode(&mut unread)? {
                    Decoded::Data(data) => body.extend_from_slice(&data),
                    Decoded::Trailers(fields) => trailers = fields,
                    Decoded::More | Decoded::End => break,
                }
            }
        }
        Ok((body, decoder.is_ended(), trailers))
    }

    #[test]
    fn chunks_are_read_however_they_arrive() {
        let wire = b"5;a=b\r\nhello\r\n6 \t;x\r\n world\r\n0\r\nA: b\r\nc: d\r\n\r\n";
        for step in 1..=wire.len() {
            let (body, ended, trailers) = read(wire, step).expect("a valid body");
            assert_eq!((&body[..], ended), (&b"hello world"[..], true), "{step}");
            assert_eq!(
                (&trailers["a"], &trailers["c"]),
                (&HeaderValue::from_static("b"), &HeaderValue::from_static("d"))
            );
        }
    }

    #[test]
    fn chunks_that_arrive_together_are_one_piece_and_its_end() {
        let mut unread = BytesMut::from(&b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\nnext"[..]);
        let mut decoder = Decoder::chunked();
        assert!(matches!(decoder.decode(&mut unread), Ok(Decoded::Data(data)) if &data[..] == b"abc"));
        assert!(decoder.is_ended());
        assert_eq!(&unread[..], b"next");
    }

    #[test]
    fn broken_chunks_are_errors() {
        for bad in [
            "g\r\n",
            "\r\n",
            "0x5\r\n",
            "-1\r\n",
            "+1\r\n",
            "11111111111111111\r\n",
            "1\nab",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1\r\na\rb",
            "1;a\nb",
            "1\rx\n",
            "1 1\r\n",
            "0\r\na: b\n\n",
            "0\r\n\n",
            "0\r\na : b\r\n\r\n",
        ] {
            for step in [1, bad.len()] {
                assert!(read(bad.as_bytes(), step).is_err(), "{bad:?}");
            }
        }
        let endless = format!("1;{}", "a".repeat(MAX_EXTENSIONS + 1));
        assert!(read(endless.as_bytes(), endless.len()).is_err());
        let endless = format!("0\r\na: {}", "a".repeat(MAX_TRAILERS));
        assert!(read(endless.as_bytes(), endless.len()).is_err());
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(k, v)| (header::HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn requests_have_one_framing() {
        let of = |version, fields: &[_]| Decoder::of_request(version, &headers(fields)).map(|it| it.remaining());
        let (new, old) = (Version::HTTP_11, Version::HTTP_10);
        assert_eq!(of(new, &[]), Ok(Some(0)));
        assert_eq!(of(new, &[("content-length", "5")]), Ok(Some(5)));
        assert_eq!(of(new, &[("transfer-encoding", "Chunked ")]), Ok(None));
        assert_eq!(of(old, &[("transfer-encoding", "chunked")]), Err(FramingError::Coding));
        assert_eq!(of(new, &[("transfer-encoding", "chunked"), ("content-length", "5")]), Err(FramingError::Both));
        for bad in ["xchunked", "chunked, identity", ",chunked", "gzip, chunked", "chunked,chunked", ""] {
            assert_eq!(of(new, &[("transfer-encoding", bad)]), Err(FramingError::Coding), "{bad}");
        }
        for bad in ["+5", "0x5", "-1", "", "5 5", "5, 5", "18446744073709551621"] {
            assert_eq!(of(new, &[("content-length", bad)]), Err(FramingError::Length), "{bad}");
        }
    }

    #[test]
    fn only_announced_trailers_pass_and_none_that_frame_or_authorise() {
        let announced = headers(&[("trailer", "Grpc-Status , content-length,authorization"), ("trailer", "via")]);
        let trailers =
            [("content-length", "5"), ("authorization", "x"), ("grpc-status", "0"), ("via", "1"), ("a", "b")];
        let mut out = Vec::new();
        Announced::by(&announced).write(&mut out, &headers(&trailers));
        assert_eq!(String::from_utf8_lossy(&out), "0\r\ngrpc-status: 0\r\n\r\n");
    }
}
