//! Leaving HTTP (cases 35 and 64): bytes are tunnelled only after the worker's 101 to what the client asked for; before
//! it they are HTTP, and the gateway reads them as such.

use crate::support::{
    CUSTOM, Client, Gate, Gateway, SWITCHED, Worker, ask_for_upgrade, assert_is_switching, eventually, switching,
    upgrade_request,
};
use std::time::Duration;

/// From one end of a tunnel to the other, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn any_protocol_passes_both_ways() {
    let worker = Worker::shouting();
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send(ask_for_upgrade(CUSTOM));
    let answer = client.read_head();
    assert_eq!((answer.status, answer.headers.get("upgrade")), (101, Some("custom/1")), "{answer:?}");
    assert_eq!(answer.headers.get("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
    for line in ["hello\n", "GET / HTTP/1.1\n", "\0\x01\x02\n", "0\r\n"] {
        client.send(line);
        assert_eq!(client.read_until("\n"), line.to_ascii_uppercase().as_bytes());
    }
    let request = worker.wait_for_request();
    assert_eq!(request.headers.get("upgrade"), Some("custom/1"), "{}", request.head);
    assert_eq!(request.headers.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.headers.get("host"), Some(worker.address.to_string().as_str()));
    assert_eq!(gateway.load(), 1, "a tunnel is a request in flight");
    drop(client);
    eventually(AT_ONCE, || gateway.load() == 0);
    worker.wait_for_closed(1);
}

// Case 35: a worker that has not yet answered has not yet agreed.
#[test]
fn nothing_is_tunnelled_before_the_101() {
    let sent = Gate::new();
    let was_sent = sent.clone();
    let worker = Worker::on_head(move |_, conn| {
        was_sent.wait();
        conn.leave_http();
        assert!(conn.is_silent_for(Duration::from_millis(300)), "bytes came before the 101");
        conn.send(SWITCHED);
        assert!(matches!(conn.read_until("early"), Ok(Some(_))));
        conn.send("late");
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send([ask_for_upgrade(CUSTOM).as_bytes(), b"early"].concat());
    sent.open();
    assert_eq!(client.read_head().status, 101);
    assert_eq!(client.read_until("late"), b"late");
}

// A body comes before the switch, and must be what it says on both sides.
#[test]
fn an_upgrade_with_a_body_keeps_the_body_apart() {
    let worker = Worker::new(|request, conn| conn.answer(200, &request.body));
    let gateway = Gateway::before(&worker);
    for framing in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"] {
        let mut client = gateway.connect();
        client.send(format!("POST /up HTTP/1.1\r\nHost: a\r\n{CUSTOM}{framing}"));
        let answer = client.read_response();
        assert!(answer.status == 400 || answer.text() == "hello", "{framing}: {answer:?}");
    }
    assert!(worker.requests().iter().all(|r| r.body == b"hello"));
    assert!(worker.broken().is_empty(), "{:?}", worker.broken());
}

#[test]
fn fields_about_the_switch_pass_and_others_of_the_connection_do_not() {
    let worker = Worker::new(|_, conn| {
        conn.leave_http();
        conn.send(switching("Sec-WebSocket-Protocol: chat\r\nKeep-Alive: timeout=5\r\nX-Mine: 1\r\n"));
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    let more = "Sec-WebSocket-Protocol: chat, other\r\nKeep-Alive: timeout=5\r\nX-Mine: 2\r\n";
    client.send(upgrade_request(gateway.address, "/chat", more));
    let answer = client.read_head();
    assert_is_switching(&answer);
    assert_eq!(answer.headers.get("sec-websocket-protocol"), Some("chat"));
    assert_eq!((answer.headers.get("x-mine"), answer.headers.has("keep-alive")), (Some("1"), false));
    let request = worker.wait_for_request();
    assert_eq!(request.headers.get("sec-websocket-protocol"), Some("chat, other"));
    assert_eq!((request.headers.get("x-mine"), request.headers.has("keep-alive")), (Some("2"), false));
}

// Case 64: a tunnel has no end of its own.
#[test]
fn the_grace_period_bounds_tunnels() {
    let worker = Worker::shouting();
    let mut gateway = Gateway::builder().worker(&worker).arg("--shutdown-grace-period-secs=0.5").start();
    let mut client: Client = gateway.connect();
    client.send(ask_for_upgrade(CUSTOM));
    assert_eq!(client.read_head().status, 101);
    gateway.terminate();
    client.send("still\n");
    assert_eq!(client.read_until("\n"), b"STILL\n", "a tunnel works during the drain");
    gateway.wait_exit(Duration::from_secs(4));
    assert!(client.ends_within(AT_ONCE));
}
