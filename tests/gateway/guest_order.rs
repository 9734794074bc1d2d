//! Several modules: the order in which they run, and what each sees of the others. Case 32 of section 3.

use crate::support::{Component, Files, Gateway, Module, Worker, guest, obliging};
use serde_json::json;

fn marking(files: &Files, name: &str) -> Module {
    Module::new(name, &files.component(name, &Component::marking(name)))
}

/// The marks of a request at the worker, and of its answer at the client.
#[track_caller]
fn marks(gateway: &Gateway, worker: &Worker) -> (String, String) {
    let answer = gateway.get("/");
    assert_eq!(answer.status, 200);
    let request = worker.wait_for_request().headers.all("x-request-mark").join("");
    (request, answer.headers.all("x-response-mark").join(""))
}

#[test]
fn modules_run_in_the_order_of_their_deployment_and_in_reverse_on_responses() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let uuids = ["c", "a", "b"].map(|name| gateway.add(&marking(&files, name)));
    assert_eq!(marks(&gateway, &worker), ("cab".into(), "bac".into()));
    gateway.remove(&uuids[0]);
    assert_eq!(marks(&gateway, &worker), ("ab".into(), "ba".into()));
    gateway.add(&marking(&files, "c"));
    assert_eq!(marks(&gateway, &worker), ("abc".into(), "cba".into()), "deployed anew, it is the last");
    for _ in 0..20 {
        assert_eq!(marks(&gateway, &worker), ("abc".into(), "cba".into()));
    }
}

#[test]
fn a_smaller_order_runs_earlier_on_requests_and_later_on_responses() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    for (name, order) in [("a", 10), ("b", -10), ("c", 0), ("d", 10), ("e", i64::MIN), ("f", i64::MAX)] {
        gateway.add(&marking(&files, name).set("order", json!(order)));
    }
    gateway.add(&marking(&files, "g"));
    assert_eq!(marks(&gateway, &worker), ("ebcgadf".into(), "fdagcbe".into()));
}

#[test]
fn each_module_sees_the_edits_of_those_before_it() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    gateway.add(&marking(&files, "first"));
    gateway.add(&Module::hostile());
    gateway.add(&marking(&files, "last"));
    let answer = gateway.request(
        "GET",
        "/",
        &[("X-Hostile", "echo-headers|add-header:x-mine=1"), ("X-Answer", "X-Hostile-Response: echo-headers")],
        b"",
    );
    let seen = worker.wait_for_request().headers;
    let shown = seen.get("x-seen").expect("what was shown");
    assert!(shown.contains("x-request-mark=first") && !shown.contains("last"), "{shown}");
    assert_eq!(seen.all("x-request-mark"), ["first", "last"]);
    let shown = answer.headers.get("x-seen").expect("what was shown");
    assert!(shown.contains("x-response-mark=last") && !shown.contains("first"), "{shown}");
}

#[test]
fn a_body_and_a_status_are_handed_on_as_edited() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    let module = |name: &str, header: &str| {
        Module::new(name, &guest("hostile"))
            .set("allow_duplicate", json!(true))
            .set("match", json!({ "paths": [header] }))
    };
    // Both run on every request and do the same: what the second was shown is what the first had made.
    gateway.add(&module("one", "/*"));
    gateway.add(&module("two", "/*"));
    let headers = [
        ("X-Hostile", "echo-body|body:four"),
        ("X-Answer-Status", "201"),
        ("X-Answer", "X-Hostile-Response: meta|echo-body|status:202|body:sixsix"),
    ];
    let answer = gateway.request("POST", "/", &headers, b"original");
    let seen = worker.wait_for_request();
    assert_eq!((seen.headers.get("x-body-len"), seen.body), (Some("4"), b"four".to_vec()));
    assert_eq!((answer.headers.get("x-meta"), answer.headers.get("x-body-len")), (Some("202"), Some("6")));
    assert_eq!((answer.status, answer.text().as_str()), (202, "sixsix"));
}

#[test]
fn a_rejection_ends_the_chain() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let before = gateway.add(&marking(&files, "before"));
    gateway.add(&Module::hostile());
    let after = gateway.add(&marking(&files, "after"));
    let answer = gateway.provoke("reject:403");
    assert_eq!((answer.status, answer.headers.has("x-response-mark")), (403, false));
    assert!(worker.requests().is_empty());
    assert_eq!(gateway.meta(&before)["access_count"], 1);
    assert_eq!(gateway.meta(&after)["access_count"], 0);
}

#[test]
fn a_rejection_of_a_response_does_not_end_the_chain() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    gateway.add(&marking(&files, "before"));
    gateway.add(&Module::hostile());
    let answer = gateway.provoke_response("reject:451");
    assert_eq!((answer.status, answer.headers.get("x-response-mark")), (451, Some("before")));
}

#[test]
fn a_chain_of_fifty_modules_runs_whole() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let file = files.component("m", &Component::marking("m"));
    for n in 0..50 {
        gateway.add(&Module::new(&format!("m{n}"), &file).set("allow_duplicate", json!(true)));
    }
    assert_eq!(marks(&gateway, &worker), ("m".repeat(50), "m".repeat(50)));
}
