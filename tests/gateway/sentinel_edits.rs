//! Header edits of Sentinel modules: on the request, on the response, and on the response as the request handler asks.

use crate::support::{Gateway, Module, ReceivedRequest, Response, Sentinel, Worker, obliging};
use serde_json::{Value, json};

fn with_guest(worker: &Worker) -> Gateway {
    let gateway = Gateway::with_modules(worker).start();
    gateway.add(&Module::sentinel());
    gateway
}

/// A request whose handler returns `reply`, with more headers; the worker's side of it and the client's.
#[track_caller]
fn edited(gateway: &Gateway, worker: &Worker, reply: &Value, more: &[(&str, &str)]) -> (ReceivedRequest, Response) {
    let reply = reply.to_string();
    let headers = [&[("X-Hostile", "reply"), ("X-Reply", &*reply)], more].concat();
    let answer = gateway.request("GET", "/", &headers, b"");
    assert_eq!(answer.status, 200, "{reply}: {}", answer.text());
    (worker.wait_for_request(), answer)
}

/// The fields of a message, by name and all of their values.
fn fields<'a>(headers: &'a crate::support::Headers, names: &[&str]) -> Vec<Vec<&'a str>> {
    names.iter().map(|name| headers.all(name)).collect()
}

#[test]
fn a_request_is_edited_first_set_then_removed() {
    let worker = Worker::echo();
    let gateway = with_guest(&worker);
    let sent = [("X-Old", "1"), ("X-Twice", "1"), ("x-twice", "2"), ("X-Gone", "1"), ("X-Gone", "2"), ("X-Kept", "1")];
    let reply = json!({
        "decision": "allow",
        "add_request_headers": { "X-New": "n", "x-old": "replaced", "X-TWICE": "once", "X-Added-And-Gone": "1", "X-Utf": "caf\u{e9}", "X-Empty": "" },
        "remove_request_headers": ["x-gone", "X-ADDED-AND-GONE", "x-never-there"],
    });
    let (request, answer) = edited(&gateway, &worker, &reply, &sent);
    let names = ["x-new", "x-old", "x-twice", "x-added-and-gone", "x-gone", "x-kept", "x-utf", "x-empty"];
    let wanted: [&[&str]; 8] = [&["n"], &["replaced"], &["once"], &[], &[], &["1"], &["caf\u{c3}\u{a9}"], &[""]];
    assert_eq!(fields(&request.headers, &names), wanted);
    assert_eq!(fields(&answer.headers, &["x-new", "x-old"]), [[""; 0]; 2], "nothing of it is for the client");
}

#[test]
fn a_response_is_edited_first_set_then_removed() {
    let worker = obliging();
    let gateway = with_guest(&worker);
    let reply = json!({
        "decision": "allow",
        "add_response_headers": { "X-New": "n", "set-cookie": "c=3", "X-Added-And-Gone": "1", "Content-Type": "text/x" },
        "remove_response_headers": ["X-Gone", "x-added-and-gone"],
        "add_request_headers": { "X-Late": "1" },
        "remove_request_headers": ["X-Kept"],
    });
    let lines = [
        "Set-Cookie: a=1",
        "Set-Cookie: b=2",
        "X-Gone: 1",
        "X-Kept: 1",
        "X-Hostile: reply",
        &format!("X-Reply: {reply}"),
    ];
    let headers = lines.map(|line| ("X-Answer", line));
    let answer = gateway.request("GET", "/", &headers, b"");
    let names = ["x-new", "set-cookie", "x-added-and-gone", "content-type", "x-gone", "x-kept", "x-late"];
    let wanted: [&[&str]; 7] = [&["n"], &["c=3"], &[], &["text/x"], &[], &["1"], &[]];
    assert_eq!(fields(&answer.headers, &names), wanted);
    assert_eq!(answer.json()["target"], "/", "the body is the worker's");
}

#[test]
fn the_request_handler_may_speak_of_the_response() {
    let worker = obliging();
    let gateway = with_guest(&worker);
    let reply = json!({
        "decision": "allow",
        "add_response_headers": { "X-New": "n", "X-Old": "replaced", "X-Added-And-Gone": "1" },
        "remove_response_headers": ["X-Gone", "x-added-and-gone"],
    });
    let sent = ["X-Old: 1", "X-Old: 2", "X-Gone: 1"].map(|line| ("X-Answer", line));
    let (request, answer) = edited(&gateway, &worker, &reply, &sent);
    let names = ["x-new", "x-old", "x-added-and-gone", "x-gone"];
    let wanted: [&[&str]; 4] = [&["n"], &["replaced"], &[], &[]];
    assert_eq!(fields(&answer.headers, &names), wanted);
    assert_eq!(fields(&request.headers, &names), [[""; 0]; 4], "nothing of it is for the worker");
}

