//! Floods of HTTP/2 frames (cases 41 to 46): the connection that sends one ends, memory stays flat, what it had started
//! at a worker is cancelled, and another client is served all the while.

use crate::support::{Code, Ending, Frame, Gateway, H2, Last, RawH2, Worker, eventually, indexed_literal};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// What a gateway may take for one client that means ill.
const MOST_MEMORY: u64 = 32 * MIB;

/// What a gateway that is built for tests may compute for it, and for the other client beside it.
const MOST_CPU: Duration = Duration::from_secs(1);

/// How long a flood may go on before its connection ends.
const LIMIT: Duration = Duration::from_secs(20);

/// How long another client's request may take meanwhile, on a busy machine.
const SERVED_WITHIN: Duration = Duration::from_secs(2);

fn head(path: &str) -> [(&str, &str); 4] {
    [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)]
}

/// A worker that answers `/fine` and holds everything else until its peer leaves.
fn holding() -> Worker {
    Worker::new(|request, conn| match request.target.as_str() {
        "/fine" => conn.answer(200, "fine"),
        _ => {
            conn.wait_peer_closed(Duration::from_secs(30));
        }
    })
}

/// Runs `flood` while another client is served and memory is watched; asserts what holds for every flood.
#[track_caller]
fn endure<T>(gateway: &Gateway, flood: impl FnOnce() -> T) -> T {
    assert_eq!(gateway.get("/fine").text(), "fine");
    let before = gateway.memory();
    let (done, most, slowest) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let outcome = std::thread::scope(|scope| {
        let watching = || {
            while !done.load(Ordering::SeqCst) {
                most.fetch_max(gateway.memory(), Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        let served = || {
            while !done.load(Ordering::SeqCst) {
                let start = Instant::now();
                assert_eq!(gateway.get("/fine").text(), "fine");
                slowest.fetch_max(start.elapsed().as_millis() as u64, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        scope.spawn(watching);
        scope.spawn(served);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(flood));
        done.store(true, Ordering::SeqCst);
        outcome
    });
    let outcome = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let (most, slowest) = (most.into_inner(), Duration::from_millis(slowest.into_inner()));
    assert!(most < before + MOST_MEMORY, "{} MiB -> {} MiB", before / MIB, most / MIB);
    assert!(slowest < SERVED_WITHIN, "another client waited {slowest:?}");
    eventually(Duration::from_secs(5), || gateway.load() == 0);
    outcome
}

/// Repeats `frames` on one connection, as fast as it takes them, until it ends; `None` if it does not.
#[track_caller]
fn pour(gateway: &Gateway, mut frames: impl FnMut(u32) -> Vec<Frame> + Send) -> Option<Ending> {
    let (mut raw, _) = RawH2::open(gateway.address, &[]);
    let mut reader = raw.split_reader();
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || -> io::Result<()> {
            let start = Instant::now();
            for round in (0u32..).step_by(64).take_while(|_| start.elapsed() < LIMIT) {
                let batch: Vec<_> = (round..round + 64).flat_map(&mut frames).flat_map(|f| f.encode()).collect();
                raw.write(batch)?;
            }
            Ok(())
        });
        let ending = reader.ending(LIMIT);
        assert_eq!(ending.is_some(), writing.join().expect("writing does not panic").is_err());
        ending
    })
}

/// Pours, and asserts that it ended as a flood should.
#[track_caller]
fn is_cut_off(frames: impl FnMut(u32) -> Vec<Frame> + Send) -> Ending {
    let worker = holding();
    let gateway = Gateway::before(&worker);
    let computed = gateway.cpu();
    let ending = endure(&gateway, || pour(&gateway, frames)).expect("the connection of a flood ends");
    let computed = gateway.cpu() - computed;
    assert!(computed < MOST_CPU, "{computed:?} for one client");
    let calm = [Code::ENHANCE_YOUR_CALM, Code::PROTOCOL_ERROR, Code::FRAME_SIZE_ERROR, Code::STREAM_CLOSED];
    assert!(ending.goaway.is_none_or(|code| calm.contains(&code)), "{ending:?}");
    assert!(worker.requests().len() < 5_000, "the worker was flooded, too: {} requests", worker.requests().len());
    ending
}

/// The stream id of the nth request.
fn nth(n: u32) -> u32 {
    2 * n + 1
}

// Case 41, CVE-2023-44487.
#[test]
fn a_rapid_reset_is_cut_off() {
    is_cut_off(|n| vec![Frame::headers(nth(n), Frame::END_STREAM, head("/held")), Frame::reset(nth(n), Code::CANCEL)]);
}

// Case 41: the same, slowly enough for each request to reach the worker. What it started must be gone.
#[test]
fn requests_that_are_reset_one_by_one_leave_nothing() {
    let worker = holding();
    let gateway = Gateway::before(&worker);
    endure(&gateway, || {
        let mut client = H2::connect(&gateway);
        let held = || worker.requests().iter().filter(|r| r.target == "/held").count();
        for n in 0..200 {
            let stream = client.start("GET", "/held", &[], Last::Yes);
            eventually(Duration::from_secs(5), || held() > n);
            client.reset(stream);
        }
    });
}

// Case 42, CVE-2025-8671: the gateway is made to reset streams that it has begun to serve.
#[test]
fn streams_broken_by_an_empty_window_update_are_cut_off() {
    is_cut_off(|n| vec![Frame::headers(nth(n), Frame::END_STREAM, head("/held")), Frame::window_update(nth(n), 0)]);
}

// Case 42.
#[test]
fn streams_broken_by_an_overflowing_window_are_cut_off() {
    is_cut_off(|n| {
        vec![Frame::headers(nth(n), Frame::END_STREAM, head("/held")), Frame::window_update(nth(n), 0x7fff_ffff)]
    });
}

// Case 42.
#[test]
fn streams_broken_by_data_after_their_end_are_cut_off() {
    is_cut_off(|n| {
        let head = Frame::headers(nth(n), Frame::END_STREAM, head("/held"));
        vec![head, Frame::new(Frame::DATA, Frame::END_STREAM, nth(n), *b"x")]
    });
}

// Case 42.
#[test]
fn streams_broken_by_a_second_head_are_cut_off() {
    is_cut_off(|n| {
        let head = Frame::headers(nth(n), Frame::END_STREAM, head("/held"));
        vec![head.clone(), head]
    });
}

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

// Case 45, CVE-2019-9512.
#[test]
fn a_flood_of_pings_is_cut_off() {
    is_cut_off(|_| vec![Frame::new(Frame::PING, 0, 0, [7; 8])]);
}

// Case 45, CVE-2019-9515.
#[test]
fn a_flood_of_settings_is_cut_off() {
    is_cut_off(|_| vec![Frame::settings(&[(Frame::INITIAL_WINDOW_SIZE, 65_535)])]);
    is_cut_off(|_| vec![Frame::settings(&[])]);
}

// Case 45.
#[test]
fn a_flood_of_priorities_is_cut_off() {
    is_cut_off(|n| vec![Frame::new(Frame::PRIORITY, 0, nth(n % 1000), [0, 0, 0, 0, 15])]);
}

// Case 45.
#[test]
fn a_flood_of_window_updates_is_cut_off() {
    is_cut_off(|n| match n {
        0 => vec![Frame::headers(1, 0, head("/held"))],
        _ => vec![Frame::window_update(1, 1), Frame::window_update(0, 1)],
    });
}

// Case 45, CVE-2019-9518.
#[test]
fn a_flood_of_empty_data_is_cut_off() {
    is_cut_off(|n| match n {
        0 => vec![Frame::headers(1, 0, head("/held"))],
        _ => vec![Frame::new(Frame::DATA, 0, 1, [])],
    });
}

// Case 45: padding counts against the windows, and nobody reads it.
#[test]
fn a_flood_of_padding_is_cut_off_or_waits() {
    let worker = holding();
    let gateway = Gateway::builder().worker(&worker).arg("--request-timeout-secs=2").start();
    endure(&gateway, || {
        pour(&gateway, |n| match n {
            0 => vec![Frame::headers(1, 0, head("/held"))],
            _ => vec![Frame::new(Frame::DATA, Frame::PADDED, 1, [&[255][..], &[0; 255]].concat())],
        })
    });
}

// Case 45.
#[test]
fn a_flood_of_empty_heads_is_cut_off() {
    is_cut_off(|n| vec![Frame::new(Frame::HEADERS, Frame::END_HEADERS | Frame::END_STREAM, nth(n), [])]);
}

// Case 45: frames of unknown types are ignored, but not for ever.
#[test]
fn a_flood_of_unknown_frames_is_cut_off() {
    is_cut_off(|_| vec![Frame::new(0xbe, 0, 0, [])]);
}

// Case 45, CVE-2019-9517 and others: answers that pile up while nothing is read are bounded, and not for ever.
#[test]
fn a_flood_whose_answers_are_not_read_is_bounded() {
    let worker = holding();
    let gateway = Gateway::builder().worker(&worker).arg("--idle-connection-timeout-secs=2").start();
    endure(&gateway, || {
        for frame in [Frame::new(Frame::PING, 0, 0, [7; 8]), Frame::settings(&[])] {
            let (mut raw, _) = RawH2::open(gateway.address, &[]);
            raw.set_write_patience(Duration::from_secs(2));
            let batch = frame.encode().repeat(1000);
            let start = Instant::now();
            while raw.write(&batch).is_ok() {
                assert!(start.elapsed() < LIMIT, "it goes on for ever");
            }
        }
    });
}

/// A hundred answers of 10 MB that nobody takes.
#[track_caller]
fn unread_answers_are_bounded(settings: &[(u16, u32)]) {
    let large = vec![b'x'; 10_000_000];
    let worker = Worker::new(move |request, conn| match request.target.as_str() {
        "/fine" => conn.answer(200, "fine"),
        _ => {
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", large.len()));
            // The gateway leaves when the time is up.
            let _ = conn.try_send(&large);
        }
    });
    let gateway = Gateway::builder().worker(&worker).arg("--request-timeout-secs=3").start();
    endure(&gateway, || {
        let (mut raw, _) = RawH2::open(gateway.address, settings);
        for n in 0..100 {
            raw.send(&Frame::headers(nth(n), Frame::END_STREAM, head("/large")));
        }
        eventually(Duration::from_secs(10), || gateway.load() >= 50);
        eventually(Duration::from_secs(10), || gateway.load() == 0);
    });
}

// Case 46, CVE-2019-9511.
#[test]
fn answers_behind_closed_windows_are_bounded_and_run_out_of_time() {
    unread_answers_are_bounded(&[(Frame::INITIAL_WINDOW_SIZE, 0)]);
}

// Case 46, CVE-2019-9517: the windows are open, but nothing is read, or only the connection's window is closed.
#[test]
fn answers_that_are_not_read_are_bounded_and_run_out_of_time() {
    unread_answers_are_bounded(&[(Frame::INITIAL_WINDOW_SIZE, 0x7fff_ffff)]);
}
