//! Finds the top-level member `model` of a JSON object (RFC 8259).
//!
//! Depth is a counter, so nothing is too deep. Values that don't matter are passed over by their strings and brackets
//! alone, which is right for every text that a parser takes, with `NaN` or without.
//!
//! Some parsers take UTF-16 and UTF-32, too, whose bytes may look like another object in UTF-8. Such an object is
//! ambiguous: it is known by what is no JSON in UTF-8, bytes that are zero or a byte order mark before its bracket, or
//! zero behind it.

use super::value::Value;
use super::{Found, LONGEST, Model, Place, is_space};

/// Scanner for JSON.
#[derive(Debug)]
pub struct Json {
    /// Position of the next byte.
    at: u64,
    state: State,
    is_object: bool,
    /// What has come of it is in UTF-16 or UTF-32, or is not JSON.
    is_wide: bool,
    /// Where a string is, while one is being read.
    string: Chars,
    /// Number of open brackets in the current value.
    depth: u64,
    key: Value,
    text: Value,
    /// Whether the current member is `model`.
    is_model: bool,
    /// Position of the opening quote of its string.
    start: u64,
    found: Found,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the object.
    Start,
    /// Right behind its bracket.
    Opened,
    /// Before the name of a member.
    Member,
    Key,
    /// Between a name and its value.
    Colon,
    /// In the string value of `model`.
    Model,
    /// In an object or array, outside strings.
    Nested,
    /// In any other string.
    String,
    /// In a number or literal, or after a value.
    Rest,
    Done,
}

/// The state within a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chars {
    /// The second half of a surrogate pair may follow the first.
    Plain { high: Option<u16> },
    /// After a backslash.
    Escape { high: Option<u16> },
    /// After `\u` and `digits` hexadecimal digits.
    Code { high: Option<u16>, digits: u8, code: u16 },
}

const PLAIN: Chars = Chars::Plain { high: None };

impl Default for Json {
    fn default() -> Self {
        Self {
            at: 0,
            state: State::Start,
            is_object: false,
            is_wide: false,
            string: PLAIN,
            depth: 0,
            key: Value::new(b"model".len()),
            text: Value::new(LONGEST),
            is_model: false,
            start: 0,
            found: Found::default(),
        }
    }
}

