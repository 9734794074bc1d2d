//! Measures and validates strings in the Huffman code of HPACK (RFC 7541 section 5.2), mostly without decoding them.

/// The octets for each code length, in the order of their codes. Codes are consecutive numbers, and the first of a
/// length follows the last of the previous length (RFC 7541 appendix B). The last code of 30 bits is EOS, which must
/// not occur.
const CODES: [(u32, &[u8]); 21] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\x00$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\\xc3\xd0"),
    (20, b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2"),
    (21, b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6"),
    (22, b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9"),
    (
        23,
        b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5\xe7\xef",
    ),
    (24, b"\t\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed"),
    (25, b"\xc7\xcf\xea\xeb"),
    (26, b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff"),
    (27, b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe"),
    (
        28,
        b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9",
    ),
    (30, b"\n\r\x16"),
];
const LONGEST: u32 = 30;

/// One bit for each class of octets that a string contains and that some strings must not contain.
pub mod seen {
    /// Not allowed in a name: not a token character, or upper case. Includes the colon.
    pub const NO_NAME: u8 = 1;
    /// Not allowed in a method: not a token character.
    pub const NO_METHOD: u8 = 2;
    /// Not allowed in a value: a control character other than a tab.
    pub const NO_VALUE: u8 = 4;
    /// Not ASCII.
    pub const HIGH: u8 = 8;
}

/// The classes of each octet.
pub static OCTETS: [u8; 256] = {
    let mut octets = [0; 256];
    let mut octet = 0;
    while octet < 256 {
        octets[octet] = judge(octet as u8);
        octet += 1;
    }
    octets
};

/// The classes of an octet, as in the `http` crate. Unlike RFC 9110, it allows a double quote in a name.
const fn judge(octet: u8) -> u8 {
    let is_token = octet.is_ascii_alphanumeric()
        || matches!(octet, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
    let mut bits = 0;
    if !(is_token || octet == b'"') || octet.is_ascii_uppercase() {
        bits |= seen::NO_NAME;
    }
    if !is_token {
        bits |= seen::NO_METHOD;
    }
    if octet.is_ascii_control() && octet != b'\t' {
        bits |= seen::NO_VALUE;
    }
    if !octet.is_ascii() {
        bits |= seen::HIGH;
    }
    bits
}

/// Number of bits for one lookup.
const SHORT: u32 = 12;
/// An entry of [`PREFIXES`]. The lowest four bits are the number of bits that its symbols use, 0 if the first symbol
/// has more than 12. The next bit says whether there are two symbols. The rest are their `NO_NAME` and `NO_METHOD`
/// bits.
const USED: u8 = 15;
const IS_PAIR: u8 = 16;
const SEEN: u32 = 5;

/// The first one or two symbols of each sequence of 12 bits.
static PREFIXES: [u8; 1 << SHORT] = {
    let mut prefixes = [0; 1 << SHORT];
    let mut bits = 0;
    while bits < prefixes.len() as u32 {
        let acc = (bits as u64) << (64 - SHORT);
        if let Some((first, used)) = symbol(acc)
            && used <= SHORT
        {
            let mut entry = used as u8 | OCTETS[first as usize] << SEEN;
            if let Some((second, more)) = symbol(acc << used)
                && used + more <= SHORT
            {
                entry = (used + more) as u8 | IS_PAIR | (OCTETS[first as usize] | OCTETS[second as usize]) << SEEN;
            }
            prefixes[bits as usize] = entry;
        }
        bits += 1;
    }
    prefixes
};

/// The symbol whose code is in the highest bits, and the code's length; `None` for EOS.
const fn symbol(acc: u64) -> Option<(u8, u32)> {
    let code = (acc >> (64 - LONGEST)) as u32;
    let (mut first, mut class) = (0, 0);
    while class < CODES.len() {
        let (length, symbols) = CODES[class];
        let offset = (code >> (LONGEST - length)) - (first >> (LONGEST - length));
        if offset < symbols.len() as u32 {
            return Some((symbols[offset as usize], length));
        }
        first += (symbols.len() as u32) << (LONGEST - length);
        class += 1;
    }
    None
}

/// The measure of a string that was not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// Number of octets after decoding.
    pub length: usize,
    pub seen: u8,
}

/// Measures a string; `None` if the code is invalid.
pub fn measure(text: &[u8]) -> Option<Measured> {
    let mut bits = Bits::new(text);
    let mut measured = Measured { length: 0, seen: 0 };
    let mut entries = 0;
    loop {
        bits.refill();
        while bits.count >= SHORT {
            let entry = PREFIXES[(bits.acc >> (64 - SHORT)) as usize];
            let used = u32::from(entry & USED);
            if used == 0 {
                if bits.count < LONGEST && !bits.rest.is_empty() {
                    break;
                }
                measured.seen |= OCTETS[usize::from(bits.symbol()?)];
                measured.length += 1;
                continue;
            }
            entries |= entry;
            measured.length += 1 + usize::from(entry & IS_PAIR != 0);
            bits.advance(used);
        }
        if bits.rest.is_empty() {
            break;
        }
    }
    measured.seen |= entries >> SEEN;
    while !bits.is_padding() {
        measured.seen |= OCTETS[usize::from(bits.symbol()?)];
        measured.length += 1;
    }
    Some(measured)
}

/// Whether a string, if its code is valid, is ASCII without control characters. The codes of all other octets begin
/// with ten ones or more, so the string must not contain that many in a row. The remaining codes have at most 12 bits.
pub fn has_only_short_codes(text: &[u8]) -> bool {
    let has_ten = |bits: u64| {
        let two = bits & bits << 1;
        let four = two & two << 2;
        let eight = four & four << 4;
        eight & two << 8 != 0
    };
    let mut rest = text;
    while let Some(word) = rest.first_chunk::<8>() {
        if has_ten(u64::from_be_bytes(*word)) {
            return false;
        }
        // A run that begins in the last two bytes may end after them.
        rest = &rest[6..];
    }
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    !has_ten(u64::from_be_bytes(word))
}

/// Decodes a string; `None` if the code is invalid.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let (mut bits, mut decoded) = (Bits::new(text), Vec::new());
    loop {
        bits.refill();
        if bits.rest.is_empty() && bits.is_padding() {
            return Some(decoded);
        }
        decoded.push(bits.symbol()?);
    }
}

/// Appends a string of `count` zeros. Its code is the shortest one: no other string of `count` octets is shorter.
pub fn zeros(block: &mut Vec<u8>, count: usize) {
    let bytes = (5 * count).div_ceil(8);
    block.resize(block.len() + bytes, 0);
    if let Some(last) = block.last_mut().filter(|_| bytes > 0) {
        // Padding bits are ones.
        *last = (1 << (8 * bytes - 5 * count)) - 1;
    }
}

/// The next bits of a string. The first one is the highest bit of `acc`.
struct Bits<'a> {
    acc: u64,
    count: u32,
    rest: &'a [u8],
}

impl<'a> Bits<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { acc: 0, count: 0, rest: text }
    }

    /// Refills `acc` to at least 56 bits, or to all that are left.
    fn refill(&mut self) {
        if let Some(word) = self.rest.first_chunk::<8>() {
            // Bits beyond `count` are in `acc` already. The next refill writes the same bits again.
            self.acc |= u64::from_be_bytes(*word) >> self.count;
            let bytes = (63 - self.count) / 8;
            self.rest = &self.rest[bytes as usize..];
            self.count += 8 * bytes;
            return;
        }
        while self.count <= 56
            && let [first, rest @ ..] = self.rest
        {
            self.acc |= u64::from(*first) << (56 - self.count);
            self.count += 8;
            self.rest = rest;
        }
    }

    fn advance(&mut self, used: u32) {
        self.acc <<= used;
        self.count -= used;
    }

    fn symbol(&mut self) -> Option<u8> {
        let (symbol, used) = symbol(self.acc).filter(|(_, used)| *used <= self.count)?;
        self.advance(used);
        Some(symbol)
    }

    /// Whether the rest is padding: fewer than eight bits, all ones.
    fn is_padding(&self) -> bool {
        self.count < 8 && (self.acc | u64::MAX >> self.count) == u64::MAX
    }
}

