//! How HTTP/2 connections end (cases 51 and 64): with a GOAWAY that tells the truth, not before their streams, and not
//! later than the clocks allow.

use crate::support::{Builder, Code, Frame, Gate, Gateway, H2, Last, PREFACE, RawH2, StreamEnd, Worker, eventually};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// What a limit of 0.5 s may take on a busy machine, and what would mean that another one fired.
const SOON: std::ops::Range<Duration> = Duration::from_millis(450)..Duration::from_secs(4);

/// A gateway with a stream in flight whose second half waits for the gate.
struct InFlight {
    gateway: Gateway,
    client: H2,
    stream: u32,
    finish: Gate,
    worker: Worker,
}

fn in_flight(settings: impl FnOnce(Builder) -> Builder) -> InFlight {
    let finish = Gate::new();
    let worker = Worker::streaming(&finish);
    let gateway = settings(Gateway::builder().worker(&worker)).start();
    let mut client = H2::connect(&gateway);
    assert_eq!(client.get("/before").text(), "/before");
    let stream = client.begin_stream();
    InFlight { gateway, client, stream, finish, worker }
}

impl InFlight {
    fn terminate(&self) {
        self.gateway.terminate();
        eventually(Duration::from_secs(5), || TcpStream::connect(self.gateway.address).is_err());
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.finish.open();
    }
}

