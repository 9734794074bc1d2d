//! Case 55: a client that leaves cancels its worker's request at once, and its place is free again.

use crate::support::{Client, Conn, Gate, Gateway, Worker, eventually};
use std::sync::Arc;
use std::time::Duration;

/// From the client's end of connection to the worker's, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(1);

#[track_caller]
fn leaving_cancels(begin: impl Fn(&mut Conn) + Send + Sync + 'static, start: impl Fn(&mut Client)) {
    leaving_cancels_within(AT_ONCE, begin, start);
}

#[track_caller]
fn leaving_cancels_within(
    limit: Duration,
    begin: impl Fn(&mut Conn) + Send + Sync + 'static,
    start: impl Fn(&mut Client),
) {
    let begin = Arc::new(begin);
    for leave in [drop, Client::reset, half_close as fn(Client)] {
        let begin = begin.clone();
        let (worker, begun, ended) = Worker::until_left(move |conn| begin(conn));
        let gateway = Gateway::before(&worker);
        let mut client = gateway.connect();
        start(&mut client);
        begun.wait();
        assert_eq!(gateway.load(), 1);
        assert!(!ended.is_open());
        leave(client);
        ended.wait_within(limit);
        eventually(AT_ONCE, || gateway.load() == 0);
    }
}

/// A client that says no more is taken for one that has left: it gets no answer.
fn half_close(mut client: Client) {
    client.half_close();
    let rest = client.read_until_close();
    assert!(!rest.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&rest));
}

#[test]
fn leaving_before_the_head_cancels() {
    leaving_cancels(|_| {}, |client| client.send_request("GET", "/slow", &[], b""));
}

#[test]
fn leaving_before_the_head_of_a_post_cancels() {
    leaving_cancels(|conn| drop(conn.read_body()), |client| client.send_request("POST", "/slow", &[], b"hello"));
}

#[test]
fn leaving_between_events_cancels() {
    let begin = |conn: &mut Conn| {
        conn.start_events();
        conn.chunk("data: 1\n\n");
    };
    leaving_cancels(begin, |client| {
        client.send_request("GET", "/stream", &[], b"");
        client.read_until("data: 1\n\n");
    });
}

#[test]
fn leaving_within_an_answer_with_a_length_cancels() {
    let begin = |conn: &mut Conn| conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello");
    leaving_cancels(begin, |client| {
        client.send_request("GET", "/half", &[], b"");
        client.read_until("hello");
    });
}

#[test]
fn leaving_within_an_upload_cancels() {
    leaving_cancels(
        |_| {},
        |client| {
            client.send("POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        },
    );
}

#[test]
fn leaving_within_an_upload_with_a_length_cancels() {
    leaving_cancels(
        |_| {},
        |client| {
            client.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
        },
    );
}

// While nothing may be read, a client's leaving is not seen; that is for a second at most.
#[test]
fn leaving_while_the_gateway_waits_for_100_cancels() {
    leaving_cancels_within(
        Duration::from_secs(1) + AT_ONCE,
        |_| {},
        |client| {
            client.send("POST /up HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n");
        },
    );
}

// An upload that breaks off must not look whole to the worker.
#[test]
fn an_upload_that_breaks_off_never_ends_cleanly_at_the_worker() {
    for framing in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let worker = Worker::echo();
        let gateway = Gateway::before(&worker);
        let mut client = gateway.connect();
        client.send(format!("POST /up HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n5\r\nhello\r\n"));
        eventually(Duration::from_secs(5), || gateway.load() == 1);
        drop(client);
        // A worker that reads the whole request first has nothing to answer.
        eventually(Duration::from_secs(5), || !worker.broken().is_empty());
        assert!(worker.requests().is_empty(), "{framing}: {:?}", worker.requests());
    }
}

#[test]
fn a_client_that_stays_is_not_cancelled_by_one_that_leaves() {
    let gate = Gate::new();
    let wait = gate.clone();
    let worker = Worker::new(move |request, conn| {
        if request.target == "/stays" {
            wait.wait();
            conn.answer(200, "stayed");
        } else {
            conn.wait_peer_closed(Duration::from_secs(8));
        }
    });
    let gateway = Gateway::before(&worker);
    let mut stays = gateway.connect();
    stays.send_request("GET", "/stays", &[], b"");
    let mut leaves = gateway.connect();
    leaves.send_request("GET", "/leaves", &[], b"");
    eventually(Duration::from_secs(5), || gateway.load() == 2);
    drop(leaves);
    eventually(AT_ONCE, || gateway.load() == 1);
    gate.open();
    assert_eq!(stays.read_response().text(), "stayed");
    eventually(AT_ONCE, || gateway.load() == 0);
}

#[test]
fn the_load_counts_until_the_last_byte_of_the_answer() {
    let gate = Gate::new();
    let worker = Worker::streaming(&gate);
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.begin_stream(&[]);
    assert_eq!(gateway.load(), 1);
    gate.open();
    client.end_stream();
    eventually(AT_ONCE, || gateway.load() == 0);
}
