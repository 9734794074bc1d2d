//! Workers that fail are left alone, tried, and taken back (cases 57 and 58).

use crate::support::{Builder, Client, Gate, Gateway, Nowhere, Worker, eventually, holds_for};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(8);
const CLOSED: f64 = 0.0;
const OPEN: f64 = 1.0;
const HALF_OPEN: f64 = 2.0;

/// Answers with the status that was set last; 0 breaks the connection off.
#[derive(Clone, Default)]
struct Mood(Arc<AtomicU16>);

impl Mood {
    fn set(&self, status: u16) {
        self.0.store(status, SeqCst);
    }
}

fn moody() -> (Worker, Mood) {
    let mood = Mood::default();
    let now = mood.clone();
    let worker = Worker::new(move |_, conn| match now.0.load(SeqCst) {
        0 => conn.close(),
        status => conn.answer(status, "moody"),
    });
    (worker, mood)
}

/// Each request is one attempt, and three failures in a row are enough.
fn strict(builder: Builder) -> Builder {
    builder.args(["--shards=1", "--disable-retries", "--cb-failure-threshold=3"])
}

fn state(gateway: &Gateway, worker: &Worker) -> f64 {
    gateway.metrics().sum("smg_worker_cb_state", &[("worker", &worker.url())])
}

#[track_caller]
fn posts(gateway: &Gateway, statuses: &[u16]) {
    for status in statuses {
        assert_eq!(gateway.request("POST", "/", &[], b"x").status, *status);
    }
}

#[test]
fn failures_in_a_row_open_it_and_then_the_worker_is_left_alone() {
    let (worker, mood) = moody();
    for failure in [500, 502, 503, 504, 408, 0] {
        let gateway = strict(Gateway::builder().worker(&worker)).start();
        let seen = if failure == 0 { 502 } else { failure };
        for (status, expected) in [(failure, seen), (failure, seen), (200, 200), (failure, seen), (failure, seen)] {
            mood.set(status);
            posts(&gateway, &[expected]);
        }
        assert_eq!(state(&gateway, &worker), CLOSED, "{failure}: not in a row");
        posts(&gateway, &[seen]);
        assert_eq!(state(&gateway, &worker), OPEN, "{failure}");
        let before = worker.requests().len();
        let start = Instant::now();
        for _ in 0..20 {
            let refused = gateway.get("/");
            refused.assert_error(503, "no_available_workers");
            assert!(refused.headers.has("retry-after"));
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        gateway.wait_for_log("every breaker is open");
        assert_eq!(worker.requests().len(), before, "{failure}");
        // It passes its health checks, and takes no requests all the same.
        let shown = gateway.get("/workers").json();
        let one = &shown["workers"][0];
        assert_eq!((&one["circuit_breaker"], &one["is_healthy"]), (&"open".into(), &false.into()));
        assert_eq!((&one["status"], &shown["stats"]["healthy_workers"]), (&"not_ready".into(), &0.into()));
        assert_eq!(gateway.metrics().sum("smg_worker_health", &[]), 0.0);
        let readiness = gateway.get("/readiness");
        assert_eq!((readiness.status, &readiness.json()["healthy_workers"]), (503, &0.into()));
    }
}

#[test]
fn a_worker_that_has_no_capacity_or_is_asked_for_nonsense_does_not_fail() {
    let (worker, mood) = moody();
    let gateway = strict(Gateway::builder().worker(&worker)).start();
    for status in [429, 529, 400, 404, 501, 505] {
        mood.set(status);
        posts(&gateway, &[status; 10]);
        assert_eq!(state(&gateway, &worker), CLOSED, "{status}");
    }
    mood.set(500);
    let never = Gateway::builder().worker(&worker).args(["--disable-circuit-breaker"]).start();
    posts(&never, &[500; 20]);
    assert_eq!(state(&never, &worker), CLOSED);
}

#[test]
fn a_failing_worker_leaves_its_requests_to_the_others() {
    let ((failing, mood), good) = (moody(), Worker::echo());
    mood.set(500);
    let builder = Gateway::builder().workers([&failing, &good]).arg("--disable-health-check");
    let gateway = strict(builder).arg("--policy=round_robin").start();
    let failures = (0..30).filter(|_| gateway.request("POST", "/", &[], b"x").status == 500).count();
    assert_eq!((failures, failing.requests().len(), good.requests().len()), (3, 3, 27));
    assert_eq!((state(&gateway, &failing), state(&gateway, &good)), (OPEN, CLOSED));
}

#[test]
fn a_few_trials_at_a_time_decide() {
    let (gate, bad) = (Gate::new(), Arc::new(AtomicBool::new(true)));
    let (wait, fails) = (gate.clone(), bad.clone());
    let worker = Worker::new(move |request, conn| {
        if request.target == "/trial" {
            wait.wait();
        }
        conn.answer(if fails.load(SeqCst) { 500 } else { 200 }, "");
    });
    let flags = ["--cb-timeout-duration-secs=1.5", "--cb-success-threshold=2"];
    let gateway = strict(Gateway::builder().worker(&worker)).args(flags).start();
    let opens = || {
        posts(&gateway, &[500; 3]);
        assert_eq!(state(&gateway, &worker), OPEN);
        eventually(LIMIT, || state(&gateway, &worker) == HALF_OPEN);
    };
    opens();
    posts(&gateway, &[500, 503]);
    assert_eq!(state(&gateway, &worker), OPEN, "a trial has failed");
    eventually(LIMIT, || state(&gateway, &worker) == HALF_OPEN);
    bad.store(false, SeqCst);
    let mut trials: Vec<Client> = (0..2).map(|_| gateway.connect()).collect();
    trials.iter_mut().for_each(|trial| trial.send_request("POST", "/trial", &[], b"x"));
    eventually(LIMIT, || gateway.load() == 2);
    gateway.get("/").assert_error(503, "no_available_workers");
    gate.open();
    trials.iter_mut().for_each(|trial| assert_eq!(trial.read_response().status, 200));
    assert_eq!(state(&gateway, &worker), CLOSED);
    posts(&gateway, &[200; 5]);
}

/// An address that nothing else here binds to.
fn reserved(last: u8) -> SocketAddr {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 57, last], 0))).expect("a port is free");
    listener.local_addr().expect("it has an address")
}

