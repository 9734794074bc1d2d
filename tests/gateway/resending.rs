//! What is sent again after an answer that asks for it, how often and when (cases 52 and 61).

use crate::support::{Builder, Conn, Gateway, H2, Last, Nowhere, ReceivedRequest, Worker};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Refuses the first request with `status`; the next ones are sent their bodies.
fn refuses_first(status: u16) -> Worker {
    let met = AtomicUsize::new(0);
    Worker::new(move |request, conn| match met.fetch_add(1, Ordering::SeqCst) {
        0 => conn.answer(status, "busy"),
        _ => conn.answer(200, &request.body),
    })
}

fn hasty(worker: &Worker) -> Builder {
    Gateway::builder().worker(worker).args(["--shards=1", "--retry-initial-backoff-ms=1"])
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let chunk = |piece: &[u8]| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
    let mut all: Vec<u8> = body.chunks(size).flat_map(chunk).collect();
    all.extend(b"0\r\n\r\n");
    all
}

#[test]
fn a_post_is_sent_again_after_429_and_503_with_its_body_intact() {
    let long: Vec<u8> = (0..900_000_u32).map(|at| (at % 251) as u8).collect();
    for status in [429, 503] {
        for (body, framed) in [
            (&b""[..], b"Content-Length: 0\r\n\r\n".to_vec()),
            (b"short", b"Content-Length: 5\r\n\r\nshort".to_vec()),
            (&long, [b"Content-Length: 900000\r\n\r\n", &long[..]].concat()),
            (b"in pieces", [b"Transfer-Encoding: chunked\r\n\r\n", &chunked(b"in pieces", 2)[..]].concat()),
            (&long, [b"Transfer-Encoding: chunked\r\n\r\n", &chunked(&long, 70_001)[..]].concat()),
        ] {
            let worker = refuses_first(status);
            let gateway = hasty(&worker).start();
            let mut client = gateway.connect();
            // The head arrives by itself, so that what is read of the body begins with nothing.
            client.send("POST / HTTP/1.1\r\nHost: a\r\n").send(framed);
            let answer = client.read_response();
            assert_eq!((answer.status, answer.body.len()), (200, body.len()), "{status}");
            assert!(answer.body == body, "{status}: another body of {} bytes", body.len());
            assert_eq!(worker.requests().len(), 2, "{status}");
            assert_eq!(gateway.metrics().sum("smg_worker_retries_total", &[]), 1.0);
        }
    }
}

// With two workers it is read for its prompt before it is sent.
#[test]
fn a_body_in_pieces_of_all_sizes_is_sent_again_as_it_was() {
    let body: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    for count in [1, 2] {
        let workers: Vec<_> = (0..count).map(|_| refuses_first(503)).collect();
        let gateway = Gateway::builder().workers(&workers).args(["--shards=1", "--retry-initial-backoff-ms=1"]);
        let gateway = gateway.start_unready();
        gateway.wait_for_workers(count);
        let mut client = H2::connect(&gateway);
        let stream = client.start("POST", "/", &[], Last::No);
        let mut rest = &body[..];
        for length in [1, 1, 3000, 5000, 7, 16_000, 4095, 4096].into_iter().cycle() {
            let (piece, after) = rest.split_at(rest.len().min(length));
            client.data(stream, piece, if after.is_empty() { Last::Yes } else { Last::No });
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        let answer = client.wait(stream);
        assert!(answer.body == body, "{count} workers: {} bytes", answer.body.len());
        assert_eq!(workers.iter().map(|worker| worker.requests().len()).sum::<usize>() as u64, count + 1);
    }
}

// A worker that refuses before it has the body: what has come of it goes to the next attempt, then what still comes.
#[test]
fn a_body_that_is_still_coming_is_sent_again_from_its_beginning() {
    for (head, rest) in [
        ("Content-Length: 10\r\n\r\nhello", "world"),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "5\r\nworld\r\n0\r\n\r\n"),
    ] {
        let met = AtomicUsize::new(0);
        let worker = Worker::on_head(move |_, conn| {
            if met.fetch_add(1, Ordering::SeqCst) == 0 {
                assert!(conn.read_until("hello").is_ok_and(|it| it.is_some()));
                conn.answer(503, "busy");
                return conn.close();
            }
            let (body, ended) = conn.read_body();
            assert!(ended.is_ok(), "{ended:?}");
            conn.answer(200, body);
        });
        let gateway = hasty(&worker).start();
        let mut client = gateway.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}"));
        worker.wait_for_request();
        worker.wait_for_request();
        client.send(rest);
        assert_eq!(client.read_response().text(), "helloworld");
    }
}

