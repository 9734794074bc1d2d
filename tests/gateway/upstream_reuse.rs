//! Which connections to workers are used again, and for whom: never one on which something has arrived that nobody asked
//! for, and for the first request of a client's connection only one that is proven.

use crate::support::{Authority, Builder, Conn, Files, Gateway, H2, ReceivedRequest, Worker};
use rustix::process::Signal;
use std::sync::{Arc, Barrier};
use std::time::Duration;

const STRAY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray";

fn echo() -> Worker {
    Worker::new(|request, conn| conn.answer(200, &request.target))
}

/// Idle connections stay for as long as a test takes.
fn patient(worker: &Worker) -> Builder {
    Gateway::builder().worker(worker).args(["--shards=1", "--upstream-pool-idle-timeout-secs=60"])
}

/// Stops the gateway while it is at work on a client's requests, without a look at its sockets; makes the worker send an
/// answer that nobody asked for, and lets the gateway go on to a request for that worker. `count` times.
fn provoke(builder: Builder, turn: &Barrier, count: usize) {
    let gateway = builder.arg("--shards=1").start();
    let mut client = gateway.connect();
    // Fewer than tokio lets a task do before it must pause.
    let before = 100;
    let work = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n".repeat(before) + "GET /mine HTTP/1.1\r\nHost: a\r\n\r\n";
    for nth in 0..count {
        assert_eq!(client.get("/first").text(), "/first");
        client.send(&work);
        std::thread::sleep(Duration::from_millis(1));
        gateway.stop();
        turn.wait();
        turn.wait();
        std::thread::sleep(Duration::from_millis(1));
        gateway.signal(Signal::CONT);
        (0..before).for_each(|_| assert_eq!(client.read_response().text(), "OK"));
        assert_eq!(client.read_response().text(), "/mine", "after {nth}");
    }
}

/// Behind its answer to `/first` it sends another one, unless a request has come before.
fn straying(turn: &Arc<Barrier>) -> impl Fn(&ReceivedRequest, &mut Conn) + use<> {
    let turn = turn.clone();
    move |request, conn| {
        conn.answer(200, &request.target);
        if request.target == "/first" {
            turn.wait();
            if conn.is_silent_for(Duration::from_millis(1)) {
                conn.send(STRAY);
            }
            turn.wait();
        }
    }
}

#[test]
fn what_came_before_a_connection_is_used_again_is_never_taken_for_an_answer() {
    let turn = Arc::new(Barrier::new(2));
    let worker = Worker::new(straying(&turn));
    provoke(Gateway::builder().worker(&worker), &turn, 100);
    // A connection for each answer that nobody asked for; the gateway is too quick for some.
    assert!(worker.connections() > 5, "{}", worker.connections());
}

#[test]
fn what_came_before_a_connection_with_tls_is_used_again_is_never_taken_for_an_answer() {
    let (files, turn, authority) = (Files::new(), Arc::new(Barrier::new(2)), Authority::new());
    let worker = Worker::with_tls(authority.leaf(&["127.0.0.1"]).acceptor(&[], None), straying(&turn));
    let roots = format!("--ca-cert-paths={}", authority.write(&files, "roots.pem"));
    provoke(Gateway::builder().worker(&worker).arg(roots), &turn, 100);
    assert!(worker.connections() > 5, "{}", worker.connections());
}

#[test]
fn a_connection_with_tls_is_used_again() {
    let (files, authority) = (Files::new(), Authority::new());
    let acceptor = authority.leaf(&["127.0.0.1"]).acceptor(&[], None);
    let worker = Worker::with_tls(acceptor, |request, conn| conn.answer(200, &request.target));
    let gateway = patient(&worker).arg(format!("--ca-cert-paths={}", authority.write(&files, "roots.pem"))).start();
    let mut client = gateway.connect();
    (0..5).for_each(|_| assert_eq!(client.get("/x").text(), "/x"));
    assert_eq!(worker.connections(), 1);
}

#[test]
fn a_first_request_uses_no_connection_that_has_carried_only_one_and_a_later_one_does() {
    let worker = echo();
    let gateway = patient(&worker).start();
    let mut clients: Vec<_> = (0..5).map(|_| gateway.connect()).collect();
    let mut opened = 0;
    for client in &mut clients {
        let before = worker.connections();
        assert_eq!(client.get("/first").status, 200);
        opened += worker.connections() - before;
    }
    // A machine that is busy takes long enough for one to be proven by its silence.
    assert!(opened >= 2, "{opened}");
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/later").status, 200));
    assert_eq!(worker.connections(), opened);
    // They have been used twice now, all or some.
    assert_eq!(gateway.get("/first").status, 200);
    assert_eq!(H2::connect(&gateway).get("/first").status, 200);
    assert_eq!(worker.connections(), opened);
}

#[test]
fn a_connection_that_has_been_silent_for_a_while_is_proven() {
    let worker = echo();
    let gateway = patient(&worker).start();
    assert_eq!(gateway.get("/").status, 200);
    std::thread::sleep(Duration::from_millis(250));
    (0..10).for_each(|_| assert_eq!(gateway.get("/").status, 200));
    assert_eq!(worker.connections(), 1);
}

#[test]
fn clients_with_a_connection_for_each_request_share_connections_to_the_worker() {
    let worker = echo();
    let gateway = patient(&worker).start();
    (0..1000).for_each(|_| assert_eq!(gateway.get("/").status, 200));
    assert!(worker.connections() < 500, "{}", worker.connections());
    let before = worker.connections();
    (0..100).for_each(|_| assert_eq!(gateway.get("/").status, 200));
    assert_eq!(worker.connections(), before);
}

#[test]
fn any_connection_is_used_again_if_that_is_wanted() {
    let worker = echo();
    let gateway = patient(&worker).arg("--upstream-reuse=always").start();
    (0..10).for_each(|_| assert_eq!(gateway.get("/").status, 200));
    assert_eq!(worker.connections(), 1);
}
