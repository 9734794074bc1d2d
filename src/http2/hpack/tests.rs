use fastrand::Rng;
use http::header::{HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::table::NAMES;
use super::*;
use crate::http2::huffman::tests::encode;

type Octets = Vec<u8>;

const LIMIT: usize = 65_536;

/// A decoder that keeps whole fields.
#[derive(Default)]
struct Reference {
    /// The newest first.
    table: Vec<(Octets, Octets)>,
    most: Option<usize>,
}

impl Reference {
    /// The fields of a valid block.
    fn decode(&mut self, block: &[u8]) -> Vec<(Octets, Octets)> {
        let (mut reader, mut fields) = (Reader { block, at: 0 }, Vec::new());
        while let Some(&first) = block.get(reader.at) {
            match first {
                0x80.. => fields.push(self.at(reader.integer(7).expect("a number"))),
                0x40.. => {
                    let field = self.literal(&mut reader, 6);
                    self.table.insert(0, field.clone());
                    self.shrink();
                    fields.push(field);
                }
                0x20.. => {
                    self.most = Some(reader.integer(5).expect("a number"));
                    self.shrink();
                }
                _ => fields.push(self.literal(&mut reader, 4)),
            }
        }
        fields
    }

    fn literal(&self, reader: &mut Reader, prefix: u32) -> (Octets, Octets) {
        let text = |reader: &mut Reader| match reader.raw_string().expect("a string") {
            (bytes, true) => huffman::decode(bytes).expect("a valid code"),
            (bytes, false) => bytes.to_vec(),
        };
        let name = match reader.integer(prefix).expect("a number") {
            0 => text(reader),
            index => self.at(index).0,
        };
        (name, text(reader))
    }

    fn at(&self, index: usize) -> (Octets, Octets) {
        match index.checked_sub(62) {
            Some(index) => self.table[index].clone(),
            None => (NAMES[index - 1].0.into(), NAMES[index - 1].1.into()),
        }
    }

    fn sizes(&self) -> Vec<usize> {
        self.table.iter().map(size).collect()
    }

    fn shrink(&mut self) {
        let mut total: usize = self.table.iter().map(size).sum();
        while total > self.most.unwrap_or(4096) {
            total -= self.table.pop().map_or(total, |field| size(&field));
        }
    }
}

fn size((name, value): &(Octets, Octets)) -> usize {
    name.len() + value.len() + 32
}

/// Whether h2's decoder accepts a field.
fn is_taken((name, value): &(Octets, Octets)) -> bool {
    match &name[..] {
        b":authority" | b":path" | b":scheme" | b":protocol" => std::str::from_utf8(value).is_ok(),
        b":method" => Method::from_bytes(value).is_ok(),
        b":status" => StatusCode::from_bytes(value).is_ok(),
        _ => HeaderName::from_lowercase(name).is_ok() && HeaderValue::from_bytes(value).is_ok(),
    }
}

/// Whether the field's name may come from an entry that has another name in h2's table.
fn may_be_lost(field: &(Octets, Octets)) -> bool {
    [&b":method"[..], b":status"].contains(&&field.0[..])
}

fn integer(block: &mut Octets, flags: u8, prefix: u32, number: usize) {
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

fn string(random: &mut Rng, block: &mut Octets, text: &[u8]) {
    let coded = encode(text);
    let (flag, bytes) = if random.bool() { (0x80, &coded[..]) } else { (0, text) };
    integer(block, flag, 7, bytes.len());
    block.extend(bytes);
}

/// A block with many invalid fields, and with references to such fields.
fn block(random: &mut Rng, known: &Reference) -> Octets {
    const TEXTS: [&[u8]; 20] = [
        b"",
        b"x",
        b"user-agent",
        b"X-Upper",
        b"a b",
        b":path",
        b":method",
        b":status",
        b":late",
        b":",
        b"GET",
        b"200",
        b"99",
        b"a\rb",
        b"\n",
        b"\0",
        b"J\xfcrgen",
        b"/\xe2\x82\xac",
        b"q=0.9, {\"a\": [1]}",
        b"\t\x7f",
    ];
    let (mut block, mut entries) = (Vec::new(), known.table.len());
    if random.u8(..20) == 0 {
        for size in [random.usize(..=4096), random.usize(..=4096)] {
            integer(&mut block, 0x20, 5, size);
        }
        // The number of entries left is not tracked.
        entries = 0;
    }
    for _ in 0..random.usize(..8) {
        let index = |random: &mut Rng| match random.bool() && entries > 0 {
            true => random.usize(62..62 + entries),
            false => random.usize(1..=61),
        };
        let (flags, prefix) = [(0x80, 7), (0x40, 6), (0x00, 4), (0x10, 4)][random.usize(..4)];
        if flags == 0x80 {
            let index = index(random);
            integer(&mut block, flags, prefix, index);
            continue;
        }
        let text = |random: &mut Rng, block: &mut Octets| {
            let text = match random.u8(..50) {
                0 => vec![b'v'; random.usize(..6000)],
                1..=10 => (0..random.usize(..30)).map(|_| random.u8(..)).collect(),
                _ => TEXTS[random.usize(..TEXTS.len())].to_vec(),
            };
            string(random, block, &text);
            text.len()
        };
        if random.bool() {
            let index = index(random);
            integer(&mut block, flags, prefix, index);
            text(random, &mut block);
        } else {
            let start = block.len();
            block.push(flags);
            if text(random, &mut block) + text(random, &mut block) == 0 {
                // h2's table can't have an entry with an empty name and value.
                block.truncate(start);
                continue;
            }
        }
        if flags == 0x40 {
            // Count only entries that are certain to exist: older ones may be evicted.
            entries = 0;
        }
    }
    block
}

#[test]
fn h2_s_table_stays_in_step_whatever_fields_come() {
    let (mut replaced, mut evicted) = (0, 0);
    for seed in 0..100 {
        let mut random = Rng::with_seed(seed);
        let (mut scanner, mut theirs, mut h2) = (Scanner::new(LIMIT), Reference::default(), Reference::default());
        for _ in 0..60 {
            let block = block(&mut random, &theirs);
            let before = theirs.table.len();
            let fields = theirs.decode(&block);
            let Ok(scanned) = scanner.scan(&block, false) else {
                assert!(fields.contains(&(Vec::new(), Vec::new())), "{seed}: {fields:?}");
                break;
            };
            let list: usize = fields.iter().map(size).sum();
            let most_error = if block.len() > SHORT { 0 } else { block.len() * 3 / 5 };
            assert!(scanned.size.abs_diff(list) <= most_error, "{seed}: {} for {list}", scanned.size);
            assert_eq!(scanned.fields, fields.len(), "{seed}");
            assert!(scanned.replacement.is_some() || fields.iter().all(is_taken), "{seed}: {fields:?}");
            // Of longer ones the order matters, too.
            let is_certain =
                block.len() <= LONGEST_FRAME && fields.iter().all(|field| is_taken(field) && !may_be_lost(field));
            assert!(scanned.replacement.is_none() || !is_certain, "{seed}: {fields:?}");
            replaced += usize::from(scanned.replacement.is_some());
            evicted += usize::from(theirs.table.len() < before);
            let given = scanned.replacement.unwrap_or_else(|| block.clone());
            let taken = h2.decode(&given);
            assert!(taken.iter().all(is_taken), "{seed}: {taken:?}");
            assert_eq!(scanner.table.sizes(), theirs.sizes(), "{seed}");
            assert!(h2.sizes().starts_with(&theirs.sizes()), "{seed}");
            for (theirs, h2) in theirs.table.iter().zip(&h2.table) {
                assert!(!is_taken(theirs) || theirs == h2 || may_be_lost(theirs), "{seed}: {theirs:?} became {h2:?}");
            }
        }
    }
    assert!(replaced > 1000 && evicted > 100, "{replaced} {evicted}");
}

#[test]
fn a_name_whose_value_is_bad_may_be_referred_to() {
    let mut scanner = Scanner::new(LIMIT);
    let bad = scanner.scan(b"\x40\x01x\x03a\rb", false).expect("a sound block");
    assert_eq!(bad.replacement.as_deref(), Some(&b"\x40\x01x\x82\x00\x01\x82\x82"[..]));
    for (block, is_replaced) in [(&b"\x82\x7e\x01v"[..], false), (b"\xbe", false), (b"\x82\xbf", true)] {
        let scanned = scanner.scan(block, false).expect("a sound block");
        assert_eq!(scanned.replacement.is_some(), is_replaced, "{block:?}");
    }
}

#[test]
fn what_changes_the_table_is_kept_of_a_block_that_is_replaced() {
    let block = b"\x20\x3f\xe1\x1f\x82\x40\x01a\x01b\x00\x01c\x01d\x00\x01X\x01d\x40\x01e\x01f\x84";
    let scanned = Scanner::new(LIMIT).scan(block, false).expect("a sound block");
    assert_eq!(scanned.replacement.as_deref(), Some(&b"\x20\x3f\xe1\x1f\x40\x01a\x01b\x40\x01e\x01f\x82\x82"[..]));
    let scanned = Scanner::new(LIMIT).scan(b"\x82\x40\x01a\x01b", true).expect("a sound block");
    assert_eq!(scanned.replacement.as_deref(), Some(&b"\x40\x01a\x01b\x82\x82"[..]));
}

#[test]
fn compression_errors_are_errors() {
    for bad in [
        &b"\x80"[..],
        b"\xbe",
        b"\x7e\x01v",
        b"\x40\x01",
        b"\x40\x01x",
        b"\x40\x01x\x02v",
        b"\xff\xff\xff\xff\xff\x0f",
        b"\x3f\xe2\x1f",
        b"\x82\x20",
        b"\x00\x01x\x81\xff\x00",
        b"\x40\x00\x00",
        b"\x00\x01x\x7f",
    ] {
        assert_eq!(Scanner::new(LIMIT).scan(bad, false), Err(CompressionError), "{bad:?}");
    }
}

#[test]
fn no_bytes_at_all_make_it_panic() {
    let mut random = Rng::with_seed(27);
    for _ in 0..20_000 {
        let length = random.usize(..40);
        let block: Octets = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
        let _ = Scanner::new(LIMIT).scan(&block, random.bool());
    }
}

/// A block of many insertions, each of which may take its name from any entry that there is.
fn insertions_of(random: &mut Rng, known: &Reference) -> Octets {
    let (mut block, mut sizes) = (Vec::new(), known.sizes());
    if random.u8(..6) == 0 {
        integer(&mut block, 0x20, 5, random.usize(..=4096));
        integer(&mut block, 0x20, 5, 4096);
        sizes.clear();
    }
    let mut names: Vec<usize> = known.table.iter().map(|(name, _)| name.len()).take(sizes.len()).collect();
    for _ in 0..random.usize(1..120) {
        let (index, name) = match random.u8(..3) {
            0 if !sizes.is_empty() => {
                let nth = random.usize(..sizes.len());
                (62 + nth, names[nth])
            }
            1 => {
                let index = random.usize(15..=61);
                (index, NAMES[index - 1].0.len())
            }
            _ => (0, random.usize(1..60)),
        };
        integer(&mut block, 0x40, 6, index);
        if index == 0 {
            let text: Octets = (0..name).map(|_| random.u8(b'a'..=b'z')).collect();
            string(random, &mut block, &text);
        }
        let value: Octets = match random.u8(..30) {
            0 => b"a\rb".to_vec(),
            1 => vec![b'v'; random.usize(..5000)],
            _ => (0..random.usize(..40)).map(|_| random.u8(b' '..b'\x7f')).collect(),
        };
        string(random, &mut block, &value);
        sizes.insert(0, name + value.len() + 32);
        names.insert(0, name);
        while sizes.iter().sum::<usize>() > 4096 {
            sizes.pop();
        }
        names.truncate(sizes.len());
    }
    block
}

#[test]
fn what_stands_for_a_list_that_is_too_large_is_short_and_keeps_h2_in_step() {
    let (mut replayed, mut spoiled, mut kept) = (0, 0, 0);
    for seed in 0..40 {
        let mut random = Rng::with_seed(seed);
        // All lists but the smallest are too large.
        let mut scanner = Scanner::new(500);
        let (mut theirs, mut h2) = (Reference::default(), Reference::default());
        for _ in 0..20 {
            let block = insertions_of(&mut random, &theirs);
            theirs.decode(&block);
            let scanned = scanner.scan(&block, false).expect("a sound block");
            replayed += usize::from(scanned.size == 1500);
            let given = scanned.replacement.unwrap_or(block);
            assert!(given.len() <= LONGEST_FRAME, "{seed}");
            let taken = h2.decode(&given);
            assert!(taken.iter().all(is_taken), "{seed}: {taken:?}");
            assert_eq!(scanner.table.sizes(), theirs.sizes(), "{seed}");
            assert!(h2.sizes().starts_with(&theirs.sizes()), "{seed}");
            for (nth, (theirs, h2)) in theirs.table.iter().zip(&h2.table).enumerate() {
                let is_bad = scanner.table.at(62 + nth).is_none_or(|entry| entry.is_bad());
                assert!(is_bad || theirs == h2, "{seed}: {theirs:?} became {h2:?}");
                spoiled += usize::from(is_bad && is_taken(theirs));
                kept += usize::from(!is_bad);
            }
        }
    }
    assert!(replayed > 500 && kept > 100 * spoiled, "{replayed} {kept} {spoiled}");
}

#[test]
fn the_longest_strings_for_the_table_fit_into_a_frame() {
    // An octet whose code is among the longest that are valid.
    let value = encode(&[0xf9; 4000]);
    let mut block = b"\x20\x3f\xe1\x1f\x40\x01x".to_vec();
    integer(&mut block, 0x80, 7, value.len());
    block.extend(value);
    block.extend([0xbe; 100]);
    let replacement = Scanner::new(LIMIT).scan(&block, false).expect("a sound block").replacement;
    assert_eq!(replacement, Some([&block[..block.len() - 100], &MALFORMED].concat()));
    assert!(replacement.is_some_and(|block| block.len() <= LONGEST_FRAME));
}

#[test]
fn what_h2_forgets_between_frames_is_noted() {
    let long = [&b"\x00\x01x\x7f\xa1\x9b\x01"[..], &[b'v'; 20_000]].concat();
    let is_replaced = |before: &[u8]| {
        let block = [before, &long].concat();
        Scanner::new(LIMIT).scan(&block, false).expect("a sound block").replacement.is_some()
    };
    for good in [&b"\x82\x84\x87\x41\x01a"[..], b"\x00\x02te\x08trailers", b"\x00\x09upgrade-x\x01x"] {
        assert!(!is_replaced(good), "{good:?}");
    }
    for bad in [
        &b"\x82\x82"[..],
        b"\x41\x01a\x41\x01b",
        b"\x00\x01x\x01v\x84",
        b"\x00\x02te\x04gzip",
        b"\x00\x0aconnection\x05close",
        b"\x40\x07upgrade\x01x",
        b"\xb9",
        b"\x0f\x2a\x07chunked",
    ] {
        assert!(is_replaced(bad), "{bad:?}");
    }
}
