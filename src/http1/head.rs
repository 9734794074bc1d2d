//! Heads of messages as they are read: request line or status line, and fields (RFC 9112 sections 2 to 5).

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri, Version};

use super::wire;

/// Field lines that any head may have.
const MOST_FIELDS: usize = 200;
/// Room for the fields that a proxy adds, so that adding them doesn't move the others.
const ADDED_FIELDS: usize = 8;

/// Why a head can't be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("{0}")]
    Malformed(&'static str),
    #[error("not HTTP/1.0 or HTTP/1.1")]
    Version,
    #[error("the request target is too long")]
    TargetTooLong,
    #[error("too many fields, or too long")]
    TooLarge,
}

/// How large a head may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Field lines, 200 at most.
    pub fields: usize,
    /// Bytes, with the request line or status line.
    pub bytes: usize,
}

/// The head of a request.
#[derive(Debug)]
pub struct Request {
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub headers: HeaderMap,
}

/// The head of a response.
#[derive(Debug)]
pub struct Response {
    pub status: StatusCode,
    pub version: Version,
    pub headers: HeaderMap,
}

/// Looks for a head in what has been read, and remembers how far it has looked: a head that arrives byte by byte
/// is not read again from its start for each of them.
#[derive(Debug, Default)]
pub struct HeadReader {
    searched: usize,
    /// Where the line begins that is being searched.
    line: usize,
}

impl HeadReader {
    /// The head of a request, once it is whole. Its bytes are taken from `unread`.
    pub fn request(&mut self, unread: &mut BytesMut, limits: Limits) -> Result<Option<Request>, HeadError> {
        if self.searched == 0 {
            // An empty line before a request is passed over (RFC 9112 section 2.2).
            while unread.starts_with(b"\r\n") {
                unread.advance(2);
            }
            if matches!(&unread[..], b"" | b"\r") {
                return Ok(None);
            }
        }
        let Some(head) = self.whole(unread, limits)? else { return Ok(None) };
        let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut parsed = httparse::Request::new(&mut []);
        if let Err(error) = parsed.parse_with_uninit_headers(&head, &mut fields[..limits.fields]) {
            let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let has_space_in_target = line.iter().filter(|byte| **byte == b' ').count() > 2;
            return Err(if has_space_in_target {
                HeadError::Malformed("the request target")
            } else {
                head_error(error)
            });
        }
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(INCOMPLETE);
        };
        if target.contains('#') {
            // A fragment is not part of a target: who cuts it off and who doesn't see different paths.
            return Err(HeadError::Malformed("the request target has a fragment"));
        }
        Ok(Some(Request {
            method: Method::from_bytes(method.as_bytes()).map_err(|_| HeadError::Malformed("the method"))?,
            uri: Uri::from_maybe_shared(head.slice_ref(target.as_bytes()))
                .map_err(|_| HeadError::Malformed("the request target"))?,
            version: version_of(version),
            headers: map(&head, parsed.headers)?,
        }))
    }

    /// The head of a response, once it is whole.
    pub fn response(&mut self, unread: &mut BytesMut, limits: Limits) -> Result<Option<Response>, HeadError> {
        // Whatever else speaks there is not waited for.
        if !unread.iter().zip(b"HTTP/1.").all(|(read, expected)| read == expected) {
            return Err(HeadError::Version);
        }
        let Some(head) = self.whole(unread, limits)? else { return Ok(None) };
        let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let fields = &mut fields[..limits.fields];
        config.parse_response_with_uninit_headers(&mut parsed, &head, fields).map_err(head_error)?;
        let (Some(status), Some(version)) = (parsed.code, parsed.version) else { return Err(INCOMPLETE) };
        Ok(Some(Response {
            status: StatusCode::from_u16(status)
                .ok()
                .filter(|status| is_status(*status))
                .ok_or(HeadError::Malformed("the status"))?,
            version: version_of(version),
            headers: map(&head, parsed.headers)?,
        }))
    }

    /// Takes a whole head, if it is there.
    fn whole(&mut self, unread: &mut BytesMut, limits: Limits) -> Result<Option<Bytes>, HeadError> {
        // Bytes beyond the limit are not searched: how many of them are here depends on how the head was fragmented, and
        // the error must not.
        let end = self.find_end(&unread[..unread.len().min(limits.bytes)])?;
        let Some(end) = end else {
            return match unread.len() > limits.bytes {
                true if self.line == 0 => Err(HeadError::TargetTooLong),
                true => Err(HeadError::TooLarge),
                false => Ok(None),
            };
        };
        *self = Self::default();
        Ok(Some(wire::take(unread, end)))
    }

    /// Where the empty line ends. Every line must end with CR LF: a single LF is a line to some and part of a line
    /// to others (RFC 9112 section 2.2).
    fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, HeadError> {
        for at in memchr::memchr_iter(b'\n', &bytes[self.searched..]).map(|at| at + self.searched) {
            if at == 0 || bytes[at - 1] != b'\r' {
                return Err(HeadError::Malformed("a line ends without CR"));
            }
            if at - 1 == self.line {
                return Ok(Some(at + 1));
            }
            self.line = at + 1;
        }
        self.searched = bytes.len();
        Ok(None)
    }
}

