//! A worker that is removed: it gets nothing new, and finishes what it has.

use crate::support::{Builder, Client, Gate, Gateway, Worker, eventually, holds_for};
use serde_json::json;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);

/// A worker whose stream waits for the gate, and a gateway in front of it with that stream in flight.
struct InFlight {
    gateway: Gateway,
    worker: Worker,
    client: Client,
    finish: Gate,
    path: String,
}

fn in_flight(settings: impl FnOnce(Builder) -> Builder) -> InFlight {
    let finish = Gate::new();
    let worker = Worker::streaming(&finish);
    let gateway = settings(Gateway::builder().worker(&worker)).start();
    let mut client = gateway.connect();
    client.begin_stream(&[]);
    let id = gateway.get("/workers").json()["workers"][0]["id"].as_str().expect("an id").to_owned();
    InFlight { gateway, worker, client, finish, path: format!("/workers/{id}") }
}

impl InFlight {
    #[track_caller]
    fn remove(&self) {
        assert_eq!(self.gateway.request("DELETE", &self.path, &[], b"").status, 202);
    }

    fn is_gone(&self) -> bool {
        self.gateway.get(&self.path).status == 404
    }
}

#[test]
fn a_stream_in_flight_finishes_while_others_get_what_is_new() {
    let mut it = in_flight(|builder| builder);
    let stays = Worker::echo();
    assert_eq!(it.gateway.post_json("/workers", &json!({"url": stays.url()})).status, 202);
    eventually(LIMIT, || it.gateway.get("/readiness").json()["healthy_workers"] == 2);
    it.remove();
    let before = it.worker.requests().len();
    // Also on connections and shards that knew it.
    let mut clients = [(); 4].map(|()| it.gateway.connect());
    for _ in 0..5 {
        clients.iter_mut().for_each(|client| assert_eq!(client.get("/new").json()["path"], "/new"));
    }
    assert_eq!(it.worker.requests().len(), before);
    let shown = it.gateway.get(&it.path).json();
    assert_eq!((&shown["status"], &shown["load"]), (&json!("draining"), &json!(1)));
    assert_eq!(it.gateway.get("/readiness").json()["total_workers"], 1);
    for (method, body, status) in [("DELETE", "", 202), ("PATCH", "{}", 409)] {
        let fields = [("Content-Type", "application/json")];
        assert_eq!(it.gateway.request(method, &it.path, &fields, body.as_bytes()).status, status, "{method}");
    }
    holds_for(Duration::from_millis(300), || !it.is_gone());
    it.finish.open();
    it.client.end_stream();
    eventually(LIMIT, || it.is_gone());
    assert_eq!(it.client.get("/next").json()["path"], "/next", "the client's connection goes on");
    assert_eq!(it.gateway.metrics().of("smg_worker_health").count(), 1);
}

#[test]
fn the_last_worker_may_leave_and_come_again() {
    let mut it = in_flight(|builder| builder.arg("--health-check-interval-secs=0.2"));
    it.remove();
    it.gateway.get("/").assert_error(503, "no_available_workers");
    assert_eq!(it.gateway.get("/readiness").status, 503);
    it.finish.open();
    it.client.end_stream();
    eventually(LIMIT, || it.is_gone());
    let again = it.gateway.post_json("/workers", &json!({"url": it.worker.url()}));
    assert_eq!((again.status, again.headers.get("location")), (202, Some(it.path.as_str())));
    eventually(LIMIT, || it.gateway.get("/").status == 200);
}

#[test]
fn a_worker_is_not_waited_for_longer_than_a_shutdown_would_wait() {
    let mut it = in_flight(|builder| builder.arg("--shutdown-grace-period-secs=0.4"));
    it.remove();
    assert!(!it.is_gone());
    eventually(LIMIT, || it.is_gone());
    it.finish.open();
    it.client.end_stream();
}

#[test]
fn connections_to_a_worker_that_is_gone_are_closed() {
    let it = in_flight(|builder| builder.arg("--upstream-pool-idle-timeout-secs=0.3"));
    it.finish.open();
    drop(it.client);
    assert_eq!(it.gateway.request("DELETE", &it.path, &[], b"").status, 202);
    it.worker.wait_for_closed(1);
}
