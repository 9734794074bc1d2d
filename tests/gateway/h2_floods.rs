//! Floods of HTTP/2 frames (cases 41, 42, 45 and 46): the connection that sends one ends, memory stays flat, what it had
//! started at a worker is cancelled, and another client is served all the while.

use crate::support::{Code, Frame, Gateway, H2, Last, RawH2, Worker, eventually, flood};
use flood::{LIMIT, endure, head, holding, is_cut_off, nth, pour};
use std::time::{Duration, Instant};

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
