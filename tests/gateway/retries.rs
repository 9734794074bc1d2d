//! Worker connections that die while idle (cases 52 and 56): what is safe to send again is, what is not is not.

use crate::support::{Gate, Gateway, Worker, eventually};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Answers the first request of each connection; the next ones it reads, then hangs up: the race of a keep-alive
/// connection that closes at the moment of its reuse.
fn hangs_up_on_reuse() -> Worker {
    Worker::new(|request, conn| match request.nth {
        0 => conn.answer(200, request.target.as_str()),
        _ => conn.close(),
    })
}

/// One shard, so that one client connection means one upstream pool.
fn in_front_of(worker: &Worker) -> Gateway {
    Gateway::builder().worker(worker).arg("--shards=1").start()
}

// Cases 52 and 56.
#[test]
fn a_get_on_a_connection_that_dies_at_its_reuse_is_sent_again_unseen() {
    let worker = hangs_up_on_reuse();
    let gateway = in_front_of(&worker);
    let mut client = gateway.connect();
    for i in 0..50 {
        let answer = client.get(&format!("/{i}"));
        assert_eq!((answer.status, answer.text()), (200, format!("/{i}")));
    }
}

// Case 52.
#[test]
fn a_post_that_the_worker_may_have_seen_is_not_sent_again() {
    let worker = hangs_up_on_reuse();
    let gateway = in_front_of(&worker);
    let mut client = gateway.connect();
    client.get("/first");
    client.send_request("POST", "/once", &[], b"payment");
    assert_eq!(client.read_response().status, 502);
    let posts = worker.requests().iter().filter(|r| r.method == "POST").count();
    assert_eq!(posts, 1);
}

// A GET that carries a body has it streamed once; it must not go out again without it.
#[test]
fn a_get_with_a_body_is_never_sent_again_in_part() {
    let worker = hangs_up_on_reuse();
    let gateway = in_front_of(&worker);
    let mut client = gateway.connect();
    client.get("/first");
    client.send_request("GET", "/search", &[], b"query");
    let status = client.read_response().status;
    assert!(matches!(status, 200 | 502), "{status}");
    for request in worker.requests().iter().filter(|r| r.target == "/search") {
        assert_eq!(request.body, b"query");
    }
    assert!(worker.broken().is_empty(), "{:?}", worker.broken());
}

// Nothing of the request was sent on the closed connection, so even a POST is safe.
#[test]
fn a_post_after_the_connection_was_closed_goes_out_on_a_new_one() {
    let worker = Worker::new(|request, conn| {
        conn.answer(200, request.target.as_str());
        conn.close();
    });
    let gateway = in_front_of(&worker);
    let mut client = gateway.connect();
    for i in 1..=10 {
        client.send_request("POST", &format!("/{i}"), &[], b"x");
        assert_eq!(client.read_response().text(), format!("/{i}"));
        worker.wait_for_closed(i);
    }
    assert_eq!(worker.requests().len(), 10);
}

#[test]
fn a_get_is_not_sent_again_once_an_answer_has_begun() {
    let worker = Worker::new(|request, conn| match request.nth {
        0 => conn.answer(200, "fine"),
        _ => {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
            conn.close();
        }
    });
    let gateway = in_front_of(&worker);
    let mut client = gateway.connect();
    client.get("/first");
    client.send_request("GET", "/half", &[], b"");
    let answer = client.read_response_however("GET");
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    assert_eq!(worker.requests().iter().filter(|r| r.target == "/half").count(), 1);
}

// Sending again must end: a worker that hangs up every time is asked a few times at most.
#[test]
fn a_worker_that_always_hangs_up_is_a_502_soon() {
    let asked = std::sync::Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let worker = Worker::new(move |request, conn| match request.target.as_str() {
        "/warm" => conn.answer(200, ""),
        _ => {
            count.fetch_add(1, Ordering::SeqCst);
            conn.close();
        }
    });
    let gateway = in_front_of(&worker);
    let mut client = gateway.connect();
    client.get("/warm");
    assert_eq!(client.get("/dead").status, 502);
    assert!((1..=6).contains(&asked.load(Ordering::SeqCst)), "{asked:?}");
}

