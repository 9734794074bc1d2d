//! Frames that HTTP/2 forbids (RFC 9113 sections 3.4 to 6) end their connection and no other; those that it lets be
//! ignored are ignored.

use crate::support::{Code, Frame, Gateway, H2, PREFACE, RawH2, Worker, indexed_literal};
use std::time::Duration;

/// A good head.
fn good() -> [(&'static str, &'static str); 4] {
    [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
}

/// Sends each sequence of frames on a connection of its own, which must end with one of these codes.
#[track_caller]
fn all_end_the_connection(cases: Vec<(&str, Vec<Frame>, &[Code])>) {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut complaints = Vec::new();
    for (what, frames, codes) in cases {
        let (mut raw, _) = RawH2::open(gateway.address, &[]);
        for frame in &frames {
            let _ = raw.try_send(frame);
        }
        match raw.ending(Duration::from_secs(3)) {
            None => complaints.push(format!("{what}: the connection goes on: {}", raw.log())),
            Some(ending) if ending.goaway.is_none_or(|code| codes.contains(&code)) => {}
            Some(ending) => complaints.push(format!("{what}: {ending:?}, wanted {codes:?}")),
        }
    }
    assert_eq!(H2::connect(&gateway).get("/after").status, 200, "the gateway goes on serving");
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

const PROTOCOL: &[Code] = &[Code::PROTOCOL_ERROR];
const SIZE: &[Code] = &[Code::FRAME_SIZE_ERROR, Code::PROTOCOL_ERROR];
const FLOW: &[Code] = &[Code::FLOW_CONTROL_ERROR, Code::PROTOCOL_ERROR];
// The `h2` crate says PROTOCOL_ERROR where RFC 9113 section 4.3 wants COMPRESSION_ERROR.
const COMPRESSION: &[Code] = &[Code::COMPRESSION_ERROR, Code::PROTOCOL_ERROR];
const CLOSED: &[Code] = &[Code::PROTOCOL_ERROR, Code::STREAM_CLOSED];

// RFC 9113 section 5.1 and 6: errors of a connection.
#[test]
fn frames_on_the_wrong_stream_end_the_connection() {
    let head = |stream| Frame::headers(stream, Frame::END_STREAM, good());
    all_end_the_connection(vec![
        ("DATA on stream 0", vec![Frame::new(Frame::DATA, 0, 0, *b"x")], PROTOCOL),
        ("HEADERS on stream 0", vec![head(0)], PROTOCOL),
        ("HEADERS on an even stream", vec![head(2)], PROTOCOL),
        ("HEADERS on an older stream", vec![head(5), head(3)], CLOSED),
        ("DATA on an idle stream", vec![Frame::new(Frame::DATA, 0, 1, *b"x")], CLOSED),
        ("RST_STREAM on an idle stream", vec![Frame::reset(1, Code::CANCEL)], PROTOCOL),
        ("WINDOW_UPDATE on an idle stream", vec![Frame::window_update(1, 1)], PROTOCOL),
        ("SETTINGS on a stream", vec![Frame::new(Frame::SETTINGS, 0, 1, [])], PROTOCOL),
        ("PING on a stream", vec![Frame::new(Frame::PING, 0, 1, [0; 8])], PROTOCOL),
        ("GOAWAY on a stream", vec![Frame::new(Frame::GOAWAY, 0, 1, [0; 8])], PROTOCOL),
        ("PUSH_PROMISE", vec![head(1), Frame::new(Frame::PUSH_PROMISE, Frame::END_HEADERS, 1, [0, 0, 0, 2])], PROTOCOL),
        ("CONTINUATION alone", vec![Frame::new(Frame::CONTINUATION, Frame::END_HEADERS, 1, [])], PROTOCOL),
    ]);
}

#[test]
fn frames_of_the_wrong_shape_end_the_connection() {
    let head = |stream| Frame::headers(stream, Frame::END_STREAM, good());
    let open = Frame::new(Frame::HEADERS, 0, 1, head(1).payload);
    let ping = Frame::new(Frame::PING, 0, 0, [0; 8]);
    let other = Frame::new(Frame::CONTINUATION, Frame::END_HEADERS, 3, []);
    let padded = Frame::new(Frame::DATA, Frame::PADDED, 1, [200, 0, 0]);
    let post = Frame::headers(1, 0, good());
    let block = |bytes: &[u8]| vec![Frame::new(Frame::HEADERS, Frame::END_HEADERS | Frame::END_STREAM, 1, bytes)];
    let settings = |id, value| vec![Frame::settings(&[(id, value)])];
    all_end_the_connection(vec![
        ("a frame of 16 KiB and a byte", vec![post.clone(), Frame::new(Frame::DATA, 0, 1, vec![0; 16_385])], SIZE),
        ("a PING of 7 bytes", vec![Frame::new(Frame::PING, 0, 0, [0; 7])], SIZE),
        ("SETTINGS of 5 bytes", vec![Frame::new(Frame::SETTINGS, 0, 0, [0; 5])], SIZE),
        ("an acknowledgement with settings", vec![Frame::new(Frame::SETTINGS, Frame::ACK, 0, [0; 6])], SIZE),
        ("a WINDOW_UPDATE of 3 bytes", vec![Frame::new(Frame::WINDOW_UPDATE, 0, 0, [0; 3])], SIZE),
        ("a window opened by 0", vec![Frame::window_update(0, 0)], PROTOCOL),
        ("a window above 2^31-1", vec![Frame::window_update(0, 0x7fff_ffff)], FLOW),
        ("an initial window above 2^31-1", settings(Frame::INITIAL_WINDOW_SIZE, 0x8000_0000), FLOW),
        ("a largest frame of 1 byte", settings(Frame::MAX_FRAME_SIZE, 1), PROTOCOL),
        ("a largest frame of 16 MiB", settings(Frame::MAX_FRAME_SIZE, 1 << 24), PROTOCOL),
        ("push of 2", settings(Frame::ENABLE_PUSH, 2), PROTOCOL),
        ("padding beyond the frame", vec![post, padded], PROTOCOL),
        ("another frame within a head", vec![open.clone(), ping], PROTOCOL),
        ("another stream within a head", vec![open.clone(), other], PROTOCOL),
        ("another head within a head", vec![open, head(3)], PROTOCOL),
        ("index 0", block(b"\x80"), COMPRESSION),
        ("an index beyond the table", block(b"\xff\x80\x01"), COMPRESSION),
        ("a number without an end", block(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), COMPRESSION),
        ("a string beyond the block", block(b"\x00\x05ab"), COMPRESSION),
        ("the end of a string in a string", block(b"\x00\x84\xff\xff\xff\xff\x01a"), COMPRESSION),
        ("a table larger than allowed", block(b"\x3f\xe1\xff\xff\x07"), COMPRESSION),
    ]);
}

#[test]
fn a_broken_preface_ends_the_connection() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for after in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 64], &[255; 64]] {
        let mut raw = RawH2::silent(gateway.address);
        raw.write([PREFACE, after].concat()).unwrap();
        assert!(raw.ending(Duration::from_secs(3)).is_some(), "SETTINGS come first");
    }
}

