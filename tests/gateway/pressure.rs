//! Cases 62 and 70: who runs out of file descriptors or memory goes on with what it has, does not spin, and recovers.

use crate::support::{Client, Gate, Gateway, Kernel, Worker, eventually, holds_for};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);

/// Few enough that a test can use them up.
const FEW: &str = r#"ulimit -n 200; exec "$0" "$@""#;

fn served(address: std::net::SocketAddr) -> bool {
    let Ok(mut client) = Client::try_connect(address) else { return false };
    client.set_patience(Duration::from_millis(200));
    let sent = client.try_send("GET /new HTTP/1.1\r\nHost: a\r\n\r\n");
    sent.is_ok() && client.try_read_head("GET").is_ok_and(|head| head.is_some_and(|head| head.status == 200))
}

#[test]
fn without_descriptors_live_connections_go_on_and_new_ones_wait() {
    let worker = Worker::echo();
    let builder = Gateway::builder().worker(&worker).shell(FEW).arg("--health-check-interval-secs=0.2");
    let gateway = builder.arg("--header-read-timeout-secs=60").start();
    let mut live = gateway.connect();
    assert_eq!(live.get("/").status, 200);
    let mut flood: Vec<_> = (0..300).map(|_| Client::connect(gateway.address)).collect();
    flood.iter_mut().for_each(|client| drop(client.try_send("GET / HTTP/1.1\r\nHost:")));
    eventually(LIMIT, || !served(gateway.address));
    let (computed, lines) = (gateway.cpu(), gateway.log().lines().count());
    let mut asked = 0;
    holds_for(Duration::from_secs(2), || {
        std::thread::sleep(Duration::from_millis(20));
        asked += 1;
        let answer = live.get("/");
        answer.status == 200 && answer.headers.get("connection").is_none()
    });
    assert!(asked > 20, "{asked}");
    assert_eq!(live.get("/readiness").json()["healthy_workers"], 1, "health checks still have a socket");
    let computed = gateway.cpu() - computed;
    assert!(computed < Duration::from_millis(500), "{computed:?} for {asked} requests");
    let lines = gateway.log().lines().count() - lines - asked;
    assert!(lines < 50, "{lines} lines besides those of requests");
    let ratio = live.get("/metrics").text();
    assert!(ratio.contains("smg_pressure_ratio{resource=\"file_descriptors\"} 0.9"), "{ratio}");
    flood.clear();
    eventually(LIMIT, || served(gateway.address));
    assert_eq!(live.get("/").status, 200);
}

#[test]
fn without_memory_streams_go_on_and_new_work_is_refused() {
    let finish = Gate::new();
    let worker = Worker::streaming(&finish);
    let kernel = Kernel::new();
    let gateway = Gateway::builder().worker(&worker).kernel(&kernel).start();
    let mut stream = gateway.connect();
    stream.begin_stream(&[]);
    let mut known: Vec<_> = (0..3).map(|_| gateway.connect()).collect();
    known.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
    kernel.set_available_memory(0);
    gateway.wait_for_log("level=\"critical\"");
    for client in &mut known {
        client.send_request("POST", "/", &[], b"x");
        let answer = client.read_response();
        answer.assert_error(503, "overloaded");
        assert!(answer.headers.has("retry-after"));
        client.assert_closed();
    }
    // The listener was waiting for one more.
    gateway.get("/").assert_error(503, "overloaded");
    let mut waiting = Client::connect(gateway.address);
    waiting.send_request("GET", "/", &[], b"");
    assert!(waiting.is_silent_for(Duration::from_millis(500)), "a connection is taken");
    finish.open();
    stream.end_stream();
    kernel.set_available_memory(100 << 30);
    assert_eq!(waiting.read_response().status, 200);
    assert!(worker.requests().iter().all(|request| request.method == "GET"));
}