/// Whether HTTP defines the class of this status; what is above 599 has no meaning (RFC 9110 section 15).
pub fn is_status(status: StatusCode) -> bool {
    status.as_u16() < 600
}

const INCOMPLETE: HeadError = HeadError::Malformed("it is incomplete");

fn head_error(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooLarge,
        httparse::Error::Version => HeadError::Version,
        httparse::Error::HeaderName => HeadError::Malformed("a field's name"),
        httparse::Error::HeaderValue => HeadError::Malformed("a field's value"),
        _ => HeadError::Malformed("the first line"),
    }
}

fn version_of(minor: u8) -> Version {
    if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 }
}

fn map(head: &Bytes, fields: &[httparse::Header]) -> Result<HeaderMap, HeadError> {
    let mut headers = HeaderMap::with_capacity(fields.len() + ADDED_FIELDS);
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| HeadError::Malformed("a field's name"))?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value))
            .map_err(|_| HeadError::Malformed("a field's value"))?;
        headers.try_append(name, value).map_err(|_| HeadError::TooLarge)?;
    }
    Ok(headers)
}

/// Field lines of a trailer section, which must end with its empty line.
pub fn trailers(section: &Bytes) -> Result<HeaderMap, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let parsed = httparse::parse_headers(section, &mut fields).map_err(head_error)?;
    let httparse::Status::Complete((_, fields)) = parsed else { return Err(INCOMPLETE) };
    map(section, fields)
}

/// Whether `Connection` names `option` (RFC 9110 section 7.6.1).
pub fn names_option(headers: &HeaderMap, option: &str) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
}