impl Json {
    pub fn found(&self) -> &Found {
        &self.found
    }

    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the text begins with an object.
    pub fn is_object(&self) -> bool {
        self.is_object
    }

    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.state != State::Done {
            let taken = match self.state {
                State::Key | State::Model => self.read_string(bytes),
                State::String => self.pass_string(bytes),
                State::Nested => self.pass_nested(bytes),
                _ => match self.unimportant(bytes) {
                    0 => {
                        self.step(bytes[0]);
                        1
                    }
                    count => count,
                },
            };
            self.at += taken as u64;
            bytes = &bytes[taken..];
        }
    }

    /// Number of leading bytes, between names and values, that can be skipped.
    fn unimportant(&self, bytes: &[u8]) -> usize {
        match self.state {
            State::Rest => memchr::memchr2(b',', b'}', bytes).unwrap_or(bytes.len()),
            _ => bytes.iter().take_while(|byte| is_space(**byte)).count(),
        }
    }

    /// Reads a byte between names and values.
    fn step(&mut self, byte: u8) {
        self.state = match (self.state, byte) {
            (State::Start, b'{') if self.is_wide => self.end_wide(),
            (State::Start, b'{') => {
                self.is_object = true;
                State::Opened
            }
            (State::Opened, 0) => self.end_wide(),
            (State::Start, 0 | 0xFE | 0xFF) => {
                self.is_wide = true;
                State::Start
            }
            // Python's parser skips a byte order mark, too.
            (State::Start, 0xEF | 0xBB | 0xBF) => State::Start,
            (State::Start, byte) if is_space(byte) => State::Start,
            (State::Start, _) | (State::Opened | State::Member | State::Colon | State::Rest, b'}') => State::Done,
            (State::Opened | State::Member, b'"') => {
                self.key.clear();
                self.string = PLAIN;
                State::Key
            }
            (State::Rest, b',') => State::Member,
            (State::Opened, _) => State::Member,
            (state @ (State::Member | State::Rest), _) => state,
            (State::Colon, byte) => self.begin_value(byte),
            (state, _) => state,
        };
    }

    fn end_wide(&mut self) -> State {
        self.is_object = false;
        self.found.add(Model::Ambiguous, None);
        State::Done
    }

    fn begin_value(&mut self, byte: u8) -> State {
        match byte {
            b'"' => {
                self.string = PLAIN;
                self.start = self.at;
                self.text.clear();
                if self.is_model { State::Model } else { State::String }
            }
            byte if is_space(byte) || byte == b':' => State::Colon,
            b'{' | b'[' => {
                self.depth = 1;
                self.note_other(Model::NoName);
                State::Nested
            }
            byte => {
                self.note_other(if byte == b'n' { Model::Unsaid } else { Model::NoName });
                State::Rest
            }
        }
    }

    /// Records a `model` that is not a string: it may be the last one.
    fn note_other(&mut self, model: Model) {
        if self.is_model {
            self.found.add(model, None);
        }
    }

    /// Skips bytes in an object or array, up to the next string.
    fn pass_nested(&mut self, bytes: &[u8]) -> usize {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth -= 1,
                b'"' => {
                    self.string = PLAIN;
                    self.state = State::String;
                    return at + 1;
                }
                _ => continue,
            }
            if self.depth == 0 {
                self.state = State::Rest;
                return at + 1;
            }
        }
        bytes.len()
    }

    /// Skips a string.
    fn pass_string(&mut self, bytes: &[u8]) -> usize {
        if self.string != PLAIN {
            self.string = PLAIN;
            return 1;
        }
        let Some(at) = memchr::memchr2(b'"', b'\\', bytes) else { return bytes.len() };
        if bytes[at] == b'"' {
            self.state = if self.depth == 0 { State::Rest } else { State::Nested };
        } else {
            self.string = Chars::Escape { high: None };
        }
        at + 1
    }

    /// Reads a member's name, or the string value of `model`.
    fn read_string(&mut self, bytes: &[u8]) -> usize {
        match self.string {
            Chars::Plain { high } => {
                let end = memchr::memchr2(b'"', b'\\', bytes);
                let plain = &bytes[..end.unwrap_or(bytes.len())];
                if !plain.is_empty() || end.is_some_and(|end| bytes[end] == b'"') {
                    self.end_surrogate(high);
                    self.target().push(plain);
                }
                match end.map(|end| bytes[end]) {
                    None => {}
                    Some(b'"') => self.end_string(self.at + plain.len() as u64 + 1),
                    Some(_) if plain.is_empty() => self.string = Chars::Escape { high },
                    Some(_) => self.string = Chars::Escape { high: None },
                }
                plain.len() + usize::from(end.is_some())
            }
            Chars::Escape { high } => {
                self.escape(high, bytes[0]);
                1
            }
            Chars::Code { high, digits, code } => self.code(high, digits, code, bytes[0]),
        }
    }

    fn escape(&mut self, high: Option<u16>, byte: u8) {
        if byte == b'u' {
            self.string = Chars::Code { high, digits: 0, code: 0 };
            return;
        }
        self.end_surrogate(high);
        let byte = match byte {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            other => other,
        };
        self.target().push(&[byte]);
    }

    /// Reads a digit of `\uXXXX`. Any other byte ends the escape early.
    fn code(&mut self, high: Option<u16>, digits: u8, code: u16, byte: u8) -> usize {
        let Some(digit) = char::from(byte).to_digit(16) else {
            self.end_surrogate(high);
            self.target().push_char(char::REPLACEMENT_CHARACTER);
            return 0;
        };
        let (digits, code) = (digits + 1, code << 4 | digit as u16);
        if digits < 4 {
            self.string = Chars::Code { high, digits, code };
            return 1;
        }
        match (high, code) {
            (Some(high), 0xDC00..=0xDFFF) => {
                let char = char::decode_utf16([high, code]).next().and_then(Result::ok);
                self.target().push_char(char.unwrap_or(char::REPLACEMENT_CHARACTER));
                self.string = PLAIN;
            }
            (high, 0xD800..=0xDBFF) => {
                self.end_surrogate(high);
                self.string = Chars::Plain { high: Some(code) };
            }
            (high, code) => {
                self.end_surrogate(high);
                let char = char::from_u32(u32::from(code)).unwrap_or(char::REPLACEMENT_CHARACTER);
                self.target().push_char(char);
            }
        }
        1
    }

    /// Replaces an unpaired high surrogate, if there is one.
    fn end_surrogate(&mut self, high: Option<u16>) {
        if high.is_some() {
            self.target().push_char(char::REPLACEMENT_CHARACTER);
        }
        self.string = PLAIN;
    }

    /// The buffer of the current string.
    fn target(&mut self) -> &mut Value {
        if self.state == State::Key { &mut self.key } else { &mut self.text }
    }

    fn end_string(&mut self, end: u64) {
        if self.state == State::Key {
            self.is_model = self.key.whole() == Some(b"model");
            self.depth = 0;
            self.state = State::Colon;
        } else {
            let place = Place { start: self.start, end };
            self.found.add(self.text.name(), Some(place));
            self.state = State::Rest;
        }
    }
}

#[cfg(test)]
mod tests;
