//! Bodies flow as they come, both ways, and no faster than the slower side takes them.

use crate::support::{End, Gate, Gateway, Worker, eventually};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Sends one event each time the test opens the next gate.
fn event_by_event(gates: &[Gate]) -> Worker {
    let gates = gates.to_vec();
    Worker::new(move |_, conn| {
        conn.start_events();
        for (i, gate) in gates.iter().enumerate() {
            gate.wait();
            conn.chunk(format!("data: {i}\n\n"));
        }
        conn.chunk("");
    })
}

#[test]
fn an_event_is_with_the_client_before_the_worker_writes_the_next() {
    let gates: Vec<Gate> = (0..5).map(|_| Gate::new()).collect();
    let worker = event_by_event(&gates);
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send_request("POST", "/v1/chat/completions", &[], b"{}");
    let head = client.read_head();
    assert_eq!((head.status, head.headers.get("content-type")), (200, Some("text/event-stream")));
    for (i, gate) in gates.iter().enumerate() {
        let opened = Instant::now();
        gate.open();
        client.read_until(format!("data: {i}\n\n"));
        assert!(opened.elapsed() < Duration::from_secs(5), "{:?}", opened.elapsed());
    }
    client.read_until("0\r\n\r\n");
}

// Case 39: nothing is held back, whether it is an event or a comment that only keeps the connection open.
#[test]
fn events_and_comments_are_with_the_client_at_once() {
    let gates: Vec<Gate> = (0..50).map(|_| Gate::new()).collect();
    let waits = gates.clone();
    let worker = Worker::new(move |_, conn| {
        conn.start_events();
        for (i, gate) in waits.iter().enumerate() {
            gate.wait();
            conn.chunk(if i % 2 == 0 { ": ping\n\n" } else { "data: x\n\n" });
        }
        conn.chunk("");
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send_request("POST", "/v1/chat/completions", &[], b"{}");
    client.read_head();
    let mut took: Vec<_> = gates
        .iter()
        .map(|gate| {
            let opened = Instant::now();
            gate.open();
            client.read_until("\n\n");
            opened.elapsed()
        })
        .collect();
    took.sort_unstable();
    assert!(took[25] < Duration::from_millis(50), "a busy machine may delay some: {took:?}");
}

#[test]
fn the_head_is_with_the_client_before_the_first_event() {
    let gate = Gate::new();
    let worker = event_by_event(std::slice::from_ref(&gate));
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send_request("POST", "/", &[], b"{}");
    assert_eq!(client.read_head().status, 200);
    gate.open();
    client.read_until("data: 0\n\n");
}

#[test]
fn events_split_anywhere_arrive_whole_and_unchanged() {
    let stream = "data: h\u{e9}llo \u{20ac}\r\n\r\n: keep-alive\n\nevent: x\ndata: {\"a\":1}\n\ndata: [DONE]\n\n";
    let worker = Worker::new(move |_, conn| {
        conn.start_events();
        for byte in stream.as_bytes() {
            conn.chunk([*byte]);
        }
        conn.chunk("");
    });
    let gateway = Gateway::before(&worker);
    assert_eq!(gateway.get("/").text(), stream);
}

#[test]
fn an_answer_with_a_length_flows_before_it_is_complete() {
    let gate = Gate::new();
    let wait = gate.clone();
    let worker = Worker::new(move |_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        wait.wait();
        conn.send("world");
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[], b"");
    client.read_until("hello");
    gate.open();
    client.read_until("world");
}

#[test]
fn an_answer_until_close_flows_before_it_ends() {
    let gate = Gate::new();
    let wait = gate.clone();
    let worker = Worker::new(move |_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
        wait.wait();
        conn.close();
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[], b"");
    client.read_until("data: 1\n\n");
    gate.open();
    client.read_until("0\r\n\r\n");
}

#[test]
fn an_upload_flows_before_it_is_complete() {
    let worker = Worker::on_head(|_, conn| {
        for part in ["one", "two"] {
            conn.read_until(part).unwrap().unwrap();
            conn.send(format!("HTTP/1.1 103 Early Hints\r\nX: {part}\r\n\r\n"));
        }
        conn.read_until("0\r\n\r\n").unwrap().unwrap();
        conn.answer(200, "both");
        conn.close();
    });
    let first = Gate::new();
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
    worker.wait_for_request();
    first.open();
    client.send("3\r\ntwo\r\n0\r\n\r\n");
    assert_eq!(client.read_response().text(), "both");
}

#[test]
fn the_first_part_of_an_upload_is_with_the_worker_before_the_second_is_sent() {
    for framing in ["Content-Length: 6", "Transfer-Encoding: chunked"] {
        let got_one = Gate::new();
        let got = got_one.clone();
        let worker = Worker::on_head(move |_, conn| {
            conn.read_until("one").unwrap().unwrap();
            got.open();
            conn.read_until("two").unwrap().unwrap();
            conn.answer(200, "both");
            conn.close();
        });
        let gateway = Gateway::before(&worker);
        let mut client = gateway.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        let chunked = framing.ends_with("chunked");
        client.send(if chunked { "3\r\none\r\n" } else { "one" });
        got_one.wait();
        client.send(if chunked { "3\r\ntwo\r\n0\r\n\r\n" } else { "two" });
        assert_eq!(client.read_response().text(), "both");
    }
}

// Both directions at once, as a worker that answers while it reads.
#[test]
fn an_answer_flows_while_the_upload_goes_on() {
    let worker = Worker::on_head(|_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for part in ["one", "two"] {
            conn.read_until(part).unwrap().unwrap();
            conn.chunk(format!("got {part}"));
        }
        conn.read_until("0\r\n\r\n").unwrap().unwrap();
        conn.chunk("");
        conn.close();
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.read_head().status, 200);
    client.send("3\r\none\r\n");
    client.read_until("got one");
    client.send("3\r\ntwo\r\n");
    client.read_until("got two");
    client.send("0\r\n\r\n");
    client.read_until("0\r\n\r\n");
}

// Case 40: what came before the end is not lost with it.
#[test]
fn a_stream_whose_worker_dies_ends_abnormally_after_its_last_event_and_is_not_started_again() {
    let worker = Worker::new(|_, conn| {
        conn.start_events();
        conn.chunk("data: 1\n\n");
        conn.close();
    });
    let gateway = Gateway::builder().worker(&worker).arg("--disable-circuit-breaker").start();
    for asked in 1..=20 {
        let mut client = gateway.connect();
        client.send_request("GET", "/", &[], b"");
        let answer = client.read_response_however("GET");
        let broken = End::Broken(std::io::ErrorKind::UnexpectedEof);
        assert_eq!((answer.text().as_str(), answer.end), ("data: 1\n\n", broken));
        assert_eq!(worker.requests().len(), asked);
    }
}

const FLOOD: usize = 96 << 20;

/// Writes `FLOOD` bytes as fast as they are taken, and counts them.
fn flood(written: &Arc<AtomicUsize>) -> Worker {
    let written = written.clone();
    Worker::new(move |_, conn| {
        conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {FLOOD}\r\n\r\n"));
        let piece = vec![b'x'; 1 << 20];
        while written.load(Ordering::SeqCst) < FLOOD && conn.try_send(&piece).is_ok() {
            written.fetch_add(piece.len(), Ordering::SeqCst);
        }
    })
}

#[test]
fn a_client_that_does_not_read_holds_the_worker_back_and_costs_no_memory() {
    let written = Arc::new(AtomicUsize::new(0));
    let worker = flood(&written);
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    let before = gateway.memory();
    client.send_request("GET", "/", &[], b"");
    let mut last = (Instant::now(), 0);
    eventually(Duration::from_secs(10), || {
        let now = written.load(Ordering::SeqCst);
        if now != last.1 {
            last = (Instant::now(), now);
        }
        now > 0 && last.0.elapsed() > Duration::from_millis(300)
    });
    assert!(last.1 < FLOOD, "the whole answer is somewhere between");
    let growth = gateway.memory().saturating_sub(before);
    assert!(growth < 16 << 20, "{growth} bytes more");
    assert_eq!(client.read_response().body.len(), FLOOD);
}