// A passed check is evidence of a process that answers: enough for one that could not be reached, not for one that fails.
#[test]
fn passed_health_checks_bring_back_a_worker_that_was_not_reachable_only() {
    let address = reserved(1);
    let (mut gone, (failing, mood)) = (Worker::echo_on(address), moody());
    mood.set(500);
    let flags = ["--health-check-interval-secs=0.2", "--health-failure-threshold=100000", "--policy=round_robin"];
    let gateway = strict(Gateway::builder().workers([&gone, &failing])).args(flags).start_unready();
    eventually(LIMIT, || gateway.get("/readiness").json()["healthy_workers"] == 2);
    gone.stop();
    (0..6).for_each(|_| drop(gateway.request("POST", "/", &[], b"x")));
    eventually(LIMIT, || gateway.get("/readiness").json()["healthy_workers"] == 0);
    assert_eq!(state(&gateway, &failing), OPEN);
    holds_for(Duration::from_millis(600), || gateway.get("/").status == 503);
    let back = Worker::echo_on(address);
    eventually(Duration::from_secs(2), || gateway.get("/").status == 200);
    (0..5).for_each(|_| assert_eq!(gateway.get("/").status, 200));
    assert_eq!((state(&gateway, &back), state(&gateway, &failing)), (CLOSED, OPEN));
    assert_eq!(failing.requests().len(), 3);
}

// Case 57.
#[test]
fn a_worker_that_comes_and_goes_costs_what_it_had_in_flight() {
    let (address, steady) = (reserved(2), Worker::echo());
    let mut flapping = Worker::echo_on(address);
    let flags = ["--health-check-interval-secs=0.1", "--health-failure-threshold=100000", "--slow-start-secs=0"];
    let builder = Gateway::builder().workers([&steady, &flapping]).args(flags);
    let gateway = builder.args(["--policy=round_robin", "--cb-failure-threshold=3"]).start_unready();
    eventually(LIMIT, || gateway.get("/readiness").json()["healthy_workers"] == 2);
    let (stop, failed, answered) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let is_out = |gateway: &Gateway| gateway.get("/readiness").json()["healthy_workers"] == 1;
    thread::scope(|scope| {
        for method in ["GET", "POST", "GET", "POST"] {
            let (gateway, stop, failed, answered) = (&gateway, &stop, &failed, &answered);
            scope.spawn(move || {
                let mut client = gateway.connect();
                while !stop.load(SeqCst) {
                    client.send_request(method, "/", &[], b"x");
                    let status = client.read_response_to(method).status;
                    assert!(status == 200 || (method, status) == ("POST", 502), "{method}: {status}");
                    failed.fetch_add(usize::from(status != 200), SeqCst);
                    answered.fetch_add(1, SeqCst);
                }
            });
        }
        for _ in 0..4 {
            flapping.stop();
            eventually(LIMIT, || is_out(&gateway));
            thread::sleep(Duration::from_millis(150));
            flapping = Worker::echo_on(address);
            // Two checks and a second.
            eventually(Duration::from_millis(1100), || !flapping.requests().is_empty());
        }
        stop.store(true, SeqCst);
    });
    let (failed, answered) = (failed.into_inner(), answered.into_inner());
    assert!(failed <= 4 * 2, "{failed} failed of {answered}: no more than were in flight");
}

// Case 58.
#[test]
fn when_all_workers_are_dead_the_answer_comes_at_once_and_says_when_to_come_back() {
    let dead = [(); 3].map(|()| Nowhere::refusing());
    let builder = dead.iter().fold(Gateway::builder(), |builder, dead| builder.worker_url(dead.url()));
    let gateway = builder.args(["--disable-health-check", "--shards=1"]).start();
    let mut client = gateway.connect();
    let mut ask = || {
        let start = Instant::now();
        client.send_request("POST", "/", &[], b"x");
        let answer = client.read_response();
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        answer
    };
    let before = (0..100).position(|_| ask().status == 503).expect("all breakers open");
    assert!(before <= 30, "{before} were told that a worker is unreachable");
    for _ in 0..100 {
        let answer = ask();
        answer.assert_error(503, "no_available_workers");
        assert!(answer.headers.has("retry-after"));
    }
    assert_eq!(gateway.metrics().sum("smg_worker_requests_active", &[]), 0.0);
}
