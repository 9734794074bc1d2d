//! What a v1 guest is shown of a request, and what it may make of it.

use crate::support::{Component, Files, Gateway, Module, Worker, request};
use serde_json::json;

/// A gateway with the hostile guest at requests before a worker that echoes.
fn hostile() -> (Worker, Gateway, String) {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::hostile().at(&["OnRequest"]));
    (worker, gateway, uuid)
}

#[test]
fn header_edits_apply_in_the_order_set_add_remove() {
    let (worker, gateway, _) = hostile();
    let edits = "add-header:x-a=2|set-header:x-a=1|add-header:x-b=2|set-header:x-b=1|remove-header:x-b|add-header:x-c=2|set-header:X-New=n";
    let headers = [("X-Hostile", edits), ("X-A", "old"), ("x-a", "older"), ("X-B", "old"), ("X-C", "1"), ("X-D", "d")];
    assert_eq!(gateway.request("GET", "/", &headers, b"").status, 200);
    let seen = worker.wait_for_request().headers;
    assert_eq!(seen.all("x-a"), ["1", "2"], "set replaces all values, add appends");
    assert_eq!(seen.all("x-b"), [""; 0], "remove drops all, also what the same edit put there");
    assert_eq!(seen.all("x-c"), ["1", "2"], "add keeps what was there");
    assert_eq!((seen.all("x-d"), seen.all("x-new")), (vec!["d"], vec!["n"]));
}

#[test]
fn names_are_the_same_in_any_case() {
    let (worker, gateway, _) = hostile();
    let edits = "set-header:X-ONE=1|remove-header:X-TwO";
    gateway.request("GET", "/", &[("X-Hostile", edits), ("x-One", "0"), ("x-two", "0")], b"");
    let seen = worker.wait_for_request().headers;
    assert_eq!((seen.all("x-one"), seen.has("x-two")), (vec!["1"], false));
}

#[test]
fn a_status_means_nothing_on_a_request() {
    let (worker, gateway, _) = hostile();
    for status in [200, 404, 500, 99, 65_535] {
        let answer = gateway.provoke(&format!("status:{status}|set-header:x-edited=1"));
        assert_eq!(answer.status, 200, "{status}");
        assert!(worker.wait_for_request().headers.has("x-edited"), "the rest of the edit applies");
    }
}

#[test]
fn a_rejection_answers_at_once_with_an_empty_body() {
    let (worker, gateway, _) = hostile();
    let mut client = gateway.connect();
    for status in [200, 204, 301, 304, 400, 401, 403, 429, 451, 500, 503, 599] {
        let headers = [("X-Hostile", &*format!("set-header:x-lost=1|reject:{status}")), ("X-Request-Id", "r-7")];
        for (method, body) in [("GET", &b""[..]), ("POST", b"some body"), ("HEAD", b"")] {
            client.send_request(method, "/v1/x", &headers, body);
            let answer = client.read_response_to(method);
            assert_eq!((answer.status, answer.text().as_str()), (status, ""), "{method}");
            assert_eq!(answer.headers.get("x-request-id"), Some("r-7"), "{method} {status}");
            assert!(!answer.headers.has("x-lost") && !answer.headers.has("content-type"), "{:?}", answer.headers);
            let length = answer.headers.get("content-length");
            assert!(
                length == Some("0") || matches!(status, 204 | 304) || method == "HEAD",
                "{method} {status}: {length:?}"
            );
            assert!(status != 204 || length.is_none(), "RFC 9110 section 8.6");
        }
    }
    assert!(worker.requests().is_empty());
    assert_eq!(client.get("/after").status, 200, "the connection is in step");
}

#[test]
fn a_rejection_with_an_id_of_the_gateways_own_carries_it() {
    let (_worker, gateway, _) = hostile();
    let answer = gateway.provoke("reject:403");
    assert_eq!(answer.headers.get("x-request-id").map(str::len), Some(32));
}

