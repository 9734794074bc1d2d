//! Where a message's body ends (RFC 9112 sections 6 and 7).

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap};
use http::{Method, StatusCode, Version};

use super::chunks::Chunks;
use super::{head, wire, write};

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
                write::field(out, "content-length", itoa::Buffer::new().format(length).as_bytes());
            }
        }
    }

    /// What goes before `length` bytes of data.
    pub fn write_front(self, out: &mut Vec<u8>, length: usize) {
        if self == Framing::Chunked && length > 0 {
            write_hex(out, length);
            out.extend_from_slice(b"\r\n");
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

/// By hand, because each event of a stream has a size, and formatting it would be a tenth of the event's cost.
fn write_hex(out: &mut Vec<u8>, mut number: usize) {
    let (mut digits, mut at) = ([0; 2 * size_of::<usize>()], 2 * size_of::<usize>());
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[number & 15];
        number >>= 4;
        if number == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
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
        // A body where there must be none may come later, and would be taken for the next answer.
        let is_forbidden = *status == StatusCode::NO_CONTENT && (is_chunked || length.is_some_and(|length| length > 0));
        let is_unclear = (is_chunked && length.is_some()) || is_forbidden || matches!(decoder, Self::UntilClose);
        Ok((decoder, !is_unclear && head::is_persistent(*version, headers)))
    }

    fn chunked() -> Self {
        Self::Chunked(Chunks::default())
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
            Self::Length(remaining) => *remaining,
            Self::Chunked(chunks) => chunks.expected(),
            Self::Ended | Self::UntilClose => 0,
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
                if chunks.is_ended() {
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
fn length(headers: &HeaderMap) -> Result<Option<u64>, FramingError> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.any(|value| value != first) || !first.as_bytes().iter().all(u8::is_ascii_digit) {
        return Err(FramingError::Length);
    }
    let length = first.to_str().ok().and_then(|digits| digits.parse().ok());
    length.map(Some).ok_or(FramingError::Length)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

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
    fn sizes_are_written_as_others_write_them() {
        for number in [1, 9, 10, 15, 16, 0xabc, 65_536, usize::MAX] {
            let mut out = Vec::new();
            Framing::Chunked.write_front(&mut out, number);
            assert_eq!(String::from_utf8_lossy(&out), format!("{number:x}\r\n"));
        }
    }
}
