//! One line, in text or JSON. Text from outside is shown as [`Untrusted`] shows it, whatever the format.

use std::fmt::Write;
use std::time::Duration;

use itoa::Integer;

use super::Format;
use crate::telemetry::{Untrusted, is_bare};

/// Texts up to this length that are plain need not be looked at character by character.
const MAX_PLAIN: usize = 512;

pub struct Line<'a> {
    out: &'a mut Vec<u8>,
    format: Format,
    digits: itoa::Buffer,
}

impl<'a> Line<'a> {
    pub fn begin(out: &'a mut Vec<u8>, format: Format, time: Option<&[u8]>) -> Self {
        match (format, time) {
            (Format::Text, Some(time)) => {
                out.extend_from_slice(time);
                out.extend_from_slice(b"  INFO smg::access:");
            }
            (Format::Text, None) => out.extend_from_slice(b"INFO smg::access:"),
            (Format::Json, Some(time)) => {
                out.extend_from_slice(b"{\"timestamp\":\"");
                out.extend_from_slice(time);
                out.extend_from_slice(b"\",\"level\":\"INFO\"");
            }
            (Format::Json, None) => out.extend_from_slice(b"{\"level\":\"INFO\""),
        }
        Self { out, format, digits: itoa::Buffer::new() }
    }

    pub fn end(self) -> &'a [u8] {
        if self.format == Format::Json {
            self.out.extend_from_slice(b",\"target\":\"smg::access\"}");
        }
        self.out.push(b'\n');
        self.out
    }

    /// A value that is mostly a word, and has quotes only if it is not.
    pub fn bare(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        match self.format {
            Format::Text if value.len() <= MAX_PLAIN && is_bare(value) => self.out.extend_from_slice(value),
            Format::Text | Format::Json => self.string(value),
        }
    }

    /// A value that always has quotes.
    pub fn quoted(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.string(value);
    }

    pub fn number(&mut self, name: &str, value: impl Integer) {
        self.name(name);
        self.out.extend_from_slice(self.digits.format(value).as_bytes());
    }

    /// Milliseconds with three decimals.
    pub fn millis(&mut self, name: &str, value: Duration) {
        self.name(name);
        let us = value.saturating_add(Duration::from_nanos(500)).as_micros();
        let quote: &[u8] = if self.format == Format::Json { b"\"" } else { b"" };
        self.out.extend_from_slice(quote);
        self.out.extend_from_slice(self.digits.format(us / 1000).as_bytes());
        let rest = (us % 1000) as u16;
        self.out.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
        self.out.extend_from_slice(quote);
    }

    fn name(&mut self, name: &str) {
        match self.format {
            Format::Text => {
                self.out.push(b' ');
                self.out.extend_from_slice(name.as_bytes());
                self.out.push(b'=');
            }
            Format::Json => {
                self.out.extend_from_slice(b",\"");
                self.out.extend_from_slice(name.as_bytes());
                self.out.extend_from_slice(b"\":");
            }
        }
    }

    fn string(&mut self, value: &[u8]) {
        self.out.push(b'"');
        if is_plain(value) && !value.iter().any(|byte| matches!(byte, b'"' | b'\\')) {
            self.out.extend_from_slice(value);
        } else {
            let mut shown = String::new();
            let _ = write!(shown, "{}", Untrusted(value));
            for character in shown.chars() {
                if matches!(character, '"' | '\\') {
                    self.out.push(b'\\');
                }
                self.out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        self.out.push(b'"');
    }
}

fn digit(value: u16) -> u8 {
    b'0' + (value % 10) as u8
}

/// Shown as it is.
fn is_plain(value: &[u8]) -> bool {
    value.len() <= MAX_PLAIN && value.iter().all(|byte| matches!(byte, b' '..=b'~'))
}
