//! Case 62: who runs out of file descriptors goes on with what it has, does not spin, and recovers.

use crate::support::{Client, Gateway, Worker, eventually, holds_for};
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