#[test]
fn method_path_query_and_id_are_shown_as_they_were_sent() {
    let (worker, gateway, _) = hostile();
    for (method, target, wanted) in [
        ("GET", "/", "GET /  r-1"),
        ("POST", "/v1/chat/completions?stream=true&x=%20", "POST /v1/chat/completions stream=true&x=%20 r-1"),
        ("PATCH", "/a%2Fb/../c;d", "PATCH /a%2Fb/../c;d  r-1"),
        ("DELETE", "/?", "DELETE /  r-1"),
        ("BREW", "/x??a=?b", "BREW /x ?a=?b r-1"),
        ("OPTIONS", "*", "OPTIONS *  r-1"),
    ] {
        gateway.request(method, target, &[("X-Hostile", "meta"), ("X-Request-Id", "r-1")], b"");
        let seen = worker.wait_for_request();
        assert_eq!(seen.headers.get("x-meta"), Some(wanted));
        assert_eq!(seen.target, target, "and go on untouched");
    }
}

#[test]
fn the_id_shown_is_the_one_that_worker_and_client_get() {
    let (worker, gateway, _) = hostile();
    let answer = gateway.provoke("meta");
    let seen = worker.wait_for_request().headers;
    let shown = seen.get("x-meta").and_then(|meta| meta.rsplit(' ').next());
    assert!(shown.is_some_and(|id| id.len() == 32), "{shown:?}");
    assert_eq!((shown, shown), (seen.get("x-request-id"), answer.headers.get("x-request-id")));
}

#[test]
fn every_header_is_shown_repeated_ones_and_those_beyond_ascii_too() {
    let (worker, gateway, _) = hostile();
    let mut client = gateway.connect();
    let latin = b"X-Latin: caf\xe9\r\nX-Utf8: \xc3\xa9\r\nX-Empty:\r\nX-Twice: 1\r\nX-Tab: a\tb\r\nX-Twice: 2\r\nAuthorization: Bearer k\r\nCookie: a=b\r\n";
    let head = [b"GET / HTTP/1.1\r\nHost: gateway:80\r\nX-Hostile: echo-headers\r\nConnection: x-hop\r\nX-Hop: 1\r\nTE: trailers\r\n", &latin[..], b"\r\n"].concat();
    client.send(head);
    assert_eq!(client.read_response().status, 200);
    let seen = worker.wait_for_request();
    let shown: Vec<&str> = seen.headers.get("x-seen").expect("what was shown").split(';').collect();
    for wanted in [
        "host=gateway:80",
        "x-latin=caf%EF%BF%BD",
        "x-utf8=%C3%A9",
        "x-empty=",
        "x-twice=1",
        "x-twice=2",
        "x-tab=a%09b",
        "authorization=Bearer%20k",
        "cookie=a=b",
        "x-forwarded-for=127.0.0.1",
    ] {
        assert!(shown.contains(&wanted), "no {wanted} in {shown:?}");
    }
    let first = |name: &str| shown.iter().position(|line| *line == name);
    assert!(first("x-twice=1") < first("x-twice=2"), "in their order");
    assert!(
        !shown.iter().any(|line| ["x-hop=", "te=", "connection="].iter().any(|hop| line.starts_with(hop))),
        "{shown:?}"
    );
    assert_eq!(shown[0], (shown.len() - 1).to_string());
    assert!(seen.head.contains("caf\u{e9}\r\n"), "the worker gets the bytes as they were: {:?}", seen.head);
    assert_eq!(seen.headers.get("x-utf8"), Some("\u{c3}\u{a9}"));
}

#[test]
fn every_header_of_the_client_and_of_the_guest_reaches_the_worker() {
    let (worker, gateway, _) = hostile();
    let names: Vec<String> = (0..40).map(|n| format!("X-Custom-{n}")).collect();
    let mut headers: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "v")).collect();
    headers.extend([("Accept", "a/b"), ("X-R", "1"), ("X-R", "2"), ("Cookie", "a=1"), ("Traceparent", "00-1")]);
    headers.push(("X-Hostile", "add-header:x-r=3|set-header:x-tenant=t|set-header:authorization=Bearer new"));
    gateway.request("GET", "/", &headers, b"");
    let seen = worker.wait_for_request().headers;
    assert!(names.iter().all(|name| seen.get(name) == Some("v")), "{seen:?}");
    assert_eq!(seen.all("x-r"), ["1", "2", "3"]);
    for (name, value) in [
        ("accept", "a/b"),
        ("cookie", "a=1"),
        ("traceparent", "00-1"),
        ("x-tenant", "t"),
        ("authorization", "Bearer new"),
    ] {
        assert_eq!(seen.get(name), Some(value), "{name}");
    }
}

