//! What a field that HTTP/2 forbids costs (case 50): its own request, and nothing else of the connection that it came on
//! (RFC 9113 section 8.1.1). Some of these fields h2's decoder does not take at all.

use crate::support::{Code, Frame, Gate, Gateway, H2, HpackTable, Last, StreamEnd, Worker, indexed_literal};
use std::time::Duration;

const RESET: StreamEnd = StreamEnd::Reset(Code::PROTOCOL_ERROR);
const GOOD: &[u8] = b"\x82\x86\x01\x01a\x04\x05/good";
const END: u8 = Frame::END_HEADERS | Frame::END_STREAM;

type Field<'a> = (&'a [u8], &'a [u8]);

/// A client with a request at the worker, which answers it when the gate opens.
fn with_another(gateway: &Gateway, worker: &Worker) -> (H2, u32) {
    let mut client = H2::connect(gateway);
    let other = client.start("GET", "/other", &[], Last::Yes);
    assert_eq!(worker.wait_for_request().target, "/other");
    (client, other)
}

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

/// A good head but for this field.
fn with(name: &'static [u8], value: &'static [u8]) -> Vec<Field<'static>> {
    let good: [Field; 4] = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/bad")];
    let mut fields: Vec<_> = good.into_iter().filter(|field| field.0 != name).collect();
    let at = if name.first() == Some(&b':') { 0 } else { fields.len() };
    fields.insert(at, (name, value));
    fields
}

/// Fields that h2's decoder takes for errors of the connection.
fn bad_fields() -> Vec<Field<'static>> {
    vec![
        (b"x", b"a\rb"),
        (b"x", b"a\nb"),
        (b"x", b"a\0b"),
        (b"x", b"\x7f"),
        (b"x", b"\x1b[0m"),
        (b"X-Upper", b"v"),
        (b"a b", b"v"),
        (b"", b"v"),
        (b"", b""),
        (b"na\xc3\xafve", b"v"),
        (b":late", b"x"),
        (b":", b"x"),
        (b":method", b""),
        (b":method", b"G T"),
        (b":path", b"/\xff"),
        (b":authority", b"\xc3"),
        (b":scheme", b"\xa0"),
        (b":protocol", b"\x80"),
        (b":status", b"OK"),
    ]
}

#[test]
fn a_field_that_no_decoder_takes_costs_its_own_request() {
    let (worker, finish) = waiting();
    let gateway = Gateway::before(&worker);
    let (mut client, other) = with_another(&gateway, &worker);
    for (name, value) in bad_fields() {
        let bad = client.request_with(&with(name, value));
        assert_eq!((bad.status, bad.end), (0, RESET), "{name:?}: {value:?}");
        assert_eq!(client.get("/next").text(), "fine", "{name:?}: {value:?}");
        assert_eq!(worker.wait_for_request().target, "/next");
    }
    finish.open();
    assert_eq!(client.wait(other).text(), "fine");
    assert_eq!(client.goaway(), None);
}

#[test]
fn a_field_that_only_means_nothing_in_http_2_costs_its_own_request() {
    let (worker, finish) = waiting();
    let gateway = Gateway::before(&worker);
    let (mut client, other) = with_another(&gateway, &worker);
    let fields = [("connection", "close"), ("te", "gzip"), ("content-length", "x"), ("host", "a b")];
    for (name, value) in fields {
        let bad = client.request("GET", "/bad", &[(name, value)], b"");
        bad.assert_refused(&[400]);
        assert_ne!(bad.end, StreamEnd::Lost, "{name}: {value}");
    }
    finish.open();
    assert_eq!(client.wait(other).text(), "fine");
    assert!(worker.requests().iter().all(|request| request.target == "/other"));
}

#[test]
fn bad_trailers_cost_their_own_request() {
    let (worker, finish) = waiting();
    let gateway = Gateway::before(&worker);
    let (mut client, other) = with_another(&gateway, &worker);
    for (name, value) in [("x", "a\r\nb"), ("X-Upper", "v"), (":late", "v"), ("", "v")] {
        let stream = client.start("POST", "/bad", &[("trailer", "x")], Last::No);
        client.data(stream, b"hello", Last::No);
        client.trailers(stream, &[(name, value)]);
        let bad = client.wait(stream);
        assert_eq!((bad.status, bad.end), (0, RESET), "{name:?}: {value:?}");
    }
    finish.open();
    assert_eq!(client.wait(other).text(), "fine");
    assert!(worker.requests().iter().all(|request| request.target == "/other"), "{:?}", worker.requests());
}