#[test]
fn it_may_even_where_it_has_no_response_handler_or_is_not_asked_for_one() {
    let files = crate::support::Files::new();
    let reply = json!({ "decision": "allow", "add_response_headers": { "X-Said": "on request" } });
    let module = Sentinel::replying(&reply, &json!({ "decision": "block" })).without("on_response_headers");
    let only = Module::new("m", &files.sentinel("m", &module));
    let (said, blocks) = (reply, json!({ "decision": "block" }));
    let unasked = Module::new("m", &files.sentinel("both", &Sentinel::replying(&said, &blocks))).at(&["OnRequest"]);
    for module in [only, unasked] {
        let worker = Worker::echo();
        let gateway = Gateway::with_modules(&worker).start();
        gateway.add(&module);
        let answer = gateway.get("/");
        assert_eq!((answer.status, answer.headers.get("x-said")), (200, Some("on request")));
    }
}

#[test]
fn what_the_request_handler_said_is_there_before_the_response_handler_looks() {
    let worker = obliging();
    let gateway = with_guest(&worker);
    let reply = json!({ "decision": "allow", "add_response_headers": { "X-Hostile": "echo", "X-Said": "1" } });
    let (_, answer) = edited(&gateway, &worker, &reply, &[]);
    let seen: Value = serde_json::from_str(answer.headers.get("x-seen-response").expect("it ran")).expect("JSON");
    assert_eq!(seen["headers"]["X-Said"], "1");
}

#[test]
fn it_holds_for_streams_and_for_answers_without_a_body() {
    let worker = Worker::new(|request, conn| match request.target.as_str() {
        "/stream" => {
            conn.start_events();
            conn.chunk("data: 0\n\n");
            conn.chunk("");
        }
        "/none" => conn.send("HTTP/1.1 204 S\r\n\r\n"),
        _ => conn.answer(404, "none"),
    });
    let gateway = with_guest(&worker);
    let reply = json!({ "decision": "allow", "add_response_headers": { "X-Said": "1" } }).to_string();
    for (target, status, body) in [("/stream", 200, "data: 0\n\n"), ("/none", 204, ""), ("/missing", 404, "none")] {
        let answer = gateway.request("GET", target, &[("X-Hostile", "reply"), ("X-Reply", &reply)], b"");
        assert_eq!((answer.status, answer.text().as_str(), answer.headers.get("x-said")), (status, body, Some("1")));
    }
}

#[test]
fn on_a_block_and_a_redirect_the_response_edits_are_for_their_answer() {
    let worker = obliging();
    let gateway = with_guest(&worker);
    let edits = json!({
        "add_response_headers": { "X-Why": "rule 7", "X-Added-And-Gone": "1", "Content-Type": "application/json", "Location": "/elsewhere" },
        "remove_response_headers": ["x-added-and-gone"], "add_request_headers": { "X-Late": "1" },
    });
    for (decision, status, kind, location) in
        [("block", 403, Some("application/json"), "/elsewhere"), ("redirect", 302, Some("application/json"), "/place")]
    {
        let mut reply = edits.clone();
        reply["decision"] = json!(decision);
        reply["body"] = json!("/place");
        for answer in [gateway.ask_for(&reply.to_string()), gateway.ask_for_on_response(&reply.to_string())] {
            assert_eq!(answer.status, status);
            assert_eq!((answer.headers.get("x-why"), answer.headers.get("content-type")), (Some("rule 7"), kind));
            assert_eq!(answer.headers.get("location"), Some(location));
            assert_eq!(fields(&answer.headers, &["x-added-and-gone", "x-late"]), [[""; 0]; 2]);
        }
    }
}

#[test]
fn a_block_without_its_type_has_none() {
    let worker = obliging();
    let gateway = with_guest(&worker);
    let reply = r#"{"decision":"block","body":"no","remove_response_headers":["content-type","x-request-id"]}"#;
    for answer in [gateway.ask_for(reply), gateway.ask_for_on_response(reply)] {
        assert_eq!((answer.status, answer.text().as_str(), answer.headers.has("content-type")), (403, "no", false));
        assert!(answer.headers.has("x-request-id"), "the client is told the id whatever a module says");
    }
}

