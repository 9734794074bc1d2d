//! Why a worker does not join, or leaves: in the log and in `/workers`.

use crate::support::{Authority, Builder, Files, Gateway, Worker, eventually};
use serde_json::Value;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(8);

fn checked_often(worker: &Worker) -> Builder {
    let often = ["--health-check-interval-secs=0.2", "--health-check-timeout-secs=0.3"];
    Gateway::builder().worker(worker).args(often)
}

fn told(gateway: &Gateway) -> Value {
    gateway.get("/workers").json()["workers"][0]["last_check_error"].clone()
}

/// The list and the log say why.
#[track_caller]
fn tells(gateway: &Gateway, why: &str) {
    eventually(LIMIT, || told(gateway).as_str().is_some_and(|told| told.contains(why)));
    let line = gateway.wait_for_log("a health check of the worker failed");
    assert!(line.contains("WARN") && line.contains(why), "{line}");
}

#[test]
fn a_worker_that_does_not_join_says_why() {
    let reserved = std::net::TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
    let closed = Gateway::builder().worker_url(format!("http://{reserved}")).start_unready();
    tells(&closed, "Connection refused");
    for (worker, why) in [
        (Worker::new(|_, conn| conn.answer(503, "")), "answered with 503"),
        (Worker::new(|_, conn| conn.reset()), "Connection reset"),
        (Worker::new(|_, conn| conn.close()), "ended in the middle"),
        (Worker::new(|_, conn| assert!(conn.wait_peer_closed(LIMIT))), "no answer in time"),
    ] {
        worker.set_health(0);
        tells(&checked_often(&worker).start_unready(), why);
    }
}

#[test]
fn a_worker_that_can_not_agree_on_tls_says_why() {
    let (ours, foreign, files) = (Authority::new(), Authority::new(), Files::new());
    let roots = format!("--ca-cert-paths={}", ours.write(&files, "roots.pem"));
    let foreign = Worker::with_tls(foreign.leaf(&["127.0.0.1"]).acceptor(&[], None), |_, conn| conn.answer(200, ""));
    tells(&checked_often(&foreign).arg(&roots).start_unready(), "UnknownIssuer");
    let asking = Worker::with_tls(ours.leaf(&["127.0.0.1"]).acceptor(&[], Some(&ours)), |_, conn| conn.answer(200, ""));
    tells(&checked_often(&asking).arg(&roots).start_unready(), "CertificateRequired");
    let plain = Gateway::builder().worker_url(asking.url().replace("https", "http"));
    tells(&plain.start_unready(), "no answer");
}

#[test]
fn a_reason_changes_and_goes_away_with_the_next_passed_check() {
    let worker = Worker::echo();
    let gateway = checked_often(&worker).start();
    assert_eq!(told(&gateway), Value::Null);
    worker.set_health(500);
    tells(&gateway, "answered with 500");
    let tag = |gateway: &Gateway| gateway.get("/workers").headers.get("etag").map(str::to_owned);
    gateway.wait_for_log("the worker is unhealthy");
    let before = tag(&gateway);
    worker.set_health(502);
    eventually(LIMIT, || told(&gateway) == "the health check was answered with 502");
    assert_ne!(tag(&gateway), before, "the list is another one");
    worker.set_health(200);
    eventually(LIMIT, || told(&gateway) == Value::Null);
    assert!(gateway.log().matches("a health check of the worker failed").count() <= 2, "{}", gateway.log());
}
