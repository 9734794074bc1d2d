//! Decides which fields h2 accepts.

use http::StatusCode;

use super::Text;
use crate::http2::huffman::seen;

/// The longest name that the `http` crate accepts.
const LONGEST_NAME: usize = 0xffff;

/// What a name implies for its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Regular,
    /// `:authority`, `:path`, `:scheme` and `:protocol`.
    Text,
    Method,
    Status,
    /// A name that h2 does not accept.
    Bad,
}

impl Kind {
    /// Whether any ASCII text without control characters is a valid value.
    pub fn takes_text(self) -> bool {
        matches!(self, Self::Regular | Self::Text)
    }

    pub fn of(name: Text) -> Self {
        let length = name.measured.length;
        if name.measured.seen & seen::NO_NAME == 0 {
            return if (1..=LONGEST_NAME).contains(&length) { Self::Regular } else { Self::Bad };
        }
        if length > ":authority".len() {
            return Self::Bad;
        }
        match &name.decoded()[..] {
            b":authority" | b":path" | b":scheme" | b":protocol" => Self::Text,
            b":method" => Self::Method,
            b":status" => Self::Status,
            _ => Self::Bad,
        }
    }
}

/// Whether h2 accepts a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Valid,
    /// The value is invalid, but another value of the same length would be valid.
    BadValue,
    /// The name is invalid, or no value of this length is valid, such as an empty `:method`. Fields that take their
    /// name from such an entry are refused, too; no well-behaved peer sends them.
    Bad,
}

impl Verdict {
    pub fn of(kind: Kind, value: Text) -> Self {
        let seen = value.measured.seen;
        let is_valid = match kind {
            Kind::Regular => seen & seen::NO_VALUE == 0,
            Kind::Text => seen & seen::HIGH == 0 || std::str::from_utf8(&value.decoded()).is_ok(),
            Kind::Method if value.measured.length == 0 => return Self::Bad,
            Kind::Method => seen & seen::NO_METHOD == 0,
            Kind::Status if value.measured.length == 3 && StatusCode::from_bytes(&value.decoded()).is_ok() => true,
            Kind::Status | Kind::Bad => return Self::Bad,
        };
        if is_valid { Self::Valid } else { Self::BadValue }
    }
}
