//! Where a request's body ends (cases 1 to 7): what could be read in two ways is refused, never passed on.

use crate::support::{BadRequest, Gateway, Worker, bad, refuses};
use std::time::Duration;

fn post(fields: &str, body: &str) -> String {
    format!("POST /framing HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

fn cases(build: impl Fn(&str) -> String, statuses: &[u16], variants: &[&str]) -> Vec<BadRequest> {
    variants.iter().map(|v| bad(&format!("{v:?}"), build(v), statuses)).collect()
}

// Case 1.
#[test]
fn content_length_beside_chunked_is_refused_or_chunked_alone_counts_and_the_connection_ends() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for fields in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        "Content-Length: 6\r\nTransfer-Encoding: Chunked\r\n",
    ] {
        let mut client = gateway.connect();
        client.send(post(fields, "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answer = client.read_response();
        assert!(matches!(answer.status, 200 | 400), "{fields}: {}", answer.status);
        client.assert_closed();
    }
    for request in worker.requests() {
        assert_eq!(request.target, "/framing");
        assert_eq!(request.body, b"");
        assert!(!request.headers.has("content-length"), "{}", request.head);
    }
}

// Case 2.
#[test]
fn two_content_lengths_that_differ_are_refused() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let build = |lengths: &str| post(lengths, "hello1");
    let differing = [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 6\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: 5\r\nX: y\r\ncontent-length: 6\r\n",
    ];
    refuses(&gateway, &worker, &cases(build, &[400], &differing));
    assert!(worker.broken().is_empty(), "{:?}", worker.broken());
}

// Case 2: RFC 9112 6.3 allows both to refuse a repeated equal length and to use it once.
#[test]
fn a_repeated_equal_content_length_is_refused_or_sent_on_once() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for lengths in ["Content-Length: 5\r\nContent-Length: 5\r\n", "Content-Length: 5, 5\r\n"] {
        let mut client = gateway.connect();
        client.send(post(lengths, "hello"));
        let status = client.read_response().status;
        assert!(matches!(status, 200 | 400), "{lengths}: {status}");
    }
    for request in worker.requests() {
        assert_eq!(request.headers.get("content-length"), Some("5"));
        assert_eq!(request.body, b"hello");
    }
}

// Case 3.
#[test]
fn a_content_length_that_is_not_a_plain_number_is_refused() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let build = |length: &str| post(&format!("Content-Length:{length}\r\n"), "hello");
    let odd = [
        " +5",
        " 0x5",
        " -1",
        "",
        " ",
        " 5 5",
        " 18446744073709551621",
        " 5,",
        " ,5",
        " 5;",
        " 5\t5",
        " five",
        " 5.0",
        " 1e1",
        " \"5\"",
        " 99999999999999999999999999",
    ];
    refuses(&gateway, &worker, &cases(build, &[400], &odd));
    assert!(worker.broken().is_empty(), "{:?}", worker.broken());
}

// Case 4.
#[test]
fn a_transfer_encoding_other_than_chunked_is_refused() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let build = |coding: &str| post(&format!("Transfer-Encoding:{coding}\r\n"), "5\r\nhello\r\n0\r\n\r\n");
    let odd = [
        " xchunked",
        " chunked, identity",
        " identity, chunked",
        " ,chunked",
        " chunked,",
        " chunked, chunked",
        " chunked\r\nTransfer-Encoding: chunked",
        " chunked\r\nTransfer-Encoding: identity",
        " identity",
        " gzip, chunked",
        " chunkedx",
        " \"chunked\"",
        " chunked;q=1",
        " x",
        "",
    ];
    // Where the last coding is chunked, the body's end is certain and the connection may go on.
    let cases: Vec<_> = cases(build, &[400, 501], &odd).into_iter().map(BadRequest::connection_may_go_on).collect();
    refuses(&gateway, &worker, &cases);
    assert!(worker.broken().is_empty(), "{:?}", worker.broken());
}

