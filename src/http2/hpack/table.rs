//! The static and the dynamic table (RFC 7541 section 2.3), reduced to lengths.

use std::collections::VecDeque;

use super::judge::Kind;

/// The maximum size of the dynamic table, which is the default in SETTINGS.
const MOST: usize = 4096;
/// The size of an entry beyond its octets.
const OVERHEAD: usize = 32;

/// A field, reduced to the lengths of its name and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    pub name: usize,
    pub value: usize,
    pub kind: Kind,
    pub has_bad_value: bool,
    /// It makes its message malformed.
    pub is_forbidden: bool,
}

impl Field {
    /// The size in the dynamic table and in header lists.
    pub fn size(&self) -> usize {
        self.name + self.value + OVERHEAD
    }
}

/// A field in a table: sizes below 8192 in 13 bits, lengths of names in 13, kinds in 4, whether it makes its message
/// malformed, and whether it is bad as a whole.
#[derive(Debug, Clone, Copy)]
pub struct Entry(u32);

const BITS: u32 = 13;
const MASK: u32 = (1 << BITS) - 1;
const IS_FORBIDDEN: u32 = 1 << 30;
const IS_BAD: u32 = 1 << 31;

impl Entry {
    const fn new(name: u32, value: u32, kind: Kind, flags: u32) -> Self {
        let size = name + value + OVERHEAD as u32;
        Self(size | name << BITS | (kind as u32) << (2 * BITS) | flags)
    }

    pub fn size(self) -> usize {
        (self.0 & MASK) as usize
    }

    pub fn name(self) -> usize {
        (self.0 >> BITS & MASK) as usize
    }

    pub fn kind(self) -> Kind {
        match self.0 >> (2 * BITS) & 15 {
            0 => Kind::Regular,
            1 => Kind::Connection,
            2 => Kind::Te,
            3 => Kind::Authority,
            4 => Kind::Path,
            5 => Kind::Scheme,
            6 => Kind::Protocol,
            7 => Kind::Method,
            8 => Kind::Status,
            _ => Kind::Bad,
        }
    }

    pub fn value(self) -> usize {
        self.size().saturating_sub(self.name() + OVERHEAD)
    }

    pub fn is_forbidden(self) -> bool {
        self.0 & IS_FORBIDDEN != 0
    }

    /// h2 does not take it.
    pub fn is_bad(self) -> bool {
        self.0 & IS_BAD != 0
    }
}

#[derive(Debug)]
pub struct Table {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    most: usize,
    /// How many there have been.
    entered: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, most: MOST, entered: 0 }
    }
}

impl Table {
    /// An entry of the static table, counted from 1, or of the dynamic table after it.
    #[inline]
    pub fn at(&self, index: usize) -> Option<Entry> {
        match index.checked_sub(1 + STATIC.len()) {
            Some(index) => self.entries.get(index).copied(),
            None => STATIC.get(index.wrapping_sub(1)).copied(),
        }
    }

    pub fn insert(&mut self, field: Field) {
        self.shrink(self.most.checked_sub(field.size()));
        // An entry that is larger than the whole table empties the table and is not added (RFC 7541 section 4.4).
        if field.size() <= self.most {
            let is_bad = field.kind == Kind::Bad || field.has_bad_value;
            let flags = if is_bad { IS_BAD } else { 0 } | if field.is_forbidden { IS_FORBIDDEN } else { 0 };
            self.size += field.size();
            self.entered = self.entered.wrapping_add(1);
            self.entries.push_front(Entry::new(field.name as u32, field.value as u32, field.kind, flags));
        }
    }

    pub fn entered(&self) -> usize {
        self.entered
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The dynamic entry, counted from the newest, is lost: h2 has another one of the same length.
    pub fn spoil(&mut self, nth: usize) {
        if let Some(entry) = self.entries.get_mut(nth) {
            *entry = Entry::new(entry.name() as u32, entry.value() as u32, Kind::Bad, IS_BAD);
        }
    }

    /// Applies a size update of the peer's encoder. Returns whether the size is allowed.
    pub fn resize(&mut self, most: usize) -> bool {
        self.most = most;
        self.shrink(Some(most));
        most <= MOST
    }

    /// Evicts entries until the table has at most this size; all entries for `None`.
    fn shrink(&mut self, most: Option<usize>) {
        while most.is_none_or(|most| self.size > most) {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= oldest.size();
        }
    }

    #[cfg(test)]
    pub fn sizes(&self) -> Vec<usize> {
        self.entries.iter().map(|entry| entry.size()).collect()
    }
}

/// Its place in the static table, from 0.
const TRANSFER_ENCODING: usize = 56;

/// RFC 7541 appendix A.
static STATIC: [Entry; 61] = {
    let mut entries = [Entry(0); 61];
    let mut index = 0;
    while index < entries.len() {
        let (name, value) = NAMES[index];
        let kind = match index {
            0 => Kind::Authority,
            1 | 2 => Kind::Method,
            3 | 4 => Kind::Path,
            5 | 6 => Kind::Scheme,
            7..=13 => Kind::Status,
            TRANSFER_ENCODING => Kind::Connection,
            _ => Kind::Regular,
        };
        let flags = if index == TRANSFER_ENCODING { IS_FORBIDDEN } else { 0 };
        entries[index] = Entry::new(name.len() as u32, value.len() as u32, kind, flags);
        index += 1;
    }
    entries
};

pub(super) const NAMES: [(&str, &str); 61] = [
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
