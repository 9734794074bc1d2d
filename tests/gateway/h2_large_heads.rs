//! Heads that are too large or never end (cases 16, 43 and 44): refused, as a stream or with the connection, while memory
//! stays flat and another client is served.

use crate::support::{Code, Frame, Gate, Gateway, H2, Last, RawH2, StreamEnd, Worker, flood, indexed_literal};
use flood::{endure, head, holding, is_cut_off};
use std::io;
use std::time::Duration;

// Case 43, CVE-2024-27316: a head that never ends, in frames that are full.
#[test]
fn a_head_without_an_end_is_cut_off() {
    let mut field = [0; 16_384];
    field[..6].copy_from_slice(b"\x00\x01x\x7f\xfb\x7e");
    field[6..].fill(b'v');
    is_cut_off(move |n| match n {
        0 => vec![Frame::new(Frame::HEADERS, 0, 1, Frame::headers(1, 0, head("/")).payload)],
        _ => vec![Frame::new(Frame::CONTINUATION, 0, 1, field)],
    });
}

// Case 43: the same, in frames that are empty or nearly so.
#[test]
fn a_head_in_endless_small_pieces_is_cut_off() {
    for piece in [&b""[..], b"\x00\x01a\x00"] {
        is_cut_off(|n| match n {
            0 => vec![Frame::new(Frame::HEADERS, 0, 1, Frame::headers(1, 0, head("/")).payload)],
            _ => vec![Frame::new(Frame::CONTINUATION, 0, 1, piece)],
        });
    }
}

/// A HEADERS frame and the CONTINUATION frames that such a block needs.
fn in_frames(stream: u32, block: &[u8]) -> Vec<Frame> {
    let mut frames: Vec<_> = block.chunks(16_384).map(|c| Frame::new(Frame::CONTINUATION, 0, stream, c)).collect();
    (frames[0].kind, frames[0].flags) = (Frame::HEADERS, Frame::END_STREAM);
    frames.last_mut().expect("a block is not empty").flags |= Frame::END_HEADERS;
    frames
}

/// Sends such a head many times; each must be refused, as a stream or with the connection.
#[track_caller]
fn large_heads_are_refused(block: &[u8]) {
    let worker = holding();
    let gateway = Gateway::before(&worker);
    endure(&gateway, || {
        for _ in 0..20 {
            let (mut raw, _) = RawH2::open(gateway.address, &[]);
            for stream in (1..40).step_by(2) {
                let sent: io::Result<()> = in_frames(stream, block).iter().try_for_each(|frame| raw.try_send(frame));
                if sent.is_err() || !raw.is_alive() {
                    break;
                }
            }
        }
    });
    assert!(worker.requests().iter().all(|r| r.target == "/fine"), "such a head was sent on");
    let mut client = H2::connect(&gateway);
    for frame in in_frames(1, block) {
        let _ = client.raw.try_send(&frame);
    }
    client.wait_for_raw(1).assert_refused(&[431]);
}

fn block(fields: impl IntoIterator<Item = (String, String)>) -> Vec<u8> {
    let pseudo = head("/bomb").map(|(name, value)| (name.to_owned(), value.to_owned()));
    Frame::headers(1, 0, pseudo.into_iter().chain(fields)).payload
}

// Case 44, CVE-2016-6581: 60 KiB that stand for 60 MiB.
#[test]
fn a_block_that_unfolds_is_refused() {
    let bomb = [block([]), indexed_literal("x", &[b'v'; 4_000]), vec![0x80 | 62; 60_000]].concat();
    large_heads_are_refused(&bomb);
}

// Case 44.
#[test]
fn thousands_of_tiny_fields_are_refused() {
    large_heads_are_refused(&block((0..4_096).map(|i| (format!("x{i}"), String::new()))));
}

// Case 44.
#[test]
fn thousands_of_crumbs_are_refused() {
    large_heads_are_refused(&block((0..4_096).map(|i| ("cookie".to_owned(), format!("a{i}=b")))));
}