// Case 51: RFC 9113 section 6.8.
#[test]
fn a_stream_in_flight_finishes_and_the_goaway_names_it_as_the_last() {
    let mut it = in_flight(|b| b);
    it.terminate();
    assert!(it.gateway.is_running());
    it.client.take_for(Duration::from_millis(300));
    let (last, code) = it.client.goaway().expect("a GOAWAY at the start of the drain");
    assert!(last >= it.stream && code == Code::NO_ERROR, "{last} {code:?}");
    it.finish.open();
    it.client.end_stream(it.stream);
    assert!(it.client.ends_within(Duration::from_secs(3)));
    assert_eq!(it.client.goaway(), Some((it.stream, Code::NO_ERROR)), "in the end it names the last one served");
    assert_eq!(it.gateway.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

// Case 51. A stream beyond the named one was not looked at; one that crosses the GOAWAY may be served.
#[test]
fn a_stream_that_comes_while_draining_is_served_or_provably_not() {
    let mut it = in_flight(|b| b);
    it.terminate();
    it.client.take_for(Duration::from_millis(300));
    let late = it.client.start("POST", "/late", &[], Last::Yes);
    it.client.take_for(Duration::from_millis(300));
    it.finish.open();
    it.client.end_stream(it.stream);
    it.client.ends_within(Duration::from_secs(3));
    let (last, _) = it.client.goaway().expect("a GOAWAY");
    let answer = it.client.wait(late);
    let reached = it.worker.requests().iter().any(|r| r.target == "/late");
    match answer.end {
        StreamEnd::Clean => assert!(reached && last >= late, "{last} {answer:?}"),
        StreamEnd::Lost => assert!(!reached && last < late, "{last} {answer:?}"),
        end => assert!(end == StreamEnd::Reset(Code::REFUSED_STREAM) && !reached, "{answer:?}"),
    }
    assert_eq!(it.gateway.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let worker = Worker::echo();
    let mut gateway = Gateway::before(&worker);
    let mut idle = H2::connect(&gateway);
    assert_eq!(idle.get("/").status, 200);
    let mut fresh = H2::connect(&gateway);
    let mut half = RawH2::silent(gateway.address);
    half.write(&PREFACE[..10]).unwrap();
    let mut silent = RawH2::silent(gateway.address);
    silent.write(PREFACE).unwrap();
    let start = Instant::now();
    gateway.terminate();
    assert!(idle.ends_within(Duration::from_secs(3)));
    assert_eq!(idle.goaway(), Some((1, Code::NO_ERROR)));
    assert!(fresh.ends_within(Duration::from_secs(3)));
    assert_eq!(gateway.wait_exit(Duration::from_secs(5)).code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn the_grace_period_bounds_the_drain() {
    let mut it = in_flight(|b| b.arg("--shutdown-grace-period-secs=0.5"));
    let start = Instant::now();
    it.gateway.terminate();
    it.gateway.wait_exit(Duration::from_secs(5));
    assert!(SOON.contains(&start.elapsed()), "{:?}", start.elapsed());
    let answer = it.client.wait(it.stream);
    assert_ne!(answer.end, StreamEnd::Clean, "a stream that was cut must not look whole");
}

// A window that is closed must not keep the gateway from ending, either.
#[test]
fn the_grace_period_bounds_a_drain_that_waits_for_windows() {
    let worker = Worker::new(|_, conn| conn.answer(200, [b'x'; 100_000]));
    let gateway = Gateway::builder().worker(&worker).arg("--shutdown-grace-period-secs=0.5").start();
    let mut gateway = gateway;
    let mut client = H2::connect_with(gateway.address, &[(Frame::INITIAL_WINDOW_SIZE, 0)]);
    let stream = client.start("GET", "/", &[], Last::Yes);
    client.wait_until(stream, |answer| answer.status == 200);
    gateway.terminate();
    gateway.wait_exit(SOON.end);
}

#[test]
fn an_idle_connection_closes() {
    let worker = Worker::echo();
    let gateway = Gateway::builder().worker(&worker).arg("--idle-connection-timeout-secs=0.5").start();
    for requests in [0, 1, 3] {
        let mut client = H2::connect(&gateway);
        (0..requests).for_each(|_| assert_eq!(client.get("/").status, 200));
        let start = Instant::now();
        assert!(client.ends_within(SOON.end), "after {requests} requests");
        assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
        assert!(client.goaway().is_none_or(|(_, code)| code == Code::NO_ERROR), "{:?}", client.goaway());
    }
}

// Frames that ask for nothing don't make a connection a busy one.
#[test]
fn pings_do_not_keep_a_connection_open() {
    let worker = Worker::echo();
    let gateway = Gateway::builder().worker(&worker).arg("--idle-connection-timeout-secs=0.5").start();
    let mut client = H2::connect(&gateway);
    let start = Instant::now();
    while client.raw.try_send(&Frame::new(Frame::PING, 0, 0, [1; 8])).is_ok() {
        assert!(start.elapsed() < SOON.end, "it stays open");
        if client.ends_within(Duration::from_millis(100)) {
            return;
        }
    }
}

#[test]
fn the_idle_clock_is_not_for_connections_with_a_stream() {
    let worker = Worker::new(|_, conn| {
        conn.wait_peer_closed(Duration::from_millis(1200));
        conn.answer(200, "slow");
    });
    let gateway = Gateway::builder().worker(&worker).arg("--idle-connection-timeout-secs=0.5").start();
    assert_eq!(H2::connect(&gateway).get("/").text(), "slow");
}

#[test]
fn a_start_or_head_that_does_not_end_closes_the_connection() {
    let worker = Worker::echo();
    let gateway = Gateway::builder().worker(&worker).arg("--header-read-timeout-secs=0.5").start();
    let settings = Frame::settings(&[]).encode();
    let half_a_head = Frame::new(Frame::HEADERS, 0, 1, *b"\x82\x86\x84").encode();
    for start in [
        &PREFACE[..10],
        PREFACE,
        &[PREFACE, &settings[..5]].concat(),
        &[PREFACE, &settings, &half_a_head].concat(),
        &[PREFACE, &settings, &half_a_head[..5]].concat(),
    ] {
        let mut raw = RawH2::silent(gateway.address);
        raw.write(start).unwrap();
        assert!(raw.ending(SOON.end).is_some(), "{start:?} stays");
    }
}

#[test]
fn a_request_that_takes_too_long_is_answered_or_reset_alone() {
    let worker = Worker::new(|request, conn| match request.target.as_str() {
        "/fine" => conn.answer(200, "fine"),
        "/begun" => {
            conn.start_events();
            conn.chunk("data: 1\n\n");
            conn.wait_peer_closed(Duration::from_secs(8));
        }
        _ => {
            conn.wait_peer_closed(Duration::from_secs(8));
        }
    });
    let gateway = Gateway::builder().worker(&worker).arg("--request-timeout-secs=0.5").start();
    let mut client = H2::connect(&gateway);
    assert_eq!(client.get("/held").status, 504);
    let begun = client.get("/begun");
    assert!(begun.status == 200 && matches!(begun.end, StreamEnd::Reset(_)), "{begun:?}");
    let upload = client.start("POST", "/upload", &[("content-length", "5")], Last::No);
    client.data(upload, b"hel", Last::No);
    client.wait(upload).assert_refused(&[408, 504]);
    assert_eq!(client.get("/fine").text(), "fine");
    eventually(Duration::from_secs(2), || gateway.load() == 0);
}
