//! Bodies that guests are shown and replace: always framed right, and bounded. Cases 27 and 33 of section 3.

use crate::support::{Gateway, Module, Worker, request};
use serde_json::json;

/// A worker that answers with `lines` in its head and `framed` behind them.
fn answering(lines: &str, framed: &str) -> Worker {
    Worker::fixed(format!("HTTP/1.1 200 OK\r\nX-Kept: 1\r\n{lines}{framed}"))
}

/// A gateway before a worker that answers `/0` with the first of `answers`, and so on.
fn hostile_before(answers: Vec<String>) -> (Worker, Gateway) {
    let worker = Worker::new(move |request, conn| {
        let n: usize = request.target[1..].parse().expect("a number");
        conn.send(&answers[n]);
    });
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    (worker, gateway)
}

const SIZED: &str = "Content-Length: 8\r\n\r\noriginal";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n\r\n3\r\nori\r\n5;x=y\r\nginal\r\n0\r\nX-Trailer: 1\r\n\r\n";

#[test]
fn a_request_body_is_shown_whole() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let sum = bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>().to_string();
    for chunked in [false, true] {
        let mut client = gateway.connect();
        if chunked {
            client.send(request(
                "h",
                "POST",
                "/",
                &[("X-Hostile", "echo-body"), ("Transfer-Encoding", "chunked")],
                b"",
            ));
            for piece in bytes.chunks(7001) {
                client.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
            }
            client.send("0\r\nX-Trailer: 1\r\n\r\n");
        } else {
            client.send_request("POST", "/", &[("X-Hostile", "echo-body")], &bytes);
        }
        assert_eq!(client.read_response().status, 200);
        let seen = worker.wait_for_request();
        assert_eq!((seen.headers.get("x-body-len"), seen.headers.get("x-body-sum")), (Some("300000"), Some(&*sum)));
        assert!(seen.body == bytes, "the worker gets the same bytes");
    }
    assert_eq!(worker.broken(), [""; 0]);
}

#[test]
fn a_replaced_request_body_is_framed_right() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    let mut client = gateway.connect();
    for (edit, wanted) in
        [("body:abc", "abc".to_owned()), ("body:", String::new()), ("body-size:70000", "b".repeat(70_000))]
    {
        for (method, body) in
            [("POST", &b"original"[..]), ("POST", b""), ("GET", b""), ("DELETE", b"original"), ("HEAD", b"")]
        {
            client.send_request(method, "/", &[("X-Hostile", edit)], body);
            assert_eq!(client.read_response_to(method).status, 200, "{edit} {method}");
            let seen = worker.wait_for_request();
            assert!(seen.body == wanted.as_bytes(), "{edit} {method}: {} bytes", seen.body.len());
        }
        let headers = [("X-Hostile", edit), ("Transfer-Encoding", "chunked"), ("Trailer", "X-T")];
        for trailers in ["", "X-T: 1\r\n"] {
            let body = format!("3\r\nori\r\n5\r\nginal\r\n0\r\n{trailers}\r\n");
            let mut client = gateway.connect();
            client.send_request("POST", "/", &headers, body.as_bytes());
            assert_eq!(client.read_response().status, 200, "{edit} chunked {trailers}");
            let seen = worker.wait_for_request();
            assert!(seen.body == wanted.as_bytes(), "{edit} chunked {trailers}: {} bytes", seen.body.len());
            assert!(seen.headers.has("content-length") != seen.headers.has("transfer-encoding") || wanted.is_empty());
        }
    }
    assert_eq!(worker.broken(), [""; 0]);
}

#[test]
fn a_client_that_expects_100_is_told_to_send_what_a_guest_is_to_see() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    let mut client = gateway.connect();
    let headers = [("X-Hostile", "echo-body"), ("Expect", "100-continue"), ("Content-Length", "4")];
    client.send(request("h", "POST", "/", &headers, b""));
    assert_eq!(client.read_head().status, 100);
    client.send("body");
    assert_eq!(client.read_response().status, 200);
    assert_eq!(worker.wait_for_request().headers.get("x-body-len"), Some("4"));
}

#[test]
fn a_length_that_a_guest_sets_must_be_that_of_its_body() {
    let worker = answering("X-Hostile-Response: body:abcd|set-header:content-length=4\r\n", SIZED);
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    let answer = gateway.request("POST", "/", &[("X-Hostile", "body:abc|set-header:Content-Length=3")], b"original");
    assert_eq!((answer.status, answer.text().as_str()), (200, "abcd"));
    assert_eq!(worker.wait_for_request().body, b"abc");
    for wrong in
        ["body:abc|set-header:content-length=4", "body:abc|add-header:content-length=03", "set-header:content-length=8"]
    {
        let answer = gateway.request("POST", "/", &[("X-Hostile", wrong)], b"original");
        answer.assert_error(503, "wasm_module_failed");
    }
}

