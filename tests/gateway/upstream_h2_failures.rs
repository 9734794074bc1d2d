//! What breaks on HTTP/2 connections to workers (cases 30, 40, 52 to 56): what a worker says it has not done is done
//! elsewhere, what it may have done is not done twice, and nothing that broke off looks whole.

use crate::support::{Code, End, Frame, Gate, Gateway, H2, H2Worker, Last, StreamEnd, Worker, eventually};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const NO_KEY: [&str; 3] = ["--upstream-http2", "--shards=1", "--policy=round_robin"];

fn before(workers: &[&H2Worker]) -> Gateway {
    let gateway = workers.iter().fold(Gateway::builder(), |b, w| b.worker_url(w.url())).args(NO_KEY).start();
    eventually(Duration::from_secs(5), || gateway.get("/readiness").json()["healthy_workers"] == workers.len());
    gateway
}

fn paths(worker: &H2Worker, method: &str) -> Vec<String> {
    worker.requests().iter().filter(|r| r.method == method).map(|r| r.path.clone()).collect()
}

// RFC 9113 section 8.7: a refused stream was not processed, so even a POST may go elsewhere.
#[test]
fn a_refused_post_is_sent_elsewhere_whole() {
    let refusing = H2Worker::builder().on_head().start(|_, stream| stream.reset(Code::REFUSED_STREAM));
    let taking = H2Worker::new(|request, stream| stream.answer(200, &String::from_utf8_lossy(&request.body)));
    let gateway = before(&[&refusing, &taking]);
    let (mut old, mut new) = (gateway.connect(), H2::connect(&gateway));
    for i in 0..4 {
        let body = format!("payment {i}").repeat(i * 1000 + 1);
        old.send_request("POST", "/old", &[], body.as_bytes());
        assert!(old.read_response().text() == body, "{i}");
        assert!(new.post("/new", body.as_bytes()).text() == body, "{i}");
    }
    assert!(refusing.requests().len() >= 2, "nothing was refused");
    assert_eq!(taking.requests().len(), 8);
}

// RFC 9110 section 15: no status above 599 has a meaning.
#[test]
fn a_status_that_is_none_is_a_502_and_costs_no_other_request() {
    let worker = H2Worker::new(|request, stream| match request.path.as_str() {
        "/odd" => stream.answer(600, "evil"),
        _ => stream.answer(200, "fine"),
    });
    let gateway = before(&[&worker]);
    let answer = gateway.request("POST", "/odd", &[], b"x");
    answer.assert_error(502, "upstream_bad_response");
    assert_eq!(gateway.get("/next").text(), "fine");
    assert_eq!(worker.connections(), 1);
}

// Fields that h2's decoder does not take: one worker may have many exchanges on a connection.
#[test]
fn a_field_that_is_none_is_a_502_and_costs_no_other_request() {
    let finish = Gate::new();
    let wait = finish.clone();
    let worker = H2Worker::new(move |request, stream| match request.path.as_str() {
        "/held" => {
            wait.wait();
            stream.answer(200, "held");
        }
        "/value" => stream.headers(200, &[("x", "a\r\nevil: b")], Frame::END_STREAM),
        "/name" => stream.headers(200, &[("X-Evil", "b")], Frame::END_STREAM),
        "/pseudo" => stream.headers(200, &[(":evil", "b")], Frame::END_STREAM),
        "/status" => stream.send(&Frame::headers(request.stream, Frame::END_STREAM, [(":status", "OK")])),
        "/trailers" => {
            stream.head(200, &[]);
            stream.data("begun", 0);
            stream.send(&Frame::headers(request.stream, Frame::END_STREAM, [("x", "a\0b")]));
        }
        _ => stream.answer(200, "fine"),
    });
    let gateway = before(&[&worker]);
    let mut client = H2::connect(&gateway);
    let held = client.start("GET", "/held", &[], Last::Yes);
    for path in ["/value", "/name", "/pseudo", "/status"] {
        gateway.request("POST", path, &[], b"x").assert_error(502, "upstream_bad_response");
        assert_eq!(gateway.get("/next").text(), "fine");
    }
    let mut old = gateway.connect();
    old.send_request("POST", "/trailers", &[], b"x");
    let broken = old.read_response_however("POST");
    assert_ne!(broken.end, End::Clean, "{broken:?}");
    finish.open();
    assert_eq!(client.wait(held).text(), "held");
    assert_eq!((worker.connections(), worker.broken()), (1, Vec::new()));
}

