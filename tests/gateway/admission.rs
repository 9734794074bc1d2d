//! How many requests are let in at once and how fast; what waits, and what is turned away.

use crate::support::{Builder, Client, Gate, Gateway, Nowhere, Response, Worker, eventually, holds_for};
use std::time::{Duration, Instant};

const AT_ONCE: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(5);

/// A worker whose streams end when the gate opens.
fn slow() -> (Worker, Gate) {
    let finish = Gate::new();
    (Worker::streaming(&finish), finish)
}

/// One at a time.
fn narrow(worker: &Worker, queue: u32) -> Builder {
    Gateway::builder().worker(worker).arg("--max-concurrent-requests=1").arg(format!("--queue-size={queue}"))
}

/// A client that is being answered, and holds the only place.
#[track_caller]
fn holder(gateway: &Gateway) -> Client {
    let mut client = gateway.connect();
    client.begin_stream(&[]);
    assert_eq!(gauges(gateway), [1.0, 0.0]);
    client
}

/// A client that waits for a place behind `before` others.
#[track_caller]
fn waiting(gateway: &Gateway, path: &str, before: u32) -> Client {
    let mut client = gateway.connect();
    client.send_request("GET", path, &[], b"");
    eventually(LIMIT, || gauges(gateway)[1] == f64::from(before + 1));
    client
}

/// In flight, and in the queue.
fn gauges(gateway: &Gateway) -> [f64; 2] {
    let metrics = gateway.metrics();
    ["smg_admission_inflight", "smg_admission_queue_depth"].map(|name| metrics.sum(name, &[]))
}

#[track_caller]
fn assert_refused(answer: &Response, status: u16, code: &str) {
    answer.assert_error(status, code);
    let seconds: u64 = answer.headers.get("retry-after").expect("when to come back").parse().expect("seconds");
    assert!((1..=30).contains(&seconds), "{seconds}");
}

#[test]
fn a_place_is_held_to_the_last_byte_and_the_first_to_come_gets_it() {
    let (worker, finish) = slow();
    let gateway = narrow(&worker, 3).start();
    let mut first = holder(&gateway);
    let mut queue = [("/a", 0), ("/b", 1), ("/c", 2)].map(|(path, before)| waiting(&gateway, path, before));
    for _ in 0..3 {
        assert_refused(&gateway.get("/too-many"), 429, "admission_queue_full");
    }
    holds_for(Duration::from_millis(200), || worker.requests().len() == 1);
    assert_eq!(gateway.get("/health").status, 200, "the gateway's own are not counted");
    finish.open();
    first.read_until("0\r\n\r\n");
    queue.iter_mut().for_each(|client| assert_eq!(client.read_response().status, 200));
    let order: Vec<_> = worker.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(order, ["/stream", "/a", "/b", "/c"]);
    eventually(AT_ONCE, || gauges(&gateway) == [0.0, 0.0]);
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("smg_admission_rejected_total", &[("reason", "queue_full")]), 3.0);
    assert_eq!(metrics.sum("smg_admission_queued_total", &[]), 3.0);
}

#[test]
fn who_waits_for_too_long_is_told_so_and_the_worker_never_hears_of_it() {
    let (worker, finish) = slow();
    let gateway = narrow(&worker, 5).arg("--queue-timeout-secs=0.4").start();
    let mut first = holder(&gateway);
    let start = Instant::now();
    let answer = gateway.request("POST", "/late", &[], b"x");
    assert_refused(&answer, 503, "admission_queue_timeout");
    assert!((Duration::from_millis(350)..Duration::from_secs(4)).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!(gauges(&gateway), [1.0, 0.0]);
    finish.open();
    first.read_until("0\r\n\r\n");
    assert_eq!(gateway.get("/next").status, 200);
    assert!(worker.requests().iter().all(|request| request.target != "/late"));
    assert_eq!(gateway.metrics().sum("smg_admission_rejected_total", &[("reason", "queue_timeout")]), 1.0);
}

#[test]
fn without_a_queue_nobody_waits() {
    let (worker, finish) = slow();
    let gateway = narrow(&worker, 0).start();
    let _first = holder(&gateway);
    assert_refused(&gateway.get("/"), 429, "admission_queue_full");
    finish.open();
}

#[test]
fn a_client_that_leaves_gives_up_its_place_in_the_queue() {
    let (worker, finish) = slow();
    let gateway = narrow(&worker, 1).start();
    let mut first = holder(&gateway);
    drop(waiting(&gateway, "/left", 0));
    eventually(AT_ONCE, || gauges(&gateway) == [1.0, 0.0]);
    waiting(&gateway, "/reset", 0).reset();
    eventually(AT_ONCE, || gauges(&gateway) == [1.0, 0.0]);
    // Half of its body is here and unread.
    let mut uploading = gateway.connect();
    uploading.send("POST /half HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    eventually(LIMIT, || gauges(&gateway) == [1.0, 1.0]);
    drop(uploading);
    eventually(Duration::from_millis(1500), || gauges(&gateway) == [1.0, 0.0]);
    let mut stays = waiting(&gateway, "/stays", 0);
    finish.open();
    first.read_until("0\r\n\r\n");
    assert_eq!(stays.read_response().text(), "/stays");
    let seen: Vec<_> = worker.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(seen, ["/stream", "/stays"]);
}

#[test]
fn a_client_that_leaves_its_answer_makes_room_at_once() {
    let (worker, _finish) = slow();
    let gateway = narrow(&worker, 1).start();
    for _ in 0..3 {
        let first = holder(&gateway);
        let mut next = waiting(&gateway, "/next", 0);
        drop(first);
        assert_eq!(next.read_response().text(), "/next");
        eventually(AT_ONCE, || gauges(&gateway) == [0.0, 0.0]);
    }
}

#[test]
fn requests_that_fail_give_their_places_back() {
    let nowhere = Nowhere::refusing();
    let flags = ["--max-concurrent-requests=1", "--queue-size=0", "--disable-health-check", "--max-payload-size=10"];
    let gateway = Gateway::builder().worker_url(nowhere.url()).args(flags).arg("--disable-retries").start();
    for _ in 0..10 {
        assert!(matches!(gateway.get("/").status, 502 | 503));
        assert_eq!(gateway.request("GET", "/", &[("Transfer-Encoding", "gzip")], b"").status, 400);
        assert_eq!(gateway.request("POST", "/", &[], &[b'x'; 11]).status, 413);
    }
    eventually(AT_ONCE, || gauges(&gateway) == [0.0, 0.0]);
}

#[test]
fn requests_come_no_faster_than_the_rate() {
    let worker = Worker::echo();
    let gateway = Gateway::builder().worker(&worker).arg("--rate-limit-tokens-per-second=3").start();
    let start = Instant::now();
    let statuses: Vec<_> = (0..20).map(|_| gateway.get("/")).collect();
    let refused = statuses.iter().filter(|answer| answer.status != 200).inspect(|answer| {
        assert_refused(answer, 429, "rate_limit_exceeded");
    });
    let refused = refused.count();
    assert!(refused > 0, "all within {:?}", start.elapsed());
    assert!((3..=3 + 3 * start.elapsed().as_secs() as usize + 3).contains(&(20 - refused)), "{refused} refused");
    assert_eq!(worker.requests().len(), 20 - refused);
    eventually(Duration::from_secs(2), || gateway.get("/").status == 200);
    assert_eq!(gateway.get("/health").status, 200);
}
