//! What h2 forgets between the frames of a block: it judges each frame's fields by themselves, and loses what it found if
//! the frame ends within a field.

use super::judge::Kind;

/// The fields of a block, as far as their order matters (RFC 9113 sections 8.2.2 and 8.3).
#[derive(Debug, Default)]
pub struct Order {
    /// The pseudo-fields so far, one bit each.
    pseudo: u32,
    /// There was a field that is none.
    is_late: bool,
}

impl Order {
    /// Whether the next field makes the message malformed.
    pub fn is_broken_by(&mut self, kind: Kind, is_forbidden: bool) -> bool {
        if matches!(kind, Kind::Regular | Kind::Connection | Kind::Te) {
            self.is_late = true;
            return is_forbidden;
        }
        let bit = 1 << kind as u32;
        let is_broken = self.is_late || self.pseudo & bit != 0;
        self.pseudo |= bit;
        is_broken
    }
}
