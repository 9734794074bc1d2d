//! Decides which fields h2 accepts.

use http::StatusCode;

use super::Text;
use crate::http2::huffman::seen;

/// The longest name that the `http` crate accepts.
const LONGEST_NAME: usize = 0xffff;

/// A string, and its Huffman code.
pub type Known = (&'static [u8], &'static [u8]);

const CONNECTION: Known = (b"connection", b"\x21\xea\xa8\xa4\x49\x8f\x57");
const KEEP_ALIVE: Known = (b"keep-alive", b"\xea\x52\xd6\xb0\xe8\x37\x72\xff");
const PROXY_CONNECTION: Known = (b"proxy-connection", b"\xae\xc3\xf9\xf4\xb1\x0f\x55\x45\x22\x4c\x7a\xbf");
const TRANSFER_ENCODING: Known = (b"transfer-encoding", b"\x4d\x83\xa9\x12\x96\xc5\x8b\x51\x0f\x21\xaa\x9b");
const UPGRADE: Known = (b"upgrade", b"\xb6\xb9\xac\x1c\x85");
const TE: Known = (b"te", b"\x49\x7f");
const TRAILERS: Known = (b"trailers", b"\x4d\x83\x35\x05\xb1\x1f");

/// What a name says of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Regular,
    /// Of the connection: no message of HTTP/2 has it (RFC 9113 section 8.2.2).
    Connection,
    /// Allowed with the value `trailers` only.
    Te,
    Authority,
    Path,
    Scheme,
    Protocol,
    Method,
    Status,
    /// A name that h2 does not accept.
    Bad,
}

impl Kind {
    /// Whether any ASCII text without control characters is a valid value.
    pub fn takes_text(self) -> bool {
        !matches!(self, Self::Method | Self::Status | Self::Bad)
    }

    pub fn of(name: Text) -> Self {
        let length = name.measured.length;
        if name.measured.seen & seen::NO_NAME == 0 {
            return if (1..=LONGEST_NAME).contains(&length) { Self::regular(name) } else { Self::Bad };
        }
        if length > ":authority".len() {
            return Self::Bad;
        }
        match &name.decoded()[..] {
            b":authority" => Self::Authority,
            b":path" => Self::Path,
            b":scheme" => Self::Scheme,
            b":protocol" => Self::Protocol,
            b":method" => Self::Method,
            b":status" => Self::Status,
            _ => Self::Bad,
        }
    }

    /// A string has one code only, so names are compared as they are in the block.
    fn regular(name: Text) -> Self {
        let is_one_of = match (name.bytes.len(), name.is_coded) {
            (2, _) => return if name.is(TE) { Self::Te } else { Self::Regular },
            (5, true) | (7, false) => &[UPGRADE][..],
            (7 | 8, true) | (10, false) => &[CONNECTION, KEEP_ALIVE],
            (12, true) | (16 | 17, false) => &[PROXY_CONNECTION, TRANSFER_ENCODING],
            _ => return Self::Regular,
        };
        if is_one_of.iter().any(|known| name.is(*known)) { Self::Connection } else { Self::Regular }
    }

    /// Whether the field makes its message malformed.
    pub fn forbids(self, value: Text) -> bool {
        self == Self::Connection || self == Self::Te && !value.is(TRAILERS)
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
            Kind::Regular | Kind::Connection | Kind::Te => seen & seen::NO_VALUE == 0,
            Kind::Authority | Kind::Path | Kind::Scheme | Kind::Protocol => {
                seen & seen::HIGH == 0 || std::str::from_utf8(&value.decoded()).is_ok()
            }
            Kind::Method if value.measured.length == 0 => return Self::Bad,
            Kind::Method => seen & seen::NO_METHOD == 0,
            Kind::Status if value.measured.length == 3 && StatusCode::from_bytes(&value.decoded()).is_ok() => true,
            Kind::Status | Kind::Bad => return Self::Bad,
        };
        if is_valid { Self::Valid } else { Self::BadValue }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::huffman::tests::encode;

    #[test]
    fn known_strings_are_known_by_their_codes() {
        for known in [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE, TE, TRAILERS] {
            let code = encode(known.0);
            assert_eq!(code, known.1);
            for (bytes, is_coded) in [(known.0, false), (&code, true)] {
                let name = Text::new(bytes, is_coded).expect("a valid code");
                assert!(name.is(known));
                let kind = if known == TE { Kind::Te } else { Kind::Connection };
                assert!(known == TRAILERS || Kind::of(name) == kind, "{known:?}");
            }
        }
    }
}
