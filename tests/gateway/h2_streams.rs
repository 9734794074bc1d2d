//! Many streams on one HTTP/2 connection: none holds up another, none gets what is another's, and one that goes
//! takes its worker's request with it (case 55).

use crate::support::{Conn, Frame, Gate, Gateway, H2, Last, StreamEnd, Worker, eventually};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

/// From a stream's reset to the end of the worker's connection, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Bytes that tell which part of which body they are.
fn pattern(seed: usize, size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 31 + i / 251 + seed * 7) as u8).collect()
}

#[test]
fn a_hundred_streams_at_once_are_not_mixed_up() {
    let worker = Worker::new(|request, conn| {
        let text = [request.target.as_bytes(), b" ", &request.body].concat();
        conn.answer(200, text.repeat(50));
    });
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    assert!(client.setting(Frame::MAX_CONCURRENT_STREAMS).is_none_or(|most| most >= 100));
    for round in 0..3 {
        let streams: Vec<_> = (0..100).map(|i| client.start("POST", &format!("/{i}"), &[], Last::No)).collect();
        for (i, stream) in streams.iter().enumerate().rev() {
            client.data(*stream, format!("body {round} {i}").as_bytes(), Last::Yes);
        }
        for (i, stream) in streams.iter().enumerate() {
            let answer = client.wait(*stream);
            let wanted = format!("/{i} body {round} {i}").repeat(50);
            assert!(answer.text() == wanted && answer.end == StreamEnd::Clean, "{i}: {answer:?}");
        }
    }
}

#[test]
fn bodies_larger_than_all_windows_pass_both_ways() {
    let worker = Worker::new(|request, conn| conn.answer(200, &request.body));
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    for (seed, size) in [65_535, 65_536, 16_384, 5 * MIB + 1].into_iter().enumerate() {
        let body = pattern(seed, size);
        let answer = client.post("/", &body);
        assert!(answer.body == body && answer.end == StreamEnd::Clean, "{size}: {} came", answer.body.len());
    }
}

#[test]
fn uploads_that_take_turns_stay_apart() {
    let worker = Worker::new(|request, conn| conn.answer(200, &request.body));
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let bodies: Vec<_> = (0..8).map(|i| pattern(i, MIB)).collect();
    let streams: Vec<_> = bodies.iter().map(|_| client.start("POST", "/", &[], Last::No)).collect();
    for at in (0..MIB).step_by(MIB / 16) {
        for (stream, body) in streams.iter().zip(&bodies) {
            let last = if at + MIB / 16 == MIB { Last::Yes } else { Last::No };
            client.data(*stream, &body[at..at + MIB / 16], last);
        }
    }
    for (stream, body) in streams.iter().zip(&bodies) {
        assert!(client.wait(*stream).body == *body, "stream {stream}");
    }
}

#[test]
fn a_window_that_opens_byte_by_byte_lets_byte_by_byte_through() {
    let worker = Worker::new(|_, conn| conn.answer(200, "hello world"));
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect_with(gateway.address, &[(Frame::INITIAL_WINDOW_SIZE, 0)]);
    let stream = client.start("GET", "/", &[], Last::Yes);
    client.hold(stream);
    client.wait_until(stream, |answer| answer.status == 200);
    for length in 1..=11 {
        client.take_for(Duration::from_millis(5));
        assert_eq!(client.answer(stream).body.len(), length - 1, "more than the window");
        client.grant(stream, 1);
        client.wait_until(stream, |answer| answer.body.len() == length);
    }
    assert_eq!(client.wait(stream).text(), "hello world");
}

// Settings that change while streams are open move their windows, below zero, too (RFC 9113 section 6.9.2).
#[test]
fn a_window_that_shrinks_is_kept_to() {
    let worker = Worker::new(|_, conn| conn.answer(200, pattern(1, 40_000)));
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect_with(gateway.address, &[(Frame::INITIAL_WINDOW_SIZE, 20_000)]);
    let stream = client.start("GET", "/", &[], Last::Yes);
    client.hold(stream);
    client.wait_until(stream, |answer| answer.body.len() == 20_000);
    client.raw.send(&Frame::settings(&[(Frame::INITIAL_WINDOW_SIZE, 5_000)]));
    client.grant(stream, 10_000);
    client.take_for(Duration::from_millis(200));
    assert_eq!(client.answer(stream).body.len(), 20_000, "the window is still below zero");
    client.raw.send(&Frame::settings(&[(Frame::INITIAL_WINDOW_SIZE, 30_000)]));
    assert!(client.wait(stream).body == pattern(1, 40_000));
}

