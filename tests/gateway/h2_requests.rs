//! HTTP/2 in front, HTTP/1.1 behind (RFC 9113 section 8): what a request and its answer become on the other side.

use crate::support::{Code, Frame, Gateway, H2, Last, PREFACE, RawH2, StreamEnd, Worker};
use std::time::Duration;

/// A request's head without a body, with `more` after the pseudo-fields.
fn get<'a>(authority: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", "/")];
    pseudo.into_iter().chain(more.iter().copied()).collect()
}

#[test]
fn a_request_becomes_one_of_http_1_1() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let answer = client.request("PUT", "/a/%2e?b=c", &[("x-mine", "1"), ("content-length", "5")], b"hello");
    assert_eq!((answer.status, answer.end), (200, StreamEnd::Clean), "{answer:?}");
    let request = worker.wait_for_request();
    assert_eq!((request.method.as_str(), request.target.as_str()), ("PUT", "/a/%2e?b=c"));
    assert_eq!(request.headers.get("host"), Some(worker.address.to_string().as_str()));
    assert_eq!(request.headers.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.headers.get("x-forwarded-host"), Some(gateway.address.to_string().as_str()));
    assert_eq!((request.headers.get("x-mine"), request.headers.get("content-length")), (Some("1"), Some("5")));
    assert_eq!(request.body, b"hello");
    assert!(request.headers.iter().all(|(name, _)| !name.starts_with(':')), "{}", request.head);
}

// Without a length, the worker's side needs another end.
#[test]
fn a_body_without_a_length_becomes_chunked_and_none_becomes_none() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    assert_eq!(client.post("/", b"hello").json()["body_length"], 5);
    let request = worker.wait_for_request();
    assert_eq!(request.headers.get("transfer-encoding"), Some("chunked"), "{}", request.head);
    assert_eq!(request.body, b"hello");
    client.get("/");
    assert!(!worker.wait_for_request().headers.has("transfer-encoding"));
}

#[test]
fn both_versions_are_served_on_one_port() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut one = gateway.connect();
    let mut two = H2::connect(&gateway);
    for _ in 0..3 {
        assert_eq!((one.get("/1").status, two.get("/2").status), (200, 200));
    }
    assert_eq!(two.get("/health").status, 200, "the gateway's own resources are there, too");
}

#[test]
fn the_preface_may_come_in_any_pieces() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let start = [PREFACE, &Frame::settings(&[]).encode(), &Frame::headers(1, 1, get("a", &[])).encode()].concat();
    for cut in [1, 2, 3, 4, 14, 16, 23, 24, 30] {
        let mut raw = RawH2::silent(gateway.address);
        raw.write(&start[..cut]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        raw.write(&start[cut..]).unwrap();
        raw.expect(|f| f.kind == Frame::HEADERS && f.stream == 1);
    }
}

#[test]
fn what_only_begins_like_the_preface_is_not_http_2() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for method in ["PROPFIND", "PR", "PRI"] {
        let mut client = gateway.connect();
        for byte in format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n").bytes() {
            client.send([byte]);
        }
        assert_eq!(client.read_response().status, 200, "{method}");
    }
    let mut client = gateway.connect();
    client.send("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
    assert!(client.ends_within(Duration::from_secs(3)), "half a preface stays");
}

// Case 27. Which trailers pass is the same as on HTTP/1.1: those that were announced, and none that frame or authorise.
#[test]
fn trailers_of_an_answer_come_after_its_body() {
    let worker = Worker::fixed(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Content-Length, Set-Cookie\r\n\r\n3\r\nabc\r\n0\r\n\
         X-Sum: 42\r\nContent-Length: 3\r\nTransfer-Encoding: x\r\nConnection: close\r\nHost: evil\r\n\r\n",
    );
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let answer = client.request("GET", "/", &[("te", "trailers")], b"");
    assert_eq!((answer.text().as_str(), answer.end), ("abc", StreamEnd::Clean));
    assert_eq!(answer.trailers.get("x-sum"), Some("42"), "{answer:?}");
    for name in ["content-length", "host", "connection", "transfer-encoding"] {
        assert!(!answer.trailers.has(name), "{name} is no trailer");
    }
    for name in ["x-sum", "host"] {
        assert!(!answer.headers.has(name), "{name} was merged");
    }
}

