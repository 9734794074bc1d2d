//! `--max-payload-size`, however the body is framed.

use crate::support::{End, Gate, Gateway, Worker};
use std::time::Duration;

fn limited_to(limit: usize, worker: &Worker) -> Gateway {
    Gateway::builder().worker(worker).arg(format!("--max-payload-size={limit}")).start()
}

#[test]
fn a_declared_body_above_the_limit_is_413_and_the_worker_hears_nothing() {
    let worker = Worker::echo();
    let gateway = limited_to(10, &worker);
    let answer = gateway.request("POST", "/big", &[], b"12345678901");
    answer.assert_error(413, "request_body_too_large");
    assert_eq!(gateway.get("/after").status, 200);
    assert!(worker.requests().iter().all(|r| r.target == "/after"));
    assert!(worker.broken().is_empty(), "{:?}", worker.broken());
}

#[test]
fn a_declared_body_above_the_limit_is_refused_before_it_comes() {
    let worker = Worker::echo();
    let gateway = limited_to(10, &worker);
    for expectation in ["", "Expect: 100-continue\r\n"] {
        let mut client = gateway.connect();
        client.send(format!("POST /big HTTP/1.1\r\nHost: a\r\n{expectation}Content-Length: 10000000000\r\n\r\n"));
        let answer = client.read_response();
        answer.assert_error(413, "request_body_too_large");
        assert!(answer.interim.is_empty(), "the body was asked for");
    }
}

#[test]
fn a_chunked_body_above_the_limit_is_413() {
    let worker = Worker::echo();
    let gateway = limited_to(10, &worker);
    let mut client = gateway.connect();
    client.send(
        "POST /big HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n123456\r\n6\r\n123456\r\n0\r\n\r\n",
    );
    client.read_response().assert_error(413, "request_body_too_large");
    assert_eq!(gateway.get("/after").status, 200);
    assert!(worker.requests().iter().all(|r| r.target == "/after"), "the worker got a whole request");
}

// The limit must count what was read, not wait for the end.
#[test]
fn an_endless_chunked_body_is_413_at_the_limit() {
    let worker = Worker::echo();
    let gateway = limited_to(10_000, &worker);
    let mut client = gateway.connect();
    client.send("POST /big HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..20 {
        let _ = client.try_send([b"400\r\n", [b'x'; 1024].as_slice(), b"\r\n"].concat());
    }
    client.read_response().assert_error(413, "request_body_too_large");
}

#[test]
fn a_body_of_exactly_the_limit_passes() {
    let worker = Worker::echo();
    let gateway = limited_to(10, &worker);
    assert_eq!(gateway.request("POST", "/fits", &[], b"1234567890").json()["body_length"], 10);
    let mut client = gateway.connect();
    client.send(
        "POST /fits HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n5\r\n12345\r\n0\r\n\r\n",
    );
    assert_eq!(client.read_response().json()["body_length"], 10);
}

#[test]
fn the_limit_is_for_requests_and_not_for_answers() {
    let worker = Worker::fixed(format!("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}", "x".repeat(1000)));
    let gateway = limited_to(10, &worker);
    assert_eq!(gateway.get("/").body.len(), 1000);
}

// Once the worker's answer is on its way, the limit can only break the upload.
#[test]
fn a_limit_reached_after_the_answer_began_does_not_start_another_answer() {
    let answered = Gate::new();
    let wait = answered.clone();
    let worker = Worker::on_head(move |_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        wait.wait();
        conn.wait_peer_closed(Duration::from_secs(5));
    });
    let gateway = limited_to(10, &worker);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    client.read_until("hello");
    client.send(format!("ff\r\n{}\r\n", "x".repeat(255)));
    answered.open();
    let rest = client.read_until_close();
    assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1"), "a second answer within the first");
}

// An answer that was whole before is not spoilt.
#[test]
fn the_413_does_not_break_the_next_request_of_another_client() {
    let worker = Worker::echo();
    let gateway = limited_to(10, &worker);
    for _ in 0..5 {
        let mut client = gateway.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n12345678901\r\n");
        assert_eq!(client.read_response_however("POST").status, 413);
        let next = gateway.get("/next");
        assert_eq!((next.status, next.end), (200, End::Clean));
    }
}
