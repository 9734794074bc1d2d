//! Reads the chunked transfer coding (RFC 9112 section 7.1).

use bytes::{Buf, Bytes, BytesMut};

use super::framing::{Decoded, FramingError};
use super::{head, wire};

/// Bytes of chunk extensions and of trailers that one body may have; nobody here reads the former.
const MAX_EXTENSIONS: usize = 16 * 1024;
const MAX_TRAILERS: usize = 16 * 1024;
/// Digits of a chunk's size: more would not fit 64 bits.
const MAX_DIGITS: usize = 16;

/// Where in a chunked body we are.
#[derive(Debug, Default)]
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

impl Default for ChunkState {
    fn default() -> Self {
        Self::Size { digits: 0, size: 0 }
    }
}

impl Chunks {
    pub fn is_ended(&self) -> bool {
        matches!(self.state, ChunkState::Ended)
    }

    /// Bytes of the chunk that has begun.
    pub fn expected(&self) -> u64 {
        match self.state {
            ChunkState::Data(remaining) => remaining,
            _ => 0,
        }
    }

    /// Takes what is here, as one piece.
    pub fn decode(&mut self, unread: &mut BytesMut) -> Result<Decoded, FramingError> {
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
    use http::{HeaderMap, HeaderValue};

    use super::*;

    /// The body, whether it has ended, and its trailers; fed in pieces of `step` bytes.
    fn read(wire: &[u8], step: usize) -> Result<(Vec<u8>, bool, HeaderMap), FramingError> {
        let (mut chunks, mut unread) = (Chunks::default(), BytesMut::new());
        let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
        for piece in wire.chunks(step) {
            unread.extend_from_slice(piece);
            loop {
                match chunks.decode(&mut unread)? {
                    Decoded::Data(data) => body.extend_from_slice(&data),
                    Decoded::Trailers(fields) => trailers = fields,
                    Decoded::More | Decoded::End => break,
                }
            }
        }
        Ok((body, chunks.is_ended(), trailers))
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
        let mut chunks = Chunks::default();
        assert!(matches!(chunks.decode(&mut unread), Ok(Decoded::Data(data)) if &data[..] == b"abc"));
        assert!(chunks.is_ended());
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
}