// Case 27.
#[test]
fn trailers_of_a_request_come_after_its_body_and_never_become_fields() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let stream = client.start("POST", "/", &[("trailer", "x-sum, authorization")], Last::No);
    client.data(stream, b"hello", Last::No);
    let trailers = [
        ("x-sum", "42"),
        ("authorization", "Bearer x"),
        ("content-length", "0"),
        ("host", "evil"),
        ("x-forwarded-for", "6.6.6.6"),
    ];
    client.trailers(stream, &trailers);
    assert_eq!(client.wait(stream).status, 200);
    let request = worker.wait_for_request();
    assert_eq!(request.body, b"hello");
    assert_eq!(request.trailers.get("x-sum"), Some("42"), "{request:?}");
    for name in ["authorization", "content-length", "host", "x-forwarded-for"] {
        assert!(!request.trailers.has(name), "{name} is no trailer");
    }
    for name in ["x-sum", "authorization", "content-length"] {
        assert!(!request.headers.has(name), "{name} was merged");
    }
    assert_eq!(request.headers.get("x-forwarded-for"), Some("127.0.0.1"));
}

#[test]
fn a_call_of_grpc_shape_passes() {
    let message = b"\0\0\0\0\x05hello";
    let worker = Worker::new(|request, conn| {
        conn.send(
            "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\
             Trailer: grpc-status, grpc-message\r\n\r\n",
        );
        conn.chunk(&request.body);
        conn.send("0\r\ngrpc-status: 5\r\ngrpc-message: not%20found\r\n\r\n");
    });
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let headers = [("te", "trailers"), ("content-type", "application/grpc"), ("grpc-timeout", "1S")];
    let answer = client.request("POST", "/pkg.Service/Method", &headers, message);
    assert_eq!((answer.status, answer.body.as_slice()), (200, &message[..]));
    assert_eq!(answer.headers.get("content-type"), Some("application/grpc"));
    assert_eq!(answer.trailers.get("grpc-status"), Some("5"), "{answer:?}");
    assert_eq!(answer.trailers.get("grpc-message"), Some("not%20found"));
    let request = worker.wait_for_request();
    assert_eq!(request.headers.get("grpc-timeout"), Some("1S"));
    assert!(matches!(request.headers.get("te"), None | Some("trailers")), "{}", request.head);
}

// RFC 9113 section 8.2.3: HTTP/1.1 knows one Cookie field only.
#[test]
fn crumbs_of_a_cookie_are_joined() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let headers = [("cookie", "a=b"), ("x", "y"), ("cookie", "c=d"), ("cookie", "e=f")];
    assert_eq!(client.request("GET", "/", &headers, b"").status, 200);
    assert_eq!(worker.wait_for_request().headers.get("cookie"), Some("a=b; c=d; e=f"));
}

// RFC 9113 section 8.3.1.
#[test]
fn a_host_field_may_stand_for_the_authority() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let host = [(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "named:80")];
    for fields in [get("named:80", &[]), get("named:80", &[("host", "named:80")]), host.to_vec()] {
        let answer = client.request_with(&fields);
        assert_eq!(answer.status, 200, "{fields:?}: {answer:?}");
        let request = worker.wait_for_request();
        assert_eq!(request.headers.get("host"), Some(worker.address.to_string().as_str()));
        assert_eq!(request.headers.get("x-forwarded-host"), Some("named:80"), "{fields:?}");
    }
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    let worker = Worker::new(|request, conn| match (request.method.as_str(), request.target.as_str()) {
        ("HEAD", _) => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        (_, "/204") => conn.send("HTTP/1.1 204 No Content\r\n\r\n"),
        (_, "/304") => conn.send("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 1000\r\n\r\n"),
        _ => conn.answer(200, "next"),
    });
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    for (method, path, status) in [("HEAD", "/", 200), ("GET", "/204", 204), ("GET", "/304", 304)] {
        let answer = client.request(method, path, &[], b"");
        assert_eq!((answer.status, answer.end, answer.body.len()), (status, StreamEnd::Clean, 0), "{answer:?}");
        assert_eq!(client.get("/next").text(), "next");
    }
}

