//! Scans header blocks (RFC 7541) without decoding them.
//!
//! A [`Scanner`] mirrors h2's decoder. It takes the blocks of a connection in order, refuses those that h2 refuses as
//! compression errors, and finds out the length of each field and whether h2 will accept it. Of the dynamic table it
//! stores only the lengths.

mod judge;
mod order;
mod replay;
mod table;

use self::judge::{Kind, Known, Verdict};
use self::order::Order;
use self::replay::replay;
use self::table::{Field, Table};
use super::LONGEST_FRAME;
use super::huffman::{self, Measured, OCTETS};

/// Makes a message malformed (RFC 9113 section 8.3) without changing the dynamic table: the entry `:method: GET`,
/// twice.
const MALFORMED: [u8; 2] = [0x82, 0x82];

/// In blocks up to this length, the length of a literal that is not added to the table is taken from its Huffman code.
/// The error is at most 0.6 of that length, and the scan takes half the time.
const SHORT: usize = 4096;

/// How literals are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    Exactly,
    /// By their length in the block, if they can be validated without decoding.
    Roughly,
}

/// The block can't be decoded, and neither can later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressionError;

/// The result of scanning a block.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// The size of the header list (RFC 9113 section 10.5.1). For short blocks it is approximate.
    pub size: usize,
    pub fields: usize,
    /// The block for h2 to read instead, if h2 would not accept all fields.
    pub replacement: Option<Vec<u8>>,
}

/// The header lists that h2 is given, by the size that it refuses: it ends the connection for one of four times that.
const MOST_LISTS: usize = 3;

/// What is known of the blocks so far.
#[derive(Debug)]
pub struct Scanner {
    table: Table,
    /// The size of a header list from which on h2 refuses it.
    limit: usize,
}

impl Scanner {
    pub fn new(limit: usize) -> Self {
        Self { table: Table::default(), limit }
    }

    /// Takes the next block; one that is malformed for other reasons than its fields is replaced in any case.
    pub fn scan(&mut self, block: &[u8], is_malformed: bool) -> Result<Scanned, CompressionError> {
        let mut reader = Reader { block, at: 0 };
        let mut scanned = Scanned { replacement: is_malformed.then(Vec::new), ..Scanned::default() };
        let measure = if block.len() > SHORT { Measure::Exactly } else { Measure::Roughly };
        let mut order = (block.len() > LONGEST_FRAME).then(Order::default);
        let entered = self.table.entered();
        let mut may_resize = true;
        while let Some(&first) = block.get(reader.at) {
            let start = reader.at;
            let (size, kind, is_forbidden) = match first {
                0x80.. => {
                    let entry = self.table.at(reader.integer(7)?).ok_or(CompressionError)?;
                    if entry.is_bad() {
                        scanned.replace(&block[..start]);
                    }
                    (entry.size(), entry.kind(), entry.is_forbidden())
                }
                0x40.. => {
                    let literal = self.literal(&mut reader, 6, Measure::Exactly)?;
                    match literal.verdict {
                        Verdict::Valid => scanned.keep(&block[start..reader.at]),
                        _ => literal.insert_instead(&block[..literal.value_at], start, &mut scanned)?,
                    }
                    self.table.insert(literal.field);
                    (literal.field.size(), literal.field.kind, literal.field.is_forbidden)
                }
                0x20.. => {
                    if !may_resize || !self.table.resize(reader.integer(5)?) {
                        return Err(CompressionError);
                    }
                    scanned.keep(&block[start..reader.at]);
                    continue;
                }
                _ => {
                    let literal = self.literal(&mut reader, 4, measure)?;
                    if literal.verdict != Verdict::Valid {
                        scanned.replace(&block[..start]);
                    }
                    (literal.field.size(), literal.field.kind, literal.field.is_forbidden)
                }
            };
            if let Some(order) = &mut order {
                // Longer than what h2 keeps of a field for which it has no room left.
                let is_too_long = scanned.size >= self.limit && reader.at - start > 2 * LONGEST_FRAME;
                if order.is_broken_by(kind, is_forbidden) || is_too_long {
                    scanned.replace(&block[..reader.at]);
                }
            }
            may_resize = false;
            scanned.size += size;
            scanned.fields += 1;
        }
        // One that is malformed must be in one frame: h2 takes CONTINUATION after it for an error of the connection.
        let is_long = scanned.replacement.as_ref().is_some_and(|block| block.len() + MALFORMED.len() > LONGEST_FRAME);
        if is_long || scanned.size > MOST_LISTS * self.limit {
            let entered = self.table.entered().wrapping_sub(entered);
            scanned.replacement = Some(replay(block, &mut self.table, entered));
            scanned.size = scanned.size.min(MOST_LISTS * self.limit);
        }
        if let Some(replacement) = &mut scanned.replacement {
            replacement.extend(MALFORMED);
        }
        Ok(scanned)
    }

