//! A response handler of a Sentinel module answers in the worker's place: nothing of the worker's answer is left, and
//! its connection is let go.

use crate::support::{Client, Gate, Gateway, Module, Sentinel, Worker, eventually};
use serde_json::json;
use std::time::Duration;

const BLOCK: &str = "X-Hostile: reply\r\nX-Reply: {\"decision\":\"block\",\"status\":451,\"body\":\"no\"}\r\n";
const REDIRECT: &str = "X-Hostile: reply\r\nX-Reply: {\"decision\":\"redirect\",\"body\":\"/else\"}\r\n";

fn with_guest(worker: &Worker) -> Gateway {
    let gateway = Gateway::with_modules(worker).arg("--shards=1").start();
    gateway.add(&Module::sentinel());
    gateway
}

/// What must be there instead of the worker's answer.
#[track_caller]
fn assert_replaced(client: &mut Client, lines: &str) {
    let answer = client.read_response();
    if lines == BLOCK {
        assert_eq!((answer.status, answer.text().as_str()), (451, "no"));
        assert_eq!(answer.headers.get("content-length"), Some("2"));
    } else {
        assert_eq!((answer.status, answer.text().as_str()), (302, ""));
        assert_eq!(answer.headers.get("location"), Some("/else"));
    }
    for name in ["set-cookie", "x-secret", "x-reply", "etag", "content-encoding", "transfer-encoding"] {
        assert!(!answer.headers.has(name), "{name} is the worker's");
    }
}

const SECRETS: &str = "Set-Cookie: a=1\r\nX-Secret: 1\r\nETag: \"1\"\r\nContent-Encoding: gzip\r\n";

#[test]
fn nothing_of_a_whole_answer_is_left() {
    for lines in [BLOCK, REDIRECT] {
        let worker =
            Worker::fixed(format!("HTTP/1.1 200 OK\r\n{lines}{SECRETS}Content-Length: 6\r\n\r\nsecret").into_bytes());
        let gateway = with_guest(&worker);
        let mut client = gateway.connect();
        for _ in 0..5 {
            client.send_request("GET", "/", &[], b"");
            assert_replaced(&mut client, lines);
        }
        eventually(Duration::from_secs(5), || gateway.load() == 0);
    }
}

#[test]
fn a_stream_is_ended_where_it_is_replaced() {
    for lines in [BLOCK, REDIRECT] {
        let gone = Gate::new();
        let seen = gone.clone();
        let worker = Worker::new(move |_, conn| {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n";
            conn.send(format!("{head}{lines}{SECRETS}\r\n"));
            conn.chunk("data: secret\n\n");
            // The stream has no end of its own.
            if conn.wait_peer_closed(Duration::from_secs(10)) {
                seen.open();
            }
        });
        let gateway = with_guest(&worker);
        let mut client = gateway.connect();
        client.send_request("GET", "/", &[], b"");
        assert_replaced(&mut client, lines);
        gone.wait();
        assert_eq!(gateway.load(), 0);
    }
}

#[test]
fn an_answer_that_is_still_coming_is_not_waited_for() {
    let gone = Gate::new();
    let seen = gone.clone();
    let worker = Worker::new(move |_, conn| {
        conn.send(format!("HTTP/1.1 200 OK\r\n{BLOCK}Content-Length: 1000000\r\n\r\n"));
        if conn.wait_peer_closed(Duration::from_secs(10)) {
            seen.open();
        }
    });
    let gateway = with_guest(&worker);
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[], b"");
    assert_replaced(&mut client, BLOCK);
    gone.wait();
    client.send_request("GET", "/readiness", &[], b"");
    assert_eq!(client.read_response().status, 200, "the client's connection goes on");
}

#[test]
fn the_next_module_sees_the_answer_of_the_one_before() {
    let worker = Worker::fixed("HTTP/1.1 200 OK\r\nX-Secret: 1\r\nContent-Length: 6\r\n\r\nsecret");
    let gateway = Gateway::with_modules(&worker).start();
    let files = crate::support::Files::new();
    let echo = json!({ "X-Hostile": "echo", "X-Why": "rule" });
    let block = json!({ "decision": "block", "body": "no", "add_response_headers": echo });
    gateway.add(&Module::sentinel());
    // Responses go through the chain in reverse.
    let blocks = Sentinel::replying(&json!({ "decision": "allow" }), &block);
    gateway.add(&Module::new("blocks", &files.sentinel("blocks", &blocks)));
    let answer = gateway.get("/");
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    let shown = answer.headers.get("x-seen-response").expect("the other ran");
    let shown: serde_json::Value = serde_json::from_str(shown).expect("JSON");
    assert_eq!((&shown["status"], &shown["headers"]["X-Why"]), (&json!(403), &json!("rule")));
    assert!(shown["headers"]["X-Secret"].is_null(), "{shown}");
}

#[test]
fn the_answer_to_a_head_request_is_replaced_too() {
    let worker = Worker::fixed(format!("HTTP/1.1 200 OK\r\n{BLOCK}Content-Length: 6\r\n\r\n").into_bytes());
    let gateway = with_guest(&worker);
    let mut client = gateway.connect();
    client.send_request("HEAD", "/", &[], b"");
    let answer = client.read_response_to("HEAD");
    assert_eq!((answer.status, answer.text().as_str()), (451, ""));
    assert_ne!(answer.headers.get("content-length"), Some("6"), "the length is not of the answer that was replaced");
    assert_eq!(client.get("/readiness").status, 200);
}

#[test]
fn an_answer_without_a_body_can_be_given_one() {
    for status in ["204 No", "304 Not"] {
        let worker = Worker::fixed(format!("HTTP/1.1 {status}\r\n{BLOCK}\r\n").into_bytes());
        let gateway = with_guest(&worker);
        let mut client = gateway.connect();
        client.send_request("GET", "/", &[], b"");
        assert_replaced(&mut client, BLOCK);
    }
}

#[test]
fn streams_may_pass_by() {
    let worker = Worker::new(|_, conn| {
        conn.send(format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{BLOCK}Content-Length: 2\r\n\r\nok"));
    });
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::sentinel().set("streaming", json!("skip")));
    assert_eq!(gateway.get("/").text(), "ok");
}
