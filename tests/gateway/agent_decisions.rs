//! What a module decides, as the agent tells it to the proxy: the same in both versions of the protocol.

use crate::support::{Agent, Decision, Event, Op, Version, guest};
use serde_json::{Value, json};

/// What the two lists of changes and the tags must be, besides the decision.
#[derive(Default)]
struct Wanted {
    request: Vec<Op>,
    response: Vec<Op>,
    tags: Vec<&'static str>,
}

type Case = (Value, Decision, Wanted);

fn allow() -> Decision {
    Decision::Allow
}

fn no_more() -> Wanted {
    Wanted::default()
}

fn tags(tags: &[&'static str]) -> Wanted {
    Wanted { tags: tags.to_vec(), ..Wanted::default() }
}

fn response(ops: &[Op]) -> Wanted {
    Wanted { response: ops.to_vec(), ..Wanted::default() }
}

/// Asks each of these in both versions of the protocol, and complains of all that goes wrong at once.
#[track_caller]
fn check(event: &Event, cases: &[Vec<Case>]) {
    let agent = Agent::running(&guest("sentinel-hostile")).start();
    let mut complaints = Vec::new();
    for version in Version::BOTH {
        let mut proxy = agent.connect(version);
        for (json, decision, Wanted { request, response, tags }) in cases.iter().flatten() {
            let reply = proxy.ask(&event.clone().replying(json));
            let found = (&reply.decision, &reply.request_headers, &reply.response_headers, reply.tags());
            let wanted = (decision, request, response, tags.clone());
            if found != wanted {
                complaints.push(format!("{version:?} {} {json}:\n  {found:?}\n  {wanted:?}", event.name()));
            }
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// What is the same on a request and on a response.
fn common() -> Vec<Case> {
    let text = ("content-type", "text/plain; charset=utf-8");
    let why = ("x-why", "rule");
    vec![
        (json!({ "decision": "allow" }), allow(), no_more()),
        (json!({ "decision": "ALLOW", "tags": ["a", "b"], "status": 403, "unknown": 1 }), allow(), tags(&["a", "b"])),
        (json!({ "decision": "perhaps", "tags": ["a"] }), allow(), tags(&["unknown-decision", "a"])),
        (json!({ "decision": "block" }), Decision::block(403, None, &[]), no_more()),
        (
            json!({ "decision": "block", "add_response_headers": { "Transfer-Encoding": "chunked" }, "tags": ["t"] }),
            Decision::block(403, None, &[]),
            tags(&["refused-header", "t"]),
        ),
        (json!({ "decision": "deny", "tags": ["t"] }), Decision::block(403, None, &[]), tags(&["t"])),
        (
            json!({ "decision": "BLOCK", "status": 429, "body": "later" }),
            Decision::block(429, Some("later"), &[text]),
            response(&[Op::set(text.0, text.1)]),
        ),
        (
            json!({ "decision": "block", "add_response_headers": { "X-Why": "rule", "X-Gone": "1" }, "remove_response_headers": ["x-gone"] }),
            Decision::block(403, None, &[why]),
            response(&[Op::set(why.0, why.1)]),
        ),
        (
            json!({ "decision": "block", "body": "<p>", "add_response_headers": { "Content-Type": "text/html" } }),
            Decision::block(403, Some("<p>"), &[("content-type", "text/html")]),
            response(&[Op::set("content-type", "text/html")]),
        ),
        // A body of its own keeps the proxy from writing one.
        (
            json!({ "decision": "redirect", "status": 401, "body": "/login" }),
            Decision::block(401, Some(""), &[("location", "/login")]),
            response(&[Op::set("location", "/login")]),
        ),
        (
            json!({ "decision": "redirect", "body": "/else", "add_response_headers": { "X-Why": "rule" } }),
            Decision::block(302, Some(""), &[("location", "/else"), why]),
            response(&[Op::set("x-why", "rule"), Op::set("location", "/else")]),
        ),
    ]
}

/// What the module said was refused.
fn failing() -> Vec<Case> {
    let bad = [
        json!({}),
        json!([]),
        json!({ "decision": null }),
        json!({ "decision": "block", "status": 199 }),
        json!({ "decision": "block", "status": 600 }),
        json!({ "decision": "block", "status": 70_000 }),
        json!({ "decision": "redirect" }),
        json!({ "decision": "redirect", "body": "/\r\nX: y" }),
        json!({ "decision": "allow", "tags": "t" }),
        json!({ "decision": "allow", "add_response_headers": { "X Bad": "1" } }),
        json!({ "decision": "allow", "add_response_headers": { "X-Bad": "a\r\nb" } }),
        json!({ "decision": "allow", "add_response_headers": { "Content-Length": "5" } }),
        json!({ "decision": "allow", "remove_response_headers": [":status"] }),
    ];
    bad.into_iter().map(|json| (json, Decision::failed(), tags(&["wasm-error"]))).collect()
}

#[test]
fn on_a_request() {
    let edits = json!({
        "decision": "allow", "tags": ["t"],
        "add_request_headers": { "X-New": "n", "x-old": "caf\u{e9}" }, "remove_request_headers": ["X-Gone", "x-new"],
        "add_response_headers": { "X-Said": "s" }, "remove_response_headers": ["Server"],
    });
    let ops = Wanted {
        request: vec![Op::set("x-new", "n"), Op::set("x-old", "caf\u{e9}"), Op::remove("x-gone"), Op::remove("x-new")],
        response: vec![Op::set("x-said", "s"), Op::remove("server")],
        tags: vec!["t"],
    };
    let mut cases = vec![
        (edits, allow(), ops),
        (
            json!({ "decision": "allow", "add_request_headers": { "Host": "h" } }),
            Decision::failed(),
            tags(&["wasm-error"]),
        ),
    ];
    for status in [301, 302, 303, 307, 308] {
        let json = json!({ "decision": "redirect", "status": status, "body": "https://a/b" });
        cases.push((json, Decision::redirect(status, "https://a/b"), response(&[Op::set("location", "https://a/b")])));
    }
    check(&Event::request(), &[cases, common(), failing()]);
}

#[test]
fn on_a_response() {
    let edits = json!({
        "decision": "allow", "tags": ["t"],
        "add_request_headers": { "X-Late": "1" }, "remove_request_headers": ["X-Late"],
        "add_response_headers": { "X-New": "n" }, "remove_response_headers": ["Server"],
    });
    let ops = Wanted { response: vec![Op::set("x-new", "n"), Op::remove("server")], ..tags(&["t"]) };
    // A redirect is nothing that a proxy does here.
    let redirect = (
        json!({ "decision": "redirect", "status": 307, "body": "https://a/b" }),
        Decision::block(307, Some(""), &[("location", "https://a/b")]),
        response(&[Op::set("location", "https://a/b")]),
    );
    check(&Event::response(), &[vec![(edits, allow(), ops), redirect], common(), failing()]);
}

#[test]
fn a_block_with_an_empty_text_has_that_and_not_the_proxys() {
    let agent = Agent::running(&guest("sentinel-hostile")).start();
    for version in Version::BOTH {
        for event in Event::both() {
            let reply = agent.connect(version).ask(&event.replying(&json!({ "decision": "block", "body": "" })));
            assert_eq!(reply.decision, Decision::block(403, Some(""), &[]));
        }
    }
}

#[test]
fn a_module_is_shown_what_the_proxy_tells() {
    let agent = Agent::running(&guest("sentinel-hostile")).start();
    for version in Version::BOTH {
        let mut proxy = agent.connect(version);
        let request = Event::request()
            .id("c-\"7\"")
            .header("user-agent", "curl/8")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("accept", "x")
            .header("accept", "y")
            .header("x-lost", "")
            .header("x-utf", "caf\u{e9}")
            .set("method", json!("PATCH"))
            .set("uri", json!("/a/../b?c=%22d%22&e"))
            .doing("echo");
        let shown = shown(&proxy.ask(&request).request_headers, "x-seen");
        assert_eq!(
            shown,
            json!({
                "method": "PATCH", "uri": "/a/../b?c=%22d%22&e", "client_ip": "192.0.2.7", "correlation_id": "c-\"7\"",
                "headers": {
                    "Host": "h", "User-Agent": "curl/8", "Cookie": "a=1; b=2", "Accept": "x, y", "X-Lost": "",
                    "X-Utf": "caf\u{e9}", "X-Hostile": "echo",
                },
            })
        );
        let response = Event::response().id("c-8").header("set-cookie", "a=1").header("set-cookie", "b=2");
        let reply = proxy.ask(&response.set("status", json!(404)).doing("echo"));
        let headers = json!({ "Content-Type": "text/plain", "Set-Cookie": "a=1, b=2", "X-Hostile": "echo" });
        assert_eq!(
            self::shown(&reply.response_headers, "x-seen-response"),
            json!({ "status": 404, "correlation_id": "c-8", "headers": headers })
        );
    }
}

#[track_caller]
fn shown(ops: &[Op], name: &str) -> Value {
    match ops {
        [Op::Set { name: found, value }] if found == name => serde_json::from_str(value).expect("JSON"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_not_quite_http_is_shown_all_the_same() {
    let agent = Agent::running(&guest("sentinel-hostile")).start();
    for version in Version::BOTH {
        let mut proxy = agent.connect(version);
        for (uri, wanted) in [
            ("/a b", "/a%20b"),
            ("/\"<>", "/%22%3C%3E"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/{a}|\\^`", "/%7Ba%7D%7C%5C%5E%60"),
            ("/?a={b}", "/?a=%7Bb%7D"),
            ("/", "/"),
            ("//a", "//a"),
            ("/%zz", "/%zz"),
        ] {
            let reply = proxy.ask(&Event::request().set("uri", json!(uri)).doing("echo"));
            let shown = shown(&reply.request_headers, "x-seen")["uri"].take();
            assert!(shown == wanted || shown == uri, "{uri}: {shown}");
        }
        let mut odd = Event::request().id("id\r\n\u{0}\u{e9}").doing("echo");
        odd.payload["metadata"]["client_ip"] = json!("unknown");
        let reply = proxy.ask(&odd);
        let shown = shown(&reply.request_headers, "x-seen");
        assert_eq!((&shown["client_ip"], &shown["correlation_id"]), (&json!("unknown"), &json!("id???\u{e9}")));
    }
}
