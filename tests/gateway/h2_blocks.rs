//! Header blocks that h2 and what is below it might see differently: one that the one takes and the other does not, one
//! longer than a frame, and one that is a few bytes for a list without end. Nobody else's stream ends for them.

use crate::support::{Code, Frame, Gate, Gateway, H2, Last, StreamEnd, Worker, indexed_literal};
use std::time::Duration;

const GOOD: &[u8] = b"\x82\x86\x01\x01a\x04\x05/good";
const END: u8 = Frame::END_HEADERS | Frame::END_STREAM;
const RESET: StreamEnd = StreamEnd::Reset(Code::PROTOCOL_ERROR);

/// A field that goes into no table.
fn literal(name: &str, value: &[u8]) -> Vec<u8> {
    let string = |text: &[u8]| {
        let mut coded = Vec::new();
        match text.len().checked_sub(127) {
            None => coded.push(text.len() as u8),
            Some(rest) => {
                coded.extend([127, (rest & 127 | 128) as u8, (rest >> 7 & 127 | 128) as u8, (rest >> 14) as u8])
            }
        }
        [&coded[..], text].concat()
    };
    [vec![0], string(name.as_bytes()), string(value)].concat()
}

/// A worker that answers `/other` when the gate opens, and the gateway before it.
fn waiting() -> (Worker, Gate) {
    let finish = Gate::new();
    let wait = finish.clone();
    let worker = Worker::new(move |request, conn| {
        if request.target == "/other" {
            wait.wait();
        }
        conn.answer(200, "fine");
    });
    (worker, finish)
}

/// Sends a block in frames of this size.
fn send(client: &mut H2, stream: u32, block: &[u8], size: usize) {
    let frames: Vec<_> = block.chunks(size).collect();
    for (n, frame) in frames.iter().enumerate() {
        let (kind, flags) = if n == 0 { (Frame::HEADERS, Frame::END_STREAM) } else { (Frame::CONTINUATION, 0) };
        let flags = if n + 1 == frames.len() { flags | Frame::END_HEADERS } else { flags };
        client.raw.send(&Frame::new(kind, flags, stream, *frame));
    }
}

/// Sends these frames, then a bad field and a flood of large lists: neither may meet an h2 on its own.
#[track_caller]
fn ends_the_connection(frames: &[Frame]) {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let large = [GOOD, &b"\x00\x01a\x00".repeat(4000)].concat();
    let sent = (|| {
        frames.iter().try_for_each(|frame| client.raw.try_send(frame))?;
        client.raw.try_send(&Frame::new(Frame::HEADERS, END, 3, [GOOD, &literal("X-Upper", b"v")].concat()))?;
        (2..200).try_for_each(|n| client.raw.try_send(&Frame::new(Frame::HEADERS, END, 2 * n + 1, &large[..])))
    })();
    let ended = client.ends_within(Duration::from_secs(10));
    assert!(ended, "the connection goes on: {sent:?}");
    assert!(worker.requests().is_empty(), "{:?}", worker.requests());
    assert_eq!(gateway.get("/after").status, 200);
}

#[test]
fn a_stream_that_depends_on_itself_with_too_much_padding_ends_the_connection() {
    let payload = [&[200, 0, 0, 0, 1, 0][..], GOOD].concat();
    ends_the_connection(&[Frame::new(Frame::HEADERS, END | Frame::PADDED | Frame::PRIORITISED, 1, payload)]);
}

#[test]
fn a_new_size_of_the_table_within_a_block_ends_the_connection() {
    let mut block = [GOOD, &literal("b", &[b'v'; 15_000])].concat();
    let rest = 16_384 - block.len() - literal("c", &[b'w'; 127]).len() + 127;
    block.extend(literal("c", &vec![b'w'; rest]));
    assert_eq!(block.len(), 16_384);
    ends_the_connection(&[
        Frame::new(Frame::HEADERS, Frame::END_STREAM, 1, block),
        Frame::new(Frame::CONTINUATION, Frame::END_HEADERS, 1, *b"\x3f\xe1\x1f"),
    ]);
}

#[test]
fn a_promise_of_a_client_ends_the_connection() {
    let block = [&[0, 0, 0, 2][..], b"\x82\x82", &indexed_literal("x", b"v")].concat();
    ends_the_connection(&[
        Frame::new(Frame::HEADERS, Frame::END_HEADERS, 1, b"\x82\x86\x01\x01a\x84\x84"),
        Frame::new(Frame::PUSH_PROMISE, Frame::END_HEADERS, 1, block),
    ]);
}

