//! One client connection and its many requests (cases 17 to 20): however the bytes are cut, none is lost or mixed.

use crate::support::{Gateway, ReceivedRequest, Worker, guest, request};
use std::time::Duration;

const POST: &str = "POST /cut?a=b HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nX-Request-Id: r\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &str = "POST /cut?a=b HTTP/1.1\r\nHost: a\r\nX-Request-Id: r\r\nTrailer: T\r\n\
                       Transfer-Encoding: chunked\r\n\r\n\
                       2;x\r\nhe\r\n3\r\nllo\r\n0\r\nT: v\r\n\r\n";

/// What a worker has got, whatever it came on.
fn whole(request: &ReceivedRequest) -> (&str, &[u8], Option<&str>) {
    (&request.head, &request.body, request.trailers.get("t"))
}

// Case 17.
#[test]
fn a_request_cut_anywhere_is_the_same_request() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for raw in [POST, CHUNKED] {
        gateway.connect().send(raw).read_response();
        let uncut = worker.wait_for_request();
        assert_eq!(whole(&uncut).2, (raw == CHUNKED).then_some("v"));
        for cut in 1..raw.len() {
            let mut client = gateway.connect();
            client.send(&raw[..cut]);
            // Long enough that the gateway mostly reads the two parts apart; nothing depends on it.
            std::thread::sleep(Duration::from_millis(1));
            client.send(&raw[cut..]);
            assert_eq!(client.read_response().status, 200, "cut at {cut}");
            assert_eq!(whole(&worker.wait_for_request()), whole(&uncut), "cut at {cut}");
        }
    }
}

// Case 17.
#[test]
fn a_request_byte_by_byte_is_the_same_request() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for raw in [POST, CHUNKED] {
        gateway.connect().send(raw).read_response();
        let uncut = worker.wait_for_request();
        let mut client = gateway.connect();
        for byte in raw.as_bytes() {
            client.send([*byte]);
            std::thread::sleep(Duration::from_micros(300));
        }
        assert_eq!(client.read_response().status, 200);
        assert_eq!(whole(&worker.wait_for_request()), whole(&uncut));
    }
}

// Case 18.
#[test]
fn fifty_pipelined_requests_get_their_own_answers_in_order() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let body = |i: usize| vec![b'x'; i];
    let all: Vec<u8> = (0..50).flat_map(|i| request("a", "POST", &format!("/p{i}"), &[], &body(i))).collect();
    let mut client = gateway.connect();
    client.send(all);
    for i in 0..50 {
        let answer = client.read_response().json();
        assert_eq!(answer["path"], format!("/p{i}"));
        assert_eq!(answer["body_length"], i);
    }
}

// Case 19.
#[test]
fn what_follows_the_last_request_of_a_connection_is_never_answered() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for last in [
        "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "POST /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        "GET /last HTTP/1.0\r\nHost: a\r\n\r\n",
    ] {
        let mut client = gateway.connect();
        client.send(format!("{last}GET /after HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.read_response().json()["path"], "/last");
        client.assert_closed();
    }
    assert!(worker.requests().iter().all(|r| r.target == "/last"));
}

// Case 20.
#[test]
fn the_body_of_any_method_reaches_the_worker_and_leaves_the_pipe_clean() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    for method in ["GET", "DELETE", "OPTIONS", "PATCH", "PUT", "FOO"] {
        client.send_request(method, "/with-body", &[], b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response().json()["method"], method);
        let chunked = format!(
            "{method} /with-body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        );
        client.send(chunked);
        assert_eq!(client.read_response().json()["method"], method);
    }
    let lengths: Vec<usize> = worker.requests().iter().map(|r| r.body.len()).collect();
    assert_eq!(lengths, [35, 3].repeat(6));
    assert_eq!(worker.requests()[0].target, "/with-body");
}

// Case 20, where the gateway itself answers and reads no body.
#[test]
fn the_body_of_a_request_that_the_gateway_answers_is_not_the_next_request() {
    let worker = Worker::echo();
    let builder = Gateway::with_modules(&worker).arg(format!("--wasm-module=hostile={}", guest("hostile")));
    let gateway = builder.arg("--api-key=k").start();
    let key = "Authorization: Bearer k";
    let own = |via: &str| format!("{key}\r\nVia: {via}");
    gateway.request("GET", "/next", &[("Authorization", "Bearer k")], b"");
    let via = worker.wait_for_request().headers.get("via").expect("it is added").to_owned();
    for (request, fields, status) in [
        ("GET /health", String::new(), 200),
        ("GET /readiness", String::new(), 200),
        ("HEAD /liveness", String::new(), 200),
        ("POST /any", String::new(), 401),
        ("DELETE /wasm", key.to_owned(), 405),
        ("GET /wasm/none", key.to_owned(), 400),
        ("POST /any", own(&via), 508),
        ("PUT /any", format!("{key}\r\nX-Hostile: reject:403"), 403),
        ("GET /any", format!("{key}\r\nX-Hostile: trap"), 503),
    ] {
        for body in [
            format!("Content-Length: 41\r\n\r\n{SMUGGLED}"),
            format!("Transfer-Encoding: chunked\r\n\r\n29\r\n{SMUGGLED}\r\n0\r\n\r\n"),
        ] {
            let fields = if fields.is_empty() { String::new() } else { format!("{fields}\r\n") };
            let mut client = gateway.connect();
            client.send(format!("{request} HTTP/1.1\r\nHost: a\r\n{fields}{body}"));
            let method = request.split(' ').next().expect("a method");
            assert_eq!(client.read_response_to(method).status, status, "{request} {fields}");
            let _ = client.try_send(format!("GET /next HTTP/1.1\r\nHost: a\r\n{key}\r\n\r\n"));
            if let Ok(Some(next)) = client.try_read_head("GET") {
                assert_eq!(next.status, 200, "{request} {fields}");
            }
        }
    }
    assert!(worker.requests().iter().all(|r| r.target == "/next"), "{:?}", worker.requests());
    assert!(worker.broken().is_empty(), "{:?}", worker.broken());
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: abcdefg\r\n\r\n";

#[test]
fn a_connection_serves_one_request_after_another() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    for i in 0..5 {
        assert_eq!(client.get(&format!("/{i}")).json()["path"], format!("/{i}"));
    }
}

#[test]
fn requests_of_one_client_share_a_worker_connection() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    for _ in 0..5 {
        client.get("/");
    }
    assert_eq!(worker.connections(), 1);
}

#[test]
fn connection_close_is_honoured_and_echoed() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[("Connection", "close")], b"");
    assert_eq!(client.read_response().headers.get("connection"), Some("close"));
    client.assert_closed();
}

#[test]
fn http_1_0_with_keep_alive_goes_on() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(client.read_response().status, 200);
    }
}

// An empty line before a request line is to be ignored (RFC 9112 2.2).
#[test]
fn an_empty_line_before_a_request_is_skipped() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send(
        "POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(client.read_response().json()["path"], "/first");
    assert_eq!(client.read_response().json()["path"], "/second");
}