#[test]
fn a_body_longer_than_what_is_kept_is_not_sent_again() {
    for (length, status, times) in [(1000, 200, 2), (1001, 503, 1), (100_000, 503, 1)] {
        for framing in ["Content-Length", "Transfer-Encoding"] {
            let worker = refuses_first(503);
            let gateway = hasty(&worker).arg("--max-buffered-request-bytes=1000").start();
            let body = vec![b'x'; length];
            let mut client = gateway.connect();
            match framing {
                "Content-Length" => client.send_request("POST", "/", &[], &body),
                _ => client.send_request("POST", "/", &[("Transfer-Encoding", "chunked")], &chunked(&body, 400)),
            }
            assert_eq!(client.read_response().status, status, "{length} {framing}");
            assert_eq!(worker.requests().len(), times, "{length} {framing}");
        }
    }
}

#[test]
fn a_body_that_is_lost_is_neither_waited_for_nor_counted_as_sent_again() {
    let worker = Worker::new(|_, conn| conn.close());
    let flags = ["--retry-non-idempotent", "--retry-initial-backoff-ms=20s", "--max-buffered-request-bytes=10"];
    let gateway = Gateway::builder().worker(&worker).args(flags).start();
    let start = Instant::now();
    gateway.request("POST", "/", &[], &[b'x'; 1000]).assert_error(502, "upstream_bad_response");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(gateway.metrics().sum("smg_worker_requests_total", &[]), 1.0);
}

/// Answers with the status that the path names, or not at all.
fn by_path(request: &ReceivedRequest, conn: &mut Conn) {
    match request.target[1..].parse::<u16>() {
        Ok(status) => conn.send(format!("HTTP/1.1 {status} No\r\nX-Mine: yes\r\nContent-Length: 4\r\n\r\nmine")),
        Err(_) => conn.close(),
    }
}

/// How often a request is sent whose every answer is the same; the last one must be the client's.
#[track_caller]
fn times_sent(flags: &[&str], method: &str, path: &str) -> usize {
    let worker = Worker::new(by_path);
    let gateway = hasty(&worker).args(["--retry-max-retries=3"]).args(flags.iter().copied()).start();
    let answer = gateway.request(method, path, &[], b"x");
    match path[1..].parse::<u16>() {
        Ok(status) => {
            assert_eq!((answer.status, answer.text().as_str()), (status, "mine"), "{method} {path}");
            assert_eq!(answer.headers.get("x-mine"), Some("yes"), "the last answer as it is");
            assert_eq!(answer.headers.get("x-smg-error-code"), None);
        }
        Err(_) => answer.assert_error(502, "upstream_bad_response"),
    }
    worker.requests().len()
}

#[test]
fn what_may_have_been_carried_out_is_sent_again_only_with_safe_methods_or_if_told_to() {
    let any = &["--retry-non-idempotent"][..];
    for (path, get, post, post_if_told) in [
        ("/429", 3, 3, 3),
        ("/503", 3, 3, 3),
        ("/529", 3, 3, 3),
        ("/408", 3, 1, 3),
        ("/502", 3, 1, 3),
        ("/504", 3, 1, 3),
        ("/broken", 3, 1, 3),
        ("/500", 1, 1, 1),
        ("/404", 1, 1, 1),
    ] {
        let sent = [times_sent(&[], "GET", path), times_sent(&[], "POST", path), times_sent(any, "POST", path)];
        assert_eq!(sent, [get, post, post_if_told], "{path}");
        assert_eq!(times_sent(&["--disable-retries", any[0]], "GET", path), 1, "{path}");
    }
}