    fn literal(&self, reader: &mut Reader, prefix: u32, measure: Measure) -> Result<Literal, CompressionError> {
        let (name, kind) = match reader.integer(prefix)? {
            0 => {
                let name = reader.string()?;
                (name.measured.length, Kind::of(name))
            }
            index => {
                let entry = self.table.at(index).ok_or(CompressionError)?;
                (entry.name(), entry.kind())
            }
        };
        let value_at = reader.at;
        let (bytes, is_coded) = reader.raw_string()?;
        if is_coded && measure == Measure::Roughly && kind.takes_text() && huffman::has_only_short_codes(bytes) {
            // Nothing that goes by values is asked of short blocks beyond what h2 asks itself.
            let field = Field { name, value: bytes.len(), kind, has_bad_value: false, is_forbidden: false };
            return Ok(Literal { field, value_at, verdict: Verdict::Valid });
        }
        let value = Text::new(bytes, is_coded)?;
        let verdict = Verdict::of(kind, value);
        let field = Field {
            name,
            value: value.measured.length,
            kind: if verdict == Verdict::Bad { Kind::Bad } else { kind },
            has_bad_value: verdict == Verdict::BadValue,
            is_forbidden: kind.forbids(value),
        };
        Ok(Literal { field, value_at, verdict })
    }
}

impl Literal {
    /// Makes h2 add an entry of the same length to its table, in place of this one, which it would not accept.
    fn insert_instead(&self, before: &[u8], start: usize, scanned: &mut Scanned) -> Result<(), CompressionError> {
        let Field { name, value, .. } = self.field;
        let replacement = scanned.replace(&before[..start]);
        if self.verdict == Verdict::BadValue {
            // Keep the name: valid fields may refer to it.
            replacement.extend(&before[start..]);
            string_of_zeros(replacement, value);
        } else {
            insert_zeros(replacement, name, value)?;
        }
        Ok(())
    }
}

impl Scanned {
    /// The replacement. If it is new, it begins with the changes that `before`, the block up to this field, makes to
    /// the dynamic table.
    fn replace(&mut self, before: &[u8]) -> &mut Vec<u8> {
        self.replacement.get_or_insert_with(|| insertions(before))
    }

    fn keep(&mut self, representation: &[u8]) {
        if let Some(replacement) = &mut self.replacement {
            replacement.extend(representation);
        }
    }
}

/// The representations in the valid beginning of a block that change the dynamic table.
fn insertions(block: &[u8]) -> Vec<u8> {
    let (mut reader, mut kept) = (Reader { block, at: 0 }, Vec::new());
    while let Some(&first) = block.get(reader.at) {
        let start = reader.at;
        let is_read = match first {
            0x80.. => reader.integer(7),
            0x40.. => reader.skip_literal(6),
            0x20.. => reader.integer(5),
            _ => reader.skip_literal(4),
        };
        if is_read.is_err() {
            break;
        }
        if (0x20..0x80).contains(&first) {
            kept.extend(&block[start..reader.at]);
        }
    }
    kept
}

