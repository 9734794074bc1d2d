//! A worker that comes back gets its share of the requests little by little.

use crate::support::{Gateway, Worker, eventually};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(8);

fn healthy(gateway: &Gateway) -> u64 {
    gateway.get("/readiness").json()["healthy_workers"].as_u64().expect("a number")
}

/// Of 200 requests, those that go to the first of two workers: before it was out, and after it is back.
fn shares(slow_start: &str) -> [usize; 2] {
    let workers = [Worker::echo(), Worker::echo()];
    let thresholds = ["--health-failure-threshold=1", "--health-success-threshold=1"];
    let builder = Gateway::builder().workers(&workers).arg("--health-check-interval-secs=0.1").args(thresholds);
    let gateway = builder.args(["--policy=round_robin", "--shards=1", slow_start]).start_unready();
    let share = || {
        let before = workers[0].requests().len();
        let mut client = gateway.connect();
        (0..200).for_each(|_| assert_eq!(client.get("/").status, 200));
        workers[0].requests().len() - before
    };
    eventually(LIMIT, || healthy(&gateway) == 2);
    let first = share();
    workers[0].set_health(503);
    eventually(LIMIT, || healthy(&gateway) == 1);
    workers[0].set_health(200);
    eventually(LIMIT, || healthy(&gateway) == 2);
    [first, share()]
}

#[test]
fn a_worker_that_is_back_gets_a_tenth_of_its_share_at_first() {
    let [first, back] = shares("--slow-start-secs=600");
    assert_eq!(first, 100, "at the gateway's start all are equally cold");
    assert!((1..=40).contains(&back), "{back}");
}

#[test]
fn after_the_slow_start_or_without_one_it_gets_its_share() {
    assert_eq!(shares("--slow-start-secs=0"), [100, 100]);
    assert_eq!(shares("--slow-start-secs=0.001"), [100, 100]);
}
