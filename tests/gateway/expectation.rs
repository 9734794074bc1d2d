//! `Expect: 100-continue` and answers that come before the request's body (cases 24 to 26).

use crate::support::{End, Gate, Gateway, Worker, eventually};
use std::io::Write;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const EXPECTING: &str = "POST /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

// Case 24.
#[test]
fn an_expectation_is_forwarded_and_the_body_asked_for_when_the_worker_asks() {
    let go = Gate::new();
    let may_continue = go.clone();
    let worker = Worker::on_head(move |_, conn| {
        may_continue.wait();
        conn.send("HTTP/1.1 100 Continue\r\n\r\n");
        let (body, _) = conn.read_body();
        conn.answer(200, body);
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send(EXPECTING);
    assert_eq!(worker.wait_for_request().headers.get("expect"), Some("100-continue"));
    assert!(client.is_silent_for(Duration::from_millis(250)), "the body is asked for before the worker did");
    go.open();
    assert_eq!(client.read_head().status, 100);
    client.send("hello");
    let answer = client.read_response();
    assert_eq!((answer.status, answer.text().as_str(), answer.interim.len()), (200, "hello", 0));
}

// Case 24: not every worker knows 100-continue, so the body is asked for after about a second.
#[test]
fn a_worker_that_stays_silent_gets_the_body_after_about_a_second() {
    let worker = Worker::on_head(|_, conn| {
        let (body, _) = conn.read_body();
        conn.answer(200, body);
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    let start = Instant::now();
    client.send(EXPECTING);
    assert_eq!(client.read_head().status, 100);
    let waited = start.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_secs(4)).contains(&waited), "{waited:?}");
    client.send("hello");
    assert_eq!(client.read_response().text(), "hello");
}

#[test]
fn a_client_that_does_not_wait_for_100_is_served() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send(format!("{EXPECTING}hello"));
    assert_eq!(client.read_response().status, 200);
    assert_eq!(worker.wait_for_request().body, b"hello");
    assert_eq!(client.get("/next").json()["path"], "/next");
}

// Case 24.
#[test]
fn a_final_answer_before_the_body_is_relayed_without_asking_for_the_body() {
    for status in [200, 401, 417] {
        let worker = Worker::on_head(move |_, conn| {
            conn.answer(status, "no");
            // It stays, waits for the body, and would take the next request for it.
            conn.wait_peer_closed(Duration::from_secs(8));
        });
        let gateway = Gateway::before(&worker);
        let mut client = gateway.connect();
        client.send(EXPECTING);
        let answer = client.read_response();
        assert_eq!((answer.status, answer.interim.as_slice()), (status, &[][..]));
        // Either the connection ends, or the body is read and dropped: it is never taken for a request.
        let _ = client.try_send("helloGET /next HTTP/1.1\r\nHost: a\r\n\r\n");
        if let Ok(Some(next)) = client.try_read_head("GET") {
            assert_eq!(next.status, status);
        }
        assert_eq!(gateway.get("/other").status, status);
        assert!(worker.requests().iter().all(|request| request.nth == 0), "the body's place was taken");
        assert!(worker.broken().is_empty(), "{:?}", worker.broken());
    }
}

#[test]
fn an_unknown_expectation_is_refused_or_left_to_the_worker() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let answer = gateway.request("GET", "/", &[("Expect", "tea")], b"");
    assert!(matches!(answer.status, 200 | 417), "{}", answer.status);
}

// Case 25.
#[test]
fn early_hints_do_not_replace_the_final_answer() {
    let worker = Worker::new(|_, conn| {
        conn.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
        conn.send("HTTP/1.1 102 Processing\r\n\r\n");
        conn.answer(200, "final");
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.text().as_str()), (200, "final"));
        assert!(answer.interim.iter().all(|s| matches!(s, 102 | 103)), "{:?}", answer.interim);
    }
}

