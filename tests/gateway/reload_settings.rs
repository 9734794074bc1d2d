//! Settings that a reload changes hold for workers and clients that were here before it.

use crate::support::{ConfigFile, Gate, Gateway, H2, Worker, eventually};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);

fn with(worker: &Worker, settings: &str) -> String {
    format!("worker_urls: [{}]\n{settings}\n", worker.url())
}

#[track_caller]
fn change(gateway: &Gateway, file: &ConfigFile, worker: &Worker, settings: &str, part: &str) {
    file.rewrite(with(worker, settings));
    let said = gateway.reload();
    assert!(said.contains(part), "{settings}: {said}");
}

#[test]
fn health_checks_begin_end_and_come_as_often_as_the_file_says() {
    let worker = Worker::echo();
    worker.set_health(503);
    let often = "health_check_interval_secs: 0.1\nhealth_failure_threshold: 2\nhealth_success_threshold: 1";
    let seldom = "health_check_interval_secs: 600\nhealth_failure_threshold: 1";
    let file = ConfigFile::new(with(&worker, "disable_health_check: true"));
    let gateway = file.gateway().start();
    assert_eq!(gateway.get("/").status, 200);
    change(&gateway, &file, &worker, often, "workers");
    gateway.wait_for_workers(0);
    change(&gateway, &file, &worker, "disable_health_check: true", "workers");
    assert_eq!(gateway.get("/").status, 200, "at once");
    worker.set_health(200);
    change(&gateway, &file, &worker, seldom, "workers");
    gateway.wait_for_workers(1);
    worker.set_health(503);
    change(&gateway, &file, &worker, often, "workers");
    gateway.wait_for_workers(0);
    worker.set_health(200);
    gateway.wait_for_workers(1);
}

#[test]
fn a_slow_start_is_as_long_as_the_file_says_now() {
    let workers = [Worker::echo(), Worker::echo()];
    let text = |slow_start: u32| {
        let checks = "health_check_interval_secs: 0.1\nhealth_failure_threshold: 1\nhealth_success_threshold: 1";
        let urls = workers.each_ref().map(Worker::url).join(", ");
        format!("worker_urls: [{urls}]\npolicy: round_robin\nslow_start_secs: {slow_start}\n{checks}\n")
    };
    let file = ConfigFile::new(text(0));
    let gateway = file.gateway().arg("--shards=1").start();
    let share = || {
        let before = workers[0].requests().len();
        let mut client = gateway.connect();
        (0..100).for_each(|_| assert_eq!(client.get("/").status, 200));
        workers[0].requests().len() - before
    };
    gateway.wait_for_workers(2);
    workers[0].set_health(503);
    gateway.wait_for_workers(1);
    workers[0].set_health(200);
    gateway.wait_for_workers(2);
    assert_eq!(share(), 50);
    for (slow_start, shares) in [(600, 1..=25), (0, 50..=50)] {
        file.rewrite(text(slow_start));
        gateway.reload();
        let share = share();
        assert!(shares.contains(&share), "{slow_start}: {share}");
    }
}

#[test]
fn breakers_go_by_the_new_thresholds_and_times() {
    let status = Arc::new(AtomicU16::new(500));
    let now = status.clone();
    let worker = Worker::new(move |_, conn| conn.answer(now.load(Relaxed), ""));
    let file = ConfigFile::new(with(&worker, "disable_retries: true"));
    let gateway = file.gateway().args(["--disable-health-check", "--shards=1"]).start();
    let posts = |statuses: &[u16]| {
        for status in statuses {
            assert_eq!(gateway.request("POST", "/", &[], b"x").status, *status);
        }
    };
    let limited = |more: &str| format!("disable_retries: true\ncb_failure_threshold: 3\n{more}");
    posts(&[500, 500]);
    change(&gateway, &file, &worker, &limited("cb_timeout_duration_secs: 600"), "breakers");
    posts(&[500, 503, 503]);
    status.store(200, Relaxed);
    change(&gateway, &file, &worker, &limited("disable_circuit_breaker: true"), "breakers");
    posts(&[200; 5]);
    status.store(500, Relaxed);
    posts(&[500; 5]);
    change(&gateway, &file, &worker, &limited("cb_timeout_duration_secs: 600"), "breakers");
    posts(&[500, 500, 500, 503]);
    status.store(200, Relaxed);
    change(&gateway, &file, &worker, &limited("cb_timeout_duration_secs: 0.1"), "breakers");
    eventually(LIMIT, || gateway.request("POST", "/", &[], b"x").status == 200);
}

/// Answers after longer than a short time and what a connection adds to it.
fn slow() -> Worker {
    Worker::new(|_, conn| {
        std::thread::sleep(Duration::from_millis(1600));
        conn.answer(200, "late");
    })
}

#[test]
fn a_client_that_stays_connected_gets_the_new_time_for_its_request() {
    let worker = slow();
    let file = ConfigFile::new(with(&worker, "request_timeout_secs: 0.3"));
    let gateway = file.gateway().arg("--disable-health-check").start();
    let (mut client, mut h2) = (gateway.connect(), H2::connect(&gateway));
    assert_eq!((client.get("/health").status, h2.get("/health").status), (200, 200));
    change(&gateway, &file, &worker, "request_timeout_secs: 30", "limits");
    client.send_request("GET", "/", &[], b"");
    assert_eq!((h2.get("/").text().as_str(), client.read_response().text().as_str()), ("late", "late"));
}

#[test]
fn a_route_may_give_more_time_than_other_requests_have() {
    let worker = slow();
    let text = "request_timeout_secs: 0.3\nroutes: [{path: /slow, request_timeout_secs: 30}]";
    let gateway = ConfigFile::new(with(&worker, text)).gateway().arg("--disable-health-check").start();
    let (mut client, mut h2) = (gateway.connect(), H2::connect(&gateway));
    client.send_request("GET", "/slow", &[], b"");
    assert_eq!((h2.get("/slow").text().as_str(), client.read_response().text().as_str()), ("late", "late"));
    gateway.get("/").assert_error(504, "upstream_timeout");
}

#[test]
fn a_drain_is_as_long_as_the_file_says_now() {
    let finish = Gate::new();
    let worker = Worker::streaming(&finish);
    let file = ConfigFile::new(with(&worker, "shutdown_grace_period_secs: 600"));
    let mut gateway = file.gateway().start();
    let mut client = gateway.connect();
    client.begin_stream(&[]);
    change(&gateway, &file, &worker, "shutdown_grace_period_secs: 0.1", "shutdown");
    gateway.terminate();
    assert_eq!(gateway.wait_exit(LIMIT).code(), Some(0));
    finish.open();
}

#[test]
fn what_waits_for_a_restart_is_named_again_by_the_next_reload() {
    let worker = Worker::echo();
    let file = ConfigFile::new(with(&worker, ""));
    let gateway = file.gateway().start();
    let said = || gateway.log().matches("settings=\"log\"").count();
    for settings in ["log_json: true", "log_json: true\nmax_payload_size: 1"] {
        let before = said();
        file.rewrite(with(&worker, settings));
        gateway.reload();
        eventually(LIMIT, || said() > before);
    }
    file.rewrite(with(&worker, "max_payload_size: 1"));
    assert!(!gateway.reload().contains("restart"), "it is as it was");
}
