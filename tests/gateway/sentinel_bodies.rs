//! A Sentinel module is never shown a body, so none is ever held back for it, nor limited.

use crate::support::{Gate, Gateway, Module, Sentinel, Worker, obliging};
use serde_json::json;

const EDITS: (&str, &str) = (
    "X-Reply",
    r#"{"decision":"allow","add_request_headers":{"X-Edited":"1"},"add_response_headers":{"X-Edited":"1"}}"#,
);

fn with_guest(worker: &Worker) -> Gateway {
    let gateway = Gateway::with_modules(worker).start();
    gateway.add(&Module::sentinel().set("limits", json!({ "body_bytes": 1024 })));
    gateway
}

#[test]
fn a_request_body_flows_before_it_is_complete() {
    let (first, rest) = (Gate::new(), Gate::new());
    let (arrived, more) = (first.clone(), rest.clone());
    let worker = Worker::on_head(move |request, conn| {
        assert_eq!(request.headers.get("x-edited"), Some("1"));
        conn.read_until("first").expect("the first half");
        arrived.open();
        more.wait();
        let (body, ended) = (conn.read_until("second").expect("the second half"), conn.read_until("0\r\n\r\n"));
        assert!(body.is_some() && ended.is_ok());
        conn.answer(200, "both halves");
        conn.close();
    });
    let gateway = with_guest(&worker);
    let mut client = gateway.connect();
    client.send_request("POST", "/", &[("X-Hostile", "reply"), EDITS, ("Transfer-Encoding", "chunked")], b"");
    client.send("5\r\nfirst\r\n");
    first.wait();
    client.send("6\r\nsecond\r\n0\r\n\r\n");
    rest.open();
    let answer = client.read_response();
    assert_eq!((answer.text().as_str(), answer.headers.get("x-edited")), ("both halves", Some("1")));
}

#[test]
fn twenty_mebibytes_pass_a_module_that_may_be_shown_a_kibibyte() {
    let body: Vec<u8> = (0..20 << 20).map(|n: u32| (n / 251) as u8).collect();
    let echoed = body.clone();
    let worker = Worker::new(move |request, conn| {
        let is_whole = request.body == echoed;
        conn.answer(if is_whole { 200 } else { 500 }, &request.body);
    });
    let gateway = with_guest(&worker);
    let before = gateway.memory();
    let answer = gateway.request("POST", "/", &[("X-Hostile", "reply"), EDITS], &body);
    assert_eq!((answer.status, answer.headers.get("x-edited")), (200, Some("1")));
    assert!(answer.body == body, "{} bytes came back", answer.body.len());
    assert!(gateway.memory() < before + (16 << 20), "{before} -> {}", gateway.memory());
}

#[test]
fn the_length_of_a_body_stays_as_it_was() {
    let worker = obliging();
    let gateway = with_guest(&worker);
    for (headers, length, coding) in
        [(&[EDITS][..], Some("4"), None), (&[EDITS, ("Transfer-Encoding", "chunked")], None, Some("chunked"))]
    {
        let headers = [&[("X-Hostile", "reply")], headers].concat();
        let body = if coding.is_some() { &b"4\r\nbody\r\n0\r\n\r\n"[..] } else { b"body" };
        assert_eq!(gateway.request("POST", "/", &headers, body).json()["body_length"], 4);
        let request = worker.wait_for_request();
        assert_eq!((request.headers.get("content-length"), request.headers.get("transfer-encoding")), (length, coding));
    }
}

#[test]
fn a_client_that_wants_to_be_asked_for_its_body_is_asked_only_if_the_module_allows() {
    let worker = obliging();
    let gateway = with_guest(&worker);
    let expecting =
        |reply| [("Expect", "100-continue"), ("Content-Length", "4"), ("X-Hostile", "reply"), ("X-Reply", reply)];
    let mut client = gateway.connect();
    client.send_request("POST", "/", &expecting(r#"{"decision":"block","body":"no"}"#), b"");
    let answer = client.read_response();
    assert_eq!((answer.status, answer.interim), (403, vec![]), "it was not asked");
    let mut client = gateway.connect();
    client.send_request("POST", "/", &expecting(r#"{"decision":"allow"}"#), b"");
    assert_eq!(client.read_head().status, 100);
    client.send("body");
    assert_eq!(client.read_response().json()["body_length"], 4);
}

#[test]
fn an_event_stream_is_not_held_back() {
    let gate = Gate::new();
    let worker = Worker::streaming(&gate);
    let gateway = with_guest(&worker);
    let mut client = gateway.connect();
    client.send_request("GET", "/stream", &[("X-Hostile", "reply"), EDITS], b"");
    assert_eq!(client.read_head().headers.get("x-edited"), Some("1"));
    client.read_until("data: 1\n\n");
    gate.open();
    client.end_stream();
}

#[test]
fn an_answer_of_any_kind_flows_as_it_comes() {
    let gate = Gate::new();
    let wait = gate.clone();
    let worker = Worker::new(move |_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\nfirst");
        wait.wait();
        conn.send("later");
    });
    let files = crate::support::Files::new();
    let edit = json!({ "decision": "allow", "add_response_headers": { "X-Edited": "1" } });
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::new("m", &files.sentinel("m", &Sentinel::replying(&json!({ "decision": "allow" }), &edit))));
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[], b"");
    client.read_until("first");
    gate.open();
    client.read_until("later");
}
