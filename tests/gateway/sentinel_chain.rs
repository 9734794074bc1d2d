//! Sentinel modules among others: the order of what they see and do, and whose word holds.

use crate::support::{Component, Files, Gateway, Module, Sentinel, Worker, guest, obliging};
use serde_json::{Value, json};

fn allow() -> Value {
    json!({ "decision": "allow" })
}

/// Says `mark` of itself on requests and on responses.
fn marking(mark: &str) -> Sentinel {
    let request = json!({ "decision": "allow", "add_request_headers": { "X-Last": mark, format!("X-{mark}"): "1" } });
    let response = json!({ "decision": "allow", "add_response_headers": { "X-Last": mark, format!("X-{mark}"): "1" } });
    Sentinel::replying(&request, &response)
}

/// Says of the answer, on the request, that its `X-Said` is `mark`.
fn saying(mark: &str) -> Sentinel {
    let said = json!({ "X-Said": mark, format!("X-Said-{mark}"): "1" });
    Sentinel::replying(&json!({ "decision": "allow", "add_response_headers": said }), &allow())
}

#[test]
fn modules_run_in_order_and_in_reverse() {
    let (worker, files) = (Worker::echo(), Files::new());
    let gateway = Gateway::with_modules(&worker).start();
    for name in ["a", "b", "c"] {
        gateway.add(&Module::new(name, &files.sentinel(name, &marking(name))));
    }
    let answer = gateway.get("/");
    let request = worker.wait_for_request();
    assert_eq!((request.headers.get("x-last"), answer.headers.get("x-last")), (Some("c"), Some("a")));
    assert!(["x-a", "x-b", "x-c"].iter().all(|name| request.headers.has(name) && answer.headers.has(name)));
}

#[test]
fn each_kind_sees_the_edits_of_the_other() {
    let (worker, files) = (obliging(), Files::new());
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::new("first", &files.component("first", &Component::marking("first"))));
    gateway.add(&Module::sentinel());
    gateway.add(&Module::new("last", &files.component("last", &Component::marking("last"))));
    let headers = [("X-Hostile", "echo"), ("X-Answer", "X-Hostile: echo")];
    let answer = gateway.request("POST", "/", &headers, b"body");
    assert_eq!((answer.status, answer.json()["body_length"].as_u64()), (200, Some(4)));
    let request = worker.wait_for_request();
    assert_eq!(request.headers.all("x-request-mark"), ["first", "last"]);
    assert_eq!(answer.headers.all("x-response-mark"), ["last", "first"]);
    for (shown, name, mark) in [
        (request.headers.get("x-seen"), "X-Request-Mark", "first"),
        (answer.headers.get("x-seen-response"), "X-Response-Mark", "last"),
    ] {
        let shown: Value = serde_json::from_str(shown.expect("it ran")).expect("JSON");
        assert_eq!(shown["headers"][name], mark);
    }
}

#[test]
fn a_body_that_one_kind_is_shown_is_whole_whatever_the_other_does() {
    let worker = Worker::new(|request, conn| conn.answer(200, &request.body));
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::sentinel().set("limits", json!({ "body_bytes": 10 })));
    gateway.add(&Module::hostile());
    let body = vec![b'b'; 100_000];
    let reply = json!({ "decision": "allow", "add_request_headers": { "X-Hostile": "echo-body" } }).to_string();
    let answer = gateway.request("POST", "/", &[("X-Hostile", "reply"), ("X-Reply", &reply)], &body);
    assert_eq!((answer.status, answer.body == body), (200, true));
    assert_eq!(worker.wait_for_request().headers.get("x-body-len"), Some("100000"));
}

#[test]
fn who_blocks_ends_the_way_of_a_request() {
    let (worker, files) = (Worker::echo(), Files::new());
    let gateway = Gateway::with_modules(&worker).start();
    let component = Component::marking("component");
    let blocks = Sentinel::replying(&json!({ "decision": "block", "body": "no" }), &allow());
    let before = gateway.add(&Module::new("before", &files.component("before", &component)));
    let uuid = gateway.add(&Module::new("blocks", &files.sentinel("blocks", &blocks)));
    let after = gateway.add(&Module::new("after", &guest("minimal")));
    let answer = gateway.get("/");
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    assert!(!answer.headers.has("x-response-mark") && worker.requests().is_empty());
    let calls = |uuid: &str| gateway.meta(uuid)["access_count"].as_u64();
    assert_eq!((calls(&before), calls(&uuid), calls(&after)), (Some(1), Some(1), Some(0)));
    assert!(gateway.wait_for_log("path=/ status=403").contains(" modules=before:modify,blocks:reject "));
}

