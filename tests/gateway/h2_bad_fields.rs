//! What a field that HTTP/2 forbids costs the other requests of its connection (case 50): RFC 9113 section 8.1.1 asks
//! for an error of the stream; where h2's decoder finds it first, it is one of the connection.

use crate::support::{Code, Gate, Gateway, H2, Last, StreamEnd, Worker};

/// A client with a request at the worker, which answers it when the gate opens.
fn with_another(gateway: &Gateway, worker: &Worker) -> (H2, u32) {
    let mut client = H2::connect(gateway);
    let other = client.start("GET", "/other", &[], Last::Yes);
    assert_eq!(worker.wait_for_request().target, "/other");
    (client, other)
}

fn waiting() -> (Worker, Gate) {
    let finish = Gate::new();
    let wait = finish.clone();
    let worker = Worker::new(move |request, conn| {
        if request.target == "/other" {
            wait.wait();
        }
        conn.answer(200, "fine");
    });
    (worker, finish)
}

#[test]
fn a_field_that_no_decoder_takes_ends_its_connection_and_no_other() {
    let (worker, finish) = waiting();
    let gateway = Gateway::before(&worker);
    let fields =
        [("x", "a\rb"), ("x", "a\nb"), ("x", "a\0b"), ("X-Upper", "v"), ("a b", "v"), ("", "v"), (":late", "x")];
    for (name, value) in fields {
        let (mut client, other) = with_another(&gateway, &worker);
        let bad = client.request("GET", "/bad", &[(name, value)], b"");
        assert_eq!((bad.status, bad.end), (0, StreamEnd::Lost), "{name:?}: {value:?}");
        assert_eq!(client.wait(other).end, StreamEnd::Lost);
        assert_eq!(client.goaway().map(|(_, code)| code), Some(Code::PROTOCOL_ERROR));
        assert_eq!(H2::connect(&gateway).get("/next").status, 200);
        assert_eq!(worker.wait_for_request().target, "/next");
    }
    finish.open();
}

#[test]
fn a_field_that_only_means_nothing_in_http_2_costs_its_own_request() {
    let (worker, finish) = waiting();
    let gateway = Gateway::before(&worker);
    let (mut client, other) = with_another(&gateway, &worker);
    let fields = [("connection", "close"), ("te", "gzip"), ("content-length", "x"), ("host", "a b")];
    for (name, value) in fields {
        let bad = client.request("GET", "/bad", &[(name, value)], b"");
        bad.assert_refused(&[400]);
        assert_ne!(bad.end, StreamEnd::Lost, "{name}: {value}");
    }
    finish.open();
    assert_eq!(client.wait(other).text(), "fine");
    assert!(worker.requests().iter().all(|request| request.target == "/other"));
}
