//! How a worker's answer is framed for the client (cases 23, 27 and 32), with the connection usable after it.

use crate::support::{End, Gateway, Worker};

/// A worker that answers `/odd` with these bytes and anything else plainly.
fn worker_with(odd: impl Into<Vec<u8>>) -> Worker {
    let odd = odd.into();
    Worker::new(move |request, conn| match request.target.as_str() {
        "/odd" => conn.send(&odd),
        _ => conn.answer(200, "next"),
    })
}

// Case 23.
#[test]
fn a_head_answer_keeps_its_length_and_has_no_body() {
    let worker = worker_with("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nETag: \"x\"\r\n\r\n");
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send_request("HEAD", "/odd", &[], b"");
    let answer = client.read_response_to("HEAD");
    assert_eq!(answer.headers.get("content-length"), Some("12345"));
    assert_eq!(answer.headers.get("etag"), Some("\"x\""));
    assert_eq!(client.get("/next").text(), "next");
}

#[test]
fn a_head_answer_in_chunks_has_no_body() {
    let worker = worker_with("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send_request("HEAD", "/odd", &[], b"");
    assert_eq!(client.read_response_to("HEAD").status, 200);
    assert_eq!(client.get("/next").text(), "next");
}

#[test]
fn a_head_of_the_gateways_own_endpoint_has_no_body() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    for path in ["/health", "/readiness"] {
        client.send_request("HEAD", path, &[], b"");
        assert_eq!(client.read_response_to("HEAD").status, 200, "{path}");
    }
    assert_eq!(client.get("/next").json()["path"], "/next");
}

// Case 23: a body where none may be is dropped, and is nobody's next answer.
#[test]
fn bodies_that_must_not_be_are_dropped() {
    let body = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhacked";
    let length = body.len();
    for (method, odd) in [
        ("HEAD", format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")),
        ("GET", format!("HTTP/1.1 204 No Content\r\nContent-Length: {length}\r\n\r\n{body}")),
        ("GET", format!("HTTP/1.1 304 Not Modified\r\nContent-Length: {length}\r\n\r\n{body}")),
        (
            "GET",
            format!("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"),
        ),
        (
            "GET",
            format!("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"),
        ),
        ("GET", "HTTP/1.1 100 Continue\r\nContent-Length: 6\r\n\r\nhacked".to_owned()),
    ] {
        let worker = worker_with(odd.clone());
        let gateway = Gateway::before(&worker);
        let mut client = gateway.connect();
        client.send_request(method, "/odd", &[], b"");
        let answer = client.read_response_to(method);
        assert!(matches!(answer.status, 200 | 204 | 304 | 502), "{odd:?}: {}", answer.status);
        assert!(!answer.text().contains("hacked"), "{odd:?}");
        let next = client.get("/next");
        assert_eq!((next.status, next.text().as_str()), (200, "next"), "{odd:?}");
    }
}

// Case 23: the same when it comes only when somebody else has asked for something.
#[test]
fn a_body_that_must_not_be_and_comes_late_is_nobodys_answer() {
    let late = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhacked";
    for framing in [format!("Content-Length: {}", late.len()), "Transfer-Encoding: chunked".to_owned()] {
        let head = format!("HTTP/1.1 204 No Content\r\n{framing}\r\n\r\n");
        let worker = Worker::new(move |request, conn| {
            if request.nth > 0 {
                conn.send(late);
            }
            match request.target.as_str() {
                "/odd" => conn.send(&head),
                _ => {
                    conn.answer(200, "next");
                    conn.close();
                }
            }
        });
        let gateway = Gateway::builder().worker(&worker).arg("--shards=1").start();
        for method in ["GET", "POST"] {
            assert_eq!(gateway.get("/odd").status, 204, "{framing}");
            assert_eq!(gateway.request(method, "/next", &[], b"").text(), "next", "{framing}");
        }
        let used: Vec<_> = worker.requests().iter().map(|r| r.nth).collect();
        assert!(used.iter().all(|nth| *nth == 0), "{framing}: {used:?}");
    }
}

#[test]
fn an_answer_without_content_has_no_framing_fields() {
    let worker = worker_with("HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n");
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    let answer = client.get("/odd");
    assert_eq!((answer.status, answer.headers.get("x-a")), (204, Some("b")));
    assert!(!answer.headers.has("transfer-encoding") && !answer.headers.has("content-length"), "{:?}", answer.headers);
    assert_eq!(client.get("/next").text(), "next");
}

#[test]
fn a_not_modified_answer_keeps_its_validators() {
    let worker = worker_with("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 99\r\n\r\n");
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    let answer = client.get("/odd");
    assert_eq!((answer.status, answer.headers.get("etag")), (304, Some("\"x\"")));
    assert_eq!(client.get("/next").text(), "next");
}

#[test]
fn an_empty_answer_is_empty() {
    let worker = worker_with("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    assert_eq!(client.get("/odd").body, b"");
    assert_eq!(client.get("/next").text(), "next");
}

// Case 32.
#[test]
fn an_answer_that_ends_with_its_connection_is_chunked_for_the_client() {
    let worker = Worker::fixed_then_close("HTTP/1.1 200 OK\r\n\r\nuntil the end");
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.text().as_str()), (200, "until the end"));
        assert_eq!(answer.headers.get("transfer-encoding"), Some("chunked"));
    }
}