#[test]
fn a_replaced_response_body_is_framed_right() {
    let edits = [("body:abc", "abc".to_owned()), ("body:", String::new()), ("body-size:70000", "b".repeat(70_000))];
    let cases: Vec<_> = edits.iter().flat_map(|edit| [(edit, SIZED), (edit, CHUNKED)]).collect();
    let answers = cases
        .iter()
        .map(|((edit, _), framed)| format!("HTTP/1.1 200 OK\r\nX-Kept: 1\r\nX-Hostile-Response: {edit}\r\n{framed}"));
    let (_worker, gateway) = hostile_before(answers.collect());
    let mut client = gateway.connect();
    for (n, ((edit, wanted), _)) in cases.iter().enumerate() {
        for _ in 0..3 {
            let answer = client.get(&format!("/{n}"));
            assert_eq!((answer.status, answer.headers.get("x-kept")), (200, Some("1")), "{edit}");
            assert!(answer.body == wanted.as_bytes(), "{edit}: {} bytes", answer.body.len());
            assert_eq!(answer.headers.get("content-length"), Some(&*wanted.len().to_string()), "{edit}");
        }
    }
}

#[test]
fn a_body_that_ends_with_its_connection_is_shown_and_replaced_too() {
    let head = "HTTP/1.1 200 OK\r\nX-Hostile-Response: echo-body|body:new\r\n\r\noriginal";
    let worker = Worker::fixed_then_close(head);
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    let answer = gateway.get("/");
    assert_eq!((answer.text().as_str(), answer.headers.get("x-body-len")), ("new", Some("8")));
}

#[test]
fn a_body_that_is_not_replaced_passes_as_it_was() {
    for framed in [SIZED, CHUNKED] {
        let worker = answering("X-Hostile-Response: echo-body\r\nContent-Encoding: gzip\r\nETag: \"e\"\r\n", framed);
        let gateway = Gateway::with_modules(&worker).start();
        gateway.add(&Module::hostile());
        let answer = gateway.get("/");
        assert_eq!((answer.text().as_str(), answer.headers.get("x-body-len")), ("original", Some("8")));
        assert_eq!((answer.headers.get("content-encoding"), answer.headers.get("etag")), (Some("gzip"), Some("\"e\"")));
    }
}

#[test]
fn an_answer_to_head_has_no_body_whatever_a_guest_says() {
    let worker =
        answering("X-Hostile-Response: echo-body|body:new|set-header:x-edited=1\r\n", "Content-Length: 8\r\n\r\n");
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    let mut client = gateway.connect();
    for _ in 0..3 {
        client.send_request("HEAD", "/", &[], b"");
        let answer = client.read_response_to("HEAD");
        assert_eq!(
            (answer.status, answer.headers.get("x-edited"), answer.headers.get("x-body-len")),
            (200, Some("1"), Some("0"))
        );
        let length = answer.headers.get("content-length");
        assert!(matches!(length, None | Some("3")), "a GET would have 3: {length:?}");
    }
}

#[test]
fn the_length_of_an_answer_to_head_stays_when_no_body_is_replaced() {
    let worker = answering("X-Hostile-Response: set-header:x-edited=1\r\n", "Content-Length: 12345678\r\n\r\n");
    let gateway = Gateway::with_modules(&worker).arg("--wasm-max-body-size=100").start();
    gateway.add(&Module::hostile());
    let mut client = gateway.connect();
    client.send_request("HEAD", "/", &[], b"");
    let answer = client.read_response_to("HEAD");
    assert_eq!((answer.headers.get("x-edited"), answer.headers.get("content-length")), (Some("1"), Some("12345678")));
}

#[test]
fn a_204_and_a_304_have_no_body_whatever_a_guest_says() {
    let cases = [("204", ""), ("304", "Content-Length: 8\r\n"), ("304", "")];
    let answers = cases.iter().map(|(status, length)| {
        format!("HTTP/1.1 {status} S\r\nX-Hostile-Response: body:new|set-header:x-edited=1\r\n{length}\r\n")
    });
    let (_worker, gateway) = hostile_before(answers.collect());
    let mut client = gateway.connect();
    for n in [0, 0, 1, 1, 2, 2, 0] {
        let answer = client.get(&format!("/{n}"));
        assert_eq!((&*answer.status.to_string(), answer.headers.get("x-edited")), (cases[n].0, Some("1")));
        assert!(answer.status != 204 || !answer.headers.has("content-length"), "RFC 9110 section 8.6");
    }
}

#[test]
fn a_guest_that_makes_it_a_204_takes_the_body_away() {
    let edits = ["status:204", "status:304", "reject:204", "status:204|body:new"];
    let answers = edits.iter().flat_map(|edit| {
        [SIZED, CHUNKED].map(|framed| format!("HTTP/1.1 200 OK\r\nX-Hostile-Response: {edit}\r\n{framed}"))
    });
    let (_worker, gateway) = hostile_before(answers.collect());
    let mut client = gateway.connect();
    for n in 0..8 {
        for _ in 0..2 {
            let answer = client.get(&format!("/{n}"));
            assert!(matches!(answer.status, 204 | 304), "{n}: {answer:?}");
            assert!(answer.status != 204 || !answer.headers.has("content-length"), "{n}: {answer:?}");
        }
    }
}

