//! Request targets (cases 13 and 34): what the gateway decides on is what it forwards, byte for byte.

use crate::support::{Gateway, Worker, bad, refuses};

// Case 34.
#[test]
fn targets_pass_untouched() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for target in [
        "/%2e%2e/",
        "//",
        "/a//b",
        "/a%2fb",
        "/a%2Fb",
        "/..;/x",
        "/../x",
        "/./x",
        "/a/../b",
        "/A/b",
        "/%41",
        "/a?",
        "/a?b=c&d",
        "/a?b=%20+%00",
        "/?",
        "/?a=b?c",
        "/a;b=c",
        "/~a",
        "/a:b@c",
        "/'()*!$&,=",
        "/%zz",
        "/%",
        "/a|b",
        "/{a}",
        "/\"a\"",
        "//evil.example/x",
        "/%c3%bc",
        "/a%0d%0aX:%20y",
        "/v1/chat/completions?api-version=2024-01-01",
    ] {
        assert_eq!(gateway.get(target).status, 200, "{target}");
        assert_eq!(worker.wait_for_request().target, target);
    }
}

// Case 34: only the exact paths are the gateway's own.
#[test]
fn what_only_resembles_an_own_endpoint_is_proxied() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for target in [
        "//readiness",
        "/%72eadiness",
        "/Readiness",
        "/readiness/",
        "/./readiness",
        "/x/../readiness",
        "/readiness%20",
        "/readiness;x",
        "//wasm",
        "/%77asm",
        "/WASM",
        "/wasm;x",
        "//workers",
        "/%77orkers",
        "//metrics",
        "/METRICS",
    ] {
        let answer = gateway.get(target);
        assert_eq!((answer.status, answer.json()["path"].as_str()), (200, Some(target)));
    }
}

#[test]
fn a_query_does_not_hide_an_own_endpoint() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    assert_eq!(gateway.get("/readiness?verbose=1").json()["status"], "ready");
    assert_eq!(gateway.get("/health?").text(), "OK");
}

// Case 13.
#[test]
fn the_authority_of_an_absolute_target_wins_over_host() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for (target, forwarded, authority) in [
        ("http://target.example/a?b", "/a?b", "target.example"),
        ("http://target.example:81/a", "/a", "target.example:81"),
        ("http://target.example", "/", "target.example"),
        ("HTTP://TARGET.example/%2e", "/%2e", "TARGET.example"),
    ] {
        let mut client = gateway.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: other.example\r\n\r\n"));
        assert_eq!(client.read_response().status, 200, "{target}");
        let request = worker.wait_for_request();
        assert_eq!(request.target, forwarded);
        assert!(
            request.headers.get("x-forwarded-host").is_some_and(|h| h.eq_ignore_ascii_case(authority)),
            "{}",
            request.head
        );
        assert_eq!(request.headers.get("host"), Some(worker.address.to_string().as_str()));
    }
}

#[track_caller]
fn refused(targets: &[&str]) {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let line = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let case = |target: &&str| bad(&format!("{target:?}"), line(target), &[400]).connection_may_go_on();
    refuses(&gateway, &worker, &targets.iter().map(case).collect::<Vec<_>>());
    assert!(worker.broken().is_empty(), "{:?}", worker.broken());
}

// Case 13.
#[test]
fn a_space_or_a_control_character_in_the_target_is_refused() {
    refused(&["/a b", "/a\tb", "/a\x7fb", "/a\0b", "http://a b/"]);
}

#[test]
fn a_target_that_is_neither_a_path_nor_a_whole_url_is_refused() {
    refused(&["a", "a/b", "?a", "*", "example.com:80", "http://", "http:///x"]);
}

// RFC 9110 section 4.2.4: a name and password in a URL are an attempt to deceive.
#[test]
fn credentials_in_the_target_are_refused() {
    refused(&["http://user@a/", "http://user:pass@a/"]);
}

// Case 13. Passed on without its fragment, the request is at least the one that was decided on.
#[test]
fn a_fragment_in_the_target_is_refused() {
    refused(&["/a#b", "/#", "/readiness#x"]);
}
