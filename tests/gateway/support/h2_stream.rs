//! One request's stream at a scripted HTTP/2 worker, as its script sees it.

use super::h2_frames::{Code, Frame};
use super::h2_link::{H2Request, Link, State};
use std::sync::Arc;
use std::time::Duration;

/// How long a script waits for windows and bodies.
const PATIENCE: Duration = Duration::from_secs(20);
/// The largest frame that any peer takes.
const FRAME: usize = 16_384;

/// Writes what it is told; a gateway that has had enough is no error.
pub struct H2Stream {
    link: Arc<Link>,
    id: u32,
}

impl H2Stream {
    pub(super) fn new(link: Arc<Link>, id: u32) -> Self {
        H2Stream { link, id }
    }

    /// Writes a whole answer.
    pub fn answer(&self, status: u16, body: &str) {
        self.head(status, &[("content-type", "text/plain")]);
        self.data(body, Frame::END_STREAM);
    }

    /// Writes a head that more follows.
    pub fn head(&self, status: u16, fields: &[(&str, &str)]) {
        self.headers(status, fields, 0);
    }

    /// Writes a head; with `END_STREAM` in `flags` the answer ends with it.
    pub fn headers(&self, status: u16, fields: &[(&str, &str)], flags: u8) {
        let status = status.to_string();
        let fields = [(":status", status.as_str())].into_iter().chain(fields.iter().copied());
        self.send(&Frame::headers(self.id, flags, fields));
    }

    /// Writes a piece of the body, as far as the windows let it; false if the gateway has had enough of it.
    pub fn data(&self, bytes: impl AsRef<[u8]>, flags: u8) -> bool {
        let mut rest = bytes.as_ref();
        loop {
            let room = self.link.wait(PATIENCE, |state| {
                let open = state.streams.get_mut(&self.id).expect("it was opened");
                if open.reset.is_some() || state.ended {
                    return Some(None);
                }
                let room = open.may_send.min(state.may_send).clamp(0, rest.len().min(FRAME) as i64);
                if room == 0 && !rest.is_empty() {
                    return None;
                }
                open.may_send -= room;
                state.may_send -= room;
                Some(Some(room as usize))
            });
            let Some(Some(room)) = room else { return false };
            let (piece, after) = rest.split_at(room);
            rest = after;
            let flag = if rest.is_empty() { flags } else { 0 };
            if self.link.try_send(&Frame::new(Frame::DATA, flag, self.id, piece)).is_err() {
                return false;
            }
            if rest.is_empty() {
                return true;
            }
        }
    }

    /// Writes trailers, which end the answer.
    pub fn trailers(&self, fields: &[(&str, &str)]) {
        self.send(&Frame::headers(self.id, Frame::END_STREAM, fields.iter().copied()));
    }

    pub fn reset(&self, code: Code) {
        self.send(&Frame::reset(self.id, code));
    }

    /// Says that no stream after `last` of this connection was or will be looked at.
    pub fn goaway(&self, last: u32) {
        self.link.goaway(last, Code::NO_ERROR);
    }

    pub fn send(&self, frame: &Frame) {
        self.link.send(frame);
    }

    /// Ends the whole connection, without a word.
    pub fn hang_up(&self) {
        self.link.hang_up();
    }

    /// Waits for the request's end, for a script that started on its head; `None` if it broke off.
    pub fn whole(&self) -> Option<H2Request> {
        let ended = self.link.wait(PATIENCE, |state| {
            let open = &state.streams[&self.id];
            if open.is_whole {
                return Some(Some(open.request.clone()));
            }
            (open.reset.is_some() || state.ended).then_some(None)
        });
        ended.flatten()
    }

    /// Waits for more than `size` bytes of the request's body.
    pub fn wait_for_body(&self, size: usize) {
        let came = self.link.wait(PATIENCE, |state| (state.streams[&self.id].request.body.len() > size).then_some(()));
        came.expect("more of the body comes");
    }

    /// Whether the gateway resets the stream within `limit`, or ends the connection.
    pub fn is_left_within(&self, limit: Duration) -> bool {
        let left = |state: &mut State| (state.streams[&self.id].reset.is_some() || state.ended).then_some(());
        self.link.wait(limit, left).is_some()
    }
}
