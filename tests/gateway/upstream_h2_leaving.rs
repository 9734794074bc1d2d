//! Clients that leave (case 55): their stream to the worker is reset at once, whatever has come of it, and no other one.

use crate::support::{Client, Code, Frame, Gate, Gateway, H2, H2Worker, Last, eventually};
use std::time::Duration;

fn before(worker: &H2Worker) -> Gateway {
    Gateway::builder().worker_url(worker.url()).args(["--upstream-http2", "--shards=1"]).start()
}

/// What a client does, and its name.
type Way<'a> = (&'a str, &'a dyn Fn(&mut Client));

// Case 55, for clients of each kind, before the answer and within it.
#[test]
fn a_client_that_leaves_takes_its_stream_with_it() {
    let worker = H2Worker::new(|request, stream| {
        if request.path.starts_with("/begun") {
            stream.head(200, &[]);
            stream.data("begun", 0);
        }
        stream.is_left_within(Duration::from_secs(8));
    });
    let gateway = before(&worker);
    let mut expected = 0;
    for path in ["/waiting", "/begun"] {
        let slowly = |client: &mut Client| {
            client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello"));
            assert!(client.is_silent_for(Duration::from_millis(50)));
            client.send("world");
        };
        let ways: [Way; 4] = [
            ("GET", &|client| client.send_request("GET", path, &[], b"")),
            ("POST", &|client| client.send_request("POST", path, &[], b"hello")),
            ("a large POST", &|client| client.send_request("POST", path, &[], &[b'x'; 300_000])),
            ("a slow POST", &slowly),
        ];
        for (way, send) in ways {
            let mut client = gateway.connect();
            send(&mut client);
            worker.wait_for_request();
            if path == "/begun" {
                client.read_until("begun");
            }
            drop(client);
            expected += 1;
            let took = worker.wait_for_resets(expected);
            assert!(took < Duration::from_secs(5), "{way} {path}: {took:?}");
        }
        let mut client = H2::connect(&gateway);
        let stream = client.start("POST", path, &[], Last::No);
        client.data(stream, b"hello", Last::Yes);
        worker.wait_for_request();
        if path == "/begun" {
            client.wait_until(stream, |answer| answer.body == b"begun");
        }
        client.reset(stream);
        expected += 1;
        assert!(worker.wait_for_resets(expected) < Duration::from_secs(1), "HTTP/2 {path}");
    }
    assert!(worker.resets().iter().all(|(_, code)| *code == Code::CANCEL), "{:?}", worker.resets());
    eventually(Duration::from_secs(1), || gateway.load() == 0);
    assert_eq!(worker.connections(), 1, "the connection goes on");
}

// Also where the worker takes nothing more of it.
#[test]
fn a_client_that_leaves_in_the_middle_of_its_upload_takes_its_stream_with_it() {
    for worker in [H2Worker::builder(), H2Worker::builder().takes_one_window()] {
        let seen_whole = Gate::new();
        let note = seen_whole.clone();
        let worker = worker.on_head().start(move |_, stream| {
            if stream.whole().is_some() {
                note.open();
            }
        });
        let gateway = before(&worker);
        let half = vec![b'x'; 100_000];
        let mut old = gateway.connect();
        old.send("POST /half HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n").send(&half);
        worker.wait_for_request();
        eventually(Duration::from_secs(2), || worker.received() > 60_000);
        drop(old);
        assert!(worker.wait_for_resets(1) < Duration::from_secs(1));
        for (i, code) in [Code::CANCEL, Code::NO_ERROR].into_iter().enumerate() {
            let mut new = H2::connect(&gateway);
            let stream = new.start("POST", "/half", &[], Last::No);
            new.data(stream, &half, Last::No);
            worker.wait_for_request();
            new.raw.send(&Frame::reset(stream, code));
            assert!(worker.wait_for_resets(2 + i) < Duration::from_secs(1), "{code:?}");
        }
        assert!(!seen_whole.is_open(), "half a body must not look whole");
        eventually(Duration::from_secs(1), || gateway.load() == 0);
    }
}
