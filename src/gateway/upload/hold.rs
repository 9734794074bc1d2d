//! Reads a body, or its first part, before it is sent, because the body decides its destination.

use std::collections::VecDeque;
use std::iter;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;

use super::kept::{Kept, NoRoom};
use super::{ClientBody, MOST_AT_ONCE, Upload, WorkerBody};
use crate::gateway::error::GatewayError;
use crate::model_name::{Place, Scanner};

/// How long a client may be silent in the middle of a large body that is held.
const LARGE_PAUSE: Duration = Duration::from_secs(20);

/// Why no more was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The body is complete.
    Whole,
    Enough,
    TooLong,
    /// The shard holds too much of other bodies.
    NoRoom,
}

/// Watches the rest of a body whose model was found in the part that was held.
pub struct Watch {
    scanner: Scanner,
    /// Number of names in the part that was held.
    known: u64,
}

impl Watch {
    /// Whether the body still has no further `model` after these bytes.
    pub fn passes(&mut self, bytes: &[u8]) -> bool {
        self.scanner.push(bytes);
        self.scanner.found().count == self.known
    }
}

impl WorkerBody {
    /// Reads until `enough` returns true, but at most `limit` bytes. `enough` gets each piece and the number of bytes
    /// up to its end. Returns the body, still complete. A body that is too long for a retry is not kept for one.
    pub async fn hold(
        self,
        limit: u64,
        mut enough: impl FnMut(&[u8], u64) -> bool,
    ) -> Result<(Self, Stopped), GatewayError> {
        let mut bytes = 0;
        let mut show = |piece: &[u8]| {
            bytes += piece.len() as u64;
            enough(piece, bytes)
        };
        let (mut front, mut rest) = match self {
            Self::Stream(rest) => (VecDeque::new(), rest),
            Self::Again(front, Some(rest)) => (front, rest),
            Self::Whole(_) | Self::Again(_, None) => {
                for piece in self.held() {
                    show(&piece);
                }
                return Ok((self, Stopped::Whole));
            }
        };
        // Some of the body has been read before.
        if front.iter().fold(false, |_, piece| show(piece)) {
            return Ok((Self::Again(front, Some(rest)), Stopped::Enough));
        }
        let upload = rest.upload.clone();
        // Take the kept bytes out, so that reading the body does not keep them a second time.
        let mut held = upload.kept.take();
        upload.forget();
        let most = held.allow(limit);
        if rest.incoming.size_hint().lower() <= MOST_AT_ONCE.min(most) {
            rest.incoming.expect_whole();
        }
        let (mut over, pause) = (None, rest.pause.time);
        let stopped = loop {
            let Some(frame) = rest.frame().await else { break Stopped::Whole };
            let frame = frame.map_err(|_| upload.error().unwrap_or(GatewayError::BrokenBody))?;
            let Ok(piece) = frame.into_data() else { continue };
            let is_enough = show(&piece);
            let kept = held.add(&piece);
            if kept.is_err() {
                over = Some(piece);
            }
            match kept {
                _ if is_enough => {
                    break if rest.is_empty() && over.is_none() { Stopped::Whole } else { Stopped::Enough };
                }
                // What it takes, others lack.
                Ok(()) if held.is_large() => rest.pause.time = pause.min(LARGE_PAUSE),
                Ok(()) => {}
                Err(NoRoom::InBody) => break Stopped::TooLong,
                Err(NoRoom::OnShelf) => break Stopped::NoRoom,
            }
        };
        rest.pause.time = pause;
        held.allow(most);
        held.is_whole = stopped == Stopped::Whole;
        let is_short = over.is_none() && bytes <= most && !held.is_lost;
        if !is_short {
            if !held.is_lost {
                front.clear();
            }
            front.extend(held.give_away().into_iter().chain(over));
        }
        Ok((Self::after(front, held, is_short, rest), stopped))
    }

    /// Reads the body to its end and joins its pieces into a `Whole`, unless it is longer than `limit`.
    pub async fn hold_whole(self, limit: u64) -> Result<Self, GatewayError> {
        let upload = match &self {
            Self::Stream(rest) | Self::Again(_, Some(rest)) => Some(rest.upload.clone()),
            Self::Whole(_) | Self::Again(_, None) => None,
        };
        if self.size_hint().lower() > limit {
            return Ok(self);
        }
        let (mut body, stopped) = self.hold(limit, |_, _| false).await?;
        if let (Some(upload), Stopped::Whole) = (upload, stopped) {
            body.join(&upload);
        }
        Ok(body)
    }

