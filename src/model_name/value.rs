//! A short text collected from pieces of a body.

use super::Model;

/// Collects bytes up to a limit.
#[derive(Debug)]
pub struct Value {
    bytes: Vec<u8>,
    most: usize,
    last: Option<u8>,
    is_over: bool,
}

impl Value {
    pub fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), most, last: None, is_over: false }
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.last = None;
        self.is_over = false;
    }

    pub fn push(&mut self, bytes: &[u8]) {
        let room = self.most - self.bytes.len();
        self.is_over |= bytes.len() > room;
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.last = bytes.last().copied().or(self.last);
    }

    pub fn push_char(&mut self, char: char) {
        self.push(char.encode_utf8(&mut [0; 4]).as_bytes());
    }

    /// The whole value; `None` if it exceeds the limit.
    pub fn whole(&self) -> Option<&[u8]> {
        (!self.is_over).then_some(&self.bytes)
    }

    /// The last byte, even if it was beyond the limit.
    pub fn last(&self) -> Option<u8> {
        self.last
    }

    /// The bytes up to the limit.
    pub fn start(&self) -> &[u8] {
        &self.bytes
    }

    /// The value as a model's name.
    pub fn name(&self) -> Model {
        match self.whole() {
            Some(bytes) => Model::Named(String::from_utf8_lossy(bytes).into_owned()),
            None => Model::NoName,
        }
    }
}