/// A POST whose first worker answers 500: what its client gets, and how often that worker had it.
fn answers_500(others: &[&Worker], flags: &[&str]) -> (u16, usize) {
    let worker = Worker::new(|_, conn| conn.answer(500, "mine"));
    let builder = Gateway::builder().worker(&worker).workers(others.iter().copied());
    let gateway = builder.args(["--disable-health-check", "--policy=passthrough"]).args(flags.iter().copied()).start();
    let answer = gateway.request("POST", "/", &[], b"x");
    (answer.status, worker.requests().len())
}

#[test]
fn a_500_is_another_workers_turn_if_told_to_and_never_the_same_ones() {
    let (good, bad) = (Worker::echo(), Worker::new(|_, conn| conn.answer(500, "")));
    let told = ["--retry-non-idempotent", "--retry-initial-backoff-ms=1"];
    assert_eq!(answers_500(&[&good], &told), (200, 1));
    assert_eq!(answers_500(&[&good], &told[1..]), (500, 1));
    assert_eq!(answers_500(&[], &told), (500, 1));
    assert_eq!(answers_500(&[&bad], &told), (500, 1));
    assert_eq!((good.requests().len(), bad.requests().len()), (1, 1));
}

#[test]
fn without_retries_a_refused_connection_is_the_clients_answer() {
    let (refusing, other) = (Nowhere::refusing(), Worker::echo());
    let flags = ["--disable-retries", "--disable-health-check", "--policy=passthrough"];
    let gateway = Gateway::builder().worker_url(refusing.url()).worker(&other).args(flags).start();
    gateway.get("/").assert_error(502, "upstream_connection_failed");
    assert_eq!(other.requests().len(), 0);
}

/// Time from the first answer, 503 with `Retry-After: 2`, to the good one.
fn time_to_second(flags: &[&str], others: &[&Worker]) -> Duration {
    let met = AtomicUsize::new(0);
    let worker = Worker::new(move |_, conn| match met.fetch_add(1, Ordering::SeqCst) {
        0 => conn.send("HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n"),
        _ => conn.answer(200, ""),
    });
    let flags = ["--disable-health-check", "--policy=passthrough"].iter().chain(flags);
    let gateway = hasty(&worker).workers(others.iter().copied()).args(flags.copied()).start();
    let start = Instant::now();
    assert_eq!(gateway.request("POST", "/", &[], b"x").status, 200);
    start.elapsed()
}

#[test]
fn a_worker_is_waited_for_as_long_as_it_asks_but_another_one_is_not() {
    let other = Worker::echo();
    let (alone, bounded) = (time_to_second(&[], &[]), time_to_second(&["--retry-max-backoff-ms=200"], &[]));
    assert!((Duration::from_secs(2)..Duration::from_secs(8)).contains(&alone), "{alone:?}");
    assert!((Duration::from_millis(200)..Duration::from_millis(1900)).contains(&bounded), "{bounded:?}");
    let elsewhere = time_to_second(&[], &[&other]);
    assert!(elsewhere < Duration::from_millis(1900), "{elsewhere:?}");
    assert_eq!(other.requests().len(), 1);
}

// Case 61: three of four workers are dead, and nobody has noticed.
#[test]
fn retries_are_a_fifth_of_the_requests_at_most() {
    let (dead, alive) = ([(); 3].map(|()| Nowhere::refusing()), Worker::echo());
    let flags = ["--shards=1", "--disable-health-check", "--disable-circuit-breaker", "--policy=round_robin"];
    let builder = dead.iter().fold(Gateway::builder(), |builder, dead| builder.worker_url(dead.url()));
    let gateway = builder.worker(&alive).args(flags).start();
    let mut client = gateway.connect();
    let start = Instant::now();
    let good = (0..400).filter(|_| client.get("/").status == 200).count();
    assert!(start.elapsed() < Duration::from_secs(9), "all within one window");
    let sent = gateway.metrics().sum("smg_worker_requests_total", &[]);
    assert!((30.0..=80.0).contains(&(sent - 400.0)), "{sent} for 400");
    assert_eq!(gateway.metrics().sum("smg_worker_retries_total", &[]), sent - 400.0);
    assert_eq!(alive.requests().len(), good);
    assert!(good >= 100, "the turn of the living one, and what retries bring: {good}");
}
