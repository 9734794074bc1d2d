//! Case 69: a wall clock that is set forward or back ends nothing, for time limits are on the monotonic clock.

use crate::support::{Gate, Gateway, Kernel, Worker, eventually, holds_for};
use std::time::{Duration, SystemTime};

/// By how many seconds the gateway's clock is ahead of ours.
fn ahead(gateway: &Gateway) -> i64 {
    let answer = gateway.get("/health");
    let theirs = httpdate::parse_http_date(answer.headers.get("date").expect("a date")).expect("a date");
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs() as i64;
    seconds(theirs) - seconds(SystemTime::now())
}

#[test]
fn a_clock_that_jumps_an_hour_ends_nothing() {
    let (more, last, waits) = (Gate::new(), Gate::new(), Gate::new());
    let gates = (more.clone(), last.clone(), waits.clone());
    let worker = Worker::new(move |request, conn| match request.target.as_str() {
        "/stream" => {
            conn.start_events();
            conn.chunk("data: 1\n\n");
            gates.0.wait();
            conn.chunk("data: 2\n\n");
            gates.1.wait();
            conn.chunk("");
        }
        "/waits" => {
            gates.2.wait();
            conn.answer(200, "waited for");
        }
        _ => conn.answer(200, "kept"),
    });
    let kernel = Kernel::new();
    let builder = Gateway::builder().worker(&worker).kernel(&kernel).arg("--shards=1");
    let limits =
        ["--request-timeout-secs=60", "--idle-connection-timeout-secs=60", "--upstream-pool-idle-timeout-secs=60"];
    let limits = limits.into_iter().chain(["--stream-body-stall-timeout-secs=60", "--first-byte-timeout-secs=60"]);
    let gateway =
        builder.args(limits).args(["--health-check-interval-secs=0.1", "--health-check-timeout-secs=1"]).start();
    let (mut stream, mut waiting, mut idle) = (gateway.connect(), gateway.connect(), gateway.connect());
    stream.send_request("GET", "/stream", &[], b"");
    stream.read_until("data: 1\n\n");
    waiting.send_request("GET", "/waits", &[], b"");
    eventually(Duration::from_secs(5), || gateway.load() == 2);
    assert_eq!(idle.get("/").text(), "kept");
    for (hours, gate) in [(1, more), (-1, last)] {
        kernel.set_clock(hours * 3600);
        eventually(Duration::from_secs(5), || (ahead(&gateway) - hours * 3600).abs() < 60);
        holds_for(Duration::from_millis(500), || gateway.get("/readiness").json()["healthy_workers"] == 1);
        assert_eq!(gateway.load(), 2, "what is in flight has ended");
        assert_eq!(idle.get("/").text(), "kept");
        gate.open();
    }
    stream.read_until("data: 2\n\n");
    stream.read_until("0\r\n\r\n");
    waits.open();
    assert_eq!(waiting.read_response().text(), "waited for");
    assert_eq!(worker.connections(), 3, "a kept connection was closed");
}
