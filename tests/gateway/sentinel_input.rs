//! What the handlers of a Sentinel module are shown.

use crate::support::{Gateway, Module, ReceivedRequest, Response, Worker, obliging};
use serde_json::{Value, json};

/// The input of the request handler, which the guest gave the worker to read.
#[track_caller]
fn shown(request: &ReceivedRequest) -> Value {
    parsed(request.headers.get("x-seen"))
}

/// The input of the response handler, which the guest gave the client.
#[track_caller]
fn shown_of_response(response: &Response) -> Value {
    parsed(response.headers.get("x-seen-response"))
}

#[track_caller]
fn parsed(field: Option<&str>) -> Value {
    serde_json::from_str(field.expect("the guest was called")).expect("JSON")
}

fn keys(of: &Value) -> Vec<&String> {
    of.as_object().expect("an object").keys().collect()
}

fn echoing(worker: &Worker) -> Gateway {
    let gateway = Gateway::with_modules(worker).start();
    gateway.add(&Module::sentinel());
    gateway
}

const ECHO: (&str, &str) = ("X-Hostile", "echo");

#[test]
fn a_request_is_shown_with_all_its_keys() {
    let worker = Worker::echo();
    let gateway = echoing(&worker);
    for (method, target) in [
        ("GET", "/"),
        ("POST", "/a/b?c=%22d%22&e"),
        ("DELETE", "/?"),
        ("PATCH", "//x/../y;z='1'"),
        ("OPTIONS", "/a%00b?%0d%0a"),
        ("PURGE", "/caf%C3%A9?q=a+b"),
    ] {
        let answer = gateway.request(method, target, &[ECHO, ("X-Request-Id", "r-\"1\"\\")], b"");
        assert_eq!(answer.status, 200, "{target}");
        let request = worker.wait_for_request();
        let shown = shown(&request);
        assert_eq!(keys(&shown), ["client_ip", "correlation_id", "headers", "method", "uri"], "{target}");
        assert_eq!((&shown["method"], &shown["uri"]), (&json!(method), &json!(request.target)), "{target}");
        assert_eq!((&shown["client_ip"], &shown["correlation_id"]), (&json!("127.0.0.1"), &json!("r-\"1\"\\")));
    }
}

#[test]
fn a_response_is_shown_with_all_its_keys() {
    let worker = obliging();
    let gateway = echoing(&worker);
    for status in ["200", "204", "304", "404", "503", "599"] {
        let headers = [("X-Answer-Status", status), ("X-Answer", "X-Hostile: echo"), ("X-Request-Id", "r-1")];
        let shown = shown_of_response(&gateway.request("GET", "/", &headers, b""));
        assert_eq!(keys(&shown), ["correlation_id", "headers", "status"]);
        assert_eq!((shown["status"].to_string().as_str(), &shown["correlation_id"]), (status, &json!("r-1")));
    }
}

#[test]
fn the_correlation_id_is_the_one_that_worker_client_and_log_know() {
    let worker = Worker::echo();
    let gateway = echoing(&worker);
    for headers in [&[ECHO][..], &[ECHO, ("X-Request-Id", "has space")], &[ECHO, ("X-Correlation-Id", "c-1")]] {
        let answer = gateway.request("GET", "/", headers, b"");
        let request = worker.wait_for_request();
        let shown = shown(&request);
        let id = shown["correlation_id"].as_str().expect("text");
        assert_eq!((request.headers.get("x-request-id"), answer.headers.get("x-request-id")), (Some(id), Some(id)));
        assert_eq!(shown["headers"]["X-Request-Id"], id);
        gateway.wait_for_log(&format!("id={id} "));
    }
}

#[test]
fn names_are_in_title_case() {
    let worker = obliging();
    let gateway = echoing(&worker);
    let headers = [
        ECHO,
        ("authorization", "Basic x"),
        ("USER-AGENT", "curl/8"),
        ("x-b3-traceid", "1"),
        ("x-1a--b", "2"),
        ("X-Answer", "x-hostile: echo"),
        ("X-Answer", "www-authenticate: Basic"),
        ("X-Answer", "ETAG: \"1\""),
    ];
    let answer = gateway.request("GET", "/", &headers, b"");
    let request = &shown(&worker.wait_for_request())["headers"];
    for (name, value) in
        [("Authorization", "Basic x"), ("User-Agent", "curl/8"), ("X-B3-Traceid", "1"), ("X-1a--B", "2")]
    {
        assert_eq!(request[name], value, "{name} in {request}");
    }
    let response = &shown_of_response(&answer)["headers"];
    assert_eq!((&response["Www-Authenticate"], &response["Etag"]), (&json!("Basic"), &json!("\"1\"")), "{response}");
}

#[test]
fn names_are_in_lower_case_where_the_deployment_says_so() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::sentinel().set("header_case", json!("lower")));
    let answer = gateway.request("GET", "/", &[ECHO, ("USER-Agent", "curl"), ("X-Answer", "X-Hostile: echo")], b"");
    for headers in [&shown(&worker.wait_for_request())["headers"], &shown_of_response(&answer)["headers"]] {
        let upper: Vec<_> = keys(headers).into_iter().filter(|name| **name != name.to_lowercase()).collect();
        assert!(upper.is_empty() && !headers["x-hostile"].is_null(), "{headers}");
    }
}

