//! Every clock the gateway runs: it fires, and only for what it is about.

use crate::support::{End, Gate, Gateway, Worker, eventually};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

/// What a limit of 0.3 s may take on a busy machine, and what would mean another limit fired.
const SOON: std::ops::Range<Duration> = Duration::from_millis(250)..Duration::from_secs(4);

fn with(worker: &Worker, flag: &str) -> Gateway {
    Gateway::builder().worker(worker).arg(flag).start()
}

#[test]
fn a_head_that_does_not_end_closes_the_connection() {
    let worker = Worker::echo();
    let gateway = with(&worker, "--header-read-timeout-secs=0.3");
    for part in ["G", "GET / HTTP/1.1\r\nHost: a\r\n", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r"] {
        let mut client = gateway.connect();
        let start = Instant::now();
        client.send(part);
        let rest = client.read_until_close();
        assert!(SOON.contains(&start.elapsed()), "{part:?}: {:?}", start.elapsed());
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{part:?}: {rest:?}");
    }
}

#[test]
fn a_head_that_trickles_closes_the_connection() {
    let worker = Worker::echo();
    let gateway = with(&worker, "--header-read-timeout-secs=0.3");
    let mut client = gateway.connect();
    let start = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
    while client.is_silent_for(Duration::from_millis(20)) && client.try_send("y").is_ok() {
        assert!(start.elapsed() < SOON.end, "each byte starts the clock again");
    }
    assert!(start.elapsed() >= SOON.start, "{:?}", start.elapsed());
}

#[test]
fn a_second_head_that_does_not_end_closes_the_connection_too() {
    let worker = Worker::echo();
    let gateway = with(&worker, "--header-read-timeout-secs=0.3");
    let mut client = gateway.connect();
    client.get("/");
    let start = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost:");
    client.read_until_close();
    assert!(SOON.contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[test]
fn the_header_clock_is_not_for_idle_connections_or_bodies() {
    let worker = Worker::echo();
    let gateway = with(&worker, "--header-read-timeout-secs=0.3");
    let mut client = gateway.connect();
    client.get("/");
    assert!(client.is_silent_for(Duration::from_millis(800)), "an idle connection was ended");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    assert!(client.is_silent_for(Duration::from_millis(800)), "a slow body was ended");
    client.send("hello");
    assert_eq!(client.read_response().json()["body_length"], 10);
}

#[test]
fn an_idle_connection_closes() {
    let worker = Worker::echo();
    let gateway = with(&worker, "--idle-connection-timeout-secs=0.3");
    let mut client = gateway.connect();
    for path in ["/1", "/2"] {
        client.get(path);
    }
    let start = Instant::now();
    client.assert_closed();
    assert!(SOON.contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[test]
fn a_connection_that_never_says_anything_closes() {
    let worker = Worker::echo();
    let gateway = Gateway::builder()
        .worker(&worker)
        .arg("--idle-connection-timeout-secs=0.3")
        .arg("--header-read-timeout-secs=0.3")
        .start();
    let mut client = gateway.connect();
    let start = Instant::now();
    client.assert_closed();
    assert!(SOON.contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[test]
fn the_idle_clock_is_not_for_slow_workers_or_streams() {
    let worker = Worker::new(|_, conn| {
        conn.wait_peer_closed(Duration::from_millis(700));
        conn.start_events();
        conn.wait_peer_closed(Duration::from_millis(700));
        conn.chunk("data: 1\n\n");
        conn.chunk("");
    });
    let gateway = with(&worker, "--idle-connection-timeout-secs=0.3");
    let mut client = gateway.connect();
    assert_eq!(client.get("/").text(), "data: 1\n\n");
}

#[test]
fn a_worker_that_does_not_answer_is_a_504_and_is_let_go() {
    let let_go = Gate::new();
    let gone = let_go.clone();
    let worker = Worker::new(move |_, conn| {
        if conn.wait_peer_closed(Duration::from_secs(8)) {
            gone.open();
        }
    });
    let gateway = with(&worker, "--request-timeout-secs=0.5");
    let start = Instant::now();
    let answer = gateway.request("POST", "/", &[], b"x");
    assert_eq!(answer.status, 504);
    assert!((Duration::from_millis(450)..Duration::from_secs(4)).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert!(answer.headers.has("x-smg-error-code"));
    let_go.wait_within(Duration::from_secs(2));
    assert_eq!(worker.requests().len(), 1, "a request that ran out of time is not sent again");
}

// Before the end of the request's own body the clock runs too: a stuck upload must not hold a worker for ever.
#[test]
fn a_request_whose_body_never_ends_runs_out_of_time() {
    let worker = Worker::echo();
    let gateway = with(&worker, "--request-timeout-secs=0.5");
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    let answer = client.read_response_however("POST");
    assert!(matches!(answer.status, 408 | 504), "{}", answer.status);
}

#[test]
fn an_idle_worker_connection_closes() {
    let worker = Worker::echo();
    let gateway = with(&worker, "--upstream-pool-idle-timeout-secs=0.3");
    gateway.get("/");
    let start = Instant::now();
    worker.wait_for_closed(1);
    assert!(start.elapsed() < SOON.end, "{:?}", start.elapsed());
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(worker.connections(), 2);
}

#[test]
fn a_worker_connection_in_use_stays_open_beyond_the_idle_time() {
    let worker = Worker::new(|_, conn| {
        conn.wait_peer_closed(Duration::from_millis(800));
        conn.answer(200, "slow");
    });
    let gateway = with(&worker, "--upstream-pool-idle-timeout-secs=0.3");
    assert_eq!(gateway.get("/").text(), "slow");
}

// A client that stops reading must not hold a worker for ever either.
#[test]
fn an_answer_that_its_client_does_not_read_runs_out_of_time() {
    let let_go = Gate::new();
    let gone = let_go.clone();
    let worker = Worker::new(move |_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while conn.try_send([b"10000\r\n", [b'x'; 65536].as_slice(), b"\r\n"].concat()).is_ok() {}
        gone.open();
    });
    let gateway = with(&worker, "--request-timeout-secs=0.5");
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[], b"");
    let_go.wait_within(SOON.end);
    eventually(Duration::from_secs(2), || gateway.load() == 0);
}

#[test]
fn a_stream_that_outlasts_the_request_timeout_is_visibly_cut() {
    let worker = Worker::new(|_, conn| {
        conn.start_events();
        while conn.try_send("9\r\ndata: 1\n\n\r\n").is_ok() && !conn.wait_peer_closed(Duration::from_millis(50)) {}
    });
    let gateway = with(&worker, "--request-timeout-secs=0.5");
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[], b"");
    let answer = client.read_response_however("GET");
    assert_eq!((answer.status, answer.end), (200, End::Broken(ErrorKind::UnexpectedEof)));
}