#[test]
fn what_may_be_ignored_is_ignored() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let (mut raw, _) = RawH2::open(gateway.address, &[]);
    raw.send(&Frame::new(0xbe, 0xff, 7, *b"unknown"));
    raw.send(&Frame::settings(&[(0xbeef, 1)]));
    raw.send(&Frame::new(Frame::PRIORITY, 0, 9, [0, 0, 0, 0, 15]));
    let post = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/odd")];
    let block = [&[3][..], &[0, 0, 0, 0, 15], &Frame::headers(1, 0, post).payload, &[0; 3]].concat();
    let (first, rest) = block.split_at(20);
    // A head's padding is that of its first frame.
    let first = [first, &[0; 3]].concat();
    raw.send(&Frame::new(Frame::HEADERS, Frame::PADDED | Frame::PRIORITISED, 1, first));
    let rest = &rest[..rest.len() - 3];
    raw.send(&Frame::new(Frame::CONTINUATION, 0, 1, &rest[..5]));
    raw.send(&Frame::new(Frame::CONTINUATION, 0, 1, []));
    raw.send(&Frame::new(
        Frame::CONTINUATION,
        Frame::END_HEADERS,
        1,
        [&rest[5..], &indexed_literal("x", b"y")].concat(),
    ));
    raw.send(&Frame::new(Frame::DATA, Frame::PADDED, 1, *b"\x04hello\0\0\0\0"));
    raw.send(&Frame::new(Frame::DATA, 0xf0, 1, []));
    raw.send(&Frame::new(Frame::DATA, Frame::PADDED | Frame::END_STREAM, 1, [&[255][..], &[0; 255]].concat()));
    raw.expect(|f| f.stream == 1 && f.has(Frame::END_STREAM));
    let request = worker.wait_for_request();
    assert_eq!((request.target.as_str(), request.body.as_slice()), ("/odd", &b"hello"[..]));
    assert_eq!(request.headers.get("x"), Some("y"));
}