#[test]
fn values_of_one_name_are_joined_for_the_guest_and_not_for_the_worker() {
    let worker = obliging();
    let gateway = echoing(&worker);
    let headers = [
        ECHO,
        ("Cookie", "a=1"),
        ("Accept", "text/html"),
        ("Cookie", "b=2; c=3"),
        ("accept", "*/*;q=0.1"),
        ("X-Empty", ""),
        ("X-Answer", "X-Hostile: echo"),
        ("X-Answer", "Set-Cookie: a=1"),
        ("X-Answer", "Vary: x"),
        ("X-Answer", "Set-Cookie: b=2"),
        ("X-Answer", "vary: y"),
    ];
    let answer = gateway.request("GET", "/", &headers, b"");
    let request = worker.wait_for_request();
    let seen = &shown(&request)["headers"];
    assert_eq!((&seen["Cookie"], &seen["Accept"]), (&json!("a=1; b=2; c=3"), &json!("text/html, */*;q=0.1")));
    assert_eq!(seen["X-Empty"], "");
    assert_eq!(request.headers.all("cookie"), ["a=1", "b=2; c=3"]);
    let seen = &shown_of_response(&answer)["headers"];
    assert_eq!((&seen["Set-Cookie"], &seen["Vary"]), (&json!("a=1, b=2"), &json!("x, y")));
    assert_eq!(answer.headers.all("set-cookie"), ["a=1", "b=2"]);
}

#[test]
fn values_that_are_not_utf_8_are_shown_lossily_and_passed_on_as_they_are() {
    let worker = Worker::fixed(b"HTTP/1.1 200 OK\r\nX-Hostile: echo\r\nX-Latin: \xe9\r\nContent-Length: 0\r\n\r\n");
    let gateway = echoing(&worker);
    let mut client = gateway.connect();
    let values = b"X-Latin: caf\xe9\r\nX-Utf: caf\xc3\xa9\r\nX-Mixed: \xff\"\\\t\xc3\x28\r\n\r\n";
    client.send([&b"GET / HTTP/1.1\r\nHost: h\r\nX-Hostile: echo\r\n"[..], values].concat());
    let answer = client.read_response();
    let request = worker.wait_for_request();
    let seen = &shown(&request)["headers"];
    assert_eq!((&seen["X-Latin"], &seen["X-Utf"]), (&json!("caf\u{fffd}"), &json!("caf\u{e9}")));
    assert_eq!(seen["X-Mixed"], "\u{fffd}\"\\\t\u{fffd}(");
    assert_eq!(
        (request.headers.get("x-latin"), request.headers.get("x-utf")),
        (Some("caf\u{e9}"), Some("caf\u{c3}\u{a9}"))
    );
    assert_eq!(shown_of_response(&answer)["headers"]["X-Latin"], "\u{fffd}");
    assert_eq!(answer.headers.get("x-latin"), Some("\u{e9}"));
}

#[test]
fn the_guest_sees_what_the_worker_will() {
    let worker = Worker::echo();
    let gateway = echoing(&worker);
    let secrets = [ECHO, ("Connection", "X-Mine, close"), ("X-Mine", "1"), ("Proxy", "evil"), ("TE", "trailers")];
    gateway.request("GET", "/", &secrets, b"");
    let request = worker.wait_for_request();
    let seen = shown(&request);
    for name in ["Connection", "X-Mine", "Proxy", "Te"] {
        assert!(seen["headers"][name].is_null() && !request.headers.has(name), "{name}");
    }
    for name in ["X-Forwarded-For", "X-Forwarded-Proto", "Via"] {
        assert_eq!(seen["headers"][name].as_str(), request.headers.get(name), "{name}");
    }
}

#[test]
fn behind_a_second_gateway_the_client_is_the_first_and_the_id_stays() {
    let worker = Worker::echo();
    let second = echoing(&worker);
    let first = Gateway::builder().worker_url(format!("http://{}", second.address)).start();
    let answer = first.request("GET", "/a?b", &[ECHO, ("X-Request-Id", "r-1"), ("X-Forwarded-For", "9.9.9.9")], b"");
    assert_eq!((answer.status, answer.headers.get("x-request-id")), (200, Some("r-1")));
    // The first asks for models, too.
    let seen = shown(worker.requests().iter().find(|request| request.target == "/a?b").expect("it came"));
    assert_eq!(
        (&seen["client_ip"], &seen["correlation_id"], &seen["uri"]),
        (&json!("127.0.0.1"), &json!("r-1"), &json!("/a?b"))
    );
    assert_eq!(seen["headers"]["X-Forwarded-For"], "9.9.9.9, 127.0.0.1, 127.0.0.1");
    assert_eq!(seen["headers"]["Via"].as_str().expect("text").split(", ").count(), 2);
}

#[test]
fn what_a_client_can_send_is_what_a_guest_can_read() {
    let worker = Worker::echo();
    let gateway = echoing(&worker);
    let long = "v".repeat(2000);
    let many: Vec<_> = (0..20).map(|n| format!("X-Many-{n}")).collect();
    let headers: Vec<_> = std::iter::once(ECHO).chain(many.iter().map(|name| (&**name, &*long))).collect();
    assert_eq!(gateway.request("GET", "/", &headers, b"").status, 200);
    let seen = &shown(&worker.wait_for_request())["headers"];
    assert!(many.iter().all(|name| seen[name] == long), "{seen}");
}