#[test]
fn framing_and_connections_are_not_a_modules_to_set() {
    let worker = obliging();
    let gateway = with_guest(&worker);
    let names = [
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Upgrade",
        "TE",
        "Trailer",
        "Host",
    ];
    for name in names {
        for field in ["add_request_headers", "add_response_headers"] {
            let reply = json!({ "decision": "allow", field: { "X-Good": "1", name: "5" } }).to_string();
            let answer = gateway.ask_for(&reply);
            assert_eq!((answer.status, answer.text().as_str()), (500, "Wasm Error"), "{reply}");
        }
        // Where the module blocks, that is what happens, without the header.
        for (decision, status) in [("allow", 500), ("block", 403), ("redirect", 302)] {
            let headers = json!({ "X-Good": "1", name: "5" });
            let reply = json!({ "decision": decision, "body": "/", "add_response_headers": headers }).to_string();
            for answer in [gateway.ask_for(&reply), gateway.ask_for_on_response(&reply)] {
                assert_eq!(answer.status, status, "{reply}");
                assert_eq!(answer.headers.has("x-good"), decision != "allow", "{reply}");
            }
        }
    }
    assert_eq!(worker.broken(), [""; 0]);
}

#[test]
fn removing_them_asks_for_nothing() {
    let worker = Worker::new(|request, conn| conn.answer(200, &request.body));
    let gateway = with_guest(&worker);
    let names = ["Content-Length", "transfer-encoding", "HOST", "connection"];
    let reply = json!({ "decision": "allow", "remove_request_headers": names, "remove_response_headers": names });
    let answer = gateway.request("POST", "/", &[("X-Hostile", "reply"), ("X-Reply", &reply.to_string())], b"body");
    assert_eq!((answer.status, answer.text().as_str(), answer.headers.get("content-length")), (200, "body", Some("4")));
    let request = worker.wait_for_request();
    assert_eq!((request.headers.get("content-length"), request.headers.has("host")), (Some("4"), true));
}

#[test]
fn an_edit_is_made_whole_or_not_at_all() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::sentinel().set("on_failure", json!("open")));
    for (field, value) in [
        ("add_request_headers", json!({ "X-Good": "1", "X Bad": "2" })),
        ("add_request_headers", json!({ "X-Good": "1", "": "2" })),
        ("add_request_headers", json!({ "X-Good": "1", "X-Bad": "a\r\nX-Worse: 1" })),
        ("add_request_headers", json!({ "X-Good": "1", ":path": "/" })),
        ("remove_request_headers", json!(["X-Kept", "X Bad"])),
        ("add_response_headers", json!({ "X-Good": "1", "X-Bad": "\u{0}" })),
        ("remove_response_headers", json!(["X-Answered", "X\nBad"])),
    ] {
        let mut reply = json!({ "decision": "allow", "add_request_headers": { "X-Good": "1" } });
        reply[field] = value;
        let sent = [("X-Kept", "1"), ("X-Answer", "X-Answered: 1")];
        let (request, answer) = edited(&gateway, &worker, &reply, &sent);
        assert_eq!(fields(&request.headers, &["x-good", "x-bad", "x-worse", "x-kept"]), [&[][..], &[], &[], &["1"]]);
        assert_eq!(fields(&answer.headers, &["x-good", "x-bad", "x-answered"]), [&[][..], &[], &["1"]], "{reply}");
    }
}

#[test]
fn edits_are_bounded() {
    let worker = obliging();
    let gateway = with_guest(&worker);
    let uuid = gateway.modules()["modules"][0]["module_uuid"].as_str().expect("a uuid").to_owned();
    let by = |hostile| gateway.request("GET", "/", &[("X-Hostile", hostile)], b"");
    let on_response =
        |hostile: &str| gateway.request("GET", "/", &[("X-Answer", &*format!("X-Hostile: {hostile}"))], b"");
    for answer in [by("headers-many"), on_response("headers-many")] {
        assert_eq!((answer.status, answer.text().as_str()), (500, "Wasm Error"));
    }
    assert_eq!(gateway.failures(&uuid, "output"), 2);
}
