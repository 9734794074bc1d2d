//! Streamed answers: guests see them at their head, and nothing is held back. Case 34 of section 3.

use crate::support::{Client, Gate, Gateway, Module, Worker};
use serde_json::json;
use std::time::{Duration, Instant};

/// Sends a head of `kind` with `lines`, then `unit`s of a stream as the test opens gates, then the end.
fn streaming(kind: &'static str, lines: &'static str, gates: &[Gate]) -> Worker {
    streaming_as(move |_| kind, lines, gates)
}

/// The same, with a kind for each target.
fn streaming_as(
    kind: impl Fn(&str) -> &'static str + Send + Sync + 'static,
    lines: &'static str,
    gates: &[Gate],
) -> Worker {
    let gates = gates.to_vec();
    Worker::new(move |request, conn| {
        let kind = kind(&request.target);
        conn.send(format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{lines}Transfer-Encoding: chunked\r\n\r\n"));
        for (i, gate) in gates.iter().enumerate() {
            gate.wait();
            conn.chunk(format!("data: {i}\n\n"));
        }
        conn.chunk("");
    })
}

fn gates(count: usize) -> Vec<Gate> {
    (0..count).map(|_| Gate::new()).collect()
}

/// Opens each gate in turn and asserts that its event comes before the next may be sent.
#[track_caller]
fn assert_event_by_event(client: &mut Client, gates: &[Gate]) {
    for (i, gate) in gates.iter().enumerate() {
        let opened = Instant::now();
        gate.open();
        client.read_until(format!("data: {i}\n\n"));
        assert!(opened.elapsed() < Duration::from_secs(5), "{i}: {:?}", opened.elapsed());
    }
    client.read_until("0\r\n\r\n");
}

const KINDS: [&str; 4] =
    ["text/event-stream", "text/event-stream; charset=utf-8", "application/x-ndjson", "Text/Event-Stream"];

#[test]
fn a_guest_edits_the_head_of_a_stream_before_its_first_event() {
    let edits =
        "X-Hostile-Response: meta|echo-body|set-header:x-edited=1|remove-header:x-gone|status:203\r\nX-Gone: 1\r\n";
    let gates = gates(5);
    let worker = streaming("text/event-stream; charset=utf-8", edits, &gates);
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::hostile());
    let mut client = gateway.connect();
    client.send_request("POST", "/v1/chat/completions", &[("X-Hostile", "echo-body")], b"{}");
    let head = client.read_head();
    assert_eq!((head.status, head.headers.get("content-type")), (203, Some("text/event-stream; charset=utf-8")));
    assert_eq!((head.headers.get("x-edited"), head.headers.has("x-gone")), (Some("1"), false));
    assert_eq!((head.headers.get("x-meta"), head.headers.get("x-body-len")), (Some("200"), Some("0")), "an empty body");
    assert_eq!(gateway.meta(&uuid)["access_count"], 2, "called while no event was sent");
    assert_event_by_event(&mut client, &gates);
    assert_eq!(gateway.meta(&uuid)["access_count"], 2, "and not for events");
    assert_eq!(worker.wait_for_request().headers.get("x-body-len"), Some("2"));
}

#[test]
fn every_kind_of_stream_is_known() {
    let gate = Gate::new();
    let kind = |target: &str| KINDS[target[1..].parse::<usize>().expect("a number")];
    let worker = streaming_as(kind, "X-Hostile-Response: set-header:x-edited=1\r\n", std::slice::from_ref(&gate));
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    let mut clients: Vec<_> = KINDS.iter().map(|_| gateway.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send_request("GET", &format!("/{n}"), &[], b"");
        let head = client.read_head();
        assert_eq!((head.headers.get("content-type"), head.headers.get("x-edited")), (Some(KINDS[n]), Some("1")));
    }
    gate.open();
    clients.iter_mut().for_each(|client| drop(client.read_until("data: 0\n\n")));
}

#[test]
fn a_rejection_of_a_stream_replaces_its_status() {
    let gates = gates(2);
    let worker = streaming("text/event-stream", "X-Hostile-Response: reject:451\r\n", &gates);
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[], b"");
    assert_eq!(client.read_head().status, 451);
    assert_event_by_event(&mut client, &gates);
}

