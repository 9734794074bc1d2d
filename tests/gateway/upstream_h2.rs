//! HTTP/2 to workers (`--upstream-http2`): requests and answers pass whole, from clients of either version.

use crate::support::{Frame, Gate, Gateway, H2, H2Worker, Last, StreamEnd, eventually};
use std::time::Duration;

const MIB: usize = 1 << 20;

fn before(worker: &H2Worker) -> Gateway {
    Gateway::builder().worker_url(worker.url()).args(["--upstream-http2", "--shards=1"]).start()
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 251) as u8).collect()
}

#[test]
fn a_request_of_either_version_arrives_as_http_2() {
    let worker = H2Worker::echo();
    let gateway = before(&worker);
    for path in ["/one?q=%41", "/", "/a//b/../c?"] {
        assert_eq!(gateway.get(path).text(), path);
        assert_eq!(H2::connect(&gateway).get(path).text(), path);
    }
    for request in worker.requests() {
        let authority = worker.url().replace("http://", "");
        assert_eq!((request.method.as_str(), request.scheme.as_str()), ("GET", "http"));
        assert_eq!(request.authority, authority);
        assert_eq!(request.headers.get("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(request.headers.get("x-forwarded-host"), Some(gateway.address.to_string().as_str()));
        assert_eq!(request.headers.get("te"), Some("trailers"));
        assert!(!request.headers.has("content-length") && request.body.is_empty(), "{request:?}");
    }
    assert_eq!(worker.connections(), 1, "they share a connection");
    assert!(worker.broken().is_empty(), "{:?}", worker.broken());
}

// RFC 9113 section 8.2.2: none of these may come, whatever a client of HTTP/1.1 says.
#[test]
fn what_belongs_to_a_connection_of_http_1_1_stays_there() {
    let worker = H2Worker::echo();
    let gateway = before(&worker);
    let mut client = gateway.connect();
    client.send(
        "POST /x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Mine, TE\r\nKeep-Alive: 5\r\nX-Mine: 1\r\nTE: gzip\r\n\
         Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nExpect: 100-continue\r\n\
         Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    );
    assert_eq!(client.read_response().text(), "/x");
    let request = worker.wait_for_request();
    assert_eq!(request.body, b"hi");
    for name in ["x-mine", "expect", "http2-settings", "content-length"] {
        assert!(!request.headers.has(name), "{name} in {request:?}");
    }
    assert!(worker.broken().is_empty(), "{:?}", worker.broken());
}

#[test]
fn lengths_are_said_where_they_are_known() {
    let worker = H2Worker::new(|request, stream| {
        let length = request.headers.get("content-length").unwrap_or("none").to_owned();
        stream.head(200, &[("content-length", &length.len().to_string())]);
        stream.data(length, Frame::END_STREAM);
    });
    let gateway = before(&worker);
    let chunked = [("Transfer-Encoding", "chunked")];
    for (fields, body, seen) in
        [(&[][..], &b"12345"[..], "5"), (&[], b"", "0"), (&chunked, b"1\r\nx\r\n0\r\n\r\n", "none")]
    {
        let answer = gateway.request("POST", "/", fields, body);
        assert_eq!(
            (answer.text().as_str(), answer.headers.get("content-length")),
            (seen, Some(&*seen.len().to_string()))
        );
    }
    let answer = H2::connect(&gateway).post("/", b"1234");
    assert_eq!(answer.headers.get("content-length"), Some("4"));
}

#[test]
fn answers_without_a_body_have_none() {
    let worker = H2Worker::new(|request, stream| {
        let status = request.path.trim_start_matches('/').parse().expect("a status");
        stream.headers(status, &[("content-length", "7")][..usize::from(status != 204)], Frame::END_STREAM);
    });
    let gateway = before(&worker);
    let (mut old, mut new) = (gateway.connect(), H2::connect(&gateway));
    for (method, path) in [("HEAD", "/200"), ("GET", "/304"), ("GET", "/204"), ("HEAD", "/404")] {
        old.send_request(method, path, &[], b"");
        let answer = old.read_response_to(method);
        assert_eq!((answer.status.to_string(), answer.body.len()), (path[1..].to_owned(), 0));
        let answer = new.request(method, path, &[], b"");
        assert_eq!(
            (answer.status.to_string(), answer.body.len(), answer.end),
            (path[1..].to_owned(), 0, StreamEnd::Clean)
        );
    }
    assert_eq!(worker.connections(), 1);
}

// Case 27.
#[test]
fn trailers_pass_both_ways() {
    let worker = H2Worker::new(|request, stream| {
        let checksum = request.trailers.get("x-checksum").unwrap_or("none").to_owned();
        assert!(!request.trailers.has("authorization") && !request.trailers.has("x-forwarded-for"), "{request:?}");
        stream.head(200, &[("content-type", "application/grpc"), ("trailer", "grpc-status, x-sum")]);
        stream.data("message", 0);
        stream.trailers(&[
            ("grpc-status", "0"),
            ("grpc-message", "fine"),
            ("x-sum", &checksum),
            ("content-length", "9"),
        ]);
    });
    let gateway = before(&worker);
    let mut new = H2::connect(&gateway);
    let stream =
        new.start("POST", "/grpc.Service/Call", &[("te", "trailers"), ("content-type", "application/grpc")], Last::No);
    new.data(stream, b"request", Last::No);
    new.trailers(stream, &[("x-checksum", "abc"), ("authorization", "evil"), ("x-forwarded-for", "6.6.6.6")]);
    let answer = new.wait(stream);
    assert_eq!((answer.text().as_str(), answer.end), ("message", StreamEnd::Clean));
    for (name, value) in [("grpc-status", "0"), ("grpc-message", "fine"), ("x-sum", "abc")] {
        assert_eq!(answer.trailers.get(name), Some(value), "{answer:?}");
    }
    assert!(!answer.trailers.has("content-length"));
    // HTTP/1.1 has announced ones only.
    let mut old = gateway.connect();
    old.send(
        "POST /x HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: x-checksum\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    old.send("3\r\nabc\r\n0\r\nX-Checksum: old\r\nAuthorization: evil\r\n\r\n");
    let answer = old.read_response();
    assert_eq!(answer.text(), "message");
    assert_eq!((answer.trailers.get("x-sum"), answer.trailers.get("grpc-status")), (Some("old"), Some("0")));
    assert_eq!(gateway.get("/next").status, 200);
}

// What gRPC servers answer to a call that fails: the head is all there is.
#[test]
fn an_answer_of_trailers_alone_passes() {
    let worker = H2Worker::new(|_, stream| {
        stream.headers(200, &[("content-type", "application/grpc"), ("grpc-status", "12")], Frame::END_STREAM);
    });
    let gateway = before(&worker);
    let answer = H2::connect(&gateway).post("/grpc.Service/Unknown", b"request");
    assert_eq!((answer.status, answer.headers.get("grpc-status"), answer.end), (200, Some("12"), StreamEnd::Clean));
}

#[test]
fn large_bodies_pass_both_ways_at_once() {
    let worker = H2Worker::builder().on_head().start(|_, stream| {
        stream.head(200, &[]);
        if let Some(request) = stream.whole() {
            stream.data(&request.body, Frame::END_STREAM);
        }
    });
    let gateway = before(&worker);
    let body = bytes(8 * MIB + 7);
    assert!(gateway.request("POST", "/", &[], &body).body == body, "HTTP/1.1");
    assert!(H2::connect(&gateway).post("/", &body).body == body, "HTTP/2");
    let chunks = body.chunks(60_000).map(|c| [format!("{:x}\r\n", c.len()).as_bytes(), c, b"\r\n"].concat());
    let chunked = [chunks.collect::<Vec<_>>().concat(), b"0\r\n\r\n".to_vec()].concat();
    assert!(gateway.request("POST", "/", &[("Transfer-Encoding", "chunked")], &chunked).body == body, "chunked");
    assert_eq!(worker.connections(), 1);
}

// Each event as it comes, in both directions at once (case 39).
#[test]
fn events_and_uploads_are_not_held_back() {
    let worker = H2Worker::builder().on_head().start(|_, stream| {
        stream.head(200, &[("content-type", "text/event-stream")]);
        for seen in 0..3 {
            stream.data(format!("data: {seen}\n\n"), 0);
            stream.wait_for_body(seen);
        }
        stream.data("data: end\n\n", Frame::END_STREAM);
    });
    let gateway = before(&worker);
    let mut new = H2::connect(&gateway);
    let stream = new.start("POST", "/", &[], Last::No);
    let mut old = gateway.connect();
    old.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for i in 0..3 {
        let event = format!("data: {i}\n\n");
        new.wait_until(stream, |answer| answer.text().ends_with(&event));
        old.read_until(&event);
        new.data(stream, b"x", Last::No);
        old.send("1\r\nx\r\n");
    }
    new.wait_until(stream, |answer| answer.text().ends_with("data: end\n\n"));
    old.read_until("data: end\n\n");
}

// RFC 9113 section 8.1: the answer counts, and the upload ends; case 26.
#[test]
fn an_answer_before_the_end_of_the_upload_is_relayed_and_the_upload_stops() {
    let worker = H2Worker::builder().on_head().start(|request, stream| match request.path.as_str() {
        "/refused" => {
            stream.answer(413, "too much");
            stream.reset(crate::support::Code::NO_ERROR);
        }
        _ => stream.answer(200, &request.path),
    });
    let gateway = before(&worker);
    let mut old = gateway.connect();
    old.send("POST /refused HTTP/1.1\r\nHost: a\r\nContent-Length: 500000000\r\n\r\n");
    let mut upload = old.writer();
    let sending = std::thread::spawn(move || {
        let piece = vec![b'x'; MIB];
        (0..30).take_while(|_| std::io::Write::write_all(&mut upload, &piece).is_ok()).count()
    });
    let answer = old.read_response();
    assert_eq!((answer.status, answer.text().as_str()), (413, "too much"));
    let passed_on: usize = worker.received();
    assert!(passed_on < 10 * MIB, "{passed_on} bytes");
    drop(old);
    sending.join().unwrap();
    let mut new = H2::connect(&gateway);
    let stream = new.start("POST", "/refused", &[], Last::No);
    new.data(stream, &bytes(MIB), Last::No);
    assert_eq!(new.wait(stream).status, 413);
    assert_eq!(new.get("/next").text(), "/next");
    // A worker that answers and goes on reading is told that nothing more comes.
    for path in ["/slow", "/silent"] {
        let stream = new.start("POST", path, &[], Last::No);
        if path == "/slow" {
            new.data(stream, b"begun", Last::No);
        }
        assert_eq!(new.wait(stream).text(), path);
        eventually(Duration::from_secs(2), || worker.resets().iter().any(|(reset, _)| reset == path));
    }
    eventually(Duration::from_secs(2), || gateway.load() == 0);
}

// A worker's MAX_CONCURRENT_STREAMS is no reason to wait: there are more connections.
#[test]
fn many_requests_at_once_need_few_connections_and_never_wait_for_each_other() {
    for most in [100, 10] {
        let gate = Gate::new();
        let wait = gate.clone();
        let worker =
            H2Worker::builder().settings(&[(Frame::MAX_CONCURRENT_STREAMS, most)]).start(move |request, stream| {
                if request.path != "/quick" {
                    wait.wait();
                }
                stream.answer(200, &request.path);
            });
        let gateway = before(&worker);
        assert_eq!(gateway.get("/quick").text(), "/quick");
        let mut clients: Vec<_> = (0..2).map(|_| H2::connect(&gateway)).collect();
        let count = most as usize;
        let started: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                (0..count).map(|i| client.start("POST", &format!("/{i}"), &[], Last::Yes)).collect::<Vec<_>>()
            })
            .collect();
        eventually(Duration::from_secs(8), || worker.requests().len() == 1 + 2 * count);
        assert!((2..=4).contains(&worker.connections()), "{}", worker.connections());
        gate.open();
        for (client, streams) in clients.iter_mut().zip(started) {
            for (i, stream) in streams.into_iter().enumerate() {
                assert_eq!(client.wait(stream).text(), format!("/{i}"));
            }
        }
        assert!(worker.broken().is_empty(), "{:?}", worker.broken());
    }
}