#[test]
fn a_bad_edit_is_refused_whole() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::hostile().set("on_failure", json!("open")));
    for bad in [
        "set-header:bad name=1",
        "add-header:x=%0d%0aevil: 1",
        "set-header:transfer-encoding=chunked",
        "remove-header:%20",
    ] {
        let edits = format!("set-header:x-good=1|add-header:x-good=2|remove-header:x-sent|body:new|{bad}");
        let answer = gateway.request("POST", "/", &[("X-Hostile", &edits), ("X-Sent", "1")], b"original");
        assert_eq!(answer.status, 200, "{bad}");
        let seen = worker.wait_for_request();
        assert_eq!((seen.headers.has("x-good"), seen.headers.get("x-sent")), (false, Some("1")), "{bad}");
        assert_eq!(seen.body, b"original", "{bad}");
    }
    assert_eq!(gateway.failures(&uuid, "output"), 4);
}

#[test]
fn the_gateways_own_fields_cannot_be_forged_past_it_by_removing_them() {
    let (worker, gateway, _) = hostile();
    let edits = "remove-header:host|remove-header:content-length|remove-header:transfer-encoding";
    assert_eq!(gateway.request("POST", "/", &[("X-Hostile", edits)], b"abc").status, 200);
    let seen = worker.wait_for_request();
    assert_eq!((seen.body, seen.headers.get("host")), (b"abc".to_vec(), Some(&*worker.address.to_string())));
}

#[test]
fn strangers_do_not_reach_a_guest() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--api-key=k3y").start();
    let authorization = ("Authorization", "Bearer k3y");
    let body = json!({ "modules": [Module::hostile().json()] }).to_string();
    let headers = [authorization, ("Content-Type", "application/json")];
    let deployed = gateway.request("POST", "/wasm", &headers, body.as_bytes());
    assert_eq!(deployed.status, 200, "{}", deployed.text());
    let executions =
        || gateway.request("GET", "/wasm", &[authorization], b"").json()["metrics"]["total_executions"].clone();
    for key in ["Bearer wrong", ""] {
        let answer = gateway.request("GET", "/", &[("Authorization", key), ("X-Hostile", "reject:200")], b"");
        assert_eq!(answer.status, 401);
    }
    assert_eq!(executions(), 0);
    assert_eq!(gateway.request("GET", "/", &[authorization], b"").status, 200);
    assert_eq!(executions(), 2);
}

#[test]
fn what_the_gateway_answers_itself_is_not_shown_to_guests() {
    let (_worker, gateway, uuid) = hostile();
    for path in ["/health", "/liveness", "/readiness", "/wasm", "/workers", "/metrics"] {
        let answer = gateway.request("GET", path, &[("X-Hostile", "reject:418")], b"");
        assert_eq!(answer.status, 200, "{path}");
    }
    let mut client = gateway.connect();
    client.send(request("a b", "GET", "/", &[("X-Hostile", "reject:418")], b""));
    assert_eq!(client.read_response().status, 400, "nor is a request that is none");
    assert_eq!(gateway.meta(&uuid)["access_count"], 0);
}

#[test]
fn a_module_on_one_hook_is_not_called_at_the_other() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let file = files.component("m", &Component::marking("m"));
    let uuid = gateway.add(&Module::new("m", &file).at(&["OnResponse"]));
    assert!(gateway.get("/").headers.has("x-response-mark"));
    assert!(!worker.wait_for_request().headers.has("x-request-mark"));
    gateway.remove(&uuid);
    gateway.add(&Module::new("m", &file).at(&["OnRequest"]));
    assert!(!gateway.get("/").headers.has("x-response-mark"));
    assert!(worker.wait_for_request().headers.has("x-request-mark"));
}
