//! `x-request-id`: one for every request, known to the client, the worker and the log.

use crate::support::{Gateway, Response, Worker};

fn id(answer: &Response) -> String {
    answer.headers.get("x-request-id").expect("every answer carries a request id").to_owned()
}

#[test]
fn a_request_without_an_id_gets_one_that_the_worker_sees_too() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let (first, second) = (id(&gateway.get("/")), id(&gateway.get("/")));
    assert_eq!(worker.wait_for_request().headers.get("x-request-id"), Some(first.as_str()));
    assert_ne!(first, second);
    assert!(first.len() >= 16 && first.bytes().all(|b| b.is_ascii_graphic()), "{first}");
}

#[test]
fn the_clients_id_is_kept() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for given in ["abc-123", "x", &"y".repeat(128)] {
        let answer = gateway.request("GET", "/", &[("X-Request-Id", given)], b"");
        assert_eq!(id(&answer), given);
        assert_eq!(worker.wait_for_request().headers.get("x-request-id"), Some(given));
    }
}

// Several requests may have one correlation id, and a worker may want ids that are unique.
#[test]
fn other_ids_of_the_client_are_logged_and_passed_on_and_are_not_the_requests() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut ids = Vec::new();
    for (name, value) in [
        ("X-Correlation-Id", "order 66"),
        ("X-Correlation-Id", "order 66"),
        ("X-Trace-Id", "trace-7"),
        ("Request-Id", "|a.b\"c"),
    ] {
        let answer = gateway.request("GET", "/correlated", &[(name, value)], b"");
        ids.push(id(&answer));
        let request = worker.wait_for_request();
        assert_eq!(request.headers.all("x-request-id"), [id(&answer)]);
        assert_eq!(request.headers.all(name), [value], "untouched");
        let line = gateway.wait_for_log(&format!("id={}", id(&answer)));
        let shown = value.replace('"', "\\\"");
        assert!(line.ends_with(&format!(" correlation_id=\"{shown}\"")), "{line}");
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4, "each request has an id of its own");
    let both = [("X-Request-Id", "mine"), ("X-Correlation-Id", "theirs")];
    assert_eq!(id(&gateway.request("GET", "/", &both, b"")), "mine");
    gateway.wait_for_log("correlation_id=\"theirs\"");
    gateway.get("/plain");
    assert!(!gateway.wait_for_log("path=/plain").contains("correlation_id"), "only where there is one");
}

#[test]
fn the_first_of_the_named_fields_wins() {
    let worker = Worker::echo();
    let names = "--request-id-headers=x-request-id,x-correlation-id,x-trace-id,request-id";
    let gateway = Gateway::builder().worker(&worker).arg(names).start();
    let known = [("Request-Id", "d"), ("X-Trace-Id", "c"), ("X-Correlation-Id", "b"), ("X-Request-Id", "a")];
    for (count, expected) in [(1, "d"), (2, "c"), (3, "b"), (4, "a")] {
        let answer = gateway.request("GET", "/", &known[..count], b"");
        assert_eq!(id(&answer), expected);
        assert_eq!(worker.wait_for_request().headers.get("x-request-id"), Some(expected));
    }
}

#[test]
fn an_id_that_is_not_short_visible_ascii_is_replaced() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for odd in ["", "with space", "tab\there", "\u{fc}", &"z".repeat(129)] {
        let answer = gateway.request("GET", "/", &[("X-Request-Id", odd)], b"");
        let new = id(&answer);
        assert!(new != odd && !new.is_empty(), "{odd:?}");
        assert_eq!(worker.wait_for_request().headers.get("x-request-id"), Some(new.as_str()), "{odd:?}");
    }
}

#[test]
fn the_gateways_id_replaces_the_workers() {
    let worker = Worker::fixed("HTTP/1.1 200 OK\r\nX-Request-Id: worker\r\nContent-Length: 0\r\n\r\n");
    let gateway = Gateway::before(&worker);
    assert_eq!(id(&gateway.request("GET", "/", &[("X-Request-Id", "client")], b"")), "client");
}

#[test]
fn every_answer_of_the_gateways_own_carries_an_id() {
    let gateway = Gateway::builder().arg("--max-payload-size=4").arg("--api-key=k").start_unready();
    let key = ("Authorization", "Bearer k");
    for (path, fields, body) in [
        ("/health", vec![], &b""[..]),
        ("/readiness", vec![], b""),
        ("/liveness", vec![], b""),
        ("/v1/models", vec![key], b""),
        ("/v1/chat/completions", vec![key], b""),
        ("/v1/chat/completions", vec![], b""),
        ("/big", vec![key], b"12345"),
        ("/workers", vec![key], b""),
        ("/wasm", vec![key], b""),
        ("/metrics", vec![key], b""),
    ] {
        let fields: Vec<_> = fields.into_iter().chain([("X-Request-Id", "mine")]).collect();
        assert_eq!(id(&gateway.request("GET", path, &fields, body)), "mine", "{path}");
    }
}

#[test]
fn the_log_line_of_a_request_names_its_id() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    gateway.request("GET", "/", &[("X-Request-Id", "find-me-in-the-log")], b"");
    gateway.wait_for_log("find-me-in-the-log");
}