#[cfg(test)]
pub mod tests {
    use http::Method;
    use http::header::{HeaderName, HeaderValue};

    use super::*;

    /// Encodes a string symbol by symbol.
    pub fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = Vec::new();
        for octet in text {
            let mut first = 0u32;
            for (length, symbols) in CODES {
                if let Some(at) = symbols.iter().position(|symbol| symbol == octet) {
                    let code = (first >> (LONGEST - length)) + at as u32;
                    bits.extend((0..length).rev().map(|bit| code >> bit & 1));
                }
                first += (symbols.len() as u32) << (LONGEST - length);
            }
        }
        bits.resize(bits.len().next_multiple_of(8), 1);
        bits.chunks(8).map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | *bit as u8)).collect()
    }

    #[test]
    fn octets_are_judged_as_the_http_crate_does() {
        for octet in 0..=255 {
            let (bits, text) = (OCTETS[usize::from(octet)], [octet]);
            assert_eq!(bits & seen::NO_NAME == 0, HeaderName::from_lowercase(&text).is_ok(), "{octet}");
            assert_eq!(bits & seen::NO_METHOD == 0, Method::from_bytes(&text).is_ok(), "{octet}");
            assert_eq!(bits & seen::NO_VALUE == 0, HeaderValue::from_bytes(&text).is_ok(), "{octet}");
            assert_eq!(bits & seen::HIGH == 0, octet < 128);
        }
    }

    // RFC 7541 appendix C.4.1 and C.6.1.
    #[test]
    fn the_specification_s_strings_are_read() {
        for (coded, text) in [
            (&b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..], "www.example.com"),
            (
                b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff",
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
        ] {
            assert_eq!(encode(text.as_bytes()), coded);
            assert_eq!(decode(coded).as_deref(), Some(text.as_bytes()));
        }
    }

    #[test]
    fn strings_are_measured_as_they_are_decoded() {
        let mut random = fastrand::Rng::with_seed(27);
        for round in 0..5_000 {
            let length = random.usize(..40);
            let octet = |random: &mut fastrand::Rng| match round % 3 {
                0 => random.u8(..),
                1 => random.u8(b' '..b'\x7f'),
                _ => random.alphanumeric() as u8,
            };
            let text: Vec<u8> = (0..length).map(|_| octet(&mut random)).collect();
            let coded = encode(&text);
            let seen = text.iter().fold(0, |seen, octet| seen | OCTETS[usize::from(*octet)]);
            assert_eq!(measure(&coded), Some(Measured { length, seen }), "{text:?}");
            assert_eq!(decode(&coded), Some(text));
        }
    }

    #[test]
    fn a_string_with_anything_special_is_not_taken_for_one_of_short_codes() {
        let mut random = fastrand::Rng::with_seed(29);
        let mut short = 0;
        for round in 0..10_000 {
            let length = random.usize(..40);
            let mut text: Vec<u8> = std::iter::repeat_with(|| random.alphanumeric() as u8).take(length).collect();
            if round % 2 == 0 {
                text.insert(random.usize(..=length), random.u8(..));
            }
            if has_only_short_codes(&encode(&text)) {
                assert!(text.iter().all(|octet| (b' '..0x7f).contains(octet)), "{text:?}");
                short += 1;
            }
        }
        assert!(short > 5_000, "{short}");
        for octet in (0..=255u8).filter(|octet| !(b' '..0x7f).contains(octet)) {
            for before in 0..24 {
                let text = [&b"0".repeat(before)[..], &[octet]].concat();
                assert!(!has_only_short_codes(&encode(&text)), "{text:?}");
            }
        }
    }

    #[test]
    fn what_is_no_code_is_refused_by_both() {
        let mut random = fastrand::Rng::with_seed(28);
        for _ in 0..10_000 {
            let length = random.usize(..12);
            let mut coded: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
            if random.bool() {
                coded.extend([0xff; 3]);
            }
            assert_eq!(measure(&coded).map(|it| it.length), decode(&coded).map(|text| text.len()), "{coded:?}");
        }
        for bad in [&[0xff][..], &[0xff; 4], &[0b0000_0000], &[0b0000_0110]] {
            assert_eq!((measure(bad), decode(bad)), (None, None), "{bad:?}");
        }
        assert_eq!(measure(&[0b0000_0111]), Some(Measured { length: 1, seen: 0 }));
    }

    #[test]
    fn zeros_are_the_shortest_string() {
        for count in 0..50 {
            let mut coded = Vec::new();
            zeros(&mut coded, count);
            assert_eq!(coded, encode(&vec![b'0'; count]));
            assert!(coded.len() <= encode(&vec![b'\n'; count]).len());
        }
    }
}
