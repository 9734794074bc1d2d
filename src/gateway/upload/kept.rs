//! What is kept of a request's body until nobody needs it again, for what it costs: a piece holds more than its bytes,
//! and a client chooses how small its pieces are.

use std::cell::Cell;
use std::collections::VecDeque;
use std::mem;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

/// Bytes that a shard keeps of all its requests' bodies together.
const MOST_KEPT: u64 = 128 << 20;
/// What costs more than this is large: an ordinary body is shorter.
const LARGE: u64 = 1 << 20;
/// Bytes that large bodies may take together. It is more than a body of `--max-scanned-request-bytes` costs; what is left
/// stays for the others.
const MOST_LARGE: u64 = 96 << 20;
/// Pieces below it are copied together, but for the first: most bodies are one piece. It is also the least room that is
/// made for them.
const SMALL: usize = 4 * 1024;
/// The most room that is made for small pieces at once.
const MOST_ROOM: usize = 64 * 1024;
/// What a piece costs besides its bytes: its handle, and the place for one more in a list that has grown.
const HANDLE: u64 = 64;

/// What bodies cost a shard, in bytes.
#[derive(Debug, Default)]
pub struct Shelf {
    taken: Cell<u64>,
    /// Those of large bodies.
    large: Cell<u64>,
}

impl Shelf {
    /// Whether there was room for so many bytes more, which is taken now for somebody who has so many.
    fn take(&self, bytes: u64, before: u64) -> bool {
        let taken = self.taken.get() + bytes;
        let large = self.large.get() + large(before + bytes) - large(before);
        let has_room = taken <= MOST_KEPT && (large <= MOST_LARGE || before + bytes <= LARGE);
        if has_room {
            self.taken.set(taken);
            self.large.set(large);
        }
        has_room
    }

    fn give_back(&self, bytes: u64) {
        self.taken.set(self.taken.get() - bytes);
        self.large.set(self.large.get() - large(bytes));
    }
}

/// How many of somebody's bytes are those of a large body.
fn large(bytes: u64) -> u64 {
    if bytes > LARGE { bytes } else { 0 }
}

/// How much of a body may be kept, and where its cost is counted.
#[derive(Debug)]
pub struct Keep {
    pub most: u64,
    pub shelf: Rc<Shelf>,
}

/// Why a piece is not kept.
#[derive(Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The body is longer than what may be kept of one.
    InBody,
    /// The shard keeps too much of others.
    OnShelf,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Kept {
    /// Almost always one.
    pieces: SmallVec<[Bytes; 1]>,
    /// Small pieces after those, copied together, and room for more.
    small: BytesMut,
    /// Bytes of all of them.
    bytes: u64,
    /// What has been taken from the shelf for them.
    cost: u64,
    /// Nothing is kept without it.
    pub keep: Option<Keep>,
    /// Some of the body is not kept.
    pub is_lost: bool,
    /// There is no more of the body.
    pub is_whole: bool,
}

impl Kept {
    /// Bytes that may be kept.
    fn most(&self) -> u64 {
        self.keep.as_ref().map_or(0, |keep| keep.most)
    }

    /// Sets the number of bytes that may be kept, and returns the previous one.
    pub fn allow(&mut self, most: u64) -> u64 {
        self.keep.as_mut().map_or(0, |keep| mem::replace(&mut keep.most, most))
    }

    /// Whether it takes much of the shelf.
    pub fn is_large(&self) -> bool {
        large(self.cost) > 0
    }

    /// How many pieces there are.
    pub fn count(&self) -> usize {
        self.pieces.len() + usize::from(!self.small.is_empty())
    }

    /// Counts `bytes` more, which are held elsewhere.
    pub fn charge(&mut self, bytes: u64) -> Result<(), NoRoom> {
        self.take(bytes)
    }

    /// Replaces the kept pieces, if there are any, with these, which have about the same size.
    pub fn replace<'a>(&mut self, pieces: impl IntoIterator<Item = &'a Bytes>) {
        if !self.is_lost {
            self.small = BytesMut::new();
            self.pieces = pieces.into_iter().cloned().collect();
        }
    }

    /// Keeps a piece; one that there is no room for changes nothing.
    pub fn add(&mut self, piece: &Bytes) -> Result<(), NoRoom> {
        if piece.is_empty() {
            return Ok(());
        }
        let bytes = self.bytes + piece.len() as u64;
        if bytes > self.most() {
            return Err(NoRoom::InBody);
        }
        let is_copied = piece.len() < SMALL && self.bytes > 0;
        let room = self.small.capacity() - self.small.len();
        let made = if is_copied && room < piece.len() { (self.bytes as usize).clamp(SMALL, MOST_ROOM) } else { 0 };
        let begins = !is_copied || made > 0 || self.small.is_empty();
        let held = if is_copied { made } else { piece.len() };
        self.take(held as u64 + if begins { HANDLE } else { 0 })?;
        self.bytes = bytes;
        if begins {
            self.gather();
        }
        if made > 0 {
            self.small = BytesMut::with_capacity(made);
        }
        if is_copied {
            self.small.extend_from_slice(piece);
        } else {
            self.pieces.push(piece.clone());
        }
        Ok(())
    }

    fn take(&mut self, cost: u64) -> Result<(), NoRoom> {
        match &self.keep {
            Some(Keep { shelf, .. }) if shelf.take(cost, self.cost) => {
                self.cost += cost;
                Ok(())
            }
            _ => Err(NoRoom::OnShelf),
        }
    }

    /// Makes one piece of the small ones.
    fn gather(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(self.small.split().freeze());
        }
    }

    /// What has been kept so far; it stays here, too.
    pub fn pieces(&mut self) -> VecDeque<Bytes> {
        self.gather();
        self.pieces.iter().cloned().collect()
    }

    /// Gives away what was kept. It goes on to count for as long as this does.
    pub fn give_away(&mut self) -> VecDeque<Bytes> {
        self.gather();
        self.is_lost = true;
        mem::take(&mut self.small);
        mem::take(&mut self.pieces).into_iter().collect()
    }

    /// Keeps nothing, now and from now on.
    pub fn lose(&mut self) {
        if let Some(Keep { shelf, .. }) = &self.keep {
            shelf.give_back(mem::take(&mut self.cost));
        }
        self.pieces.clear();
        if self.small.capacity() > 0 {
            self.small = BytesMut::new();
        }
        self.is_lost = true;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.lose();
    }
}

#[cfg(test)]
mod tests;
