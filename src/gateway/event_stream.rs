//! Finds the positions in an event stream where a comment may be inserted (WHATWG HTML section 9.2.6).
//!
//! Lines end with LF, CRLF or a lone CR, and an empty line ends an event. A comment is a line of its own, so it is only
//! inserted at the start of a line, between events. Chunks and lines are independent: a CR at the end of one chunk and
//! an LF at the start of the next are one line end.
//!
//! Only the last three bytes of each chunk are examined. Until the first LF, each chunk is searched for one.

use bytes::{Buf, Bytes};

/// A byte order mark, which clients drop at the start of a stream and only there.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Follows an event stream as it passes.
#[derive(Debug, Default)]
pub struct EventStream {
    position: Position,
    after_cr: bool,
    /// Until the stream has had an LF, each CR counts as a line end of its own.
    has_lf: bool,
    has_begun: bool,
    to_omit: Omission,
}

/// Where the next byte goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Position {
    /// At the start of a line, and of an event.
    #[default]
    EventStart,
    /// At the start of a line within an event.
    LineStart,
    WithinLine,
}

/// Bytes to omit if they come next. They had no meaning where the worker sent them, but would have one after the
/// inserted comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Omission {
    #[default]
    Nothing,
    /// The LF of a CRLF: it would be another, empty line.
    Lf,
    /// A byte order mark, of which this many bytes have arrived: it would be part of a field's name.
    Bom(usize),
}

impl EventStream {
    /// Takes note of the next chunk. If a comment was inserted before it, the chunk may lose its first bytes.
    pub fn pass(&mut self, chunk: &mut Bytes) {
        if self.to_omit != Omission::Nothing {
            self.omit(chunk);
        }
        self.has_lf = self.has_lf || memchr::memchr(b'\n', chunk).is_some();
        self.position = match &chunk[..] {
            [] => return,
            [b'\n'] if self.after_cr => self.position,
            [rest @ .., b'\r', b'\n'] | [rest @ .., b'\r' | b'\n'] => match (rest.last(), self.position) {
                (Some(b'\r' | b'\n'), _) => Position::EventStart,
                (Some(_), _) | (None, Position::WithinLine) => Position::LineStart,
                (None, Position::LineStart | Position::EventStart) => Position::EventStart,
            },
            _ => Position::WithinLine,
        };
        self.after_cr = chunk.ends_with(b"\r");
        self.has_begun = true;
    }

    /// Whether a comment may be inserted here. After a CR this is only allowed if the stream appears to use lone CRs;
    /// otherwise the CR is probably half of a CRLF.
    pub fn takes_comment(&self) -> bool {
        self.position == Position::EventStart && !(self.after_cr && self.has_lf)
    }

    /// Takes note that a comment is inserted here.
    pub fn commented(&mut self) {
        self.to_omit = match self.to_omit {
            Omission::Bom(come) => Omission::Bom(come),
            _ if !self.has_begun => Omission::Bom(0),
            _ if self.after_cr => Omission::Lf,
            _ => Omission::Nothing,
        };
    }

    fn omit(&mut self, chunk: &mut Bytes) {
        match (self.to_omit, chunk.first()) {
            (_, None) => return,
            (Omission::Lf, Some(b'\n')) => {
                chunk.advance(1);
                (self.after_cr, self.has_lf) = (false, true);
            }
            (Omission::Bom(mut come), Some(_)) => {
                while come < BOM.len() && chunk.first() == Some(&BOM[come]) {
                    chunk.advance(1);
                    come += 1;
                }
                if come < BOM.len() && chunk.is_empty() {
                    return self.to_omit = Omission::Bom(come);
                }
                if 0 < come && come < BOM.len() {
                    // These bytes were no byte order mark, so restore them.
                    *chunk = [&BOM[..come], chunk].concat().into();
                }
            }
            (Omission::Lf | Omission::Nothing, Some(_)) => {}
        }
        self.to_omit = Omission::Nothing;
    }
}

#[cfg(test)]
mod tests;
