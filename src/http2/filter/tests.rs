use fastrand::Rng;
use std::rc::Rc;
use std::time::Instant;

use super::*;

const LIMITS: Limits = Limits { bytes: 15_000, fields: 20, frames: 7 };

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = BytesMut::new();
    Header { length: payload.len(), kind, flags, stream }.write(&mut frame);
    [&frame, payload].concat()
}

fn filter() -> Filter {
    Filter::new(LIMITS, Some(Budget::new(Instant::now(), Rc::default())), 0)
}

/// What h2 reads if these pieces arrive.
fn read(filter: &mut Filter, pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<u8> {
    let mut read = Vec::new();
    for piece in pieces {
        if filter.is_cut_off {
            break;
        }
        let passed = filter.take(piece.as_ref());
        read.extend(&piece.as_ref()[..passed]);
        read.extend(filter.ready.split());
    }
    read
}

const GOOD: &[u8] = b"\x82\x84\x87\x41\x01a\x40\x01x\x01v";
const BAD: &[u8] = b"\x82\x84\x87\x41\x01a\x40\x01x\x01\r";
const REPLACED: &[u8] = b"\x41\x01a\x40\x01x\x81\x07\x82\x82";
const WHOLE: u8 = flag::END_HEADERS | flag::END_STREAM;

#[test]
fn valid_blocks_and_other_frames_pass_as_they_are() {
    let padded = [b"\x02\0\0\0\0\x10", GOOD, b"\0\0"].concat();
    let frames = [
        frame(kind::HEADERS, WHOLE, 1, GOOD),
        frame(kind::DATA, 0, 1, &[7; 3000]),
        frame(kind::HEADERS, WHOLE | flag::PADDED | flag::PRIORITY, 3, &padded),
        frame(kind::PING, 0, 0, &[0; 8]),
        frame(0xbe, 0xff, 5, b"unknown"),
    ];
    let mut filter = filter();
    assert_eq!(read(&mut filter, [frames.concat()]), frames.concat());
    assert_eq!(read(&mut filter, frames.concat().chunks(1)), frames.concat());
}

#[test]
fn a_block_that_h2_does_not_take_is_replaced() {
    let padded = [b"\x02\0\0\0\0\x10", BAD, b"\0\0"].concat();
    for (flags, payload) in [(WHOLE, BAD), (WHOLE | flag::PADDED | flag::PRIORITY, &padded)] {
        let arrived = [frame(kind::DATA, 0, 1, b"before"), frame(kind::HEADERS, flags, 3, payload)].concat();
        let wanted = [frame(kind::DATA, 0, 1, b"before"), frame(kind::HEADERS, WHOLE, 3, REPLACED)].concat();
        assert_eq!(read(&mut filter(), [arrived]), wanted);
    }
}

// h2 would not decode the block.
#[test]
fn a_stream_that_depends_on_itself_is_malformed() {
    let payload = [b"\x80\0\0\x03\x10", GOOD].concat();
    let arrived = frame(kind::HEADERS, WHOLE | flag::PRIORITY, 3, &payload);
    let wanted = frame(kind::HEADERS, WHOLE, 3, b"\x41\x01a\x40\x01x\x01v\x82\x82");
    assert_eq!(read(&mut filter(), [arrived]), wanted);
}

#[test]
fn a_block_in_several_frames_is_put_together() {
    for (block, wanted) in [(GOOD, GOOD), (BAD, REPLACED)] {
        for cut in 0..=block.len() {
            for more in cut..=block.len() {
                let arrived = [
                    frame(kind::HEADERS, flag::END_STREAM, 1, &block[..cut]),
                    frame(kind::CONTINUATION, 0, 1, &block[cut..more]),
                    frame(kind::CONTINUATION, flag::END_HEADERS, 1, &block[more..]),
                ];
                assert_eq!(read(&mut filter(), [arrived.concat()]), frame(kind::HEADERS, WHOLE, 1, wanted));
            }
        }
    }
    let long = [b"\x00\x01x\x7f\xa1\x9b\x01", &[b'v'; 20_000][..]].concat();
    let arrived = [
        frame(kind::HEADERS, flag::END_STREAM, 1, &long[..5000]),
        frame(kind::CONTINUATION, flag::END_HEADERS, 1, &long[5000..]),
    ];
    let wanted = [
        frame(kind::HEADERS, flag::END_STREAM, 1, &long[..LONGEST_FRAME]),
        frame(kind::CONTINUATION, flag::END_HEADERS, 1, &long[LONGEST_FRAME..]),
    ];
    assert_eq!(read(&mut filter(), arrived), wanted.concat());
}

#[test]
fn how_it_arrives_makes_no_difference() {
    let mut random = Rng::with_seed(27);
    for _ in 0..300 {
        let frames: Vec<_> = (0..20)
            .flat_map(|n| match random.u8(..5) {
                0 => vec![frame(kind::HEADERS, WHOLE, n, BAD)],
                1 => vec![frame(kind::HEADERS, WHOLE, n, GOOD)],
                2 => {
                    let block = if random.bool() { GOOD } else { BAD };
                    let cut = random.usize(..=block.len());
                    vec![
                        frame(kind::HEADERS, 0, n + 1, &block[..cut]),
                        frame(kind::CONTINUATION, flag::END_HEADERS, n + 1, &block[cut..]),
                    ]
                }
                3 => vec![frame(kind::PING, 0, 0, &[0; 8])],
                _ => vec![frame(kind::DATA, 0, n, &vec![1; random.usize(..200)])],
            })
            .collect();
        let arrived = frames.concat();
        let at_once = read(&mut filter(), [&arrived]);
        let most = random.usize(1..100);
        let mut pieces = Vec::new();
        let mut rest = &arrived[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.usize(1..=most.min(rest.len())));
            pieces.push(piece);
            rest = after;
        }
        assert_eq!(read(&mut filter(), pieces), at_once);
        assert_eq!(read(&mut filter(), &frames), at_once);
    }
}

