//! Header blocks of HTTP/2 (RFC 7541), as far as a test client needs them: it writes literals only, so that any bytes
//! can be sent, and announces a dynamic table of size zero, so that none has to be kept.

use std::collections::VecDeque;

/// A field as bytes; nothing says that it is valid.
pub type Field = (Vec<u8>, Vec<u8>);

/// Encodes fields as literals without indexing and without Huffman code (section 6.2.2).
pub fn encode<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: impl IntoIterator<Item = (N, V)>) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            integer(&mut block, 0, 7, text.len());
            block.extend_from_slice(text);
        }
    }
    block
}

/// Encodes one field that goes into the peer's dynamic table, at index 62 (section 6.2.1).
pub fn indexed_literal(name: &str, value: &[u8]) -> Vec<u8> {
    let mut block = encode([(name, value)]);
    block[0] = 0x40;
    block
}

/// Appends a number whose first `prefix` bits share a byte with `flags` (section 5.1).
fn integer(block: &mut Vec<u8>, flags: u8, prefix: u32, number: usize) {
    let most = (1 << prefix) - 1;
    if number < most {
        return block.push(flags | number as u8);
    }
    block.push(flags | most as u8);
    let mut rest = number - most;
    while rest >= 0x80 {
        block.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
}

/// Decodes a whole block of a peer that may keep no table; `Err` says what is wrong with it.
pub fn decode(block: &[u8]) -> Result<Vec<Field>, String> {
    Table::of(0).decode(block)
}

/// What the peer has put into its dynamic table (section 2.3.2).
pub struct Table {
    /// The newest first.
    entries: VecDeque<Field>,
    size: usize,
    most: usize,
}

impl Table {
    /// A table of at most `size` bytes; without SETTINGS it is 4096.
    pub fn of(size: usize) -> Self {
        Table { entries: VecDeque::new(), size, most: size }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Decodes a whole block; `Err` says what is wrong with it.
    pub fn decode(&mut self, block: &[u8]) -> Result<Vec<Field>, String> {
        let mut reader = Reader(block);
        let mut fields = Vec::new();
        while let Some(&first) = reader.0.first() {
            match first {
                0x80.. => fields.push(self.at(reader.integer(7)?)?),
                0x40..0x80 => {
                    let field = self.literal(&mut reader, 6)?;
                    self.entries.push_front(field.clone());
                    self.shrink();
                    fields.push(field);
                }
                0x20..0x40 => match reader.integer(5)? {
                    size if size <= self.most => {
                        self.size = size;
                        self.shrink();
                    }
                    size => return Err(format!("a dynamic table of {size} bytes, where {} are allowed", self.most)),
                },
                _ => fields.push(self.literal(&mut reader, 4)?),
            }
        }
        Ok(fields)
    }

    fn literal(&self, reader: &mut Reader, prefix: u32) -> Result<Field, String> {
        let name = match reader.integer(prefix)? {
            0 => reader.string()?,
            index => self.at(index)?.0,
        };
        Ok((name, reader.string()?))
    }

    /// An entry of the static table (appendix A), counted from 1, or of the dynamic one behind it.
    fn at(&self, index: usize) -> Result<Field, String> {
        let index = index.checked_sub(1).ok_or("index 0")?;
        match STATIC.get(index) {
            Some(&(name, value)) => Ok((name.into(), value.into())),
            None => self.entries.get(index - STATIC.len()).cloned().ok_or(format!("no entry at {}", index + 1)),
        }
    }

    fn shrink(&mut self) {
        while self.entries.iter().map(|(name, value)| name.len() + value.len() + 32).sum::<usize>() > self.size {
            self.entries.pop_back();
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, String> {
        let (&first, rest) = self.0.split_first().ok_or("the block ends within a field")?;
        self.0 = rest;
        Ok(first)
    }

    fn integer(&mut self, prefix: u32) -> Result<usize, String> {
        let most = (1 << prefix) - 1;
        let mut number = usize::from(self.byte()?) & most;
        if number < most {
            return Ok(number);
        }
        for shift in (0..28).step_by(7) {
            let byte = self.byte()?;
            number += usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("a number of more than 28 bits".into())
    }

    fn string(&mut self) -> Result<Vec<u8>, String> {
        let is_coded = self.0.first().is_some_and(|&b| b >= 0x80);
        let length = self.integer(7)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or("the block ends within a string")?;
        self.0 = rest;
        if is_coded { huffman(text) } else { Ok(text.to_vec()) }
    }
}

/// Decodes the Huffman code (section 5.2). Codes of one length are consecutive numbers, and the first of a length follows
/// the last of the length before.
fn huffman(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let (mut code, mut length) = (0u32, 0u32);
    for bit in text.iter().flat_map(|byte| (0..8).rev().map(move |i| byte >> i & 1)) {
        (code, length) = (code << 1 | u32::from(bit), length + 1);
        if let Some(symbol) = symbol(code, length) {
            out.push(symbol);
            (code, length) = (0, 0);
        } else if length >= 30 {
            return Err("bits that are no code".into());
        }
    }
    let padding_is_right = length < 8 && code + 1 == 1 << length;
    padding_is_right.then_some(out).ok_or("the padding is not all ones".into())
}

fn symbol(code: u32, length: u32) -> Option<u8> {
    let (mut next, mut before) = (0u32, 0u32);
    for &(l, symbols) in &HUFFMAN {
        next <<= l - before;
        before = l;
        if l == length {
            return code.checked_sub(next).and_then(|i| symbols.get(i as usize)).copied();
        }
        next += symbols.len() as u32;
    }
    None
}

/// The octets of each length of code, in the order of their codes (appendix B). The end of a string, which must not
/// occur, is the last code of 30 bits.
const HUFFMAN: [(u32, &[u8]); 21] = [
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

const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    // The code is complete: with the end of a string, every sequence of bits means something.
    #[test]
    fn each_octet_has_one_code() {
        let mut octets: Vec<u8> = HUFFMAN.iter().flat_map(|(_, symbols)| symbols.iter().copied()).collect();
        let used: u64 = HUFFMAN.iter().map(|(length, symbols)| (symbols.len() as u64) << (30 - length)).sum();
        assert_eq!(used + 1, 1 << 30);
        octets.sort_unstable();
        assert_eq!(octets, (0..=255).collect::<Vec<u8>>());
    }

    // Appendix C.6.1 of RFC 7541, with the fields left out of the table that it would have filled.
    #[test]
    fn an_answer_of_the_specification_is_read() {
        let block = b"\x48\x82\x64\x02\x58\x85\xae\xc3\x77\x1a\x4b\x61\x96\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\
                      \x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff\x6e\x91\x9d\x29\xad\x17\x18\x63\xc7\x8f\x0b\x97\
                      \xc8\xe9\xae\x82\xae\x43\xd3";
        let wanted = [
            (":status", "302"),
            ("cache-control", "private"),
            ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("location", "https://www.example.com"),
        ];
        let wanted = wanted.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        assert_eq!(decode(block).unwrap(), wanted);
        for end in 1..block.len() {
            let _ = decode(&block[..end]);
        }
        assert_eq!(decode(&encode(wanted.clone())).unwrap(), wanted);
        let long = [("x", "v".repeat(70_000))];
        assert_eq!(decode(&encode(long.clone())).unwrap()[0].1.len(), 70_000);
    }
}