/// Sends a block in this way, and waits for what becomes of its request.
fn ask(client: &mut H2, stream: u32, block: &[u8], send: impl Fn(&mut H2, u32, &[u8])) -> (u16, StreamEnd) {
    send(client, stream, block);
    let answer = client.wait_for_raw(stream);
    (answer.status, answer.end)
}

/// Requests that put bad fields into the dynamic table and refer to them, and to others beside them.
#[track_caller]
fn the_table_stays_in_step(send: impl Fn(&mut H2, u32, &[u8]) + Copy) {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let good = |block: &[u8]| [GOOD, block].concat();
    let bad_value = indexed_literal("x", b"a\rb");
    let fine = (200, StreamEnd::Clean);
    let wanted = [
        ("a bad value", good(&bad_value), (0, RESET)),
        ("a reference to it", good(b"\xbe"), (0, RESET)),
        ("another entry, before it", good(&indexed_literal("y", b"fine")), fine),
        ("a reference to that", good(b"\xbe"), fine),
        ("a reference to the bad one", good(b"\xbf"), (0, RESET)),
        ("its name, which is good", good(b"\x0f\x30\x01v"), fine),
        ("an entry of that name", good(b"\x7f\x00\x01w"), fine),
        ("a reference to the new entry", good(b"\xbe"), fine),
        ("a bad name", good(&indexed_literal("X-Upper", b"v")), (0, RESET)),
        ("an entry of its name", good(b"\x7e\x01v"), (0, RESET)),
        ("a reference behind both", good(b"\xc0"), fine),
        ("the bad ones are evicted", [b"\x20\x3f\xe1\x1f", GOOD].concat(), fine),
        ("an entry after that", good(&indexed_literal("z", b"new")), fine),
        ("a reference to it", good(b"\xbe"), fine),
    ];
    for (n, (what, block, wanted)) in wanted.iter().enumerate() {
        assert_eq!(ask(&mut client, 2 * n as u32 + 1, block, send), *wanted, "{what}");
    }
    assert_eq!(client.goaway(), None);
    let field = |name: &str| -> Vec<_> {
        worker.requests().iter().filter_map(|r| r.headers.get(name).map(str::to_owned)).collect()
    };
    assert_eq!(
        (field("y"), field("x"), field("z")),
        (
            vec!["fine".to_owned(); 2],
            vec!["v".to_owned(), "w".to_owned(), "w".to_owned(), "w".to_owned()],
            vec!["new".to_owned(); 2],
        )
    );
}

#[test]
fn what_bad_fields_do_to_the_dynamic_table_is_kept() {
    the_table_stays_in_step(|client, stream, block| client.raw.send(&Frame::new(Frame::HEADERS, END, stream, block)));
}

#[test]
fn it_makes_no_difference_how_a_block_arrives() {
    the_table_stays_in_step(|client, stream, block| {
        for byte in Frame::new(Frame::HEADERS, END, stream, block).encode() {
            client.raw.write([byte]).expect("the gateway takes bytes");
        }
    });
    the_table_stays_in_step(|client, stream, block| {
        let (first, rest) = block.split_at(block.len() / 3);
        let (second, third) = rest.split_at(rest.len() / 2);
        client.raw.send(&Frame::new(Frame::HEADERS, Frame::END_STREAM, stream, first));
        client.raw.send(&Frame::new(Frame::CONTINUATION, 0, stream, second));
        client.raw.send(&Frame::new(Frame::CONTINUATION, Frame::END_HEADERS, stream, third));
    });
    the_table_stays_in_step(|client, stream, block| {
        let padded = [&[3, 0, 0, 0, 0, 15][..], block, &[0; 3]].concat();
        let flags = END | Frame::PADDED | Frame::PRIORITISED;
        client.raw.send(&Frame::new(Frame::HEADERS, flags, stream, padded));
    });
}

// h2 does not decode the block of such a stream, and what it puts into the dynamic table would be lost.
#[test]
fn a_stream_that_depends_on_itself_leaves_its_entries() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let block = [&[0, 0, 0, 1, 15][..], GOOD, &indexed_literal("y", b"fine")].concat();
    client.raw.send(&Frame::new(Frame::HEADERS, END | Frame::PRIORITISED, 1, block));
    assert_eq!(client.wait_for_raw(1).end, RESET);
    client.raw.send(&Frame::new(Frame::HEADERS, END, 3, [GOOD, b"\xbe"].concat()));
    assert_eq!(client.wait_for_raw(3).status, 200);
    assert_eq!(worker.wait_for_request().headers.get("y"), Some("fine"));
}

