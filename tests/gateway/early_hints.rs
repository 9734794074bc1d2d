//! Interim answers (case 25): to the client as they come, and never the last word.

use crate::support::{Conn, Gate, Gateway, Worker};

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";

#[test]
fn hints_are_with_the_client_before_the_worker_has_its_answer() {
    let go = Gate::new();
    let wait = go.clone();
    let worker = Worker::new(move |_, conn| {
        conn.send(HINTS);
        conn.send("HTTP/1.1 103 H\r\nLink: </b.css>\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 1\r\n\r\n");
        wait.wait();
        conn.answer(200, "final");
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    for _ in 0..2 {
        client.send_request("POST", "/", &[], b"x");
        let (first, second) = (client.read_head(), client.read_head());
        assert_eq!((first.status, first.headers.get("link")), (103, Some("</a.css>; rel=preload")));
        assert_eq!((second.status, second.headers.get("link")), (103, Some("</b.css>")));
        for field in ["x-hop", "keep-alive", "connection", "content-length", "transfer-encoding"] {
            assert!(!first.headers.has(field) && !second.headers.has(field), "{field}");
        }
        go.open();
        let last = client.read_response();
        assert_eq!((last.status, last.text().as_str(), last.interim.len()), (200, "final", 0));
    }
}

#[test]
fn a_client_of_http_1_0_gets_the_last_answer_only() {
    let worker = Worker::new(|_, conn| {
        conn.send(HINTS);
        conn.answer(200, "final");
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    let answer = client.read_response();
    assert_eq!((answer.text().as_str(), answer.interim.as_slice()), ("final", &[][..]));
}

#[test]
fn a_worker_that_dies_after_hints_is_a_502_behind_them() {
    for end in [Conn::close, Conn::reset] {
        let worker = Worker::new(move |_, conn| {
            conn.send(HINTS);
            end(conn);
        });
        for (method, flag) in [("POST", "--shards=1"), ("GET", "--disable-retries")] {
            let gateway = Gateway::builder().worker(&worker).arg(flag).start();
            let mut client = gateway.connect();
            client.send_request(method, "/", &[], b"x");
            let answer = client.read_response();
            answer.assert_error(502, "upstream_bad_response");
            assert!(matches!(answer.interim[..], [] | [103]), "{:?}", answer.interim);
            assert_eq!(gateway.metrics().sum("smg_worker_errors_total", &[]), 1.0);
        }
    }
}

#[test]
fn what_was_answered_with_hints_is_not_asked_again() {
    let worker = Worker::new(|_, conn| {
        conn.send(HINTS);
        conn.close();
    });
    let gateway = Gateway::before(&worker);
    for asked in 1..=3 {
        let answer = gateway.get("/");
        answer.assert_error(502, "upstream_bad_response");
        assert_eq!((answer.interim.as_slice(), worker.requests().len()), (&[103][..], asked));
    }
}
