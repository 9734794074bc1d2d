//! Comments to the clients of event streams whose workers are silent (case 39): between events only, and only where they
//! are comments.

use crate::support::{Client, Conn, Gate, Gateway, H2, Worker};
use std::time::Duration;

/// Without an empty line behind it, which would be an event without data to many clients.
const COMMENT: &str = ": keep-alive\n";
/// Several times the interval of the comments.
const LONG: Duration = Duration::from_millis(400);

fn commenting(worker: &Worker) -> Gateway {
    Gateway::builder().worker(worker).arg("--sse-keepalive-secs=0.1").start()
}

/// A worker that runs `begin`, waits until the client has seen what it wants, and runs `end`.
fn pausing(
    begin: impl Fn(&mut Conn) + Send + Sync + 'static,
    end: impl Fn(&mut Conn) + Send + Sync + 'static,
) -> (Worker, Gate) {
    let seen = Gate::new();
    let wait = seen.clone();
    let worker = Worker::new(move |_, conn| {
        begin(conn);
        wait.wait();
        end(conn);
    });
    (worker, seen)
}

#[track_caller]
fn ask(gateway: &Gateway) -> Client {
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[], b"");
    client
}

#[test]
fn comments_come_before_the_first_event_and_between_events_again_and_again() {
    for (first, second) in
        [("data: 1\n\n", "data: 2\n\n"), ("data: 1\r\n\r\n", "id: 2\r\n\r\n"), ("data: 1\r\r", "data: 2\r\r")]
    {
        let begin = |conn: &mut Conn| conn.start_events();
        let (worker, seen) = pausing(begin, move |conn| {
            conn.chunk(first);
            assert!(conn.is_silent_for(LONG));
            conn.chunk(second);
            conn.chunk("");
        });
        let gateway = commenting(&worker);
        let mut client = ask(&gateway);
        (0..2).for_each(|_| drop(client.read_until(COMMENT)));
        seen.open();
        client.read_until(first);
        (0..2).for_each(|_| drop(client.read_until(COMMENT)));
        let rest = String::from_utf8(client.read_until("\r\n0\r\n\r\n")).unwrap();
        let (before, after) = rest.split_once(second).expect("the second event is whole");
        assert_eq!(before.matches("data").count() + after.matches("data").count(), 0, "{rest:?}");
    }
}

#[test]
fn an_event_is_never_torn_apart() {
    for pieces in [
        &["data: 1", "\n\n"][..],
        &["data: 1\n", "data: 2\n\n"],
        &["data: 1\r\n\r", "\n"],
        &["data: 1\r", "\n\r\n"],
        &["da", "ta: 1\n\n"],
        &["id: 0\n", "data: 1\n\n"],
    ] {
        let worker = Worker::new(move |_, conn| {
            conn.start_events();
            let (last, before) = pieces.split_last().expect("some are given");
            for piece in before {
                conn.chunk(piece);
                assert!(conn.is_silent_for(LONG));
            }
            conn.chunk(last);
            conn.chunk("");
        });
        let answer = ask(&commenting(&worker)).read_response();
        assert_eq!(answer.text(), pieces.concat());
    }
}

// One more empty line would be one more event to clients that know an id by then.
#[test]
fn a_comment_is_one_line_behind_which_the_next_event_begins() {
    let worker = Worker::new(|_, conn| {
        conn.start_events();
        conn.chunk("id: 0\ndata: 1\n\n");
        assert!(conn.is_silent_for(LONG));
        conn.chunk("data: 2\n\n");
        conn.chunk("");
    });
    let gateway = commenting(&worker);
    for text in [ask(&gateway).read_response().text(), H2::connect(&gateway).get("/").text()] {
        assert!(text.contains(COMMENT), "{text:?}");
        assert_eq!(text.replace(COMMENT, ""), "id: 0\ndata: 1\n\ndata: 2\n\n");
    }
}

#[test]
fn a_byte_order_mark_behind_the_first_comment_is_omitted() {
    let worker = Worker::new(|_, conn| {
        conn.start_events();
        assert!(conn.is_silent_for(LONG));
        conn.chunk("\u{feff}data: 1\n\n");
        conn.chunk("");
    });
    let text = ask(&commenting(&worker)).read_response().text();
    assert!(text.starts_with(COMMENT), "{text:?}");
    assert_eq!(text.replace(COMMENT, ""), "data: 1\n\n");
}