// Case 25.
#[test]
fn a_worker_that_dies_after_early_hints_is_a_bad_gateway() {
    let worker = Worker::fixed_then_close("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
    let gateway = Gateway::before(&worker);
    assert_eq!(gateway.request("POST", "/", &[], b"x").status, 502);
}

/// Uploads without end on a thread; when that failed.
fn upload(mut to: std::net::TcpStream) -> mpsc::Receiver<usize> {
    let (stopped, stops) = mpsc::channel();
    std::thread::spawn(move || {
        let chunk = [b"10000\r\n", [b'x'; 65536].as_slice(), b"\r\n"].concat();
        let mut sent = 0;
        while to.write_all(&chunk).is_ok() {
            sent += 65536;
        }
        let _ = stopped.send(sent);
    });
    stops
}

// Case 26.
#[test]
fn an_early_refusal_reaches_a_client_that_is_still_uploading_and_stops_it() {
    let worker = Worker::on_head(|_, conn| {
        conn.send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 9\r\n\r\ntoo large");
        conn.close();
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send("POST /big HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let stops = upload(client.writer());
    let answer = client.read_response();
    assert_eq!((answer.status, answer.text().as_str()), (413, "too large"));
    let stopped = stops.recv_timeout(Duration::from_secs(8));
    assert!(stopped.is_ok(), "the upload goes on");
}

// Case 26: what still comes is taken and dropped for two seconds, so that the answer is not lost.
#[test]
fn an_early_refusal_stops_an_upload_of_a_gigabyte() {
    let worker = Worker::on_head(|_, conn| {
        conn.answer(413, "too large");
        conn.close();
    });
    let gateway = Gateway::builder().worker(&worker).arg("--max-payload-size=2000000000").start();
    let before = gateway.memory();
    let mut client = gateway.connect();
    client.send("POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    let stops = upload(client.writer());
    assert_eq!(client.read_response().text(), "too large");
    stops.recv_timeout(Duration::from_secs(4)).expect("the upload is stopped");
    let growth = gateway.memory().saturating_sub(before);
    assert!(growth < 16 << 20, "{growth} bytes more");
}

#[test]
fn an_upload_of_a_gigabyte_passes_in_little_memory() {
    let worker = Worker::on_head(|_, conn| {
        let taken = conn.drop_body();
        conn.answer(200, taken.to_string());
    });
    let gateway = Gateway::builder().worker(&worker).arg("--max-payload-size=2000000000").start();
    let before = gateway.memory();
    let mut client = gateway.connect();
    client.send("POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    let piece = vec![b'x'; 1_000_000];
    let mut most = before;
    for _ in 0..1000 {
        client.send(&piece);
        most = most.max(gateway.memory());
    }
    assert_eq!(client.read_response().text(), "1000000000");
    assert!(most < before + (16 << 20), "{before} -> {most}");
}

// Case 26: the answer must survive although the client reads only after it has written a lot more.
#[test]
fn an_early_refusal_is_not_lost_to_a_reset() {
    let worker = Worker::on_head(|_, conn| {
        conn.answer(403, "not you");
        conn.close();
    });
    let gateway = Gateway::before(&worker);
    for _ in 0..20 {
        let mut client = gateway.connect();
        client.send("POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
        for _ in 0..100 {
            let _ = client.try_send([b'x'; 10_000]);
        }
        let answer = client.read_response();
        assert_eq!((answer.status, answer.text().as_str()), (403, "not you"));
    }
}

// Case 26, seen from the worker: it answers early but goes on reading, as many servers do.
#[test]
fn a_worker_that_answers_early_and_keeps_reading_completes_both_ways() {
    let whole = Gate::new();
    let got_it = whole.clone();
    let worker = Worker::on_head(move |_, conn| {
        conn.answer(200, "early");
        let (body, ended) = conn.read_body();
        if ended.is_ok() && body.len() == 500_000 {
            got_it.open();
        }
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n");
    client.send([b'x'; 1000]);
    let answer = client.read_response_however("POST");
    assert_eq!((answer.status, answer.text().as_str(), answer.end), (200, "early", End::Clean));
    // From here on, both are right: the upload completes, or the connection ends.
    let mut left = 499_000;
    eventually(Duration::from_secs(8), || {
        let piece = left.min(10_000);
        let ended = piece > 0 && client.try_send(vec![b'x'; piece]).is_err();
        left -= if ended { 0 } else { piece };
        ended || whole.is_open() || client.ends_within(Duration::from_millis(1))
    });
}
