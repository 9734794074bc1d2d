//! What requests learn of a worker is shown at once, and what becomes of a pool whose workers all fail their checks.

use crate::support::{Gateway, Worker, eventually, holds_for};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Far less than the default time between two checks.
const SOON: Duration = Duration::from_secs(8);
const THRESHOLDS: [&str; 2] = ["--health-failure-threshold=1", "--health-success-threshold=1"];

/// An address that nothing else here binds to.
fn reserved(last: u8) -> SocketAddr {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 58, last], 0))).expect("a port is free");
    listener.local_addr().expect("it has an address")
}

/// A worker's health as `/workers` and the metrics show it.
fn shown(gateway: &Gateway, worker: &Worker) -> Value {
    let list = gateway.get("/workers").json();
    let of = |one: &&Value| one["url"] == worker.url();
    let one = list["workers"].as_array().expect("a list").iter().find(of).expect("it is there").clone();
    let metric = gateway.metrics().sum("smg_worker_health", &[("worker", &worker.url())]);
    json!([one["status"], one["is_healthy"], metric, list["stats"]["healthy_workers"]])
}

fn panics(gateway: &Gateway) -> f64 {
    gateway.metrics().sum("smg_pool_panic", &[("model", "*")])
}

// With default settings: a check each minute, three of which must fail.
#[test]
fn a_worker_that_is_gone_is_out_with_the_first_refused_connection_and_back_soon_after_it_is() {
    let (address, other) = (reserved(1), Worker::echo());
    let mut dying = Worker::echo_on(address);
    let gateway = Gateway::builder().workers([&dying, &other]).arg("--policy=round_robin").start_unready();
    gateway.wait_for_workers(2);
    assert_eq!(shown(&gateway, &dying), json!(["ready", true, 1.0, 2]));
    dying.stop();
    for _ in 0..4 {
        assert_eq!(gateway.get("/").status, 200);
    }
    eventually(SOON, || gateway.get("/readiness").json()["healthy_workers"] == 1);
    assert_eq!(shown(&gateway, &dying), json!(["not_ready", false, 0.0, 1]));
    gateway.wait_for_log("the worker is unhealthy");
    let back = Worker::echo_on(address);
    eventually(SOON, || gateway.get("/readiness").json()["healthy_workers"] == 2);
    assert_eq!(shown(&gateway, &back), json!(["ready", true, 1.0, 2]));
}

#[test]
fn the_last_worker_that_is_gone_makes_the_gateway_not_ready() {
    let mut dying = Worker::echo();
    let gateway = Gateway::before(&dying);
    dying.stop();
    assert_eq!(gateway.get("/").status, 502);
    eventually(SOON, || gateway.get("/readiness").status == 503);
    // It is tried all the same, but not for long, and beyond the breaker's threshold.
    let mut times = Vec::new();
    for _ in 0..12 {
        let start = Instant::now();
        let answer = gateway.get("/");
        answer.assert_error(503, "no_available_workers");
        assert!(answer.headers.has("retry-after"));
        times.push(start.elapsed());
    }
    times.sort();
    assert!(times[6] < Duration::from_secs(1), "{times:?}");
    assert_eq!(panics(&gateway), 0.0, "it takes no connections");
}

#[test]
fn a_short_restart_of_the_only_worker_costs_no_request() {
    let address = reserved(3);
    let mut worker = Worker::echo_on(address);
    let gateway = Gateway::builder().worker(&worker).arg("--retry-initial-backoff-ms=1000").start();
    worker.stop();
    std::thread::scope(|scope| {
        let mut all = vec![scope.spawn(|| gateway.get("/").status)];
        eventually(SOON, || gateway.get("/readiness").status == 503);
        assert_eq!(shown(&gateway, &worker), json!(["not_ready", false, 0.0, 0]));
        assert_eq!((panics(&gateway), gateway.get("/readiness").json()["status"].clone()), (0.0, json!("not ready")));
        // The gateway knows that the worker is gone, and these are tried all the same.
        all.extend((0..2).map(|_| scope.spawn(|| gateway.get("/").status)));
        std::thread::sleep(Duration::from_millis(100));
        let back = Worker::echo_on(address);
        assert_eq!(all.into_iter().map(|one| one.join().expect("an answer")).collect::<Vec<_>>(), [200; 3]);
        gateway.wait_for_workers(1);
        assert_eq!(shown(&gateway, &back), json!(["ready", true, 1.0, 1]));
    });
}