#[test]
fn nothing_is_sent_before_the_head_came() {
    let worker = Worker::new(|_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n");
        assert!(conn.is_silent_for(LONG));
        conn.send("X-Late: yes\r\nTransfer-Encoding: chunked\r\n\r\n");
        conn.chunk("data: 1\n\n");
        conn.chunk("");
    });
    let answer = ask(&commenting(&worker)).read_response();
    assert_eq!((answer.headers.get("x-late"), answer.text().as_str()), (Some("yes"), "data: 1\n\n"));
}

#[test]
fn event_streams_are_not_to_be_buffered_unless_their_worker_says_otherwise() {
    let name = "x-accel-buffering";
    let worker = Worker::new(|request, conn| {
        let head = match request.target.as_str() {
            "/events" => "Content-Type: text/event-stream; charset=utf-8\r\n",
            "/said" => "Content-Type: text/event-stream\r\nX-Accel-Buffering: yes\r\n",
            _ => "Content-Type: application/json\r\n",
        };
        conn.send(format!("HTTP/1.1 200 OK\r\n{head}Transfer-Encoding: chunked\r\n\r\n"));
        conn.chunk("{}\n\n");
        conn.chunk("");
    });
    let gateway = Gateway::before(&worker);
    assert_eq!(gateway.get("/events").headers.get(name), Some("no"));
    assert_eq!(H2::connect(&gateway).get("/events").headers.get(name), Some("no"));
    assert_eq!(gateway.get("/said").headers.get(name), Some("yes"));
    assert_eq!(gateway.get("/json").headers.get(name), None);
    for flag in ["--sse-keepalive-secs=0", "--disable-accel-buffering-header"] {
        let gateway = Gateway::builder().worker(&worker).arg(flag).start();
        assert_eq!(gateway.get("/events").headers.has(name), flag.starts_with("--sse"), "{flag}");
    }
}

/// What a client gets of an answer that pauses between `first` and `second`.
fn paused(flag: &str, head: &'static str, first: &'static str, second: &'static str) -> String {
    let worker = Worker::new(move |_, conn| {
        conn.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n{first}"));
        assert!(conn.is_silent_for(LONG));
        conn.send(second);
        conn.close();
    });
    let gateway = Gateway::builder().worker(&worker).arg(flag).start();
    ask(&gateway).read_response().text()
}

#[test]
fn nothing_but_a_plain_event_stream_gets_comments() {
    const ON: &str = "--sse-keepalive-secs=0.1";
    for head in [
        "Content-Type: application/x-ndjson\r\n",
        "Content-Type: text/plain\r\n",
        "X-No: type\r\n",
        "Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n",
        "Content-Type: text/event-stream-of-mine\r\n",
    ] {
        assert_eq!(paused(ON, head, "{}\n\n", "{}\n\n"), "{}\n\n{}\n\n", "{head:?}");
    }
    let events = "Content-Type: Text/Event-Stream; charset=utf-8\r\n";
    assert_eq!(paused("--sse-keepalive-secs=0", events, "data: 1\n\n", "data: 2\n\n"), "data: 1\n\ndata: 2\n\n");
    assert!(paused(ON, events, "data: 1\n\n", "data: 2\n\n").contains(COMMENT));
}

// A comment is not counted in the length that was said: it would push the end of the answer into the next one.
#[test]
fn an_event_stream_of_a_known_length_gets_no_comments() {
    let worker = Worker::new(|_, conn| {
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 18\r\n\r\ndata: 1\n\n");
        assert!(conn.is_silent_for(LONG));
        conn.send("data: 2\n\n");
    });
    let gateway = commenting(&worker);
    let mut client = gateway.connect();
    for _ in 0..2 {
        assert_eq!(client.get("/").text(), "data: 1\n\ndata: 2\n\n");
    }
}

#[test]
fn comments_do_not_hide_that_a_worker_has_stalled() {
    let worker = Worker::new(|_, conn| {
        conn.start_events();
        conn.wait_peer_closed(Duration::from_secs(5));
        conn.chunk("");
    });
    let flags = ["--sse-keepalive-secs=0.2", "--stream-body-stall-timeout-secs=0.9"];
    let gateway = Gateway::builder().worker(&worker).args(flags).start();
    let answer = ask(&gateway).read_response_however("GET");
    assert_ne!(answer.end, crate::support::End::Clean);
    assert!((2..=4).contains(&answer.text().matches(COMMENT).count()), "{:?}", answer.text());
}