/// A field, which may be bad, in one of the ways that there are to say it.
fn random_field(random: &mut fastrand::Rng, entries: usize) -> Vec<u8> {
    const NAMES: [&[u8]; 6] = [b"x-a", b"x-b", b"x-longer-name", b"X-Upper", b"a b", b":late"];
    const VALUES: [&[u8]; 6] = [b"", b"v", b"some other value", b"a\rb", b"\n", b"\x7f"];
    let good = |random: &mut fastrand::Rng| {
        let most = if random.u8(..4) == 0 { 6 } else { 3 };
        random.usize(..most)
    };
    let flag = [0x00, 0x10, 0x40][random.usize(..3)];
    if entries > 0 && random.bool() {
        let index = 62 + random.usize(..entries.min(30)) as u8;
        return vec![0x80 | index];
    }
    let (name, mut value) = (NAMES[good(random)], VALUES[good(random)].to_vec());
    if random.u8(..10) == 0 {
        value = vec![b'l'; random.usize(..120)];
    }
    [&[flag, name.len() as u8][..], name, &[value.len() as u8], &value].concat()
}

fn is_valid((name, value): &(Vec<u8>, Vec<u8>)) -> bool {
    let is_name = |name: &[u8]| name.iter().all(|b| b.is_ascii_lowercase() || *b == b'-');
    (name.starts_with(b":") && name != b":late" || is_name(name)) && !value.iter().any(u8::is_ascii_control)
}

// What the gateway makes of each block is compared with what an independent decoder does.
#[test]
fn whatever_is_said_of_bad_fields_the_others_arrive_as_they_were_meant() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut refused = 0;
    for seed in 0..6 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut client, mut table) = (H2::connect(&gateway), HpackTable::of(4096));
        for n in 0..60 {
            let entries = table.len();
            let said: Vec<_> = (0..random.usize(1..6)).flat_map(|_| random_field(&mut random, entries)).collect();
            let block = [GOOD, &said].concat();
            let meant = table.decode(&block).expect("a sound block");
            let stream = 2 * n + 1;
            let answer = ask(&mut client, stream, &block, |client, stream, block| {
                let cut = block.len() * 2 / 3;
                if stream % 3 == 0 {
                    client.raw.send(&Frame::new(Frame::HEADERS, END, stream, block));
                } else {
                    client.raw.send(&Frame::new(Frame::HEADERS, Frame::END_STREAM, stream, &block[..cut]));
                    client.raw.send(&Frame::new(Frame::CONTINUATION, Frame::END_HEADERS, stream, &block[cut..]));
                }
            });
            if !meant.iter().all(is_valid) {
                assert_eq!(answer, (0, RESET), "{seed}, {n}: {meant:?}");
                refused += 1;
                continue;
            }
            assert_eq!(answer, (200, StreamEnd::Clean), "{seed}, {n}: {meant:?}");
            let request = worker.wait_for_request();
            let arrived: Vec<_> = request
                .headers
                .iter()
                .filter(|(name, _)| name.starts_with("x-a") || name.starts_with("x-b") || name.starts_with("x-l"))
                .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
                .collect();
            let mut meant: Vec<_> = meant.into_iter().filter(|(name, _)| name.starts_with(b"x-")).collect();
            let mut arrived = arrived;
            meant.sort();
            arrived.sort();
            assert_eq!(arrived, meant, "{seed}, {n}");
        }
        assert_eq!(client.goaway(), None);
    }
    assert!((50..310).contains(&refused), "{refused} of 360");
}

#[test]
fn many_bad_requests_end_their_connection_at_last() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let mut sent = 0;
    while client.goaway().is_none() && sent < 2000 {
        client.request_with(&with(b"x", b"a\rb"));
        sent += 1;
    }
    assert!((1000..1100).contains(&sent), "{sent}");
    assert_eq!(client.goaway().map(|(_, code)| code), Some(Code::ENHANCE_YOUR_CALM));
}

// What a client can do with the last stream of a GOAWAY: everything after it was not processed.
#[test]
fn an_error_of_the_connection_names_the_last_stream_that_was_processed() {
    let worker = Worker::new(|_, conn| {
        conn.wait_peer_closed(Duration::from_secs(10));
    });
    let gateway = Gateway::before(&worker);
    let (mut client, _other) = with_another(&gateway, &worker);
    let bad = Frame::new(Frame::HEADERS, END, 3, *b"\x82\x80");
    let after = Frame::new(Frame::HEADERS, END, 5, GOOD);
    client.raw.write([bad.encode(), after.encode()].concat()).expect("the gateway takes bytes");
    assert!(client.ends_within(Duration::from_secs(5)));
    let (last, code) = client.goaway().expect("a GOAWAY");
    assert!(last == 1 && [Code::COMPRESSION_ERROR, Code::PROTOCOL_ERROR].contains(&code), "{last} {code:?}");
    assert_eq!(worker.requests().len(), 1);
}