/// Whether the sender of this head lets the connection be used again (RFC 9112 section 9.3).
pub fn is_persistent(version: Version, headers: &HeaderMap) -> bool {
    if !headers.contains_key(header::CONNECTION) {
        return version >= Version::HTTP_11;
    }
    !names_option(headers, "close") && (version >= Version::HTTP_11 || names_option(headers, "keep-alive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { fields: 3, bytes: 128 };

    fn request(bytes: &[u8]) -> Result<Option<Request>, HeadError> {
        HeadReader::default().request(&mut BytesMut::from(bytes), LIMITS)
    }

    #[test]
    fn a_head_in_pieces_is_the_same_head_and_leaves_what_follows() {
        let whole = b"\r\nPOST /a?b HTTP/1.1\r\nHost: h\r\nX-A:  v \r\nx-a: w\r\n\r\nrest";
        let (mut reader, mut unread) = (HeadReader::default(), BytesMut::new());
        let mut found = None;
        for byte in &whole[..whole.len() - 4] {
            assert!(found.is_none());
            unread.extend_from_slice(&[*byte]);
            found = reader.request(&mut unread, LIMITS).expect("a valid head");
        }
        let pieces = found.expect("a whole head");
        assert!(unread.is_empty());
        let mut unread = BytesMut::from(&whole[..]);
        let at_once = reader.request(&mut unread, LIMITS).expect("a valid head").expect("a whole head");
        assert_eq!(&unread[..], b"rest");
        for head in [pieces, at_once] {
            assert_eq!(
                (head.method, head.uri.to_string(), head.version),
                (Method::POST, "/a?b".into(), Version::HTTP_11)
            );
            assert_eq!(head.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["v", "w"]);
        }
    }

    #[test]
    fn what_others_may_read_differently_is_refused() {
        for bad in [
            &b"GET / HTTP/1.1\nHost: h\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: h\n\r\n",
            b"GET / HTTP/1.1\r\nHost: h\r\n\n",
            b"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
            b"GET / HTTP/1.1\r\n Host: h\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n",
            b"GET / HTTP/1.1\r\n: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET /a#b HTTP/1.1\r\n\r\n",
            b"GET /a b HTTP/1.1\r\n\r\n",
            b"GET /\r\n\r\n",
        ] {
            let error = request(bad).expect_err(&String::from_utf8_lossy(bad));
            assert!(matches!(error, HeadError::Malformed(_) | HeadError::Version), "{error}");
        }
        for bad in ["HTTP/0.9", "HTTP/2.0", "HTTP/9.9", "http/1.1"] {
            assert!(request(format!("GET / {bad}\r\n\r\n").as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn size_is_bounded_before_the_head_is_whole() {
        let long = "a".repeat(200);
        let of = |text: String| request(text.as_bytes()).map(|head| head.is_some());
        assert_eq!(of(format!("GET /{long}")), Err(HeadError::TargetTooLong));
        assert_eq!(of(format!("GET / HTTP/1.1\r\nA: {long}")), Err(HeadError::TooLarge));
        assert_eq!(of(format!("GET / HTTP/1.1\r\nA: {long}\r\n\r\n")), Err(HeadError::TooLarge));
        assert_eq!(of("GET / HTTP/1.1\r\na:1\r\nb:2\r\nc:3\r\nd:4\r\n\r\n".into()), Err(HeadError::TooLarge));
        assert_eq!(of("GET / HTTP/1.1\r\na:1\r\nb:2\r\nc:3\r\n".into()), Ok(false));
    }

    #[test]
    fn the_error_does_not_depend_on_fragmentation() {
        let long = "a".repeat(200);
        for (head, error) in [
            (format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n"), HeadError::TargetTooLong),
            (format!("GET / HTTP/1.1\r\nA: {long}\r\n\r\n"), HeadError::TooLarge),
            (format!("GET /{long} HTTP/1.1\nHost: h\r\n\r\n"), HeadError::TargetTooLong),
            (format!("GET / HTTP/1.1\r\nA: {long}\nB: c\r\n\r\n"), HeadError::TooLarge),
            (format!("GET / HTTP/1.1\nA: {long}\r\n\r\n"), HeadError::Malformed("a line ends without CR")),
        ] {
            for step in [1, 7, 100, LIMITS.bytes, LIMITS.bytes + 1, head.len()] {
                let (mut reader, mut unread) = (HeadReader::default(), BytesMut::new());
                let read = head.as_bytes().chunks(step).find_map(|piece| {
                    unread.extend_from_slice(piece);
                    reader.request(&mut unread, LIMITS).err()
                });
                assert_eq!(read, Some(error), "{head:?} in pieces of {step}");
            }
        }
    }

    #[test]
    fn a_status_without_a_class_is_none() {
        for (status, is_taken) in [("100", true), ("599", true), ("600", false), ("999", false), ("099", false)] {
            let mut unread = BytesMut::from(format!("HTTP/1.1 {status} X\r\n\r\n").as_bytes());
            assert_eq!(HeadReader::default().response(&mut unread, LIMITS).is_ok(), is_taken, "{status}");
        }
    }

    #[test]
    fn a_response_may_lack_its_reason() {
        for line in ["HTTP/1.1 204 No Content", "HTTP/1.1 204 ", "HTTP/1.1 204"] {
            let mut unread = BytesMut::from(format!("{line}\r\nA: b\r\n\r\n").as_bytes());
            let head = HeadReader::default().response(&mut unread, LIMITS).expect(line).expect("a whole head");
            assert_eq!((head.status, &head.headers["a"]), (StatusCode::NO_CONTENT, &HeaderValue::from_static("b")));
        }
    }

    #[test]
    fn connections_persist_by_version_and_option() {
        let headers = |value: Option<&'static str>| {
            let value = value.map(|value| (header::CONNECTION, HeaderValue::from_static(value)));
            value.into_iter().collect::<HeaderMap>()
        };
        for (version, option, persists) in [
            (Version::HTTP_11, None, true),
            (Version::HTTP_11, Some("x, Close"), false),
            (Version::HTTP_11, Some("x"), true),
            (Version::HTTP_10, None, false),
            (Version::HTTP_10, Some("Keep-Alive"), true),
            (Version::HTTP_10, Some("keep-alive, close"), false),
        ] {
            assert_eq!(is_persistent(version, &headers(option)), persists, "{version:?} {option:?}");
        }
    }
}