// One refused connection says nothing of a worker whose check is passed right after it. The check that a request asks for
// comes no sooner than 250 ms after the one before, and here the worker is back by then.
#[test]
fn one_refused_connection_alone_takes_no_worker_out() {
    let address = reserved(4);
    let restarted = || {
        let worker = Worker::echo_on(address);
        worker.set_health(0);
        worker
    };
    let mut worker = restarted();
    let flags = ["--health-check-interval-secs=1", "--disable-retries", "--disable-circuit-breaker"];
    let gateway = Gateway::builder().worker(&worker).args(flags).start();
    let mut quick = 0;
    for _ in 0..60 {
        let checks = worker.requests().len();
        eventually(SOON, || worker.requests().len() > checks);
        let start = Instant::now();
        worker.stop();
        let status = gateway.request("POST", "/", &[], b"x").status;
        worker = restarted();
        if start.elapsed() < Duration::from_millis(150) {
            assert_eq!(status, 502);
            holds_for(Duration::from_millis(500), || shown(&gateway, &worker)[0] == "ready");
            quick += 1;
        }
        if quick == 3 {
            return;
        }
        gateway.wait_for_workers(1);
    }
    panic!("the machine is too busy: only {quick} of three rounds were quick");
}

#[test]
fn the_only_worker_is_used_while_its_checks_are_late() {
    let busy = Arc::new(AtomicBool::new(false));
    let is_busy = busy.clone();
    let mut worker = Worker::new(move |request, conn| match request.target.as_str() {
        "/health" if is_busy.load(Ordering::SeqCst) => {
            conn.wait_peer_closed(SOON);
        }
        _ => conn.answer(200, ""),
    });
    worker.set_health(0);
    let flags = ["--health-check-interval-secs=0.1", "--health-check-timeout-secs=2"];
    let gateway = Gateway::builder().worker(&worker).args(flags).args(THRESHOLDS).start();
    assert_eq!(panics(&gateway), 0.0);
    busy.store(true, Ordering::SeqCst);
    gateway.wait_for_workers(0);
    let readiness = gateway.get("/readiness");
    assert_eq!((readiness.status, &readiness.json()["status"]), (200, &json!("ready")));
    assert!(readiness.json()["reason"].as_str().is_some_and(|reason| reason.contains("panic")));
    for _ in 0..20 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!((panics(&gateway), shown(&gateway, &worker)), (1.0, json!(["not_ready", false, 0.0, 0])));
    busy.store(false, Ordering::SeqCst);
    gateway.wait_for_workers(1);
    assert_eq!(panics(&gateway), 0.0);
    let log = gateway.log();
    let times = |line: &str| log.matches(line).count();
    assert_eq!((times("those that take connections are used"), times("pass their checks are used again")), (1, 1));
    worker.stop();
    eventually(SOON, || gateway.get("/").status == 503);
    assert_eq!((panics(&gateway), gateway.get("/readiness").status), (0.0, 503));
}

#[test]
fn of_workers_that_all_fail_their_checks_those_that_take_connections_are_used() {
    let (mut gone, failing) = (Worker::echo(), Worker::echo());
    let flags = ["--health-check-interval-secs=0.1", "--policy=round_robin", "--disable-retries"];
    let builder = Gateway::builder().workers([&gone, &failing]).args(flags).args(THRESHOLDS);
    let gateway = builder.start_unready();
    gateway.wait_for_workers(2);
    failing.set_health(503);
    gateway.wait_for_workers(1);
    gone.stop();
    gateway.wait_for_workers(0);
    assert_eq!((0..10).map(|_| gateway.get("/").status).collect::<Vec<_>>(), [200; 10]);
    assert_eq!(panics(&gateway), 1.0);
    failing.set_health(200);
    gateway.wait_for_workers(1);
    assert_eq!(panics(&gateway), 0.0);
}

// It may be loading its model: nobody can tell yet that its checks are what is wrong.
#[test]
fn a_worker_that_has_never_passed_a_check_is_not_used() {
    let worker = Worker::echo();
    worker.set_health(503);
    let gateway = Gateway::builder().worker(&worker).start_unready();
    gateway.wait_for_log("a health check of the worker failed");
    gateway.get("/").assert_error(503, "no_available_workers");
    assert_eq!((gateway.get("/readiness").status, panics(&gateway)), (503, 0.0));
}
