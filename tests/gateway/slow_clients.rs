//! Clients that stop in the middle of a message: each is waited for no longer than a worker would be. What the gateway
//! holds for a request, a place among others and a worker's, is not for those who do nothing with it.

use crate::support::{Frame, Gate, Gateway, H2, Last, StreamEnd, Worker, eventually};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

/// What half a second may take on a busy machine; much less than any other limit.
const SOON: Duration = Duration::from_secs(5);

fn impatient(worker: &Worker) -> Gateway {
    Gateway::builder().worker(worker).arg("--stream-body-stall-timeout-secs=0.5").start()
}

#[test]
fn an_upload_that_stops_is_a_408_and_frees_the_worker() {
    let worker = Worker::echo();
    let gateway = impatient(&worker);
    for framing in ["Content-Length: 5\r\n\r\nab", "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"] {
        let mut client = gateway.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}"));
        eventually(SOON, || gateway.load() == 1);
        client.read_response().assert_error(408, "request_timeout");
        client.assert_closed();
        eventually(SOON, || gateway.load() == 0);
    }
    assert_eq!(gateway.metrics().sum("smg_worker_errors_total", &[]), 0.0, "it is not the worker's fault");
}

#[test]
fn an_upload_that_stops_on_a_stream_is_a_408_and_holds_up_no_other() {
    let worker = Worker::echo();
    let gateway = impatient(&worker);
    let mut client = H2::connect(&gateway);
    let stopped = client.start("POST", "/", &[("content-length", "5")], Last::No);
    client.data(stopped, b"ab", Last::No);
    eventually(SOON, || gateway.load() == 1);
    assert_eq!(client.get("/").status, 200);
    assert_eq!(client.wait(stopped).status, 408);
    assert_eq!(client.get("/").status, 200);
    eventually(SOON, || gateway.load() == 0);
}

#[test]
fn an_upload_that_goes_on_may_be_slow() {
    let worker = Worker::echo();
    let gateway = impatient(&worker);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n");
    for _ in 0..8 {
        assert!(client.is_silent_for(Duration::from_millis(150)));
        client.send("x");
    }
    assert_eq!(client.read_response().json()["body_length"], 8);
}

// A call of gRPC in both directions: the client says its next word when it has heard the worker's last.
#[test]
fn a_client_that_has_an_answer_may_be_silent() {
    let worker = Worker::on_head(|_, conn| {
        conn.start_events();
        for _ in 0..6 {
            std::thread::sleep(Duration::from_millis(200));
            conn.chunk("word");
        }
        conn.chunk("last word");
        let (body, _) = conn.read_body();
        conn.chunk(format!("{} bytes", body.len()));
        conn.chunk("");
    });
    let gateway = impatient(&worker);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    client.read_until("last word\r\n");
    client.send("2\r\nde\r\n0\r\n\r\n");
    client.read_until("5 bytes");
}

#[test]
fn an_answer_that_nobody_takes_is_cut_off() {
    let (let_go, worker) = endless();
    let gateway = impatient(&worker);
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[], b"");
    let_go.wait_within(SOON);
    eventually(SOON, || gateway.load() == 0);
}

#[test]
fn an_answer_that_is_taken_slowly_is_not_cut_off() {
    let worker = Worker::new(|_, conn| conn.answer(200, vec![b'x'; 64 * MIB]));
    let gateway = Gateway::builder().worker(&worker).arg("--stream-body-stall-timeout-secs=1").start();
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[], b"");
    assert_eq!(client.read_head().status, 200);
    let start = Instant::now();
    let mut taken = 0;
    while taken < 64 * MIB {
        let is_slow = start.elapsed() < Duration::from_secs(3);
        assert!(!is_slow || taken < 48 * MIB, "the answer is too short to be taken slowly");
        taken += client.read_some().len();
        std::thread::sleep(if is_slow { Duration::from_millis(5) } else { Duration::ZERO });
    }
}

#[test]
fn a_stream_that_nobody_takes_is_cut_off_and_holds_up_no_other() {
    let (let_go, worker) = endless();
    let gateway = impatient(&worker);
    let mut client = H2::connect_with(gateway.address, &[(Frame::INITIAL_WINDOW_SIZE, 10)]);
    let stream = client.start("GET", "/", &[], Last::Yes);
    client.hold(stream);
    client.wait_until(stream, |answer| answer.status == 200);
    let answer = client.wait(stream);
    assert!(matches!(answer.end, StreamEnd::Reset(_)), "{:?}", answer.end);
    let_go.wait_within(SOON);
    assert_eq!(client.get("/health").status, 200);
    eventually(SOON, || gateway.load() == 0);
}

#[test]
fn a_stream_whose_worker_pauses_is_not_cut_off() {
    let worker = Worker::new(|_, conn| {
        conn.start_events();
        for _ in 0..6 {
            conn.wait_peer_closed(Duration::from_millis(300));
            conn.chunk("data: 1\n\n");
        }
        conn.chunk("");
    });
    let gateway = impatient(&worker);
    let answer = H2::connect(&gateway).get("/");
    assert_eq!((answer.text().as_str(), answer.end), ("data: 1\n\n".repeat(6).as_str(), StreamEnd::Clean));
}

// A container that is throttled, or a machine that slept.
#[test]
fn a_request_that_came_in_time_is_answered_by_a_gateway_that_woke_late() {
    let worker = Worker::echo();
    let gateway = Gateway::builder().worker(&worker).arg("--idle-connection-timeout-secs=0.5").start();
    let mut client = gateway.connect();
    assert_eq!(client.get("/").status, 200);
    gateway.signal(Signal::STOP);
    client.send_request("GET", "/late", &[], b"");
    std::thread::sleep(Duration::from_millis(700));
    gateway.signal(Signal::CONT);
    assert_eq!(client.read_response().status, 200);
}

/// A worker whose answer has no end, and when it was told to stop.
fn endless() -> (Gate, Worker) {
    let let_go = Gate::new();
    let gone = let_go.clone();
    let worker = Worker::new(move |_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while conn.try_send([b"10000\r\n", [b'x'; 65536].as_slice(), b"\r\n"].concat()).is_ok() {}
        gone.open();
    });
    (let_go, worker)
}
