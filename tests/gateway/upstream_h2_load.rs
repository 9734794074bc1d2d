//! Many streams on one HTTP/2 connection to a worker: what one client does is nothing to the others.

use crate::support::{Client, Frame, Gate, Gateway, H2, H2Worker, Last, StreamEnd, eventually};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

fn before(worker: &H2Worker) -> Gateway {
    Gateway::builder().worker_url(worker.url()).args(["--upstream-http2", "--shards=1"]).start()
}

#[test]
fn clients_that_take_nothing_hold_up_nobody_else() {
    let worker = H2Worker::new(|request, stream| match request.path.as_str() {
        "/large" => {
            stream.head(200, &[]);
            stream.data(vec![b'x'; 4 * MIB], Frame::END_STREAM);
        }
        path => stream.answer(200, path),
    });
    let gateway = before(&worker);
    let mut slow: Vec<_> = (0..20).map(|_| gateway.connect()).collect();
    slow.iter_mut().for_each(|client| client.send_request("GET", "/large", &[], b""));
    let mut held = H2::connect(&gateway);
    let streams: Vec<_> = (0..20).map(|_| held.start("GET", "/large", &[], Last::Yes)).collect();
    streams.iter().for_each(|stream| held.hold(*stream));
    held.take_for(Duration::from_millis(300));
    eventually(Duration::from_secs(5), || worker.requests().len() == 40);
    let start = Instant::now();
    for i in 0..50 {
        assert_eq!(gateway.get(&format!("/{i}")).text(), format!("/{i}"));
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(worker.connections(), 1);
    assert!(gateway.memory() < 200 * MIB as u64, "{}", gateway.memory());
    for client in &mut slow {
        assert_eq!(client.read_response().body.len(), 4 * MIB);
    }
}

// Each cancelled stream may still have bytes on the way, for a stream that the gateway has forgotten.
#[test]
fn thousands_of_clients_that_leave_break_no_other_stream() {
    let gate = Gate::new();
    let wait = gate.clone();
    let worker = H2Worker::new(move |request, stream| {
        stream.head(200, &[("content-type", "text/event-stream")]);
        stream.data("data: 1\n\n", 0);
        if request.path == "/stays" {
            wait.wait_within(Duration::from_secs(20));
        } else {
            stream.is_left_within(Duration::from_secs(8));
            // What was on the way when the reset came.
            stream.send(&Frame::new(Frame::DATA, 0, request.stream, *b"data: 2\n\n"));
        }
        stream.data("data: 2\n\n", Frame::END_STREAM);
    });
    let gateway = before(&worker);
    let mut stays = gateway.connect();
    stays.send_request("GET", "/stays", &[], b"");
    stays.read_until("data: 1\n\n");
    for _ in 0..24 {
        let mut leaving: Vec<Client> = (0..50).map(|_| gateway.connect()).collect();
        leaving.iter_mut().for_each(|client| client.send_request("GET", "/leaves", &[], b""));
        leaving.iter_mut().for_each(|client| drop(client.read_until("data: 1\n\n")));
    }
    eventually(Duration::from_secs(5), || worker.resets().len() >= 1200);
    eventually(Duration::from_secs(5), || gateway.load() == 1);
    gate.open();
    stays.read_until("data: 2\n\n");
    assert_eq!(gateway.get("/stays").status, 200);
    assert_eq!(worker.connections(), 1);
    assert!(worker.broken().is_empty(), "{:?}", worker.broken());
}

#[test]
fn a_burst_without_a_connection_makes_few() {
    let worker = H2Worker::builder().settings(&[(Frame::MAX_CONCURRENT_STREAMS, 1000)]).start(|request, stream| {
        stream.answer(200, &request.path);
    });
    let gateway = before(&worker);
    let mut clients: Vec<_> = (0..2).map(|_| H2::connect(&gateway)).collect();
    let started: Vec<Vec<u32>> = clients
        .iter_mut()
        .map(|client| (0..100).map(|i| client.start("GET", &format!("/{i}"), &[], Last::Yes)).collect())
        .collect();
    for (client, streams) in clients.iter_mut().zip(started) {
        for (i, stream) in streams.into_iter().enumerate() {
            let answer = client.wait(stream);
            assert_eq!((answer.text(), answer.end), (format!("/{i}"), StreamEnd::Clean));
        }
    }
    assert!(worker.connections() <= 4, "{}", worker.connections());
}

#[test]
fn a_connection_that_nobody_uses_closes() {
    let worker = H2Worker::new(|request, stream| {
        if request.path == "/slow" {
            stream.is_left_within(Duration::from_millis(1500));
        }
        stream.answer(200, &request.path);
    });
    let gateway = Gateway::builder()
        .worker_url(worker.url())
        .args(["--upstream-http2", "--shards=1", "--upstream-pool-idle-timeout-secs=0.3"])
        .start();
    assert_eq!(gateway.get("/").status, 200);
    eventually(Duration::from_secs(4), || worker.open_connections() == 0);
    assert_eq!(gateway.get("/slow").text(), "/slow", "one in use stays open");
    assert_eq!(worker.connections(), 2);
}

// A worker that has died says nothing; the requests on its connection don't wait for ever, others go elsewhere.
#[test]
fn a_worker_that_stops_loses_only_what_it_has_begun() {
    let begun = Arc::new(AtomicUsize::new(0));
    let count = begun.clone();
    let mut dying = H2Worker::new(move |_, stream| {
        count.fetch_add(1, Ordering::SeqCst);
        stream.is_left_within(Duration::from_secs(8));
    });
    let living = H2Worker::echo();
    let flags = ["--upstream-http2", "--shards=1", "--policy=round_robin", "--disable-health-check"];
    let gateway = Gateway::builder().worker_url(dying.url()).worker_url(living.url()).args(flags).start();
    let mut clients: Vec<_> = (0..8).map(|_| gateway.connect()).collect();
    clients.iter_mut().for_each(|client| client.send_request("POST", "/x", &[], b"x"));
    eventually(Duration::from_secs(5), || begun.load(Ordering::SeqCst) == 4 && living.requests().len() == 4);
    dying.stop();
    let mut statuses: Vec<_> = clients.iter_mut().map(|client| client.read_response().status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 502, 502, 502, 502]);
    for _ in 0..6 {
        assert_eq!(gateway.request("POST", "/y", &[], b"y").text(), "/y");
    }
}
