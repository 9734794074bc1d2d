//! Case 55 where it is hardest to see: a client leaves while nobody reads what it has sent, for its worker takes no more.

use crate::support::{Client, Gate, Gateway, Worker, eventually, unread};
use std::time::{Duration, Instant};

/// From the client's end of connection to the worker's, on a busy machine.
const SOON: Duration = Duration::from_millis(1500);

/// Whether bytes of the client stay unread at the gateway.
fn is_stuck(client: &Client) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(200) {
        if unread(client.peer(), client.address()) == 0 {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

#[track_caller]
fn leaving_cancels(head: &str, chunk: &[u8], leave: fn(Client)) {
    let (look, left) = (Gate::new(), Gate::new());
    let (looks, says_left) = (look.clone(), left.clone());
    let worker = Worker::on_head_with_little_room(move |_, conn| {
        looks.wait_within(Duration::from_secs(20));
        // What has come is still here; behind it is the end, and not the rest of the body.
        if conn.wait_peer_closed(Duration::from_secs(1)) {
            says_left.open();
        }
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n"));
    worker.wait_for_request();
    while !is_stuck(&client) {
        client.send(chunk);
    }
    assert_eq!(gateway.load(), 1);
    leave(client);
    eventually(SOON, || gateway.load() == 0);
    look.open();
    left.wait_within(SOON);
}

fn chunk() -> Vec<u8> {
    [b"10000\r\n", [b'x'; 65536].as_slice(), b"\r\n"].concat()
}

#[test]
fn leaving_a_stuck_upload_with_an_end_of_stream_cancels() {
    leaving_cancels("Content-Length: 500000000", &[b'x'; 65536], drop);
}

#[test]
fn leaving_a_stuck_upload_with_a_reset_cancels() {
    leaving_cancels("Transfer-Encoding: chunked", &chunk(), Client::reset);
}

// The same from behind a request: what was sent ahead is not read until there is an answer.
#[test]
fn leaving_with_much_sent_ahead_cancels() {
    for leave in [drop, Client::reset] {
        leaving_cancels("Content-Length: 0", &[b'x'; 65536], leave);
    }
}

#[test]
fn an_upload_that_is_stuck_for_a_while_goes_on() {
    let look = Gate::new();
    let looks = look.clone();
    let worker = Worker::on_head_with_little_room(move |_, conn| {
        looks.wait_within(Duration::from_secs(20));
        let (body, ended) = conn.read_body();
        assert!(ended.is_ok(), "{ended:?}");
        conn.answer(200, body.len().to_string());
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut sent = 0;
    while !is_stuck(&client) {
        client.send(chunk());
        sent += 65536;
    }
    crate::support::holds_for(SOON, || gateway.load() == 1);
    look.open();
    client.send("0\r\n\r\n");
    assert_eq!(client.read_response().text(), sent.to_string());
}