#[test]
fn a_slow_reader_of_one_stream_does_not_stall_the_others() {
    let worker = Worker::new(|request, conn| match request.target.as_str() {
        "/large" => conn.answer(200, pattern(0, 4 * MIB)),
        _ => conn.answer(200, "small"),
    });
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let slow = client.start("GET", "/large", &[], Last::Yes);
    client.hold(slow);
    client.wait_until(slow, |answer| answer.body.len() == 65_535);
    for _ in 0..20 {
        let start = Instant::now();
        assert_eq!(client.get("/small").text(), "small");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
    assert_eq!(client.get("/large").body.len(), 4 * MIB, "nor another large one");
    client.grant(slow, 1 << 30);
    assert!(client.wait(slow).body == pattern(0, 4 * MIB));
}

#[test]
fn an_upload_that_its_worker_does_not_take_does_not_stall_the_others() {
    let finish = Gate::new();
    let wait = finish.clone();
    let worker = Worker::on_head(move |request, conn| {
        if request.target == "/stuck" {
            wait.wait_within(Duration::from_secs(30));
        }
        let (body, _) = conn.read_body();
        conn.answer(200, body.len().to_string());
    });
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let stuck = client.start("POST", "/stuck", &[], Last::No);
    // No more than a stream's window may wait anywhere; the connection's window must have room beyond it.
    client.data(stuck, &pattern(0, 60_000), Last::No);
    for _ in 0..10 {
        assert_eq!(client.post("/other", &pattern(1, MIB)).text(), MIB.to_string());
    }
    finish.open();
    client.data(stuck, b"end", Last::Yes);
    assert_eq!(client.wait(stuck).text(), "60003");
}

#[test]
fn an_event_is_with_the_client_before_the_worker_writes_the_next() {
    let gates: Vec<Gate> = (0..5).map(|_| Gate::new()).collect();
    let waits = gates.clone();
    let worker = Worker::new(move |_, conn| {
        conn.start_events();
        for (i, gate) in waits.iter().enumerate() {
            gate.wait();
            conn.chunk(format!("data: {i}\n\n"));
        }
        conn.chunk("");
    });
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let stream = client.start("POST", "/v1/chat/completions", &[], Last::Yes);
    client.wait_until(stream, |answer| answer.status == 200);
    for (i, gate) in gates.iter().enumerate() {
        let opened = Instant::now();
        gate.open();
        client.wait_until(stream, |answer| answer.body.len() == 9 * (i + 1));
        assert!(opened.elapsed() < Duration::from_secs(5), "{:?}", opened.elapsed());
    }
    assert_eq!(client.wait(stream).end, StreamEnd::Clean);
}

#[track_caller]
fn a_reset_cancels(begin: impl Fn(&mut Conn) + Send + Sync + 'static, start: impl Fn(&mut H2) -> u32) {
    let (worker, begun, ended) = Worker::until_left(begin);
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let stream = start(&mut client);
    begun.wait();
    assert_eq!(gateway.load(), 1);
    assert!(!ended.is_open());
    client.reset(stream);
    ended.wait_within(AT_ONCE);
    eventually(AT_ONCE, || gateway.load() == 0);
    assert_eq!(client.get("/other").text(), "other", "the connection goes on");
}

// Case 55.
#[test]
fn a_reset_before_the_head_cancels() {
    a_reset_cancels(|_| {}, |client| client.start("GET", "/", &[], Last::Yes));
}

// Case 55.
#[test]
fn a_reset_between_events_cancels() {
    let begin = |conn: &mut Conn| {
        conn.start_events();
        conn.chunk("data: 1\n\n");
    };
    a_reset_cancels(begin, |client| {
        let stream = client.start("GET", "/", &[], Last::Yes);
        client.wait_until(stream, |answer| answer.body == b"data: 1\n\n");
        stream
    });
}

// Case 55.
#[test]
fn a_reset_within_an_upload_cancels() {
    for headers in [&[][..], &[("content-length", "10")]] {
        a_reset_cancels(
            |_| {},
            |client| {
                let stream = client.start("POST", "/", headers, Last::No);
                client.data(stream, b"hello", Last::No);
                stream
            },
        );
    }
}

// Case 55.
#[test]
fn a_reset_while_the_answer_waits_for_the_window_cancels() {
    let begin = |conn: &mut Conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        conn.send([b'x'; 80_000]);
    };
    a_reset_cancels(begin, |client| {
        let stream = client.start("GET", "/", &[], Last::Yes);
        client.hold(stream);
        client.wait_until(stream, |answer| answer.body.len() == 65_535);
        stream
    });
}

// Case 55.
#[test]
fn a_connection_that_goes_cancels_all_its_streams() {
    let worker = Worker::new(|_, conn| {
        conn.wait_peer_closed(Duration::from_secs(8));
    });
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    for _ in 0..20 {
        client.start("GET", "/", &[], Last::Yes);
    }
    eventually(Duration::from_secs(5), || worker.requests().len() == 20);
    drop(client);
    eventually(AT_ONCE, || gateway.load() == 0);
    worker.wait_for_closed(20);
}

#[test]
fn an_upload_that_is_reset_never_ends_cleanly_at_the_worker() {
    for headers in [&[][..], &[("content-length", "100")]] {
        let worker = Worker::echo();
        let gateway = Gateway::before(&worker);
        let mut client = H2::connect(&gateway);
        let stream = client.start("POST", "/", headers, Last::No);
        client.data(stream, b"hello", Last::No);
        eventually(Duration::from_secs(5), || gateway.load() == 1);
        client.reset(stream);
        eventually(Duration::from_secs(5), || gateway.load() == 0);
        assert_eq!(client.get("/next").status, 200);
        assert!(worker.requests().iter().all(|r| r.target == "/next"), "{:?}", worker.requests());
    }
}