#[test]
fn of_what_two_say_of_the_answer_the_first_has_the_last_word() {
    let (worker, files) = (Worker::echo(), Files::new());
    let gateway = Gateway::with_modules(&worker).start();
    for name in ["a", "b"] {
        gateway.add(&Module::new(name, &files.sentinel(name, &saying(name))));
    }
    let answer = gateway.get("/");
    assert_eq!(answer.headers.all("x-said"), ["a"]);
    assert!(answer.headers.has("x-said-a") && answer.headers.has("x-said-b"));
}

#[test]
fn a_word_on_the_request_comes_where_the_response_handler_would() {
    let (worker, files) = (Worker::echo(), Files::new());
    let gateway = Gateway::with_modules(&worker).start();
    let say = |field: &str, mark: &str| json!({ "decision": "allow", field: { "X-Said": mark } });
    let only_response = Sentinel::replying(&allow(), &say("add_response_headers", "later"));
    let both = Sentinel::replying(&say("add_response_headers", "request"), &say("add_response_headers", "response"));
    for (modules, wanted) in [
        (vec![("a", saying("a")), ("b", only_response.clone())], "a"),
        (vec![("a", only_response), ("b", saying("b"))], "later"),
        (vec![("both", both)], "response"),
    ] {
        let uuids: Vec<_> = modules
            .iter()
            .map(|(name, module)| gateway.add(&Module::new(name, &files.sentinel(name, module))))
            .collect();
        assert_eq!(gateway.get("/").headers.all("x-said"), [wanted]);
        uuids.iter().for_each(|uuid| gateway.remove(uuid));
    }
}

#[test]
fn what_was_said_before_holds_for_the_block_of_a_later_module() {
    let files = Files::new();
    let edits = json!({ "X-Said": "blocks", "X-Own": "1", "X-Unwanted": "1" });
    let block = json!({ "decision": "block", "body": "no", "add_response_headers": edits });
    let redirect = json!({ "decision": "redirect", "body": "/else", "add_response_headers": edits });
    let removing = json!({ "decision": "allow", "remove_response_headers": ["X-Unwanted"] });
    for (reply, status) in [(block, 403), (redirect, 302)] {
        let worker = Worker::echo();
        let gateway = Gateway::with_modules(&worker).start();
        for (name, module) in [
            ("a", saying("a")),
            ("removes", Sentinel::replying(&removing, &allow())),
            ("blocks", Sentinel::replying(&reply, &allow())),
            ("after", saying("after")),
        ] {
            gateway.add(&Module::new(name, &files.sentinel(name, &module)));
        }
        let answer = gateway.get("/");
        assert_eq!(
            (answer.status, answer.headers.get("x-said"), answer.headers.get("x-own")),
            (status, Some("a"), Some("1"))
        );
        assert_eq!((answer.headers.has("x-unwanted"), answer.headers.has("x-said-after")), (false, false));
        assert!(worker.requests().is_empty());
    }
}

#[test]
fn what_was_said_of_the_answer_holds_for_a_components_rejection_too() {
    let (worker, files) = (Worker::echo(), Files::new());
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::new("a", &files.sentinel("a", &saying("a"))));
    gateway.add(&Module::hostile());
    let answer = gateway.provoke("reject:429");
    assert_eq!((answer.status, answer.headers.get("x-said")), (429, Some("a")));
}

#[test]
fn a_failure_of_one_that_is_open_leaves_the_others_as_they_are() {
    let (worker, files) = (obliging(), Files::new());
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::new("a", &files.sentinel("a", &marking("a"))));
    gateway.add(&Module::sentinel().set("on_failure", json!("open")));
    gateway.add(&Module::new("b", &files.sentinel("b", &marking("b"))));
    let answer = gateway.request("GET", "/", &[("X-Hostile", "trap"), ("X-Answer", "X-Hostile: not-json")], b"");
    assert_eq!((answer.status, answer.headers.get("x-last")), (200, Some("a")));
    assert_eq!(worker.wait_for_request().headers.get("x-last"), Some("b"));
    let line = gateway.wait_for_log("path=/ ");
    assert!(line.contains(" tags=wasm-error,fail-open,wasm-error,fail-open "), "{line}");
}

#[test]
fn only_matching_requests_visit_it() {
    let (worker, files) = (Worker::echo(), Files::new());
    let gateway = Gateway::with_modules(&worker).start();
    let blocks = Sentinel::replying(&json!({ "decision": "block" }), &json!({ "decision": "block" }));
    let matching = json!({ "paths": ["/v1/*"], "methods": ["post"] });
    gateway.add(&Module::new("m", &files.sentinel("m", &blocks)).set("match", matching));
    for (method, path, status) in [("POST", "/v1/x", 403), ("GET", "/v1/x", 200), ("POST", "/other", 200)] {
        assert_eq!(gateway.request(method, path, &[], b"").status, status, "{method} {path}");
    }
}
