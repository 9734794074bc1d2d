//! What a v1 guest is shown of a response, and what it may make of it.

use crate::support::{Gateway, Module, Worker, obliging};
use serde_json::json;

/// A gateway with the hostile guest at responses before a worker that answers as it is told.
fn hostile() -> (Worker, Gateway, String) {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::hostile().at(&["OnResponse"]));
    (worker, gateway, uuid)
}

#[test]
fn header_edits_apply_in_the_order_set_add_remove() {
    let (_worker, gateway, _) = hostile();
    let edits = "X-Hostile-Response: add-header:x-a=2|set-header:x-a=1|add-header:x-b=2|set-header:x-b=1|remove-header:x-b|add-header:x-c=2";
    let headers = [
        ("X-Answer", edits),
        ("X-Answer", "X-A: old"),
        ("X-Answer", "x-a: older"),
        ("X-Answer", "X-B: b"),
        ("X-Answer", "X-C: 1"),
    ];
    let answer = gateway.request("GET", "/", &headers, b"");
    assert_eq!(answer.headers.all("x-a"), ["1", "2"]);
    assert_eq!(answer.headers.all("x-b"), [""; 0]);
    assert_eq!(answer.headers.all("x-c"), ["1", "2"]);
}

#[test]
fn the_status_is_replaced_by_an_edit() {
    let (_worker, gateway, _) = hostile();
    let mut client = gateway.connect();
    for status in [200, 201, 302, 400, 404, 500, 503, 599] {
        let answer = format!("X-Hostile-Response: status:{status}");
        client.send_request("GET", "/x", &[("X-Answer", &answer)], b"");
        let answer = client.read_response();
        assert_eq!((answer.status, answer.json()["target"].as_str()), (status, Some("/x")), "the body stays");
    }
}

#[test]
fn a_rejection_replaces_the_status_and_nothing_else() {
    let (_worker, gateway, _) = hostile();
    let headers = [("X-Answer", "X-Hostile-Response: set-header:x-lost=1|reject:451"), ("X-Answer", "X-Kept: 1")];
    let answer = gateway.request("GET", "/x", &headers, b"");
    assert_eq!((answer.status, answer.json()["target"].as_str()), (451, Some("/x")));
    assert_eq!((answer.headers.has("x-lost"), answer.headers.get("x-kept")), (false, Some("1")));
}

#[test]
fn status_headers_and_body_are_shown() {
    let (_worker, gateway, _) = hostile();
    let headers = [
        ("X-Answer-Status", "418"),
        ("X-Answer", "X-Hostile-Response: meta|echo-body|echo-headers"),
        ("X-Answer", "X-Twice: 1"),
        ("X-Answer", "Set-Cookie: a=1; Path=/"),
        ("X-Answer", "X-Twice: 2"),
        ("X-Answer", "Set-Cookie: b=2"),
        ("X-Answer", "Keep-Alive: timeout=5"),
    ];
    let answer = gateway.request("GET", "/", &headers, b"");
    assert_eq!((answer.status, answer.headers.get("x-meta")), (418, Some("418")));
    assert_eq!(answer.headers.get("x-body-len"), Some(&*answer.body.len().to_string()));
    let sum: u32 = answer.body.iter().map(|&byte| u32::from(byte)).sum();
    assert_eq!(answer.headers.get("x-body-sum"), Some(&*sum.to_string()));
    let shown: Vec<&str> = answer.headers.get("x-seen").expect("what was shown").split(';').collect();
    for wanted in
        ["content-type=application/json", "x-twice=1", "x-twice=2", "set-cookie=a=1%3B%20Path=/", "set-cookie=b=2"]
    {
        assert!(shown.contains(&wanted), "no {wanted} in {shown:?}");
    }
    assert!(!shown.iter().any(|line| line.starts_with("keep-alive")), "{shown:?}");
}

#[test]
fn values_beyond_ascii_are_shown_and_pass_untouched() {
    let worker = Worker::fixed(
        b"HTTP/1.1 200 OK\r\nX-Hostile-Response: echo-headers\r\nX-Latin: caf\xe9\r\nContent-Length: 0\r\n\r\n"
            .to_vec(),
    );
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    let answer = gateway.get("/");
    assert!(answer.headers.get("x-seen").is_some_and(|shown| shown.contains("x-latin=caf%EF%BF%BD")), "{answer:?}");
    assert_eq!(answer.headers.get("x-latin"), Some("caf\u{e9}"));
}

#[test]
fn repeated_fields_survive() {
    let (_worker, gateway, _) = hostile();
    let cookies =
        [("X-Answer", "Set-Cookie: a=1"), ("X-Answer", "Set-Cookie: b=2; HttpOnly"), ("X-Answer", "set-cookie: c=3")];
    for edit in
        ["add-header:set-cookie=d=4", "add-header:set-cookie=d=4|body:new", "add-header:set-cookie=d=4|status:500"]
    {
        let edit = format!("X-Hostile-Response: {edit}");
        let headers = [&[("X-Answer", &*edit)], &cookies[..]].concat();
        let answer = gateway.request("GET", "/", &headers, b"");
        assert_eq!(answer.headers.all("set-cookie"), ["a=1", "b=2; HttpOnly", "c=3", "d=4"], "{edit}");
    }
}

#[test]
fn a_status_that_cannot_end_an_exchange_is_a_failure() {
    let (_worker, gateway, uuid) = hostile();
    let statuses = [0, 1, 99, 100, 101, 103, 199, 600, 999, 65_535];
    for status in statuses {
        gateway.provoke_response(&format!("status:{status}")).assert_error(503, "wasm_module_failed");
        gateway.provoke_response(&format!("reject:{status}")).assert_error(503, "wasm_module_failed");
    }
    assert_eq!(gateway.failures(&uuid, "output"), 2 * statuses.len() as u64);
}

#[test]
fn a_bad_edit_is_refused_whole() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::hostile().set("on_failure", json!("open")));
    for bad in [
        "set-header:bad name=1",
        "add-header:x=%0aevil: 1",
        "set-header:connection=close",
        "status:99",
        "remove-header:",
    ] {
        let edits = format!("X-Hostile-Response: status:500|set-header:x-good=1|remove-header:x-sent|body:new|{bad}");
        let answer = gateway.request("GET", "/x", &[("X-Answer", &edits), ("X-Answer", "X-Sent: 1")], b"");
        assert_eq!((answer.status, answer.json()["target"].as_str()), (200, Some("/x")), "{bad}");
        assert_eq!((answer.headers.has("x-good"), answer.headers.get("x-sent")), (false, Some("1")), "{bad}");
    }
    assert_eq!(gateway.failures(&uuid, "output"), 5);
}

#[test]
fn a_guest_can_change_the_id_but_not_take_it_away() {
    let (_worker, gateway, _) = hostile();
    let answer = gateway.provoke_response("remove-header:x-request-id");
    assert_eq!(answer.headers.get("x-request-id").map(str::len), Some(32));
    let answer = gateway.provoke_response("set-header:x-request-id=mine");
    assert_eq!(answer.headers.get("x-request-id"), Some("mine"));
}

#[test]
fn errors_of_the_worker_are_shown_like_any_answer() {
    let (_worker, gateway, _) = hostile();
    for status in ["400", "404", "429", "500", "503"] {
        let headers = [("X-Answer-Status", status), ("X-Answer", "X-Hostile-Response: meta|body:hidden")];
        let answer = gateway.request("GET", "/", &headers, b"");
        assert_eq!((answer.headers.get("x-meta"), answer.text().as_str()), (Some(status), "hidden"));
    }
}
