//! Finds the field `model` of `multipart/form-data` (RFC 7578, RFC 2046 section 5.1).
//!
//! Lines must end in CR LF, as in Python's parsers. A part with a file name is a file, even if its field is `model`.

use super::value::Value;
use super::{Found, LONGEST, Model, Place, split_once};

/// Longest header line of a part, in bytes. Longer lines are ignored.
const LONGEST_LINE: usize = 4096;

/// Scanner for multipart forms.
#[derive(Debug)]
pub struct Multipart {
    /// Position of the next byte.
    at: u64,
    state: State,
    /// Ends a part: CR LF, two hyphens and the boundary. CR occurs in it only once, so no other delimiter can begin
    /// within a failed match.
    delimiter: Vec<u8>,
    /// Number of bytes of the delimiter that the latest bytes match.
    matched: usize,
    /// The rest of a delimiter's line, or the current header line.
    line: Value,
    text: Value,
    /// Whether the current part is the field `model`.
    is_model: bool,
    /// The range of its content, as far as it is known.
    place: Place,
    found: Found,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first part, or in a part.
    Content,
    /// After a delimiter: white space, then the end of the line. Anything else means that it was no delimiter.
    Delimiter,
    /// After a delimiter and CR.
    Cr,
    /// After a delimiter and one hyphen.
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
            // The first delimiter needs no CR LF before it.
            matched: 2,
            line: Value::new(LONGEST_LINE),
            text: Value::new(LONGEST),
            is_model: false,
            place: 0..0,
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
                _ => self.step(bytes[0]),
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
            self.matched = 0;
            // The first delimiter may lack the CR LF.
            self.place.end = (self.at + 1).saturating_sub(self.delimiter.len() as u64);
            self.line.clear();
            self.state = State::Delimiter;
        }
        1
    }

    /// Reads a byte after a delimiter.
    fn step(&mut self, byte: u8) -> usize {
        self.state = match (self.state, byte) {
            (State::Delimiter, b' ' | b'\t') => State::Delimiter,
            (State::Delimiter, b'\r') => State::Cr,
            (State::Delimiter, b'-') => State::Hyphen,
            (State::Cr, b'\n') => State::Header,
            (State::Hyphen, b'-') => State::Done,
            _ => return self.resume_content(),
        };
        match self.state {
            State::Header | State::Done => self.end_part(),
            _ => self.line.push(&[byte]),
        }
        1
    }

    /// Treats what looked like a delimiter as content.
    fn resume_content(&mut self) -> usize {
        if self.is_model {
            self.text.push(&self.delimiter);
            self.text.push(self.line.start());
        }
        self.state = State::Content;
        0
    }

    fn end_part(&mut self) {
        if self.is_model {
            let model = match self.text.whole() {
                // FastAPI treats an empty value as missing.
                Some([]) => Model::Unsaid,
                _ => self.text.name(),
            };
            self.found.add_field(model, Some(self.place.clone()));
        }
        self.is_model = false;
        self.line.clear();
    }

    fn read_header(&mut self, bytes: &[u8]) -> usize {
        let end = memchr::memchr(b'\n', bytes);
        let part = &bytes[..end.unwrap_or(bytes.len())];
        self.line.push(part);
        if end.is_none() {
            return part.len();
        }
        if self.line.last() != Some(b'\r') {
            self.line.push(b"\n");
            return part.len() + 1;
        }
        let line = self.line.whole().and_then(|line| line.strip_suffix(b"\r"));
        if line.is_some_and(<[u8]>::is_empty) {
            self.state = State::Content;
            self.text.clear();
            self.place.start = self.at + part.len() as u64 + 1;
        } else if let Some((name, value)) = line.and_then(|line| split_once(line, b':'))
            && name.trim_ascii().eq_ignore_ascii_case(b"content-disposition")
        {
            let is_file = parameter(value, b"filename").is_some();
            self.is_model = !is_file && parameter(value, b"name").as_deref() == Some(b"model");
        }
        self.line.clear();
        part.len() + 1
    }
}

/// The parameter `wanted` of a header field, without quotes; the last one if it is repeated. Like Python's parsers, it
/// accepts quotes anywhere, and backslashes that browsers did not escape.
pub fn parameter(field: &[u8], wanted: &[u8]) -> Option<Vec<u8>> {
    let (mut found, mut rest) = (None, field);
    loop {
        let end = end_of_parameter(rest);
        rest = rest.get(end + 1..)?;
        let parameter = &rest[..end_of_parameter(rest)];
        let (name, value) = split_once(parameter, b'=').unwrap_or((parameter, b""));
        if trimmed(name).eq_ignore_ascii_case(wanted) {
            found = Some(unquoted(trimmed(value)));
        }
        if parameter.len() == rest.len() {
            return found;
        }
    }
}

/// The position of the next semicolon outside quotes.
fn end_of_parameter(text: &[u8]) -> usize {
    let (mut at, mut is_quoted) = (0, false);
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' if text.get(at + 1) == Some(&b'"') => at += 1,
            b'"' => is_quoted = !is_quoted,
            b';' if !is_quoted => return at,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// Removes spaces and tabs from both ends.
fn trimmed(text: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let Some(start) = text.iter().position(is_text) else { return &[] };
    let end = text.iter().rposition(is_text).map_or(start, |last| last + 1);
    &text[start..end]
}

fn unquoted(value: &[u8]) -> Vec<u8> {
    let Some(quoted) = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")) else {
        return value.to_vec();
    };
    let (mut unquoted, mut bytes) = (Vec::new(), quoted.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if matches!(bytes.as_slice().first(), Some(b'"' | b'\\')) => unquoted.extend(bytes.next()),
            other => unquoted.push(*other),
        }
    }
    unquoted
}

#[cfg(test)]
mod tests;