#[test]
fn replacing_the_body_of_a_stream_is_a_failure() {
    let gates = gates(3);
    let edits = "X-Hostile-Response: set-header:x-edited=1|body:new\r\nX-Worker: 1\r\n";
    let worker = streaming("text/event-stream", edits, &gates);
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::hostile());
    let answer = gateway.get("/");
    answer.assert_error(503, "wasm_module_failed");
    assert!(!answer.headers.has("x-worker"), "{:?}", answer.headers);
    assert_eq!(gateway.failures(&uuid, "output"), 1);
    gateway.remove(&uuid);
    let uuid = gateway.add(&Module::hostile().set("on_failure", json!("open")));
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[], b"");
    let head = client.read_head();
    assert_eq!((head.status, head.headers.get("x-worker"), head.headers.has("x-edited")), (200, Some("1"), false));
    assert_event_by_event(&mut client, &gates);
    assert_eq!(gateway.failures(&uuid, "output"), 1);
}

#[test]
fn a_refused_stream_lets_the_worker_go() {
    let edits = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Hostile-Response: trap\r\nTransfer-Encoding: chunked\r\n\r\n";
    let gone = Gate::new();
    let seen = gone.clone();
    let worker = Worker::new(move |_, conn| {
        conn.send(edits);
        if conn.wait_peer_closed(Duration::from_secs(5)) {
            seen.open();
        }
    });
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    gateway.get("/").assert_error(503, "wasm_module_failed");
    gone.wait();
    assert_eq!(gateway.load(), 0);
}

#[test]
fn streams_can_be_skipped() {
    let gates = gates(3);
    let worker = streaming("text/event-stream", "X-Hostile-Response: trap\r\n", &gates);
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::hostile().set("streaming", json!("skip")));
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[("X-Hostile", "set-header:x-edited=1")], b"");
    assert_eq!(client.read_head().status, 200);
    assert_event_by_event(&mut client, &gates);
    assert!(worker.wait_for_request().headers.has("x-edited"), "the request was shown");
    assert_eq!(gateway.meta(&uuid)["access_count"], 1);
}

#[test]
fn a_module_that_skips_streams_is_shown_all_else() {
    let worker = Worker::fixed(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Hostile-Response: body:new\r\nContent-Length: 2\r\n\r\n{}",
    );
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile().set("streaming", json!("skip")));
    assert_eq!(gateway.get("/").text(), "new");
}

#[test]
fn a_stream_without_chunks_flows_too() {
    let (first, second) = (Gate::new(), Gate::new());
    let opened = [first.clone(), second.clone()];
    let worker = Worker::new(move |_, conn| {
        conn.send(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Hostile-Response: set-header:x-edited=1\r\n\r\n",
        );
        for (i, gate) in opened.iter().enumerate() {
            gate.wait();
            conn.send(format!("data: {i}\n\n"));
        }
        conn.close();
    });
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[], b"");
    assert_eq!(client.read_head().headers.get("x-edited"), Some("1"));
    assert_event_by_event(&mut client, &[first, second]);
}

#[test]
fn a_stream_with_a_length_keeps_it() {
    let worker = Worker::fixed(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Hostile-Response: set-header:x-edited=1\r\nContent-Length: 9\r\n\r\ndata: 0\n\n",
    );
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    let mut client = gateway.connect();
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!((answer.text().as_str(), answer.headers.get("content-length")), ("data: 0\n\n", Some("9")));
    }
}

#[test]
fn a_stream_larger_than_the_body_limit_passes() {
    let event = format!("data: {}\n\n", "x".repeat(1000));
    let stream = event.repeat(200);
    let sent = stream.clone();
    let worker = Worker::new(move |_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Hostile-Response: set-header:x-edited=1\r\nTransfer-Encoding: chunked\r\n\r\n");
        conn.chunk(&sent);
        conn.chunk("");
    });
    let gateway = Gateway::with_modules(&worker).arg("--wasm-max-body-size=1000").start();
    gateway.add(&Module::hostile());
    let answer = gateway.get("/");
    assert_eq!((answer.headers.get("x-edited"), answer.text()), (Some("1"), stream));
}

#[test]
fn a_stream_that_breaks_off_is_seen_to_break_off() {
    let worker = Worker::new(|_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Hostile-Response: set-header:x-edited=1\r\nTransfer-Encoding: chunked\r\n\r\n");
        conn.chunk("data: 0\n\n");
        conn.reset();
    });
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[], b"");
    let answer = client.read_response_however("GET");
    assert_ne!(answer.end, crate::support::End::Clean, "{answer:?}");
}