    /// A body that was partly read. The read part is in `held` if it may be needed for a retry, otherwise in `front`.
    fn after(front: VecDeque<Bytes>, mut held: Kept, is_short: bool, rest: ClientBody) -> Self {
        let (upload, is_whole, is_one) = (rest.upload.clone(), held.is_whole, held.count() <= 1);
        let body = match (is_short, is_whole) {
            (true, true) if is_one => Self::Whole(held.give_away().pop_front()),
            (true, true) => Self::Again(held.pieces(), None),
            (true, false) => Self::Again(held.pieces(), Some(rest)),
            (false, true) => Self::Again(front, None),
            (false, false) => Self::Again(front, Some(rest)),
        };
        // The read part counts until it is not needed any more.
        upload.kept.replace(held);
        body
    }

    /// The part of the body that has been read.
    pub fn held(&self) -> Vec<Bytes> {
        match self {
            Self::Whole(body) => body.iter().cloned().collect(),
            Self::Stream(_) => Vec::new(),
            Self::Again(pieces, _) => pieces.iter().cloned().collect(),
        }
    }

    /// Joins the body into one piece, in which it is then sent, too. `None` if the body is incomplete.
    pub fn join(&mut self, upload: &Upload) -> Option<Bytes> {
        let pieces = match self {
            Self::Whole(body) => return body.clone(),
            Self::Again(pieces, None) => pieces.make_contiguous(),
            Self::Stream(_) | Self::Again(_, Some(_)) => return None,
        };
        let whole = joined(pieces);
        upload.let_go();
        *self = Self::Whole(Some(whole.clone()));
        Some(whole)
    }

    /// Watches the rest of the body for another `model`.
    pub fn watch(&mut self, scanner: Scanner) {
        if let Self::Again(_, Some(rest)) = self {
            let known = scanner.found().count;
            rest.watch = Some(Box::new(Watch { scanner, known }));
        }
    }

    /// Replaces these places of the part that has been read with `with`.
    pub fn rewrite(&mut self, upload: &Upload, places: &[Place], with: &Bytes) {
        match self {
            Self::Whole(Some(body)) => {
                *body = joined(spliced(iter::once(body.clone()), places, with).make_contiguous());
            }
            Self::Again(pieces, _) => {
                *pieces = spliced(std::mem::take(pieces), places, with);
                upload.kept.borrow_mut().replace(&*pieces);
            }
            Self::Whole(None) | Self::Stream(_) => {}
        }
    }
}

pub(super) fn joined(pieces: &[Bytes]) -> Bytes {
    match pieces {
        [] => Bytes::new(),
        [only] => only.clone(),
        many => {
            let mut whole = BytesMut::with_capacity(many.iter().map(Bytes::len).sum());
            many.iter().for_each(|piece| whole.extend_from_slice(piece));
            whole.freeze()
        }
    }
}

/// The pieces with `with` in place of `places`, which are in order. No bytes are copied.
fn spliced(pieces: impl IntoIterator<Item = Bytes>, places: &[Place], with: &Bytes) -> VecDeque<Bytes> {
    let (mut spliced, mut places) = (VecDeque::new(), places.iter().peekable());
    // The positions of the piece and of the end of the last replaced place.
    let (mut at, mut replaced) = (0, 0);
    for piece in pieces {
        let end = at + piece.len() as u64;
        let part = |from: u64, to: u64| piece.slice((from - at) as usize..(to - at) as usize);
        let mut from = end.min(at.max(replaced));
        while let Some(place) = places.next_if(|place| place.start <= end) {
            spliced.extend([part(from, place.start.max(from)), with.clone()]);
            replaced = place.end;
            from = end.min(replaced);
        }
        spliced.push_back(part(from, end));
        at = end;
    }
    spliced.retain(|piece| !piece.is_empty());
    spliced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_replaced_whatever_the_pieces_are() {
        const TEXT: &str = "0123456789";
        for (places, expected) in [
            (&[][..], "0123456789"),
            (&[(0, 1)], "ab123456789"),
            (&[(9, 10)], "012345678ab"),
            (&[(0, 10)], "ab"),
            (&[(3, 3)], "012ab3456789"),
            (&[(0, 0), (10, 10)], "ab0123456789ab"),
            (&[(1, 3), (3, 5), (7, 7)], "0abab56ab789"),
        ] {
            let places: Vec<Place> = places.iter().map(|(start, end)| *start..*end).collect();
            for size in 1..=TEXT.len() {
                let pieces = TEXT.as_bytes().chunks(size).map(Bytes::from_static);
                let mut spliced = spliced(pieces, &places, &Bytes::from_static(b"ab"));
                assert_eq!(joined(spliced.make_contiguous()), expected, "{places:?} in pieces of {size}");
            }
        }
    }
}