// A request that kills its worker must not be repeated on every connection that was kept.
#[test]
fn a_request_is_not_repeated_on_every_kept_connection() {
    let go = Gate::new();
    let wait = go.clone();
    let worker = Worker::new(move |request, conn| match request.target.as_str() {
        "/warm" => {
            wait.wait();
            conn.answer(200, "");
        }
        _ => conn.close(),
    });
    let gateway = in_front_of(&worker);
    let mut clients: Vec<_> = (0..20).map(|_| gateway.connect()).collect();
    clients.iter_mut().for_each(|c| c.send_request("GET", "/warm", &[], b""));
    eventually(Duration::from_secs(5), || worker.requests().len() == 20);
    go.open();
    clients.iter_mut().for_each(|c| assert_eq!(c.read_response().status, 200));
    assert_eq!(gateway.get("/deadly").status, 502);
    let deadly = worker.requests().iter().filter(|r| r.target == "/deadly").count();
    assert!((1..=6).contains(&deadly), "sent {deadly} times");
}

// Two requests at once need two connections: one that waits must not hold up another.
#[test]
fn a_slow_request_does_not_hold_up_another_one() {
    let gate = Gate::new();
    let wait = gate.clone();
    let worker = Worker::new(move |request, conn| {
        if request.target == "/slow" {
            wait.wait();
        }
        conn.answer(200, request.target.as_str());
    });
    let gateway = in_front_of(&worker);
    let mut slow = gateway.connect();
    slow.send_request("GET", "/slow", &[], b"");
    worker.wait_for_request();
    assert_eq!(gateway.get("/quick").text(), "/quick");
    gate.open();
    assert_eq!(slow.read_response().text(), "/slow");
}

fn sent_to(worker: &Worker, target: &str) -> usize {
    worker.requests().iter().filter(|request| request.target == target).count()
}

/// A worker that keeps its connection after `/warm`, and closes it after a second's work on anything else.
fn breaks_off_late() -> Worker {
    Worker::new(|request, conn| match request.target.as_str() {
        "/warm" => conn.answer(200, ""),
        _ => {
            std::thread::sleep(Duration::from_millis(if request.target == "/late" { 700 } else { 0 }));
            conn.close();
        }
    })
}

#[test]
fn without_retries_no_request_is_sent_twice() {
    let worker = breaks_off_late();
    let gateway = Gateway::builder().worker(&worker).args(["--disable-retries", "--shards=1"]).start();
    for target in ["/late", "/soon"] {
        assert_eq!(gateway.get("/warm").status, 200);
        assert_eq!(gateway.get(target).status, 502);
        assert_eq!(sent_to(&worker, target), 1, "{target}");
    }
}

// A connection that was closed while it was idle is found to be so at once.
#[test]
fn a_worker_that_breaks_off_its_work_is_asked_as_often_as_the_settings_say() {
    let worker = breaks_off_late();
    let gateway = Gateway::builder().worker(&worker).args(["--retry-max-retries=2", "--shards=1"]).start();
    assert_eq!(gateway.get("/warm").status, 200);
    assert_eq!(gateway.get("/late").status, 502);
    assert_eq!(sent_to(&worker, "/late"), 2);
}

#[test]
fn a_worker_whose_answer_makes_no_sense_is_not_asked_again() {
    for nonsense in ["HTTP/1.1 200\r\nbad header\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
        let worker = Worker::fixed(nonsense);
        let gateway = in_front_of(&worker);
        gateway.get("/x").assert_error(502, "upstream_bad_response");
        assert_eq!(sent_to(&worker, "/x"), 1, "{nonsense}");
    }
}

#[test]
fn a_request_counts_once_for_its_workers_breaker_however_often_it_is_sent() {
    let worker = Worker::new(|request, conn| conn.answer(if request.target == "/bad" { 503 } else { 200 }, ""));
    let args = ["--shards=1", "--cb-failure-threshold=3", "--retry-initial-backoff-ms=1"];
    let gateway = Gateway::builder().worker(&worker).args(args).start();
    (0..2).for_each(|_| assert_eq!(gateway.request("POST", "/bad", &[], b"x").status, 503));
    assert!(sent_to(&worker, "/bad") > 3, "it was not sent again");
    assert_eq!(gateway.get("/good").status, 200);
}