/// Sends such a block again and again, each after the answer to the one before: a few are refused, then the connection
/// ends. In between, requests are served.
#[track_caller]
fn large_heads_end_their_connection(block: &[u8]) {
    let worker = holding();
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let mut refused = 0;
    for stream in (1..200).step_by(4) {
        for frame in in_frames(stream, block) {
            let _ = client.raw.try_send(&frame);
        }
        let answer = client.wait_for_raw(stream);
        if answer.status != 431 {
            assert_eq!((answer.status, answer.end), (0, StreamEnd::Lost));
            break;
        }
        refused += 1;
        client.raw.send(&Frame::headers(stream + 2, Frame::END_STREAM, head("/fine")));
        assert_eq!(client.wait_for_raw(stream + 2).text(), "fine");
    }
    assert!((4..30).contains(&refused), "{refused}");
    let (last, code) = client.goaway().expect("the connection ends");
    assert_eq!((code, last), (Code::ENHANCE_YOUR_CALM, 4 * refused - 1));
    assert_eq!(gateway.get("/fine").text(), "fine");
}

// A list of 4,000 fields costs 25 times the work of sending it.
#[test]
fn large_heads_again_and_again_end_their_connection() {
    large_heads_end_their_connection(&block((0..4_096).map(|i| (format!("x{i}"), String::new()))));
    let bomb = [block([]), indexed_literal("x", &[b'v'; 4_000]), vec![0x80 | 62; 20]].concat();
    large_heads_end_their_connection(&bomb);
    // Within the limit of bytes, but not within that of fields.
    large_heads_end_their_connection(&block((0..1_500).map(|i| (format!("x{i}"), String::new()))));
}

// What is being served may be other users' of an ingress.
#[test]
fn large_heads_end_their_connection_when_the_others_have_finished() {
    let gate = Gate::new();
    let wait = gate.clone();
    let worker = Worker::new(move |request, conn| {
        if request.target == "/held" {
            wait.wait();
        }
        conn.answer(200, request.target.as_str());
    });
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let held = client.start("GET", "/held", &[], Last::Yes);
    assert_eq!(worker.wait_for_request().target, "/held");
    let block = block((0..4_096).map(|i| (format!("x{i}"), String::new())));
    let mut streams = (3..100).step_by(2);
    while client.goaway().is_none() {
        let stream = streams.next().expect("the connection ends");
        for frame in in_frames(stream, &block) {
            client.raw.send(&frame);
        }
        client.wait_for_raw(stream).assert_refused(&[431]);
    }
    gate.open();
    assert_eq!(client.wait(held).text(), "/held");
    assert!(client.ends_within(Duration::from_secs(5)));
    assert_eq!(client.goaway().map(|(_, code)| code), Some(Code::NO_ERROR));
}

// One user of an ingress that sends too many cookies is no flood.
#[test]
fn some_fields_too_many_end_no_connection() {
    let worker = holding();
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let fields: Vec<_> = (0..110).map(|i| (format!("x{i}"), "v".to_owned())).collect();
    for _ in 0..100 {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(client.request("GET", "/bad", &fields, b"").status, 431);
        assert_eq!(client.get("/fine").text(), "fine");
    }
}

#[test]
fn a_flood_of_large_heads_is_cut_off() {
    let bomb = [block([]), indexed_literal("x", &[b'v'; 4_000]), vec![0x80 | 62; 20]].concat();
    is_cut_off(move |n| in_frames(flood::nth(n), &bomb));
}

// Cases 16 and 44.
#[test]
fn a_field_of_64_kib_is_refused() {
    large_heads_are_refused(&block([("x".to_owned(), "v".repeat(65_536))]));
}

// RFC 9113 section 6.5.2: what is announced holds.
#[test]
fn a_head_within_the_announced_size_is_served_and_one_beyond_it_is_not() {
    let worker = holding();
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let most = client.setting(Frame::MAX_HEADER_LIST_SIZE).expect("there is a limit") as usize;
    assert!((8_192..=1 << 20).contains(&most), "{most}");
    let within = "v".repeat(most.min(16_384) / 2);
    assert_eq!(client.request("GET", "/fine", &[("x", &within)], b"").status, 200);
    for frame in in_frames(3, &block([("x".to_owned(), "v".repeat(most))])) {
        let _ = client.raw.try_send(&frame);
    }
    client.wait_for_raw(3).assert_refused(&[431]);
}
