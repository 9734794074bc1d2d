//! Two messages that cross on one connection: nothing of one gets into another, and each side's faults are its own.

use crate::support::{Gateway, Worker, eventually};
use std::time::{Duration, Instant};

const EXPECTING: &str = "POST /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
const MIB: usize = 1 << 20;

#[test]
fn an_answer_that_has_begun_is_not_broken_by_an_interim_one() {
    let worker = Worker::on_head(|_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n0123456789");
        std::thread::sleep(Duration::from_millis(1500));
        conn.send("0123456789");
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send(EXPECTING);
    let answer = client.read_response();
    assert_eq!((answer.status, answer.text().as_str()), (200, "01234567890123456789"));
    assert_eq!(answer.headers.get("connection"), Some("close"), "the body may or may not follow");
    client.assert_closed();
}

#[test]
fn an_interim_answer_that_waits_for_room_comes_before_the_final_one() {
    let worker = Worker::new(|request, conn| match request.target.strip_prefix("/big") {
        Some(size) => conn.answer(200, vec![b'x'; size.parse().unwrap()]),
        None => {
            conn.send("HTTP/1.1 100 Continue\r\n\r\n");
            conn.answer(200, &request.body);
        }
    });
    let gateway = Gateway::before(&worker);
    // Some of these answers fill the socket to within the length of an interim answer.
    for size in (0..24).map(|step| MIB * 2 + step * 64 * 1024 + 7) {
        let mut client = gateway.connect();
        client.send(format!("GET /big{size} HTTP/1.1\r\nHost: a\r\n\r\n{EXPECTING}"));
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(client.read_response().body.len(), size);
        assert_eq!(client.read_head().status, 100);
        client.send("hello");
        assert_eq!(client.read_response().text(), "hello");
    }
}

#[test]
fn what_a_worker_says_unasked_answers_nobody_however_busy_the_client_is() {
    let worker = Worker::new(|request, conn| {
        conn.answer(200, &request.body);
        if request.target == "/stale" {
            std::thread::sleep(Duration::from_millis(50));
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSTALE!");
        }
    });
    let gateway = Gateway::before(&worker);
    // tokio makes a task pause after a number of reads that is near these.
    for before in [0, 63, 126, 127, 128, 254, 255] {
        assert_eq!(gateway.get("/stale").status, 200);
        std::thread::sleep(Duration::from_millis(150));
        let mut client = gateway.connect();
        client.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n".repeat(before));
        client.send("POST /mine HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nmine");
        (0..before).for_each(|_| assert_eq!(client.read_response().text(), "OK"));
        assert_eq!(client.read_response().text(), "mine", "after {before}");
    }
}

#[test]
fn a_client_that_takes_nothing_is_cut_off_although_it_goes_on_sending() {
    let worker = Worker::new(|_, conn| conn.answer(200, vec![b'x'; 64 * MIB]));
    let gateway = Gateway::builder()
        .worker(&worker)
        .arg("--stream-body-stall-timeout-secs=0.5")
        .arg("--request-timeout-secs=2")
        .start();
    for size in [3 * MIB, 64 * MIB] {
        let mut client = gateway.connect();
        client.send(format!("GET /{size} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let start = Instant::now();
        while client.try_send("x").is_ok() {
            assert!(start.elapsed() < Duration::from_secs(10), "it may stay for ever");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn a_client_s_broken_upload_is_not_held_against_the_worker() {
    let worker = Worker::on_head(|_, conn| {
        conn.start_events();
        conn.chunk("early");
        std::thread::sleep(Duration::from_millis(400));
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    client.read_until("early");
    client.send("zz\r\n");
    assert!(client.ends_within(Duration::from_secs(2)));
    gateway.wait_for_log("client_body");
    assert_eq!(gateway.metrics().sum("smg_worker_errors_total", &[]), 0.0);
}

#[test]
fn a_client_that_does_not_send_its_body_is_told_so() {
    let worker = Worker::echo();
    let gateway = Gateway::builder().worker(&worker).arg("--request-timeout-secs=0.3").start();
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab");
    client.read_response().assert_error(408, "request_timeout");
    client.assert_closed();
}

#[test]
fn a_client_that_leaves_before_its_answer_is_counted_as_such() {
    let worker = Worker::new(|_, conn| assert!(conn.wait_peer_closed(Duration::from_secs(5))));
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    worker.wait_for_request();
    drop(client);
    let left = [("status_code", "499")];
    eventually(Duration::from_secs(2), || gateway.metrics().sum("smg_http_responses_total", &left) == 1.0);
}

#[test]
fn a_connection_that_ends_after_an_answer_says_so_in_it() {
    let worker = Worker::on_head(|_, conn| conn.answer(401, "no"));
    let gateway = Gateway::before(&worker);
    for (target, framing) in [
        ("/early", "Content-Length: 5"),
        ("/health", "Content-Length: 500000"),
        ("/health", "Transfer-Encoding: chunked"),
    ] {
        let mut client = gateway.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        assert_eq!(client.read_response().headers.get("connection"), Some("close"), "{target} {framing}");
    }
    let mut client = gateway.connect();
    client.send("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().status, 501);
    client.assert_closed();
}

#[test]
fn a_small_body_that_nobody_wants_may_come_after_the_answer() {
    let worker = Worker::echo();
    let gateway = Gateway::builder().worker(&worker).arg("--header-read-timeout-secs=0.5").start();
    let mut client = gateway.connect();
    client.send("GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.read_response().text(), "OK");
    client.send("GET /");
    let next = client.get("/next");
    assert_eq!(next.json()["path"], "/next", "the five bytes were the body");
    client.send("GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.read_response().text(), "OK");
    assert!(client.ends_within(Duration::from_secs(2)), "it is not waited for long");
}

#[test]
fn a_request_with_an_unclear_body_keeps_its_method_and_its_id() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for framing in ["Content-Length: 5\r\nTransfer-Encoding: chunked", "Content-Length: +5", "Transfer-Encoding: gzip"]
    {
        let mut client = gateway.connect();
        client.send(format!("HEAD /x HTTP/1.1\r\nHost: a\r\nX-Request-Id: r-1\r\n{framing}\r\n\r\n"));
        let answer = client.read_response_to("HEAD");
        assert_eq!((answer.status, answer.headers.get("x-request-id")), (400, Some("r-1")), "{framing}");
        client.assert_closed();
    }
    assert!(worker.requests().is_empty());
}

#[test]
fn interim_answers_are_counted_over_the_whole_exchange() {
    let worker = Worker::new(|request, conn| {
        for _ in 0..request.target[1..].parse().unwrap() {
            conn.send("HTTP/1.1 102 Processing\r\n\r\n");
            std::thread::sleep(Duration::from_millis(2));
        }
        conn.answer(200, "done");
    });
    let gateway = Gateway::before(&worker);
    assert_eq!(gateway.get("/32").text(), "done");
    gateway.get("/33").assert_error(502, "upstream_bad_response");
}

#[test]
fn only_trailers_that_were_announced_pass() {
    let worker = Worker::new(|_, conn| {
        conn.send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Keep-Alive\r\n\r\n2\r\nhi\r\n0\r\n",
        );
        conn.send("X-Sum: 1\r\nX-Other: 2\r\nKeep-Alive: 3\r\nX-Request-Id: evil\r\n\r\n");
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Up, X-Forwarded-For, Via\r\n\r\n",
    );
    client.send("1\r\na\r\n0\r\nX-Up: 1\r\nX-Forwarded-For: 6.6.6.6\r\nVia: 1.1 x\r\nProxy: evil\r\n\r\n");
    let raw = client.read_until("\r\n0\r\n");
    assert!(!String::from_utf8_lossy(&raw).contains("evil"));
    assert_eq!(String::from_utf8_lossy(&client.read_until("\r\n\r\n")), "x-sum: 1\r\n\r\n");
    let trailers = worker.wait_for_request().trailers;
    assert_eq!(trailers.iter().collect::<Vec<_>>(), [("x-up", "1")]);
}

#[test]
fn the_empty_path_of_a_whole_url_is_a_slash() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for (target, wanted) in [("http://a?x=1", "/?x=1"), ("http://a", "/"), ("http://a/?x", "/?x")] {
        let mut client = gateway.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.read_response().status, 200);
        assert_eq!(worker.requests().last().unwrap().target, wanted);
    }
}

#[test]
fn an_expectation_of_http_1_0_says_nothing() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.read_response().status, 200);
    assert!(!worker.wait_for_request().headers.has("expect"));
}
