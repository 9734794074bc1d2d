//! The least that does to h2's table what a whole block does: of what the block puts into it, what is still there.
//!
//! h2 may keep entries that are older than those of the scanner's table, and that no block can refer to: the scanner
//! refuses it. The older entries are evicted first, so the newer ones stay the same.

use std::collections::VecDeque;

use super::table::Table;
use super::{Reader, insert_zeros, string_of_zeros, write_integer};
use crate::http2::hpack::judge::Kind;

/// The first index of the dynamic table.
const DYNAMIC: usize = 62;
/// Twice the entries of the largest table: what is left of a block, and what that may take its names from.
const MOST_INSERTIONS: usize = 256;

/// Where a name comes from.
#[derive(Clone, Copy)]
enum Name<'a> {
    /// A string as it is in a block.
    Text(&'a [u8]),
    Static(usize),
    /// An entry that was there before the block.
    Old,
}

struct Insertion<'a> {
    /// What it says itself of its name.
    index: usize,
    name: Name<'a>,
    /// A string as it is in the block.
    value: &'a [u8],
}

/// What stands for a sound block by which so many entries have entered the table. It is shorter than a frame. An entry whose
/// name is not known any more is spoiled.
pub fn replay(block: &[u8], table: &mut Table, entered: usize) -> Vec<u8> {
    let History { sizes, insertions, count } = History::of(block);
    let mut replayed = Vec::new();
    if let Some((least, last)) = sizes {
        for size in [least, last] {
            write_integer(&mut replayed, 0x20, 5, size);
        }
    }
    let kept = entered.min(table.len()).min(insertions.len());
    let (first, dropped) = (insertions.len() - kept, count - kept);
    for (nth, insertion) in insertions.iter().skip(first).enumerate() {
        let place = kept - 1 - nth;
        let Some(entry) = table.at(DYNAMIC + place) else { break };
        let name = match insertion.index.checked_sub(DYNAMIC) {
            // One of those that are kept: it may be spoiled.
            Some(back) if back < nth => match table.at(DYNAMIC + place + 1 + back) {
                Some(source) if source.kind() != Kind::Bad => Some(Name::Static(insertion.index)),
                _ => None,
            },
            // One of before the block.
            Some(back) if back >= dropped + nth => Some(Name::Static(insertion.index - dropped)),
            _ => Some(insertion.name),
        };
        match name {
            Some(Name::Text(text)) if entry.kind() != Kind::Bad => {
                replayed.push(0x40);
                replayed.extend(text);
            }
            Some(Name::Static(index)) if entry.kind() != Kind::Bad => write_integer(&mut replayed, 0x40, 6, index),
            _ => {
                table.spoil(place);
                // An entry of nothing was refused as it came.
                let _ = insert_zeros(&mut replayed, entry.name(), entry.value());
                continue;
            }
        }
        match entry.is_bad() {
            true => string_of_zeros(&mut replayed, entry.value()),
            false => replayed.extend(insertion.value),
        }
    }
    replayed
}

/// What a block does to the table.
struct History<'a> {
    /// The least of the sizes that it sets, and the last.
    sizes: Option<(usize, usize)>,
    /// The last of its insertions.
    insertions: VecDeque<Insertion<'a>>,
    /// How many there are in all.
    count: usize,
}

impl<'a> History<'a> {
    fn of(block: &'a [u8]) -> Self {
        let mut history = Self { sizes: None, insertions: VecDeque::new(), count: 0 };
        let mut reader = Reader { block, at: 0 };
        while let Some(&first) = block.get(reader.at) {
            let is_read = match first {
                0x80.. => reader.integer(7).is_ok(),
                0x40.. => history.insert(&mut reader).is_some(),
                0x20.. => match reader.integer(5) {
                    Ok(size) => {
                        let least = history.sizes.map_or(size, |(least, _)| least.min(size));
                        history.sizes = Some((least, size));
                        true
                    }
                    Err(_) => false,
                },
                _ => reader.skip_literal(4).is_ok(),
            };
            if !is_read {
                break;
            }
        }
        history
    }

    fn insert(&mut self, reader: &mut Reader<'a>) -> Option<()> {
        let index = reader.integer(6).ok()?;
        let name = match index.checked_sub(DYNAMIC) {
            None if index == 0 => Name::Text(text(reader)?),
            None => Name::Static(index),
            Some(back) => match self.insertions.len().checked_sub(1 + back).and_then(|n| self.insertions.get(n)) {
                Some(source) => source.name,
                None => Name::Old,
            },
        };
        let value = text(reader)?;
        if self.insertions.len() == MOST_INSERTIONS {
            self.insertions.pop_front();
        }
        self.insertions.push_back(Insertion { index, name, value });
        self.count += 1;
        Some(())
    }
}

/// A string as it is in the block.
fn text<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let start = reader.at;
    reader.raw_string().ok()?;
    reader.block.get(start..reader.at)
}