// The refusal comes while the client is still sending.
#[test]
fn a_post_that_is_refused_half_way_is_sent_elsewhere_whole() {
    let refusals = Arc::new(AtomicUsize::new(0));
    let count = refusals.clone();
    let worker = H2Worker::builder().on_head().start(move |_, stream| {
        if count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
            stream.wait_for_body(3);
            return stream.reset(Code::REFUSED_STREAM);
        }
        let Some(request) = stream.whole() else { return };
        stream.answer(200, &String::from_utf8_lossy(&request.body));
    });
    let gateway = before(&[&worker]);
    let mut old = gateway.connect();
    old.send("POST /old HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    eventually(Duration::from_secs(5), || refusals.load(Ordering::SeqCst) == 2);
    old.send("world");
    assert_eq!(old.read_response().text(), "helloworld");
    let mut new = H2::connect(&gateway);
    let stream = new.start("POST", "/new", &[], Last::No);
    new.data(stream, b"hello", Last::No);
    eventually(Duration::from_secs(5), || refusals.load(Ordering::SeqCst) == 4);
    new.data(stream, b"world", Last::Yes);
    assert_eq!(new.wait(stream).text(), "helloworld");
}

// RFC 9113 section 6.8, as a worker that restarts does it.
#[test]
fn a_worker_that_goes_away_while_idle_loses_nothing() {
    let worker = H2Worker::echo();
    let gateway = before(&[&worker]);
    let mut client = gateway.connect();
    for i in 0..10 {
        client.send_request("POST", &format!("/{i}"), &[], b"x");
        assert_eq!(client.read_response().text(), format!("/{i}"));
        if i % 2 == 0 { worker.goaway(1, Code::NO_ERROR) } else { worker.hang_up() }
    }
    assert_eq!(paths(&worker, "POST").len(), 10, "each exactly once");
}

#[test]
fn streams_after_the_last_one_named_are_sent_again_and_those_before_finish() {
    let gate = Gate::new();
    let wait = gate.clone();
    let worker = H2Worker::new(move |request, stream| match (request.path.as_str(), request.connection) {
        ("/warm", _) => stream.answer(200, ""),
        ("/first", _) => {
            wait.wait();
            stream.answer(200, "first");
        }
        _ if wait.is_open() => stream.answer(200, "second"),
        _ => {
            stream.goaway(request.stream - 2);
            wait.open();
        }
    });
    let gateway = before(&[&worker]);
    gateway.get("/warm");
    let (mut first, mut second) = (gateway.connect(), gateway.connect());
    first.send_request("POST", "/first", &[], b"1");
    worker.wait_for_request();
    worker.wait_for_request();
    second.send_request("POST", "/second", &[], b"2");
    assert_eq!(second.read_response().text(), "second");
    assert_eq!(first.read_response().text(), "first");
    let seen: Vec<_> = worker.requests().iter().map(|r| (r.path.clone(), r.body.clone())).collect();
    assert_eq!(seen.iter().filter(|r| **r == ("/second".into(), b"2".into())).count(), 2, "{seen:?}");
    assert_eq!(worker.connections(), 2);
}

// Cases 52 and 56: the connection dies when it is used again.
#[test]
fn a_get_on_a_connection_that_dies_is_repeated_and_a_post_is_not() {
    let worker = H2Worker::new(|request, stream| match request.stream {
        1 => stream.answer(200, &request.path),
        _ => stream.hang_up(),
    });
    let gateway = before(&[&worker]);
    let mut client = gateway.connect();
    for i in 0..20 {
        assert_eq!(client.get(&format!("/{i}")).text(), format!("/{i}"));
    }
    client.send_request("POST", "/once", &[], b"payment");
    client.read_response().assert_error(502, "upstream_bad_response");
    assert_eq!(paths(&worker, "POST"), ["/once"]);
}

// Cases 30 and 40: with any code, and with none.
#[test]
fn an_answer_that_breaks_off_is_seen_to() {
    let worker = H2Worker::new(|request, stream| {
        let (framing, end) = request.path[1..].split_once('/').expect("two words");
        let length = [("content-length", "10")];
        stream.head(200, if framing == "length" { &length } else { &[] });
        stream.data("hello", 0);
        match end {
            "hang_up" => stream.hang_up(),
            "garbage" => stream.send(&Frame::new(Frame::SETTINGS, 0, 7, *b"x")),
            "short" => drop(stream.data("", Frame::END_STREAM)),
            code => stream.reset(Code(code.parse().expect("a number"))),
        }
    });
    let gateway = Gateway::builder().worker_url(worker.url()).args(NO_KEY).arg("--disable-circuit-breaker").start();
    for path in [
        "/length/0",
        "/length/2",
        "/length/8",
        "/length/hang_up",
        "/length/short",
        "/length/garbage",
        "/any/0",
        "/any/2",
        "/any/5",
        "/any/8",
        "/any/11",
        "/any/hang_up",
        "/any/garbage",
    ] {
        let mut old = gateway.connect();
        old.send_request("GET", path, &[], b"");
        let answer = old.read_response_however("GET");
        assert!(matches!(answer.end, End::Broken(_)), "{path}: {answer:?}");
        let answer = H2::connect(&gateway).get(path);
        assert!(matches!(answer.end, StreamEnd::Reset(_) | StreamEnd::Lost), "{path}: {answer:?}");
    }
    assert_eq!(paths(&worker, "GET").len(), 26, "never again once an answer has begun");
    eventually(Duration::from_secs(2), || gateway.load() == 0);
}

