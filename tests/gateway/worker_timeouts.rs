//! The clocks that run for a worker: to connect, to begin an answer, to go on with it (case 54).

use crate::support::{End, Gate, Gateway, Module, Nowhere, Worker, eventually};
use std::time::{Duration, Instant};

/// What a limit of 0.4 s may take on a busy machine, and what would mean that another limit fired.
const SOON: std::ops::Range<Duration> = Duration::from_millis(350)..Duration::from_secs(4);

#[test]
fn a_worker_that_takes_no_connection_in_time_is_a_504_with_a_code_of_its_own() {
    let silent = Nowhere::silent();
    let flags = ["--disable-health-check", "--disable-retries", "--connect-timeout-secs=0.4"];
    let gateway = Gateway::builder().worker_url(silent.url()).args(flags).start();
    let start = Instant::now();
    gateway.get("/").assert_error(504, "upstream_connect_timeout");
    assert!(SOON.contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!(gateway.metrics().sum("smg_worker_errors_total", &[]), 1.0);
}

/// Says nothing, or the beginning of a head byte by byte.
fn never_begins(drip: &'static str) -> (Worker, Gate) {
    let let_go = Gate::new();
    let gone = let_go.clone();
    let worker = Worker::new(move |_, conn| {
        let mut left = drip.bytes().cycle();
        conn.send(if drip.is_empty() { "" } else { "HTTP/1.1 200 OK\r\nX: " });
        while !conn.wait_peer_closed(Duration::from_millis(50)) {
            left.next().into_iter().for_each(|byte| conn.send([byte]));
        }
        gone.open();
    });
    (worker, let_go)
}

// Case 54.
#[test]
fn a_worker_that_does_not_begin_its_answer_in_time_is_a_504_and_let_go() {
    for drip in ["", "y"] {
        let (worker, let_go) = never_begins(drip);
        let gateway = Gateway::builder().worker(&worker).arg("--first-byte-timeout-secs=0.4").start();
        let start = Instant::now();
        let answer = gateway.request("POST", "/", &[], b"x");
        answer.assert_error(504, "upstream_first_byte_timeout");
        assert!(SOON.contains(&start.elapsed()), "{drip:?}: {:?}", start.elapsed());
        let_go.wait_within(Duration::from_secs(2));
        assert_eq!(worker.requests().len(), 1, "a generation must not run twice");
        assert_eq!(gateway.metrics().sum("smg_worker_errors_total", &[]), 1.0);
        assert_eq!(gateway.load(), 0);
    }
}

#[test]
fn a_get_goes_to_another_worker_that_begins() {
    let ((worker, _), other) = (never_begins(""), Worker::echo());
    let flags = ["--disable-health-check", "--policy=passthrough", "--first-byte-timeout-secs=0.4"];
    let gateway = Gateway::builder().workers([&worker, &other]).args(flags).start();
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(other.requests().len(), 1);
}

#[test]
fn an_answer_that_has_begun_may_take_longer() {
    let worker = Worker::new(|_, conn| {
        conn.start_events();
        assert!(conn.is_silent_for(Duration::from_millis(900)));
        conn.chunk("data: 1\n\n");
        conn.chunk("");
    });
    let gateway = Gateway::builder().worker(&worker).arg("--first-byte-timeout-secs=0.4").start();
    assert_eq!(gateway.get("/").text(), "data: 1\n\n");
}

// A worker can't answer what has not come, and must not be held responsible for it.
#[test]
fn the_time_that_a_client_takes_to_upload_is_not_the_workers() {
    let worker = Worker::echo();
    let gateway = Gateway::builder().worker(&worker).arg("--first-byte-timeout-secs=0.4").start();
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    assert!(client.is_silent_for(Duration::from_millis(1000)), "the upload was not waited for");
    client.send("world");
    assert_eq!(client.read_response().json()["body_length"], 10);
    assert_eq!(gateway.metrics().sum("smg_worker_errors_total", &[]), 0.0);
}

#[test]
fn a_worker_that_falls_silent_in_its_answer_is_cut_off_visibly() {
    for head in ["Transfer-Encoding: chunked\r\n\r\n7\r\nsome of\r\n", "Content-Length: 100\r\n\r\nsome of"] {
        let let_go = Gate::new();
        let gone = let_go.clone();
        let worker = Worker::new(move |_, conn| {
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{head}"));
            if conn.wait_peer_closed(Duration::from_secs(8)) {
                gone.open();
            }
        });
        let gateway = Gateway::builder().worker(&worker).arg("--stream-body-stall-timeout-secs=0.4").start();
        let mut client = gateway.connect();
        let start = Instant::now();
        client.send_request("POST", "/", &[], b"x");
        let answer = client.read_response_however("POST");
        assert_eq!((answer.status, answer.text().as_str()), (200, "some of"));
        assert_ne!(answer.end, End::Clean, "{head:?}");
        assert!(SOON.contains(&start.elapsed()), "{:?}", start.elapsed());
        let_go.wait_within(Duration::from_secs(2));
        eventually(Duration::from_secs(2), || gateway.load() == 0);
        assert_eq!(gateway.metrics().sum("smg_worker_errors_total", &[]), 1.0);
        gateway.wait_for_log("end=\"stalled\"");
    }
}

// Nothing has been sent on, so the client is told what happened.
#[test]
fn a_worker_that_falls_silent_while_modules_wait_for_its_answer_is_a_504() {
    let worker = Worker::new(|_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n");
        for part in ["some", " of"] {
            assert!(conn.is_silent_for(Duration::from_millis(250)));
            conn.send(part);
        }
        conn.wait_peer_closed(Duration::from_secs(8));
    });
    let flags = ["--enable-wasm", "--stream-body-stall-timeout-secs=0.4"];
    let gateway = Gateway::builder().worker(&worker).args(flags).start();
    gateway.add(&Module::hostile().at(&["OnResponse"]));
    let start = Instant::now();
    gateway.get("/").assert_error(504, "upstream_stalled");
    assert!((Duration::from_millis(850)..Duration::from_secs(4)).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!((gateway.metrics().sum("smg_worker_errors_total", &[]), gateway.load()), (1.0, 0));
}

#[test]
fn a_worker_that_says_something_now_and_then_is_not_cut_off() {
    let worker = Worker::new(|_, conn| {
        conn.start_events();
        for _ in 0..6 {
            assert!(conn.is_silent_for(Duration::from_millis(200)));
            conn.chunk("data: 1\n\n");
        }
        conn.chunk("");
    });
    let gateway = Gateway::builder().worker(&worker).arg("--stream-body-stall-timeout-secs=0.8").start();
    assert_eq!(gateway.get("/").text(), "data: 1\n\n".repeat(6));
}

// What a client does not read is no silence of the worker's.
#[test]
fn a_client_that_takes_nothing_is_not_taken_for_a_silent_worker() {
    let worker = Worker::new(|_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n");
        while conn.try_send([b'x'; 100_000]).is_ok() {}
    });
    let gateway = Gateway::builder().worker(&worker).arg("--stream-body-stall-timeout-secs=0.4").start();
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[], b"");
    assert_eq!(client.read_head().status, 200);
    let line = gateway.wait_for_log("method=GET path=/ ");
    assert!(line.contains("end=\"client_left\""), "{line}");
    assert_eq!(gateway.metrics().sum("smg_worker_errors_total", &[]), 0.0);
}
