//! Which workers take part: those that answer their health checks.

use crate::support::{Gateway, Worker, eventually, holds_for};
use std::net::SocketAddr;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(8);

fn checked_often(workers: &[&Worker]) -> crate::support::Builder {
    workers.iter().fold(Gateway::builder(), |b, worker| b.worker(worker)).arg("--health-check-interval-secs=0.2")
}

fn at_once(workers: &[&Worker]) -> crate::support::Builder {
    checked_often(workers).arg("--health-failure-threshold=1").arg("--health-success-threshold=1")
}

fn healthy(gateway: &Gateway) -> u64 {
    gateway.get("/readiness").json()["healthy_workers"].as_u64().unwrap_or(0)
}

#[test]
fn a_worker_whose_checks_fail_is_out_and_joins_again() {
    let (steady, shaky) = (Worker::echo(), Worker::echo());
    let gateway = at_once(&[&steady, &shaky]).arg("--policy=round_robin").start();
    eventually(LIMIT, || healthy(&gateway) == 2);
    shaky.set_health(503);
    eventually(LIMIT, || healthy(&gateway) == 1);
    let before = shaky.requests().len();
    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!(shaky.requests().len(), before, "an unhealthy worker got a request");
    shaky.set_health(200);
    eventually(LIMIT, || healthy(&gateway) == 2);
    eventually(LIMIT, || {
        gateway.get("/");
        shaky.requests().len() > before
    });
}

#[test]
fn a_worker_that_dies_is_found_out_by_its_checks() {
    let mut worker = Worker::echo();
    let gateway = at_once(&[&worker]).start();
    worker.stop();
    eventually(LIMIT, || gateway.get("/readiness").status == 503);
}

#[test]
fn one_failure_below_the_threshold_does_not_put_a_worker_out() {
    let worker = Worker::echo();
    let gateway = checked_often(&[&worker]).arg("--health-failure-threshold=1000").start();
    worker.set_health(503);
    holds_for(Duration::from_millis(800), || healthy(&gateway) == 1);
}

#[test]
fn a_worker_that_does_not_listen_yet_joins_when_it_answers() {
    // Another loopback address than the one that everything else here binds to, so that the port stays free.
    let reserved = std::net::TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
    assert_eq!(reserved.ip(), SocketAddr::from(([127, 0, 0, 2], 0)).ip());
    let gateway = at_once(&[]).worker_url(format!("http://{reserved}")).start_unready();
    assert_eq!(gateway.get("/readiness").status, 503);
    gateway.get("/").assert_error(503, "no_available_workers");
    let worker = Worker::echo_on(reserved);
    eventually(LIMIT, || gateway.get("/readiness").status == 200);
    assert_eq!(gateway.get("/joined").json()["path"], "/joined");
    drop(worker);
}

#[test]
fn the_health_endpoint_can_be_chosen() {
    let worker = Worker::new(|request, conn| match request.target.as_str() {
        "/ping" => conn.answer(200, "pong"),
        _ => conn.answer(404, ""),
    });
    worker.set_health(0);
    let gateway = at_once(&[&worker]).arg("--health-check-endpoint=/ping").start();
    assert_eq!(healthy(&gateway), 1);
    assert!(worker.requests().iter().all(|r| r.target == "/ping" && r.method == "GET"));
}

#[test]
fn a_check_that_hangs_counts_as_failed() {
    let worker = Worker::new(|_, conn| {
        conn.wait_peer_closed(LIMIT);
    });
    let gateway = at_once(&[&worker]).arg("--health-check-timeout-secs=0.2").start();
    worker.set_health(0);
    eventually(LIMIT, || healthy(&gateway) == 0);
}

#[test]
fn a_health_check_that_fails_does_not_end_what_is_in_flight() {
    let gate = crate::support::Gate::new();
    let wait = gate.clone();
    let worker = Worker::new(move |_, conn| {
        wait.wait();
        conn.answer(200, "finished");
    });
    let gateway = at_once(&[&worker]).start();
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[], b"");
    worker.wait_for_request();
    worker.set_health(503);
    eventually(LIMIT, || healthy(&gateway) == 0);
    gate.open();
    assert_eq!(client.read_response().text(), "finished");
}

#[test]
fn round_robin_takes_turns() {
    let workers = [Worker::echo(), Worker::echo(), Worker::echo()];
    let gateway = at_once(&workers.each_ref()).arg("--policy=round_robin").arg("--shards=1").start();
    eventually(LIMIT, || healthy(&gateway) == 3);
    let mut client = gateway.connect();
    for _ in 0..9 {
        client.get("/");
    }
    assert_eq!(workers.each_ref().map(|w| w.requests().len()), [3, 3, 3]);
}

// True in-flight counts: a worker with a request that lasts gets no other one while another is free.
#[test]
fn the_less_loaded_worker_is_taken() {
    for policy in ["least_load", "power_of_two"] {
        let gate = crate::support::Gate::new();
        let workers = [0, 1].map(|_| {
            let wait = gate.clone();
            Worker::new(move |request, conn| {
                if request.target == "/long" {
                    wait.wait();
                }
                conn.answer(200, "");
            })
        });
        let gateway = at_once(&workers.each_ref()).arg(format!("--policy={policy}")).start();
        eventually(LIMIT, || healthy(&gateway) == 2);
        let mut long = gateway.connect();
        long.send_request("GET", "/long", &[], b"");
        let holds_long = |w: &Worker| w.requests().iter().any(|r| r.target == "/long");
        eventually(LIMIT, || workers.iter().any(holds_long));
        for _ in 0..20 {
            gateway.get("/short");
        }
        let busy = workers.iter().find(|w| holds_long(w)).expect("one of them has it");
        assert_eq!(busy.requests().len(), 1, "{policy}");
        gate.open();
        assert_eq!(long.read_response().status, 200);
    }
}