#[test]
fn a_few_bytes_for_a_list_without_end_cost_their_own_request() {
    let (worker, finish) = waiting();
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let other = client.start("GET", "/other", &[], Last::Yes);
    assert_eq!(worker.wait_for_request().target, "/other");
    let entry = [&b"\x40\x01a"[..], &literal("", &[b'v'; 4000])[2..]].concat();
    for (n, count) in [64, 100, 200, 12_000].into_iter().enumerate() {
        let block = [GOOD, &entry, &vec![0xbe; count], &indexed_literal("x-new", b"v")].concat();
        let stream = 4 * n as u32 + 3;
        send(&mut client, stream, &block, 16_384);
        let answer = client.wait_for_raw(stream);
        assert_eq!((answer.status, answer.end), (0, RESET), "{count}");
        // What the block has put into the table is there.
        send(&mut client, stream + 2, &[GOOD, b"\xbe"].concat(), 16_384);
        assert_eq!(client.wait_for_raw(stream + 2).status, 200, "{count}");
        assert_eq!(worker.wait_for_request().headers.get("x-new"), Some("v"));
    }
    finish.open();
    assert_eq!(client.wait(other).text(), "fine");
    assert_eq!(client.goaway(), None);
}

#[test]
fn what_is_malformed_is_so_in_a_long_block_too() {
    let (worker, finish) = waiting();
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let other = client.start("GET", "/other", &[], Last::Yes);
    assert_eq!(worker.wait_for_request().target, "/other");
    let bad = [
        b"\x82".to_vec(),
        b"\x04\x06/other".to_vec(),
        b"\x41\x01y".to_vec(),
        [literal("q", b"1"), b"\x84".to_vec()].concat(),
        literal("connection", b"x"),
        literal("keep-alive", b"x"),
        literal("proxy-connection", b"x"),
        literal("transfer-encoding", b"chunked"),
        literal("upgrade", b"websocket"),
        literal("te", b"gzip"),
        indexed_literal("connection", b"x"),
    ];
    let mut stream = 1;
    // The second frame begins within a field, or on its border.
    let border = literal("c", &[b'w'; 127]);
    for field in &bad {
        for is_on_border in [false, true] {
            stream += 2;
            let mut block = [GOOD, field].concat();
            if is_on_border {
                let rest = 16_384 - block.len() - border.len() + 127;
                block.extend(literal("c", &vec![b'w'; rest]));
            }
            block.extend(literal("b", &[b'v'; 20_000]));
            send(&mut client, stream, &block, 16_384);
            let answer = client.wait_for_raw(stream);
            assert_eq!((answer.status, answer.end), (0, RESET), "{field:?}");
        }
    }
    stream += 2;
    send(&mut client, stream, &[GOOD, &literal("te", b"trailers"), &literal("b", &[b'v'; 20_000])].concat(), 16_384);
    assert_eq!(client.wait_for_raw(stream).status, 200);
    assert_eq!(worker.wait_for_request().headers.get("b").map(str::len), Some(20_000));
    finish.open();
    assert_eq!(client.wait(other).text(), "fine");
    assert_eq!(client.goaway(), None);
}

#[test]
fn a_long_field_behind_a_list_that_is_too_large_costs_its_own_request() {
    let (worker, finish) = waiting();
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let other = client.start("GET", "/other", &[], Last::Yes);
    assert_eq!(worker.wait_for_request().target, "/other");
    let entry = [&b"\x40\x01a"[..], &literal("", &[b'v'; 4000])[2..]].concat();
    let block = [GOOD, &entry, &[0xbe; 17], &literal("b", &[b'v'; 68_000])].concat();
    send(&mut client, 3, &block, 16_384);
    assert_eq!(client.wait_for_raw(3).end, RESET);
    finish.open();
    assert_eq!(client.wait(other).text(), "fine");
    assert_eq!(client.goaway(), None);
}

#[test]
fn it_does_not_matter_in_how_many_frames_a_block_comes() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let block = [GOOD, &literal("b", &[b'v'; 1600])].concat();
    for (n, size) in [200, 20, 4].into_iter().enumerate() {
        let stream = 2 * n as u32 + 1;
        send(&mut client, stream, &block, size);
        assert_eq!(client.wait_for_raw(stream).status, 200, "{size}");
        assert_eq!(worker.wait_for_request().headers.get("b").map(str::len), Some(1600));
    }
    assert_eq!(client.goaway(), None);
}