// hyper cannot send interim answers on HTTP/2: they may be dropped, but never take the place of the final one.
#[test]
fn an_interim_answer_is_not_the_answer() {
    let worker = Worker::new(|_, conn| {
        conn.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
        conn.answer(200, "final");
    });
    let gateway = Gateway::before(&worker);
    let answer = H2::connect(&gateway).get("/");
    assert_eq!((answer.status, answer.text().as_str()), (200, "final"));
    assert!(answer.interim.iter().all(|status| *status == 103) && !answer.headers.has("link"), "{answer:?}");
}

#[test]
fn an_expectation_does_not_hold_up_the_request() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let stream = client.start("POST", "/", &[("expect", "100-continue"), ("content-length", "5")], Last::No);
    client.take_for(Duration::from_millis(200));
    client.data(stream, b"hello", Last::Yes);
    let answer = client.wait(stream);
    assert_eq!(answer.json()["body_length"], 5, "{answer:?}");
}

// Case 26: RFC 9113 section 8.1: the answer is whole, and NO_ERROR asks to stop the upload.
#[test]
fn an_answer_before_the_end_of_the_upload_is_delivered() {
    let worker = Worker::on_head(|request, conn| match request.method.as_str() {
        "POST" => {
            conn.answer(403, "no, thank you");
            conn.wait_peer_closed(Duration::from_secs(5));
        }
        _ => conn.answer(200, "next"),
    });
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let stream = client.start("POST", "/upload", &[], Last::No);
    client.data(stream, &[b'x'; 4 << 20], Last::No);
    client.wait_until(stream, |answer| answer.end != StreamEnd::Open && answer.reset_after.is_some());
    let answer = client.wait(stream);
    assert_eq!((answer.status, answer.text().as_str()), (403, "no, thank you"), "{answer:?}");
    assert_eq!((answer.end, answer.reset_after), (StreamEnd::Clean, Some(Code::NO_ERROR)), "{answer:?}");
    assert_eq!(client.get("/next").text(), "next", "the connection goes on");
}

// Case 30 and 32: what breaks off must not look whole.
#[test]
fn an_answer_that_breaks_off_is_a_reset_stream() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ] {
        let worker = Worker::fixed_then_close(answer);
        let gateway = Gateway::before(&worker);
        let mut client = H2::connect(&gateway);
        let got = client.get("/");
        assert!(matches!(got.end, StreamEnd::Reset(_)) || got.status == 502, "{answer:?}: {got:?}");
        assert_eq!(client.get("/health").status, 200, "the connection goes on");
    }
}

#[test]
fn errors_of_the_gateway_concern_one_stream() {
    let mut worker = Worker::echo();
    let gateway = Gateway::builder().worker(&worker).arg("--max-payload-size=10").start();
    let mut client = H2::connect(&gateway);
    for headers in [&[][..], &[("content-length", "2000")]] {
        let stream = client.start("POST", "/", headers, Last::No);
        client.data(stream, &[b'x'; 2000], Last::Yes);
        let answer = client.wait(stream);
        assert_eq!((answer.status, answer.headers.get("x-smg-error-code")), (413, Some("request_body_too_large")));
    }
    assert_eq!(client.get("/fine").status, 200);
    worker.stop();
    let answer = client.get("/nobody");
    assert_eq!((answer.status, answer.end), (502, StreamEnd::Clean), "{answer:?}");
    assert_eq!(answer.json()["error"]["code"], "upstream_connection_failed");
}

#[test]
fn an_api_key_is_asked_for() {
    let worker = Worker::echo();
    let gateway = Gateway::builder().worker(&worker).arg("--api-key=k").start();
    let mut client = H2::connect(&gateway);
    assert_eq!(client.post("/v1/x", b"{}").status, 401);
    assert_eq!(client.request("POST", "/v1/x", &[("authorization", "Bearer k")], b"{}").status, 200);
    assert_eq!(worker.requests().len(), 1);
}
