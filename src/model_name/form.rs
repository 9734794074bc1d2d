//! Finds `model` in `application/x-www-form-urlencoded`, the format of forms and queries.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use super::value::Value;
use super::{Found, LONGEST, Model, Place};

/// Characters that are escaped in a value.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// `model` with every byte as `%xx`.
const LONGEST_KEY: usize = 15;

/// Scanner for forms and queries.
#[derive(Debug)]
pub struct Form {
    /// Position of the next byte.
    at: u64,
    /// Where the pair's value begins; `None` while its name is read.
    value_at: Option<u64>,
    /// The value of the current pair, if its name is `model`.
    text: Value,
    /// The name of the current pair.
    key: Value,
    is_model: bool,
    found: Found,
}

impl Default for Form {
    fn default() -> Self {
        let (text, key) = (Value::new(3 * LONGEST), Value::new(LONGEST_KEY));
        Self { at: 0, value_at: None, text, key, is_model: false, found: Found::default() }
    }
}

impl Form {
    pub fn found(&self) -> &Found {
        &self.found
    }

    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let end = match self.value_at {
                None => memchr::memchr2(b'=', b'&', bytes),
                Some(_) => memchr::memchr(b'&', bytes),
            };
            let part = &bytes[..end.unwrap_or(bytes.len())];
            match self.value_at {
                None => self.key.push(part),
                Some(_) if self.is_model => self.text.push(part),
                Some(_) => {}
            }
            self.at += part.len() as u64;
            bytes = &bytes[part.len()..];
            let Some((mark, rest)) = bytes.split_first() else { return };
            if *mark == b'&' {
                self.end_pair();
            }
            self.at += 1;
            bytes = rest;
            self.value_at = if *mark == b'=' { Some(self.begin_value()) } else { None };
        }
    }

    /// Ends the form.
    pub fn finish(&mut self) {
        self.end_pair();
    }

    fn begin_value(&mut self) -> u64 {
        self.is_model = self.names_model();
        self.text.clear();
        self.at
    }

    fn names_model(&self) -> bool {
        self.key.whole().is_some_and(|key| decoded(key).as_ref() == b"model")
    }

    fn end_pair(&mut self) {
        match self.value_at.take() {
            Some(start) if self.is_model => {
                let model = match self.text.whole() {
                    // FastAPI treats an empty value as missing.
                    Some([]) => Model::Unsaid,
                    Some(text) => Model::Named(String::from_utf8_lossy(&decoded(text)).into_owned()),
                    None => Model::NoName,
                };
                self.found.add_field(model, Some(Place { start, end: self.at }));
            }
            None if self.names_model() => self.found.add_field(Model::Unsaid, None),
            _ => {}
        }
        self.is_model = false;
        self.key.clear();
    }
}

fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'+', b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    Cow::Owned(percent_decode(&spaced).collect())
}

/// A name encoded for a form.
pub fn encoded(name: &str) -> Vec<u8> {
    utf8_percent_encode(name, ESCAPED).to_string().into_bytes()
}