// Case 4: together with a length, an unknown coding must not fall back to the length.
#[test]
fn an_unknown_transfer_encoding_beside_a_content_length_is_refused() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let build = |coding: &str| post(&format!("Content-Length: 5\r\nTransfer-Encoding: {coding}\r\n"), "hello");
    refuses(&gateway, &worker, &cases(build, &[400, 501], &["xchunked", "identity", "chunked, identity", "gzip"]));
    assert!(worker.broken().is_empty(), "{:?}", worker.broken());
}

// Case 5.
#[test]
fn transfer_encoding_on_http_1_0_is_refused() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let body = "5\r\nhello\r\n0\r\n\r\n";
    let build =
        |fields: &str| format!("POST / HTTP/1.0\r\nHost: a\r\n{fields}Transfer-Encoding: chunked\r\n\r\n{body}");
    let variants = ["", "Connection: keep-alive\r\n", "Content-Length: 15\r\n"];
    refuses(&gateway, &worker, &cases(build, &[400], &variants));
    assert!(worker.broken().is_empty(), "{:?}", worker.broken());
}

// Case 6. The head may have gone to the worker by then, but never a whole body.
#[test]
fn a_chunk_size_that_is_not_plain_hex_is_refused() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let build = |size: &str| chunked(&format!("{size}\r\nhello\r\n0\r\n\r\n"));
    let odd = [
        "FFFFFFFFFFFFFFFFF",
        "10000000000000005",
        "0x5",
        "+5",
        "-5",
        "",
        "5x",
        "g",
        "5 5",
        "5,",
        " 5",
        "\"5\"",
        "fffffffffffffffffffffffffffffffffffffffff5",
    ];
    refuses(&gateway, &worker, &cases(build, &[400], &odd));
}

// Case 6.
#[test]
fn chunk_data_longer_than_its_size_is_refused() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let bodies =
        ["4\r\nhello\r\n0\r\n\r\n", "5\r\nhello0\r\n\r\n", "5\r\nhelloGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"];
    refuses(&gateway, &worker, &cases(chunked, &[400], &bodies));
}

// Case 7.
#[test]
fn a_bare_line_feed_in_chunk_framing_is_refused() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let bodies = [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
    ];
    refuses(&gateway, &worker, &cases(chunked, &[400], &bodies));
}

// Case 7. A proxy before us that takes a bare LF as the end of a line sees the end of the request here, and what
// follows as the next one: it must not be swallowed on a connection that goes on.
#[test]
fn a_bare_line_feed_in_the_trailers_is_refused_or_ends_the_connection() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for end in ["\n", "\n\r\n", "X: y\n\r\n", "X: y\n\n"] {
        let mut client = gateway.connect();
        client.send(chunked(&format!("5\r\nhello\r\n0\r\n{end}GET /next HTTP/1.1\r\nHost: a\r\n\r\n")));
        let answer = client.read_response();
        assert!(matches!(answer.status, 200 | 400), "{end:?}: {}", answer.status);
        assert!(client.ends_within(Duration::from_secs(3)), "{end:?}: the next request is swallowed");
    }
    assert!(worker.requests().iter().all(|r| r.target == "/framing"));
}

#[test]
fn a_malformed_trailer_is_refused() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let build = |line: &str| chunked(&format!("5\r\nhello\r\n0\r\n{line}\r\n\r\n"));
    refuses(&gateway, &worker, &cases(build, &[400], &["no colon", "X : y", ": y", "X: a\rb", "X: a\0b"]));
}

#[test]
fn chunk_extensions_and_odd_cuts_do_not_change_the_body() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for body in
        ["5\r\nhello\r\n0\r\n\r\n", "2;a=b\r\nhe\r\n3;\"x\"\r\nllo\r\n0;last\r\n\r\n", "05\r\nhello\r\n000\r\n\r\n"]
    {
        let mut client = gateway.connect();
        client.send(chunked(body));
        assert_eq!(client.read_response().status, 200, "{body:?}");
        assert_eq!(worker.wait_for_request().body, b"hello", "{body:?}");
    }
}
