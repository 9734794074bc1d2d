//! What guests hand over is untrusted: bad parts refuse the whole, framing belongs to the gateway, sizes are bounded.
//! Cases 9 and 24 to 28 of section 3.

use crate::support::{Component, Files, Gateway, Module, Worker, obliging};
use serde_json::json;

/// Asserts that each edit is refused as a whole at both hooks, and that the gateway goes on.
#[track_caller]
fn assert_refused(edits: &[String]) {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::hostile());
    let mut complaints = Vec::new();
    for edit in edits {
        for (side, answer) in [("request", gateway.provoke(edit)), ("response", gateway.provoke_response(edit))] {
            let code = answer.headers.get("x-smg-error-code");
            if (answer.status, code) != (503, Some("wasm_module_failed")) || answer.headers.has("x-evil") {
                complaints.push(format!("{edit} on the {side}: {} {:?}", answer.status, answer.headers));
            }
        }
        assert_eq!(gateway.get("/").status, 200, "after {edit}");
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    assert_eq!(gateway.failures(&uuid, "output"), 2 * edits.len() as u64);
    let provoked = worker.requests().iter().filter(|request| request.headers.has("x-hostile")).count();
    assert_eq!(provoked, 0, "what was refused on a request never reaches the worker");
}

#[test]
fn names_that_are_none_are_refused() {
    let names = [
        "",
        "%20",
        "bad name",
        "bad%09name",
        "a%0d%0ax-evil",
        "a%0ax-evil",
        "a%00",
        "a:b",
        ":path",
        ":status",
        "a(b)",
        "a/b",
        "%c3%a9",
        "a%7f",
        "x-evil: 1%0d%0aa",
        "%22a%22",
    ];
    let with = |operation: &str, name: &&str| match operation {
        "remove-header" => format!("set-header:x-evil=1|remove-header:{name}"),
        _ => format!("set-header:x-evil=1|{operation}:{name}=1"),
    };
    let operations = ["set-header", "add-header", "remove-header"];
    let edits: Vec<String> =
        operations.iter().flat_map(|operation| names.iter().map(|name| with(operation, name))).collect();
    assert_refused(&edits);
}

#[test]
fn values_that_are_none_are_refused() {
    let values = [
        "a%0d%0ax-evil: 1",
        "a%0ax-evil: 1",
        "a%0dx",
        "%00",
        "a%00b",
        "%0a",
        "%7f",
        "%1b[2J",
        "a%0d%0a%0d%0a<html>",
        "%01",
    ];
    let edits: Vec<String> = values
        .iter()
        .flat_map(|value| {
            ["set-header", "add-header"].map(|operation| format!("set-header:x-evil=1|{operation}:x-a={value}"))
        })
        .collect();
    assert_refused(&edits);
}

#[test]
fn fields_that_frame_a_message_or_belong_to_a_connection_are_refused() {
    let fields = [
        "Transfer-Encoding=chunked",
        "transfer-encoding=identity",
        "Connection=close",
        "connection=x-smuggled",
        "Upgrade=h2c",
        "TE=trailers",
        "Trailer=x",
        "Keep-Alive=timeout=9",
        "Proxy-Connection=keep-alive",
        "Host=evil.com",
        "Content-Length=0",
        "content-length=5",
        "Content-Length=-1",
        "Content-Length=99999999999999999999",
    ];
    let edits: Vec<String> = fields
        .iter()
        .flat_map(|field| {
            ["set-header", "add-header"].map(|operation| format!("set-header:x-evil=1|{operation}:{field}"))
        })
        .collect();
    assert_refused(&edits);
}

#[test]
fn more_headers_than_a_message_may_have_are_refused() {
    assert_refused(
        &["headers:1000", "headers:25000", "headers:33000", "big-header:70000", "big-header:1000000"]
            .map(str::to_owned),
    );
}

#[test]
fn a_body_beyond_the_limit_is_refused() {
    assert_refused(&["body-size:10485761", "body-size:20000000", "gigabyte"].map(str::to_owned));
}

#[test]
fn a_status_out_of_range_is_refused_where_it_counts() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    for status in ["0", "99", "100", "101", "199", "600", "999", "65535"] {
        for behaviour in [format!("reject:{status}"), format!("count|reject:{status}")] {
            gateway.provoke(&behaviour).assert_error(503, "wasm_module_failed");
            gateway.provoke_response(&behaviour).assert_error(503, "wasm_module_failed");
        }
        gateway.provoke_response(&format!("status:{status}")).assert_error(503, "wasm_module_failed");
        assert_eq!(gateway.provoke(&format!("status:{status}")).status, 200, "{status}: ignored on a request");
    }
}

#[test]
fn what_is_unusual_and_valid_passes() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    for (edit, name, wanted) in [
        ("set-header:x-a=", "x-a", ""),
        ("set-header:x-a=%09a%09b", "x-a", "a\tb"),
        ("set-header:x-a=%c3%a9", "x-a", "\u{c3}\u{a9}"),
        ("set-header:!#$&'*+-.^_`~1=1", "!#$&'*+-.^_`~1", "1"),
        ("set-header:X-UPPER=1", "x-upper", "1"),
        ("set-header:x-a= spaces ", "x-a", "spaces"),
        ("remove-header:no-such-field|set-header:x-a=1", "x-a", "1"),
    ] {
        assert_eq!(gateway.provoke(edit).status, 200, "{edit}");
        assert_eq!(worker.wait_for_request().headers.get(name), Some(wanted), "{edit}");
        let answer = gateway.provoke_response(edit);
        assert_eq!((answer.status, answer.headers.get(name)), (200, Some(wanted)), "{edit}");
        worker.wait_for_request();
    }
}

#[test]
fn a_hundred_headers_of_a_guest_are_within_reason() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    assert_eq!(gateway.provoke("headers:100").status, 200);
    let seen = worker.wait_for_request().headers;
    assert!((0..100).all(|n| seen.get(&format!("x-flood-{n}")) == Some("1")));
    let answer = gateway.provoke_response("headers:100");
    assert!((0..100).all(|n| answer.headers.get(&format!("x-flood-{n}")) == Some("1")));
}

#[test]
fn several_modules_cannot_add_up_to_a_head_without_end() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--log-level=warn").start();
    let files = Files::new();
    for n in 0..110 {
        let mark = n.to_string();
        let module = Module::new(&mark, &files.component(&mark, &Component::flooding(&mark, 250)));
        gateway.add(&module.at(&["OnRequest"]).set("match", json!({ "paths": ["/flood"] })));
    }
    let mut client = gateway.connect();
    client.send_request("GET", "/flood", &[], b"");
    let answer = client.try_read_head("GET").ok().flatten().map(|head| head.status);
    assert_eq!(gateway.get("/").status, 200, "the gateway goes on");
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
    assert!(matches!(answer, Some(200 | 400..)), "27,500 headers: {answer:?}");
}