/// Whether `read` ends with the frames that make h2 end the connection.
fn is_cut_off(read: &[u8]) -> bool {
    read.ends_with(&frame(kind::CONTINUATION, 0, 1, b"").repeat(FAR_TOO_MANY))
}

#[test]
fn a_flood_is_cut_off_at_the_end_of_a_frame() {
    let flood = [frame(kind::DATA, 0, 1, b"data"), frame(kind::PING, 0, 0, &[7; 8]).repeat(3000)].concat();
    for piece in [1, 5, 4096, flood.len()] {
        let mut filter = filter();
        let read = read(&mut filter, flood.chunks(piece));
        assert!(filter.is_cut_off && is_cut_off(&read), "{piece}");
        let poison = HEADER * (FAR_TOO_MANY + 1);
        assert_eq!((read.len() - poison - 13) % 17, 0, "whole frames came before");
    }
}

#[test]
fn large_lists_are_let_through_until_they_are_too_many() {
    let many = b"\x00\x01x\x01v".repeat(1000);
    let long = [b"\x00\x01x\x7f\x81\x76", &[b'v'; 15_232][..]].concat();
    for (block, most) in [(&many, 31), (&long, 71)] {
        let mut filter = filter();
        let frame = frame(kind::HEADERS, WHOLE, 1, block);
        let read = read(&mut filter, std::iter::repeat_n(&frame, 200));
        assert!(filter.is_cut_off && is_cut_off(&read));
        assert_eq!(read.len() / frame.len(), most);
    }
    let small = frame(kind::HEADERS, WHOLE, 1, GOOD);
    let mut filter = filter();
    assert_eq!(read(&mut filter, std::iter::repeat_n(&small, 10_000)).len(), 10_000 * small.len());
}

#[test]
fn a_block_without_an_end_is_cut_off() {
    for (limit, more) in [(2000, &b""[..]), (7, &[0; LONGEST_FRAME])] {
        let mut filter = filter();
        let first = frame(kind::HEADERS, 0, 1, GOOD);
        let more = frame(kind::CONTINUATION, 0, 1, more);
        let read = read(&mut filter, std::iter::once(&first).chain(std::iter::repeat_n(&more, limit + 1)));
        assert!(filter.is_cut_off && is_cut_off(&read));
    }
    let mut filter = Filter::new(LIMITS, None, 0);
    let first = frame(kind::HEADERS, 0, 1, GOOD);
    let more = frame(kind::CONTINUATION, 0, 1, b"");
    read(&mut filter, std::iter::once(&first).chain(std::iter::repeat_n(&more, MOST_CONTINUATIONS + 1)));
    assert!(filter.is_cut_off, "a worker pays nothing");
}

#[test]
fn what_ends_the_connection_ends_it_whatever_h2_would_make_of_it() {
    let refused = frame(kind::HEADERS, WHOLE, 1, &REFUSED);
    let resize = [&frame(kind::HEADERS, 0, 1, GOOD)[..], &frame(kind::CONTINUATION, flag::END_HEADERS, 1, b"\x20")];
    for bad in [
        frame(kind::HEADERS, WHOLE, 1, b"\x80"),
        frame(kind::HEADERS, WHOLE, 0, GOOD),
        frame(kind::HEADERS, WHOLE | flag::PADDED, 1, b"\x05\x82"),
        frame(kind::HEADERS, WHOLE | flag::PADDED, 1, b""),
        frame(kind::HEADERS, WHOLE | flag::PRIORITY, 1, b"\0\0\0\0"),
        frame(kind::HEADERS, WHOLE | flag::PRIORITY | flag::PADDED, 1, b"\xc8\0\0\0\x01\0\x82"),
        frame(kind::CONTINUATION, WHOLE, 1, GOOD),
        frame(kind::PUSH_PROMISE, WHOLE, 1, b"\0\0\0\x02\x82"),
        frame(kind::HEADERS, WHOLE, 1, &[0; LONGEST_FRAME + 1]),
        [frame(kind::HEADERS, 0, 1, GOOD), frame(kind::PING, 0, 0, &[0; 8])].concat(),
        [frame(kind::HEADERS, 0, 1, GOOD), frame(kind::CONTINUATION, 0, 3, GOOD)].concat(),
        resize.concat(),
    ] {
        let (before, after) = (frame(kind::PING, 0, 0, &[0; 8]), frame(kind::HEADERS, WHOLE, 3, GOOD));
        let (arrived, wanted) = ([&before[..], &bad, &after].concat(), [&before[..], &refused].concat());
        assert_eq!(read(&mut filter(), [&arrived]), wanted);
        assert_eq!(read(&mut filter(), arrived.chunks(1)), wanted);
        for cut in 0..arrived.len().min(100) {
            assert_eq!(read(&mut filter(), [&arrived[..cut], &arrived[cut..]]), wanted, "{cut}");
        }
    }
}