#[test]
fn an_http_1_0_worker_is_understood() {
    let worker = Worker::fixed_then_close("HTTP/1.0 200 OK\r\n\r\nold");
    let gateway = Gateway::before(&worker);
    let answer = gateway.get("/");
    assert_eq!((answer.status, answer.text().as_str(), answer.version.as_str()), (200, "old", "HTTP/1.1"));
}

// Case 32: a reset is not an end.
#[test]
fn an_answer_until_close_that_is_reset_does_not_end_cleanly() {
    let worker = Worker::new(|_, conn| {
        conn.send("HTTP/1.1 200 OK\r\n\r\nuntil the");
        conn.wait_peer_closed(std::time::Duration::from_millis(200));
        conn.reset();
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[], b"");
    let answer = client.read_response_however("GET");
    assert_ne!(answer.end, End::Clean, "{answer:?}");
}

#[test]
fn an_http_1_0_client_gets_a_chunked_answer_without_chunks() {
    let worker = worker_with("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n");
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send("GET /odd HTTP/1.0\r\nHost: a\r\n\r\n");
    let answer = client.read_response();
    assert_eq!(answer.text(), "abcdef");
    assert!(!answer.headers.has("transfer-encoding"));
}

// Case 30 for a client without chunks: its answer ends with the connection, so a break must be a reset.
#[test]
fn a_stream_that_breaks_off_does_not_end_cleanly_for_an_http_1_0_client() {
    let worker = Worker::fixed_then_close("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    // A reset may take the head with it; then nothing looks like an answer.
    if let Ok(Some(_)) = client.try_read_head("GET") {
        assert_eq!(client.read_end(), End::Broken(std::io::ErrorKind::ConnectionReset));
    }
}

// Case 27.
#[test]
fn trailers_of_an_answer_are_kept_or_dropped_but_never_become_fields() {
    let worker = worker_with(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Set-Cookie\r\n\r\n3\r\nabc\r\n0\r\n\
         X-Sum: 42\r\nSet-Cookie: stolen=1\r\nContent-Length: 3\r\nTransfer-Encoding: x\r\nHost: evil\r\n\r\n",
    );
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send_request("GET", "/odd", &[("TE", "trailers")], b"");
    let answer = client.read_response();
    assert_eq!(answer.text(), "abc");
    for name in ["x-sum", "set-cookie", "host", "content-length"] {
        assert!(!answer.headers.has(name), "{name} was merged");
    }
    for name in ["content-length", "transfer-encoding", "host"] {
        assert!(!answer.trailers.has(name), "{name} is no trailer");
    }
    assert!(matches!(answer.trailers.get("x-sum"), None | Some("42")));
    assert_eq!(client.get("/next").text(), "next");
}

// Case 27.
#[test]
fn trailers_of_a_request_are_kept_or_dropped_but_never_become_fields() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Authorization\r\n\r\n3\r\nabc\r\n0\r\n\
         X-Sum: 42\r\nAuthorization: Bearer x\r\nContent-Length: 3\r\nHost: evil\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
    );
    assert_eq!(client.read_response().status, 200);
    let request = worker.wait_for_request();
    assert_eq!(request.body, b"abc");
    for name in ["x-sum", "authorization", "content-length"] {
        assert!(!request.headers.has(name), "{name} was merged");
    }
    assert_eq!(request.headers.get("host"), Some(worker.address.to_string().as_str()));
    assert_eq!(request.headers.get("x-forwarded-for"), Some("127.0.0.1"));
    for name in ["content-length", "host", "authorization"] {
        assert!(!request.trailers.has(name), "{name} is no trailer");
    }
    assert_eq!(request.trailers.get("x-sum"), Some("42"));
    assert_eq!(client.get("/next").status, 200, "what follows the trailers is the next request");
}

#[test]
fn a_workers_own_status_and_location_pass_through() {
    let worker = Worker::new(|request, conn| {
        let status = &request.target[1..];
        conn.send(format!(
            "HTTP/1.1 {status} Whatever\r\nLocation: /x\r\nX-Smg-Error-Code: mine\r\nContent-Length: 2\r\n\r\nhi"
        ));
    });
    let gateway = Gateway::before(&worker);
    for status in [200, 201, 202, 206, 226, 301, 307, 400, 401, 404, 409, 418, 422, 429, 451, 500, 501, 503, 599] {
        let answer = gateway.get(&format!("/{status}"));
        assert_eq!((answer.status, answer.text().as_str()), (status, "hi"));
        assert_eq!(answer.headers.get("location"), Some("/x"), "redirects are the client's to follow");
        assert!(!answer.headers.has("x-smg-error-code"), "the worker's error is none of the gateway's");
    }
}

#[test]
fn a_large_binary_body_passes_byte_for_byte_both_ways() {
    let worker = Worker::new(|request, conn| conn.answer(200, &request.body));
    let gateway = Gateway::before(&worker);
    let body: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut client = gateway.connect();
    let mut writer = client.writer();
    let sent = body.clone();
    let writing = std::thread::spawn(move || {
        use std::io::Write;
        let head = format!("POST /bytes HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", sent.len());
        writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(&sent))
    });
    let answer = client.read_response();
    writing.join().unwrap().expect("the gateway takes the whole body");
    assert!(answer.body == body, "the body came back changed");
    let length = body.len().to_string();
    assert_eq!(worker.wait_for_request().headers.get("content-length"), Some(length.as_str()));
}
