//! Workers that can't be reached, freeze, or break off (cases 52 to 54, 56 and 59): another one takes over what it may.

use crate::support::{Conn, Gateway, Nowhere, Process, ReceivedRequest, Worker, eventually, executable};
use rustix::process::Signal;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Both workers are taken for healthy, and the first is asked first.
fn first_then(nowhere: &Nowhere, other: &Worker) -> crate::support::Builder {
    let builder = Gateway::builder().worker_url(nowhere.url()).worker(other);
    builder.args(["--disable-health-check", "--policy=passthrough", "--shards=1"])
}

// Cases 52, 54 and 59.
#[test]
fn a_refused_connection_is_tried_with_another_worker_whatever_the_request() {
    let (refusing, other) = (Nowhere::refusing(), Worker::echo());
    let gateway = first_then(&refusing, &other).start();
    let mut client = gateway.connect();
    for (method, body) in [("GET", 0), ("POST", 5), ("DELETE", 0), ("PUT", 300_000), ("POST", 2_000_000)] {
        client.send_request(method, "/any", &[], &vec![b'x'; body]);
        assert_eq!(client.read_response().json()["body_length"], body, "{method}");
    }
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..30 {
        client.send([b"10000\r\n", [b'x'; 65536].as_slice(), b"\r\n"].concat());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.read_response().json()["body_length"], 30 * 65536, "longer than what is kept");
    let metrics = gateway.metrics();
    let of = |name, worker: &str| metrics.sum(name, &[("worker", worker)]);
    assert_eq!(of("smg_worker_errors_total", &refusing.url()), 6.0);
    assert_eq!(of("smg_worker_retries_total", &other.url()), 6.0);
    assert_eq!(of("smg_worker_retries_total", &refusing.url()), 0.0);
}

// What a policy has read of a body that is longer than what is kept goes to the other worker, too.
#[test]
fn a_body_that_a_policy_looked_into_is_whole_at_the_worker_that_takes_over() {
    let (refusing, other) = (Nowhere::refusing(), Worker::new(|request, conn| conn.answer(200, &request.body)));
    let flags = ["--disable-health-check", "--policy=prefix_hash", "--max-buffered-request-bytes=100"];
    let builder = Gateway::builder().worker_url(refusing.url()).worker(&other).args(flags);
    let gateway = builder.arg("--shards=1").start();
    for text in 0..20 {
        let body = format!("{{\"prompt\":\"{}\"}}", text.to_string().repeat(200));
        for piece in [body.len(), 50] {
            let mut client = gateway.connect();
            client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
            body.as_bytes().chunks(piece).for_each(|piece| {
                client.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
            });
            client.send("0\r\n\r\n");
            let answer = client.read_response();
            assert_eq!((answer.status, answer.text()), (200, body.clone()), "{text} in pieces of {piece}");
        }
    }
    let tried = gateway.metrics().sum("smg_worker_errors_total", &[("worker", &refusing.url())]);
    assert!(tried > 0.0, "no prompt was the other one's");
}

// Case 54.
#[test]
fn a_connection_into_a_black_hole_is_given_up_and_tried_with_another_worker() {
    let (silent, other) = (Nowhere::silent(), Worker::echo());
    let gateway = first_then(&silent, &other).arg("--connect-timeout-secs=0.4").start();
    let start = Instant::now();
    assert_eq!(gateway.request("POST", "/", &[], b"hello").json()["body_length"], 5);
    let took = start.elapsed();
    assert!((Duration::from_millis(350)..Duration::from_secs(4)).contains(&took), "{took:?}");
}

/// Ends an answer that has begun.
type Break = fn(&mut Conn);

// Case 53.
#[test]
fn an_answer_that_breaks_off_is_cut_counted_once_and_its_connection_left() {
    let breaks: [Break; 3] = [Conn::close, Conn::reset, |conn| conn.send("zz\r\n")];
    for (which, end) in breaks.into_iter().enumerate() {
        let worker = Worker::new(move |request, conn| {
            if request.target == "/whole" {
                return conn.answer(200, "whole");
            }
            conn.start_events();
            conn.chunk("data: 1\n\n");
            // The client has the first event, so that the end can't overtake it.
            assert!(conn.is_silent_for(Duration::from_millis(50)));
            end(conn);
        });
        let gateway = Gateway::builder().worker(&worker).arg("--shards=1").start();
        let mut client = gateway.connect();
        assert_eq!(client.get("/whole").status, 200);
        client.send_request("GET", "/cut", &[], b"");
        let cut = client.read_response_however("GET");
        assert_eq!((cut.status, cut.text().as_str()), (200, "data: 1\n\n"), "{which}");
        assert_ne!(cut.end, crate::support::End::Clean, "{which}");
        assert_eq!(gateway.metrics().sum("smg_worker_errors_total", &[]), 1.0, "{which}");
        assert_eq!(gateway.get("/whole").text(), "whole");
        let connections: Vec<_> = worker.requests().iter().map(|r| (r.target.clone(), r.connection)).collect();
        assert_eq!(connections.len(), 3, "{which}: {connections:?}");
        assert_ne!(connections[1].1, connections[2].1, "{which}: {connections:?}");
    }
}