/// A field whose value, and possibly name, is in the block and not in a table.
struct Literal {
    field: Field,
    /// Position of the value's string.
    value_at: usize,
    verdict: Verdict,
}

/// A string in its encoded form.
#[derive(Clone, Copy)]
struct Text<'a> {
    bytes: &'a [u8],
    is_coded: bool,
    measured: Measured,
}

impl<'a> Text<'a> {
    fn new(bytes: &'a [u8], is_coded: bool) -> Result<Self, CompressionError> {
        let measured = match is_coded {
            true => huffman::measure(bytes).ok_or(CompressionError)?,
            false => {
                let seen = bytes.iter().fold(0, |seen, octet| seen | OCTETS[usize::from(*octet)]);
                Measured { length: bytes.len(), seen }
            }
        };
        Ok(Self { bytes, is_coded, measured })
    }

    fn is(&self, (plain, code): Known) -> bool {
        self.bytes == if self.is_coded { code } else { plain }
    }

    fn decoded(&self) -> Vec<u8> {
        match self.is_coded {
            true => huffman::decode(self.bytes).unwrap_or_default(),
            false => self.bytes.to_vec(),
        }
    }
}

/// Appends a field for the table, of zeros, that has the length of one that h2 does not take.
fn insert_zeros(block: &mut Vec<u8>, name: usize, value: usize) -> Result<(), CompressionError> {
    // A name of h2's has one octet at least, so nothing stands for an entry that is all empty; and 65,535 at most, but no
    // table has room for an entry of that length.
    let valid_name = name.clamp(1, 0xffff);
    let rest = (name + value).checked_sub(valid_name).ok_or(CompressionError)?;
    block.push(0x40);
    string_of_zeros(block, valid_name);
    string_of_zeros(block, rest);
    Ok(())
}

/// Appends a string of so many zeros, which is valid as any name or value.
fn string_of_zeros(block: &mut Vec<u8>, count: usize) {
    write_integer(block, 0x80, 7, (5 * count).div_ceil(8));
    huffman::zeros(block, count);
}

/// Appends a number whose first `prefix` bits share a byte with flags.
fn write_integer(block: &mut Vec<u8>, flags: u8, prefix: u32, number: usize) {
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

/// Reads a block that must not end within a field.
struct Reader<'a> {
    block: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, CompressionError> {
        let byte = *self.block.get(self.at).ok_or(CompressionError)?;
        self.at += 1;
        Ok(byte)
    }

    /// A number of at most five bytes whose first `prefix` bits share a byte with flags (RFC 7541 section 5.1).
    #[inline]
    fn integer(&mut self, prefix: u32) -> Result<usize, CompressionError> {
        let most = (1 << prefix) - 1;
        let number = usize::from(self.byte()?) & most;
        if number < most { Ok(number) } else { self.long_integer(number) }
    }

    fn long_integer(&mut self, mut number: usize) -> Result<usize, CompressionError> {
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            number += usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(CompressionError)
    }

    fn string(&mut self) -> Result<Text<'a>, CompressionError> {
        let (bytes, is_coded) = self.raw_string()?;
        Text::new(bytes, is_coded)
    }

    #[inline]
    fn raw_string(&mut self) -> Result<(&'a [u8], bool), CompressionError> {
        let is_coded = self.block.get(self.at).is_some_and(|first| *first >= 0x80);
        let length = self.integer(7)?;
        let bytes = self.block[self.at..].get(..length).ok_or(CompressionError)?;
        self.at += length;
        Ok((bytes, is_coded))
    }

    fn skip_literal(&mut self, prefix: u32) -> Result<usize, CompressionError> {
        if self.integer(prefix)? == 0 {
            self.raw_string()?;
        }
        self.raw_string().map(|(bytes, _)| bytes.len())
    }
}

#[cfg(test)]
mod tests;