#[test]
fn a_guest_that_makes_it_a_200_gives_a_204_a_body() {
    let worker = Worker::fixed("HTTP/1.1 204 S\r\nX-Hostile-Response: status:200|body:new\r\n\r\n");
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    let answer = gateway.get("/");
    assert_eq!((answer.status, answer.text().as_str(), answer.headers.get("content-length")), (200, "new", Some("3")));
}

#[test]
fn a_worker_that_dies_while_its_body_is_collected_is_a_502() {
    for framed in ["Content-Length: 80\r\n\r\noriginal", "Transfer-Encoding: chunked\r\n\r\n3\r\nori\r\n"] {
        let worker = Worker::fixed_then_close(format!("HTTP/1.1 200 OK\r\nX-Hostile-Response: body:new\r\n{framed}"));
        let gateway = Gateway::with_modules(&worker).start();
        gateway.add(&Module::hostile());
        gateway.get("/").assert_error(502, "upstream_bad_response");
    }
}

#[test]
fn a_request_body_over_the_limit_is_a_413_that_no_guest_sees() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--wasm-max-body-size=10000").start();
    let uuid =
        gateway.add(&Module::hostile().set("on_failure", json!("open")).set("match", json!({ "paths": ["/m/*"] })));
    let (fits, over) = (vec![b'x'; 10_000], vec![b'x'; 10_001]);
    gateway.request("POST", "/m/", &[], &over).assert_error(413, "request_body_too_large");
    let mut client = gateway.connect();
    client.send(request("h", "POST", "/m/", &[("Transfer-Encoding", "chunked")], b""));
    client.send([&b"1388\r\n"[..], &over[..5000], b"\r\n1389\r\n", &over[5000..], b"\r\n"].concat());
    client.read_response().assert_error(413, "request_body_too_large");
    assert!(client.ends_within(std::time::Duration::from_secs(4)), "the rest of the body would be the next request");
    let mut client = gateway.connect();
    client.send(request("h", "POST", "/m/", &[("Content-Length", "10001"), ("Expect", "100-continue")], b""));
    let answer = client.read_response();
    assert_eq!((answer.status, answer.interim), (413, vec![]), "nothing is asked for");
    assert!(worker.requests().is_empty());
    assert_eq!(gateway.meta(&uuid)["access_count"], 0);
    assert_eq!(gateway.request("POST", "/m/", &[], &fits).status, 200, "exactly the limit");
    assert_eq!(gateway.request("POST", "/other", &[], &over).status, 200, "no module is shown it");
}

#[test]
fn a_response_body_over_the_limit_follows_the_failure_policy() {
    let body: String = ('a'..='z').cycle().take(300_000).collect();
    let sized = format!("Content-Length: 300000\r\n\r\n{body}");
    let chunked =
        format!("Transfer-Encoding: chunked\r\n\r\n100\r\n{}\r\n492e0\r\n{}\r\n0\r\n\r\n", &body[..256], &body[256..]);
    for framed in [&sized, &chunked] {
        let worker = answering("X-Hostile-Response: status:500|body:new\r\nContent-Type: text/plain\r\n", framed);
        let gateway = Gateway::with_modules(&worker).arg("--wasm-max-body-size=10000").start();
        let uuid = gateway.add(&Module::hostile().set("on_failure", json!("open")));
        let mut client = gateway.connect();
        for _ in 0..2 {
            let answer = client.get("/");
            assert_eq!((answer.status, answer.headers.get("x-kept")), (200, Some("1")));
            assert!(answer.body == body.as_bytes(), "{} bytes", answer.body.len());
        }
        assert_eq!(gateway.failures(&uuid, "body_too_large"), 2);
        gateway.remove(&uuid);
        let uuid = gateway.add(&Module::hostile());
        let answer = gateway.get("/");
        answer.assert_error(503, "wasm_module_failed");
        assert!(!answer.headers.has("x-kept"), "nothing of the worker's answer is left: {:?}", answer.headers);
        assert_eq!(gateway.failures(&uuid, "body_too_large"), 1);
    }
}

#[test]
fn of_two_modules_each_has_its_own_limit() {
    let worker = answering(
        "X-Hostile-Response: add-header:x-ran=1\r\n",
        &format!("Content-Length: 500\r\n\r\n{}", "x".repeat(500)),
    );
    let gateway = Gateway::with_modules(&worker).start();
    let small = Module::hostile().set("limits", json!({ "body_bytes": 100 })).set("on_failure", json!("open"));
    let small = gateway.add(&small);
    gateway.add(&Module::new("large", &crate::support::guest("hostile")).set("allow_duplicate", json!(true)));
    let answer = gateway.get("/");
    assert_eq!((answer.status, answer.body.len(), answer.headers.all("x-ran")), (200, 500, vec!["1"]));
    assert_eq!(gateway.failures(&small, "body_too_large"), 1);
    gateway.request("POST", "/", &[], &[b'x'; 101]).assert_error(413, "request_body_too_large");
}
