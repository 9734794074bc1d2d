//! Workers that break the protocol (cases 28 to 31): the client gets a 502 or a visible break, never a mixture.

use crate::support::{End, Gate, Gateway, Worker, eventually};
use std::time::Duration;

/// Answers `/odd` with these bytes and anything else plainly; connections stay open.
fn worker_with(odd: impl Into<Vec<u8>>) -> Worker {
    let odd = odd.into();
    Worker::new(move |request, conn| match request.target.as_str() {
        "/odd" => conn.send(&odd),
        _ => conn.answer(200, "next"),
    })
}

/// Reports every one of these answers that is not turned into a 502 with nothing of it passed on.
#[track_caller]
fn all_become_502(answers: &[&[u8]]) {
    let mut complaints = Vec::new();
    for odd in answers {
        let shown = String::from_utf8_lossy(odd);
        let worker = worker_with(*odd);
        let gateway = Gateway::builder().worker(&worker).arg("--request-timeout-secs=3").start();
        let mut client = gateway.connect();
        client.send_request("POST", "/odd", &[], b"x");
        let answer = client.read_response_however("POST");
        if answer.status != 502 || answer.headers.has("x-evil") || answer.text().contains("evil") {
            complaints.push(format!("{shown:?}: {} {:?}", answer.status, answer.headers));
        }
        if gateway.get("/next").text() != "next" {
            complaints.push(format!("{shown:?}: the next answer is wrong"));
        }
        let used = |target| worker.requests().iter().find(|r| r.target == target).map(|r| r.connection);
        if used("/odd") == used("/next") {
            complaints.push(format!("{shown:?}: the connection was reused"));
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

// Case 28.
#[test]
fn a_length_beside_chunked_is_a_502_or_dropped_and_the_connection_is_not_reused() {
    for fields in ["Content-Length: 3\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 3"]
    {
        let worker = worker_with(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
        let gateway = Gateway::before(&worker);
        let mut client = gateway.connect();
        let answer = client.get("/odd");
        match answer.status {
            200 => assert_eq!((answer.text().as_str(), answer.headers.has("content-length")), ("hello", false)),
            status => assert_eq!(status, 502),
        }
        assert_eq!(client.get("/next").text(), "next");
        assert_eq!(worker.connections(), 2, "{fields}: the connection was reused");
    }
}

// Case 28.
#[test]
fn a_bad_content_length_is_a_502() {
    all_become_502(&[
        b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nevil",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nevil",
        b"HTTP/1.1 200 OK\r\nContent-Length: +4\r\n\r\nevil",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4, 5\r\n\r\nevil!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nevil!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nevil",
    ]);
}

// RFC 9110 section 15: no status above 599 has a meaning.
#[test]
fn a_status_that_is_none_is_a_502() {
    all_become_502(&[
        b"HTTP/1.1 600 Evil\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 999 Evil\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 099 Evil\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 20 Evil\r\nContent-Length: 4\r\n\r\nevil",
    ]);
}

// Case 28.
#[test]
fn an_unknown_transfer_encoding_of_a_worker_is_a_502() {
    all_become_502(&[
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    ]);
}

// Case 29.
#[test]
fn a_malformed_field_of_a_worker_is_a_502() {
    all_become_502(&[
        b"HTTP/1.1 200 OK\r\nX-Evil: a\0b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Evil: a\rSet-Cookie: x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Evil: a\x01\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX Evil: a\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Evil\0: a\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: evil\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: a\nX-Evil: x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nX-Evil: x\nContent-Length: 0\n\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: a\r\n X-Evil: x\r\nContent-Length: 0\r\n\r\n",
    ]);
}

// Case 29.
#[test]
fn a_malformed_status_line_is_a_502() {
    all_become_502(&[
        b"HTTP/1.1 99 Low\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 abc\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/3.7 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 a\0b\r\nContent-Length: 0\r\n\r\n",
        b"evil garbage\r\n\r\n",
        b"\r\n\r\n\r\n\r\nevil\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ]);
}

#[test]
fn a_switch_of_protocols_that_nobody_asked_for_is_a_502() {
    all_become_502(&[b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nevil"]);
}

#[test]
fn a_worker_head_beyond_all_limits_is_a_502() {
    let many: String = (0..3000).map(|i| format!("X-{i}: v\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "v".repeat(2 << 20));
    for fields in [many, long] {
        all_become_502(&[format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n").as_bytes()]);
    }
}

/// A head that announces chunks.
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

// Case 30.
#[test]
fn an_answer_shorter_than_its_length_is_visibly_cut() {
    cut_short("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello");
}

// Case 30.
#[test]
fn an_answer_that_ends_between_chunks_is_visibly_cut() {
    cut_short("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
}

// Case 30.
#[test]
fn an_answer_that_ends_within_a_chunk_is_visibly_cut() {
    cut_short("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhello");
}

// Cases 6 and 7, from the other side.
#[test]
fn an_answer_whose_chunks_are_garbage_is_visibly_cut() {
    for size in ["zz", "FFFFFFFFFFFFFFFFF", "10000000000000005", "0x5", "+5", "-5", "", " 5", "5\n", "5;a\nb"] {
        cut_short(&format!("{CHUNKED}5\r\nhello\r\n{size}\r\nhello\r\n0\r\n\r\n"));
    }
    for end in
        ["5\nhello\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhello0\r\n\r\n", "0\n\n", "0\r\nX: a\nY: b\r\n\r\n"]
    {
        cut_short(&format!("{CHUNKED}5\r\nhello\r\n{end}"));
    }
}

#[test]
fn an_answer_that_is_reset_within_its_length_is_visibly_cut() {
    let worker = Worker::new(|_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello");
        conn.wait_peer_closed(Duration::from_millis(100));
        conn.reset();
    });
    assert_cut(&worker);
}

#[track_caller]
fn cut_short(answer: &str) {
    assert_cut(&Worker::fixed_then_close(answer));
}

/// The bytes that came may be passed on, but their end is not an end: nor may the connection serve on.
#[track_caller]
fn assert_cut(worker: &Worker) {
    let gateway = Gateway::before(worker);
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[], b"");
    let answer = client.read_response_however("GET");
    if answer.status == 502 {
        return;
    }
    assert_eq!(answer.status, 200);
    assert!(answer.end != End::Clean && answer.end != End::Broken(std::io::ErrorKind::TimedOut), "{answer:?}");
    assert!(b"hellohello".starts_with(&answer.body[..]), "{answer:?}");
    eventually(Duration::from_secs(5), || gateway.load() == 0);
}

// Case 31.
#[test]
fn what_follows_an_answer_is_nobodys_answer() {
    let hacked = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhacked";
    for odd in [
        format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello{hacked}"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n{hacked}"),
        format!("HTTP/1.1 204 No Content\r\n\r\n{hacked}"),
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellorest".to_owned(),
    ] {
        let worker = worker_with(odd.clone());
        let gateway = Gateway::before(&worker);
        let mut client = gateway.connect();
        assert!(!client.get("/odd").text().contains("hacked"));
        for _ in 0..3 {
            assert_eq!(client.get("/next").text(), "next", "{odd:?}");
            assert_eq!(gateway.get("/next").text(), "next", "{odd:?}");
        }
        let requests = worker.requests();
        let spoiled = requests[0].connection;
        assert_eq!(
            requests.iter().filter(|r| r.connection == spoiled).count(),
            1,
            "{odd:?}: the connection was reused"
        );
    }
}

// Case 31: unasked bytes on an idle connection, as a late answer to a request that was given up.
#[test]
fn an_answer_that_nobody_asked_for_is_nobodys_answer() {
    let sent = Gate::new();
    let was_sent = sent.clone();
    let worker = Worker::new(move |request, conn| {
        conn.answer(200, request.target.as_str());
        if request.target == "/first" {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhacked");
            was_sent.open();
        }
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    assert_eq!(client.get("/first").text(), "/first");
    sent.wait();
    for _ in 0..3 {
        assert_eq!(client.get("/second").text(), "/second");
    }
}
