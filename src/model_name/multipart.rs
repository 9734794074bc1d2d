//! Finds the field `model` of `multipart/form-data` (RFC 7578, RFC 2046 section 5.1).
//!
//! Lines end in CR LF, as those do that Python's parsers take. A part with a file name is a file, whatever its field is
//! called.

use super::value::Value;
use super::{Found, LONGEST, Place, split_once};

/// Bytes of the longest header line of a part that is looked at.
const LONGEST_LINE: usize = 4096;

/// See the module's documentation.
#[derive(Debug)]
pub struct Multipart {
    /// Position of the next byte.
    at: u64,
    state: State,
    /// What ends a part: CR LF, two hyphens and the boundary. CR is in it only once, so a piece of it that turns out to
    /// be none contains the beginning of no other.
    delimiter: Vec<u8>,
    /// Bytes of it that the last bytes are.
    matched: usize,
    /// The header line that is being read.
    line: Value,
    text: Value,
    /// The part that is being read is the one that is looked for.
    is_model: bool,
    /// Where its content begins.
    start: u64,
    found: Found,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first part, or in a part.
    Content,
    /// Behind a delimiter: white space, then the end of the line.
    Delimiter,
    /// Behind a delimiter and one hyphen.
    Hyphen,
    Header,
    Done,
}

impl Multipart {
    pub fn new(boundary: &[u8]) -> Self {
        Self {
            at: 0,
            state: State::Content,
            delimiter: [b"\r\n--", boundary].concat(),
            // The first delimiter needs no line before it.
            matched: 2,
            line: Value::new(LONGEST_LINE),
            text: Value::new(LONGEST),
            is_model: false,
            start: 0,
            found: Found::default(),
        }
    }

    pub fn found(&self) -> &Found {
        &self.found
    }

    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.state != State::Done {
            let taken = match self.state {
                State::Content => self.read_content(bytes),
                State::Header => self.read_header(bytes),
                _ => {
                    self.step(bytes[0]);
                    1
                }
            };
            self.at += taken as u64;
            bytes = &bytes[taken..];
        }
    }

    fn read_content(&mut self, bytes: &[u8]) -> usize {
        if self.matched == 0 {
            let plain = &bytes[..memchr::memchr(b'\r', bytes).unwrap_or(bytes.len())];
            if self.is_model {
                self.text.push(plain);
            }
            self.matched = usize::from(plain.len() < bytes.len());
            return plain.len() + self.matched;
        }
        if bytes[0] != self.delimiter[self.matched] {
            if self.is_model {
                self.text.push(&self.delimiter[..self.matched]);
            }
            self.matched = 0;
            return 0;
        }
        self.matched += 1;
        if self.matched == self.delimiter.len() {
            self.end_part();
        }
        1
    }

    fn end_part(&mut self) {
        if self.is_model {
            let end = self.at + 1 - self.delimiter.len() as u64;
            self.found.add(self.text.name(), Some(Place { start: self.start, end }));
        }
        self.is_model = false;
        self.matched = 0;
        self.state = State::Delimiter;
    }

    /// A byte behind a delimiter. If the line goes on in another way, it was none.
    fn step(&mut self, byte: u8) {
        self.state = match (self.state, byte) {
            (State::Delimiter, b'-') => State::Hyphen,
            (State::Hyphen, b'-') => State::Done,
            (State::Delimiter, b' ' | b'\t' | b'\r') => State::Delimiter,
            (State::Delimiter, b'\n') => {
                self.line.clear();
                State::Header
            }
            _ => State::Content,
        };
    }

    fn read_header(&mut self, bytes: &[u8]) -> usize {
        let end = memchr::memchr(b'\n', bytes);
        let part = &bytes[..end.unwrap_or(bytes.len())];
        self.line.push(part);
        if end.is_none() {
            return part.len();
        }
        let line = self.line.whole().map(<[u8]>::trim_ascii_end);
        if line.is_some_and(<[u8]>::is_empty) {
            self.state = State::Content;
            self.text.clear();
            self.start = self.at + part.len() as u64 + 1;
        } else if let Some((name, value)) = line.and_then(|line| split_once(line, b':'))
            && name.trim_ascii().eq_ignore_ascii_case(b"content-disposition")
        {
            let has_name = |name: &[u8]| parameter(value, name).is_some();
            let is_file = has_name(b"filename") || has_name(b"filename*");
            self.is_model = !is_file && parameter(value, b"name").as_deref() == Some(b"model");
        }
        self.line.clear();
        part.len() + 1
    }
}

/// A parameter of a header field, without quotes. Of several with one name it is the last.
pub fn parameter(mut text: &[u8], wanted: &[u8]) -> Option<Vec<u8>> {
    let mut found = None;
    while !text.is_empty() {
        let end = text.iter().position(|byte| matches!(byte, b';' | b'=')).unwrap_or(text.len());
        let name = text[..end].trim_ascii();
        let Some(b'=') = text.get(end) else {
            text = text.get(end + 1..).unwrap_or_default();
            continue;
        };
        let (value, rest) = parameter_value(text[end + 1..].trim_ascii_start());
        if name.eq_ignore_ascii_case(wanted) {
            found = Some(value);
        }
        text = rest;
    }
    found
}

/// The value that a text begins with, and what follows its semicolon.
fn parameter_value(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut value = Vec::new();
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = memchr::memchr(b';', text).unwrap_or(text.len());
        return (text[..end].trim_ascii_end().to_vec(), text.get(end + 1..).unwrap_or_default());
    };
    let mut bytes = quoted.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => break,
            b'\\' => value.extend(bytes.next()),
            other => value.push(*other),
        }
    }
    let rest = bytes.as_slice();
    let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
    (value, rest.get(end + 1..).unwrap_or_default())
}

#[cfg(test)]
mod tests;
