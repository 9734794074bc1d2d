//! What `/metrics` says of times and of retries that were not made.

use crate::support::{Gateway, Worker, eventually};
use std::time::Duration;

#[test]
fn the_first_byte_and_the_last_have_times_of_their_own() {
    let worker = Worker::new(|request, conn| {
        conn.start_events();
        if request.target == "/late" {
            std::thread::sleep(Duration::from_millis(300));
        }
        conn.chunk("data: 1\n\n");
        if request.target == "/slow" {
            std::thread::sleep(Duration::from_millis(300));
        }
        conn.chunk("");
    });
    let of = |path: &str| {
        let gateway = Gateway::before(&worker);
        gateway.get(path);
        let mut metrics = gateway.metrics();
        eventually(Duration::from_secs(5), || {
            metrics = gateway.metrics();
            metrics.sum("smg_http_request_duration_seconds_count", &[("path", "other")]) > 0.0
        });
        let sum =
            |name: &str, part: &str| metrics.sum(&format!("smg_http_{name}_seconds_{part}"), &[("path", "other")]);
        let counts = ["time_to_first_byte", "request_duration"].map(|name| sum(name, "count"));
        assert_eq!(counts, [1.0, 1.0], "{path}");
        ["time_to_first_byte", "request_duration"].map(|name| sum(name, "sum") >= 0.3)
    };
    assert_eq!((of("/slow"), of("/late"), of("/")), ([false, true], [true, true], [false, false]));
}

#[test]
fn retries_that_the_budget_does_not_allow_are_counted() {
    let worker = Worker::fixed("HTTP/1.1 503 S\r\nContent-Length: 0\r\n\r\n");
    let flags = ["--shards=1", "--retry-initial-backoff-ms=1", "--disable-circuit-breaker"].map(str::to_owned);
    let gateway = flags.into_iter().fold(Gateway::builder().worker(&worker), crate::support::Builder::arg).start();
    let forbidden = || gateway.metrics().sum("smg_worker_retry_budget_exhausted_total", &[]);
    assert_eq!(forbidden(), 0.0);
    (0..30).for_each(|_| assert_eq!(gateway.get("/").status, 503));
    assert!(forbidden() > 10.0, "{}", forbidden());
    let retries = gateway.metrics().sum("smg_worker_retries_total", &[]);
    assert_eq!(worker.requests().len() as f64, 30.0 + retries);
}