// Case 52: what may have been seen is sent again only if its method is safe, and to the other worker if its own dies again.
#[test]
fn a_reset_at_reuse_is_a_502_for_all_but_safe_methods() {
    let resets = |request: &ReceivedRequest, conn: &mut Conn| match request.nth {
        0 => conn.answer(200, "first"),
        _ => conn.reset(),
    };
    for (method, status, times) in
        [("GET", 200, 2), ("HEAD", 200, 2), ("POST", 502, 1), ("DELETE", 502, 1), ("PUT", 502, 1)]
    {
        let worker = Worker::new(resets);
        let gateway = Gateway::builder().worker(&worker).arg("--shards=1").start();
        let mut client = gateway.connect();
        client.get("/warm");
        client.send_request(method, "/again", &[], b"");
        assert_eq!(client.read_response_to(method).status, status, "{method}");
        let seen = worker.requests().iter().filter(|r| r.target == "/again").count();
        assert_eq!(seen, times, "{method}");
    }
}

#[test]
fn a_get_that_kills_one_worker_is_answered_by_the_other() {
    let deadly = Worker::new(|_, conn| conn.close());
    let other = Worker::echo();
    let flags = ["--disable-health-check", "--policy=passthrough", "--shards=1"];
    let gateway = Gateway::builder().workers([&deadly, &other]).args(flags).start();
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(gateway.request("POST", "/", &[], b"x").status, 502);
    assert_eq!((deadly.requests().len(), other.requests().len()), (2, 1));
}

// Case 56: the worker ends each connection at the moment at which it would be used again.
#[test]
fn connections_that_end_right_after_their_answers_are_no_errors() {
    let ended = AtomicUsize::new(0);
    let worker = Worker::new(move |request, conn| {
        conn.answer(200, &request.target);
        match ended.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => conn.close(),
            _ => conn.reset(),
        }
    });
    let gateway = Gateway::before(&worker);
    thread::scope(|scope| {
        for client in 0..4 {
            let gateway = &gateway;
            scope.spawn(move || {
                let mut connection = gateway.connect();
                for i in 0..2500 {
                    let path = format!("/{client}/{i}");
                    let answer = connection.get(&path);
                    assert_eq!((answer.status, answer.text()), (200, path));
                }
            });
        }
    });
    assert_eq!(gateway.metrics().sum("smg_worker_errors_total", &[]), 0.0);
}

/// An echo worker as a process of its own.
fn echo_process() -> (Process, String) {
    let mut command = executable();
    command.args(["echo-worker", "--port=0"]);
    let process = Process::start(command);
    let url = process.wait_for_output("listening on ");
    (process, url)
}

// Case 59.
#[test]
fn a_frozen_worker_costs_the_requests_that_it_has_and_no_others() {
    let ((frozen, frozen_url), (_other, other_url)) = (echo_process(), echo_process());
    let flags = ["--disable-health-check", "--policy=power_of_two"];
    let gateway = Gateway::builder().worker_url(frozen_url.clone()).worker_url(other_url).args(flags).start();
    frozen.signal(Signal::STOP);
    let (mut waiting, mut slow) = (Vec::new(), 0);
    for _ in 0..200 {
        let mut client = gateway.connect();
        let start = Instant::now();
        client.send_request("POST", "/", &[], b"x");
        client.set_patience(Duration::from_secs(1));
        match client.try_read_head("POST") {
            Ok(answer) => {
                assert_eq!(answer.expect("an answer").status, 200);
                slow += usize::from(start.elapsed() > Duration::from_millis(100));
            }
            Err(e) if e.kind() == ErrorKind::TimedOut => waiting.push(client),
            Err(e) => panic!("{e}"),
        }
        assert!(waiting.len() < 2, "another request went to the busy worker");
    }
    assert!(slow <= 2, "{slow} of 200 others were slow: a busy machine may delay one in a hundred");
    frozen.signal(Signal::CONT);
    waiting.iter_mut().for_each(|client| assert_eq!(client.read_response().status, 200));
    let taken = || gateway.metrics().sum("smg_worker_requests_total", &[("worker", &frozen_url)]);
    let before = taken();
    eventually(Duration::from_secs(5), || gateway.get("/").status == 200 && taken() > before);
}