#[test]
fn an_answer_that_is_no_http_2_is_a_502() {
    let worker = H2Worker::new(|request, stream| {
        let header = |fields: &[(&str, &str)]| {
            stream.send(&Frame::headers(request.stream, Frame::END_STREAM, fields.iter().copied()))
        };
        match request.path.as_str() {
            "/upper" => header(&[(":status", "200"), ("X-Up", "1")]),
            "/connection" => header(&[(":status", "200"), ("connection", "close")]),
            "/coding" => header(&[(":status", "200"), ("transfer-encoding", "chunked")]),
            "/line" => header(&[(":status", "200"), ("x", "a\r\nb: c")]),
            "/none" => header(&[("x", "1")]),
            "/zero" => header(&[(":status", "000")]),
            "/switch" => header(&[(":status", "101")]),
            "/data" => drop(stream.data("body before head", Frame::END_STREAM)),
            "/reset" => stream.reset(Code::PROTOCOL_ERROR),
            "/http1" => stream.reset(Code(13)),
            "/huge" => {
                let value = "x".repeat(8000);
                let fields: Vec<_> = (0..40).map(|i| (format!("x-{i}"), value.as_str())).collect();
                let block = Frame::headers(request.stream, 0, [(":status", "200")]).payload;
                let rest = Frame::headers(request.stream, 0, fields.iter().map(|(n, v)| (n, v))).payload;
                let block = [block, rest].concat();
                for (i, piece) in block.chunks(16_000).enumerate() {
                    let kind = if i == 0 { Frame::HEADERS } else { Frame::CONTINUATION };
                    let last = if (i + 1) * 16_000 >= block.len() { Frame::END_HEADERS } else { 0 };
                    stream.send(&Frame::new(kind, last, request.stream, piece));
                }
            }
            path => stream.answer(200, path),
        }
    });
    let gateway = before(&[&worker]);
    for path in
        ["/upper", "/connection", "/coding", "/line", "/none", "/zero", "/switch", "/data", "/reset", "/http1", "/huge"]
    {
        let answer = gateway.request("POST", path, &[], b"x");
        assert!(answer.status == 502, "{path}: {answer:?}");
        assert_eq!(gateway.get("/fine").text(), "/fine", "after {path}");
        let asked = paths(&worker, "POST").iter().filter(|asked| *asked == path).count();
        assert_eq!(asked, 1, "what a worker may have done is not asked for again: {path}");
    }
}

#[test]
fn a_worker_that_does_not_begin_to_answer_is_a_504_and_let_go() {
    let worker = H2Worker::new(|_, stream| assert!(stream.is_left_within(Duration::from_secs(8))));
    let gateway = Gateway::builder().worker_url(worker.url()).args(NO_KEY).arg("--first-byte-timeout-secs=0.3").start();
    let start = Instant::now();
    gateway.request("POST", "/", &[], b"x").assert_error(504, "upstream_first_byte_timeout");
    assert!((Duration::from_millis(250)..Duration::from_secs(4)).contains(&start.elapsed()), "{:?}", start.elapsed());
    worker.wait_for_resets(1);
    assert_eq!(worker.requests().len(), 1);
}

// A server of HTTP/1.1 takes the preface for a request.
#[test]
fn a_worker_that_speaks_http_1_1_only_is_a_502() {
    let worker = Worker::new(|_, conn| conn.answer(400, "what is PRI?"));
    let gateway = Gateway::builder().worker(&worker).args(NO_KEY).arg("--disable-health-check").start();
    for _ in 0..3 {
        gateway.request("POST", "/", &[], b"x").assert_error(502, "upstream_bad_response");
    }
    let get = gateway.get("/");
    assert_eq!(get.status, 502);
}

#[test]
fn health_checks_are_requests_of_http_2() {
    let worker = H2Worker::echo();
    let flags = ["--health-check-interval-secs=0.2", "--health-failure-threshold=1", "--health-success-threshold=1"];
    let gateway = Gateway::builder().worker_url(worker.url()).args(NO_KEY).args(flags).start();
    worker.set_health(503);
    gateway.wait_for_workers(0);
    worker.set_health(200);
    gateway.wait_for_workers(1);
    assert_eq!(gateway.get("/x").text(), "/x");
    eventually(Duration::from_secs(5), || worker.open_connections() <= 2);
    assert!(worker.broken().is_empty(), "{:?}", worker.broken());
}
