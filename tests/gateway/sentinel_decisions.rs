//! What a handler of a Sentinel module may decide: allow, block, redirect; and what it may not say. Everything is said
//! once about a request and once about a response.

use crate::support::{Gateway, Module, Response, Worker, obliging};

/// What becomes of a request, or of its answer.
#[derive(Debug, PartialEq)]
enum Then {
    /// The worker's answer reaches the client.
    Passes,
    /// The client gets this status and this text.
    Answered(u16, &'static str),
    /// The client is sent there, without a body.
    Redirected(u16, &'static str),
    Fails,
}

use Then::{Answered, Fails, Passes, Redirected};

/// Tries each reply at both hooks, and complains of all that goes wrong at once.
#[track_caller]
fn check(cases: &[(&str, Then)]) {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::sentinel());
    let mut complaints = Vec::new();
    for (reply, wanted) in cases {
        let answers = [("request", gateway.ask_for(reply)), ("response", gateway.ask_for_on_response(reply))];
        for (hook, answer) in answers {
            if let Err(found) = compare(&answer, wanted) {
                complaints.push(format!("{hook} {reply}: {found}, wanted {wanted:?}"));
            }
        }
        let passed = worker.requests().iter().filter(|request| request.headers.has("x-hostile")).count();
        let expected = cases.iter().take_while(|(other, _)| other != reply).filter(|case| case.1 == Passes).count();
        if passed != expected + usize::from(*wanted == Passes) {
            complaints.push(format!("{reply}: {passed} requests reached the worker, wanted {wanted:?}"));
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    assert_eq!(gateway.load(), 0, "no answer of the worker's is held");
}

fn compare(answer: &Response, wanted: &Then) -> Result<(), String> {
    let text = answer.text();
    let of_worker = text.starts_with("{\"body_length\"");
    let type_is = |kind: &str| answer.headers.get("content-type").is_some_and(|found| found.starts_with(kind));
    let length_is = |length: &str| answer.headers.get("content-length") == Some(length);
    let fits = match wanted {
        Passes => answer.status == 200 && of_worker,
        Answered(204, "") => answer.status == 204 && text.is_empty() && !answer.headers.has("content-length"),
        Answered(status, "") => answer.status == *status && text.is_empty() && !answer.headers.has("content-type"),
        Answered(status, body) => {
            answer.status == *status && text == *body && type_is("text/plain") && length_is(&body.len().to_string())
        }
        Redirected(status, url) => {
            answer.status == *status && answer.headers.get("location") == Some(url) && text.is_empty()
        }
        Fails => {
            let code = answer.headers.get("x-smg-error-code");
            answer.status == 500 && text == "Wasm Error" && type_is("text/plain") && code == Some("wasm_module_failed")
        }
    };
    if fits { Ok(()) } else { Err(format!("{} {:?} {text:?}", answer.status, answer.headers)) }
}

#[test]
fn decisions_are_compared_without_case() {
    check(&[
        (r#"{"decision":"allow"}"#, Passes),
        (r#"{"decision":"ALLOW"}"#, Passes),
        (r#"{"decision":"block"}"#, Answered(403, "")),
        (r#"{"decision":"Block"}"#, Answered(403, "")),
        (r#"{"decision":"deny"}"#, Answered(403, "")),
        (r#"{"decision":"dENy"}"#, Answered(403, "")),
        (r#"{"decision":"redirect","body":"/login"}"#, Redirected(302, "/login")),
        (r#"{"decision":"REDIRECT","body":"/login"}"#, Redirected(302, "/login")),
        (r#"  {"body":"no","decision":"block"}  "#, Answered(403, "no")),
    ]);
}

#[test]
fn what_is_no_decision_allows() {
    check(&[
        (r#"{"decision":"maybe"}"#, Passes),
        (r#"{"decision":""}"#, Passes),
        (r#"{"decision":" block"}"#, Passes),
        (r#"{"decision":"blocked","status":403,"body":"no"}"#, Passes),
        (r#"{"decision":"b\u0142ock"}"#, Passes),
        (r#"{"decision":"challenge","status":401}"#, Passes),
    ]);
}

#[test]
fn what_is_optional_may_be_absent_or_null_and_what_is_unknown_is_ignored() {
    let null = r#"{"decision":"block","status":null,"body":null,"add_request_headers":null,"remove_request_headers":null,
        "add_response_headers":null,"remove_response_headers":null,"tags":null}"#;
    let empty = r#"{"decision":"allow","body":"","add_request_headers":{},"remove_request_headers":[],
        "add_response_headers":{},"remove_response_headers":[],"tags":[]}"#;
    let unknown = r#"{"decision":"allow","rule_ids":[1,{"a":[null]}],"confidence":0.5,"version":"2","Status":"x"}"#;
    check(&[
        (&null.replace("\n        ", " "), Answered(403, "")),
        (&empty.replace("\n        ", " "), Passes),
        (unknown, Passes),
        (r#"{"decision":"allow","body":"not used","status":403}"#, Passes),
    ]);
}

#[test]
fn a_block_has_the_status_it_asks_for_if_that_can_end_an_exchange() {
    check(&[
        (r#"{"decision":"block","status":200,"body":"fine"}"#, Answered(200, "fine")),
        (r#"{"decision":"block","status":204,"body":"dropped"}"#, Answered(204, "")),
        (r#"{"decision":"block","status":304}"#, Answered(304, "")),
        (r#"{"decision":"block","status":418,"body":"tea"}"#, Answered(418, "tea")),
        (r#"{"decision":"deny","status":429,"body":"later"}"#, Answered(429, "later")),
        (r#"{"decision":"block","status":451}"#, Answered(451, "")),
        (r#"{"decision":"block","status":599,"body":"x"}"#, Answered(599, "x")),
        (r#"{"decision":"block","status":199}"#, Fails),
        (r#"{"decision":"block","status":100}"#, Fails),
        (r#"{"decision":"block","status":101}"#, Fails),
        (r#"{"decision":"block","status":0}"#, Fails),
        (r#"{"decision":"deny","status":600}"#, Fails),
        (r#"{"decision":"block","status":999}"#, Fails),
        (r#"{"decision":"block","status":65536}"#, Fails),
        (r#"{"decision":"block","status":-403}"#, Fails),
        (r#"{"decision":"block","status":"403"}"#, Fails),
        (r#"{"decision":"block","status":403.5}"#, Fails),
        (r#"{"decision":"redirect","body":"/","status":100}"#, Fails),
        (r#"{"decision":"redirect","body":"/","status":600}"#, Fails),
    ]);
}

#[test]
fn a_block_has_its_text() {
    check(&[
        (r#"{"decision":"block","body":""}"#, Answered(403, "")),
        (r#"{"decision":"block","body":"<b>no</b>"}"#, Answered(403, "<b>no</b>")),
        (
            r#"{"decision":"block","body":"caf\u00e9 \ud83d\ude00\r\n\u0000"}"#,
            Answered(403, "caf\u{e9} \u{1f600}\r\n\0"),
        ),
        (r#"{"decision":"block","body":"{\"error\":\"no\"}"}"#, Answered(403, "{\"error\":\"no\"}")),
        (r#"{"decision":"block","body":["no"]}"#, Fails),
        (r#"{"decision":"block","body":"\ud800"}"#, Fails),
    ]);
}

#[test]
fn a_redirect_needs_a_place() {
    check(&[
        (r#"{"decision":"redirect","status":301,"body":"https://a/b?c#d"}"#, Redirected(301, "https://a/b?c#d")),
        (r#"{"decision":"redirect","status":303,"body":"//a"}"#, Redirected(303, "//a")),
        (r#"{"decision":"redirect","status":308,"body":"../x"}"#, Redirected(308, "../x")),
        (r#"{"decision":"redirect","status":401,"body":"/login"}"#, Redirected(401, "/login")),
        (r#"{"decision":"redirect"}"#, Fails),
        (r#"{"decision":"redirect","body":""}"#, Fails),
        (r#"{"decision":"redirect","body":null}"#, Fails),
        (r#"{"decision":"redirect","body":"/\r\nSet-Cookie: a=1"}"#, Fails),
        (r#"{"decision":"redirect","body":"/\u0000"}"#, Fails),
    ]);
}

#[test]
fn what_is_no_reply_is_a_failure() {
    check(&[
        ("allow", Fails),
        ("null", Fails),
        ("[]", Fails),
        (r#""block""#, Fails),
        (r#"["block",403,"no",null,null,null,null,null]"#, Fails),
        ("{", Fails),
        ("{}", Fails),
        (r#"{"decision":null}"#, Fails),
        (r#"{"decision":["allow"]}"#, Fails),
        (r#"{"Decision":"allow"}"#, Fails),
        (r#"{"decision":"allow"} {"decision":"block"}"#, Fails),
        (r#"{"decision":"allow","decision":"block"}"#, Fails),
        (r#"{"decision":"allow",}"#, Fails),
        (r#"{"decision":"allow","tags":"a"}"#, Fails),
        (r#"{"decision":"allow","tags":[1]}"#, Fails),
        (r#"{"decision":"allow","add_request_headers":["a"]}"#, Fails),
        (r#"{"decision":"allow","add_response_headers":{"a":1}}"#, Fails),
        (r#"{"decision":"allow","add_response_headers":{"a":null}}"#, Fails),
        (r#"{"decision":"allow","remove_request_headers":"a"}"#, Fails),
        (r#"{"decision":"allow","remove_response_headers":{"a":"b"}}"#, Fails),
    ]);
}

#[test]
fn a_request_that_was_answered_never_reaches_the_worker() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::sentinel());
    let headers = |reply| [("X-Hostile", "reply"), ("X-Reply", reply), ("X-Request-Id", "r-1")];
    for (method, reply, status, body) in [
        ("GET", r#"{"decision":"block","body":"no"}"#, 403, "no"),
        ("HEAD", r#"{"decision":"block","body":"no"}"#, 403, ""),
        ("POST", r#"{"decision":"block","body":"no"}"#, 403, "no"),
        ("HEAD", r#"{"decision":"redirect","body":"/"}"#, 302, ""),
    ] {
        let answer = gateway.request(method, "/", &headers(reply), b"");
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{method} {reply}");
        assert_eq!(answer.headers.get("x-request-id"), Some("r-1"));
    }
    assert!(worker.requests().is_empty());
    let mut client = gateway.connect();
    for _ in 0..3 {
        client.send_request("POST", "/", &headers(r#"{"decision":"block"}"#), b"unread");
        assert_eq!(client.read_response().status, 403, "the connection goes on after a body that nobody wanted");
    }
}
