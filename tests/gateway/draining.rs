//! Case 64: SIGTERM lets others hear of it, finishes what is in flight, takes nothing new, and ends with 0.

use crate::support::{Builder, Client, Gate, Gateway, H2, Worker, eventually};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(5);

/// A worker whose stream waits for the gate, and a gateway in front of it with that stream in flight.
struct InFlight {
    gateway: Gateway,
    client: Client,
    finish: Gate,
    _worker: Worker,
}

fn in_flight(settings: impl FnOnce(Builder) -> Builder) -> InFlight {
    let finish = Gate::new();
    let worker = Worker::streaming(&finish);
    let gateway = settings(Gateway::builder().worker(&worker)).start();
    let mut client = gateway.connect();
    client.begin_stream(&[]);
    InFlight { gateway, client, finish, _worker: worker }
}

impl InFlight {
    fn refuses_connections(&self) -> bool {
        TcpStream::connect(self.gateway.address).is_err()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.finish.open();
    }
}

#[test]
fn a_stream_in_flight_finishes_and_the_exit_code_is_0() {
    let mut it = in_flight(|b| b);
    it.gateway.terminate();
    eventually(Duration::from_secs(5), || it.refuses_connections());
    assert!(it.gateway.is_running());
    it.finish.open();
    it.client.end_stream();
    it.client.assert_closed();
    assert_eq!(it.gateway.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn without_anything_in_flight_the_gateway_ends_at_once() {
    let worker = Worker::echo();
    let mut gateway = Gateway::before(&worker);
    let mut idle = gateway.connect();
    idle.get("/");
    let start = Instant::now();
    gateway.terminate();
    assert_eq!(gateway.wait_exit(Duration::from_secs(5)).code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    idle.assert_closed();
}

#[test]
fn sigint_drains_too() {
    let mut it = in_flight(|b| b.arg("--drain-delay-secs=60"));
    it.gateway.signal(rustix::process::Signal::INT);
    eventually(Duration::from_secs(5), || it.refuses_connections());
    it.finish.open();
    it.client.end_stream();
    assert_eq!(it.gateway.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

// Many a supervisor sends it for rotated logs; without a file there is nothing to read again.
#[test]
fn sighup_ends_nothing() {
    let mut it = in_flight(|b| b);
    it.gateway.signal(rustix::process::Signal::HUP);
    it.gateway.wait_for_log("the configuration is reloaded");
    assert!(it.gateway.is_running() && it.gateway.get("/readiness").status == 200);
    it.finish.open();
    it.client.end_stream();
    assert_eq!(it.gateway.load(), 0);
}

// A connection kept alive from before may be closed or answered, but is never told "ready".
#[test]
fn a_draining_gateway_does_not_say_that_it_is_ready() {
    let mut it = in_flight(|b| b);
    let mut idle = it.gateway.connect();
    assert_eq!(idle.get("/readiness").status, 200);
    let mut halfway = it.gateway.connect();
    halfway.send("GET /readiness HTTP/1.1\r\nHo");
    it.gateway.terminate();
    eventually(Duration::from_secs(5), || it.refuses_connections());
    let _ = halfway.try_send("st: a\r\n\r\n");
    let _ = idle.try_send("GET /readiness HTTP/1.1\r\nHost: a\r\n\r\n");
    for mut client in [halfway, idle] {
        if let Ok(Some(answer)) = client.try_read_head("GET") {
            assert_eq!(answer.status, 503);
        }
    }
    it.finish.open();
    it.gateway.wait_exit(Duration::from_secs(5));
}

#[test]
fn an_answer_given_while_draining_closes_its_connection() {
    let gate = Gate::new();
    let wait = gate.clone();
    let worker = Worker::new(move |_, conn| {
        wait.wait();
        conn.answer(200, "late");
    });
    let mut gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[], b"");
    worker.wait_for_request();
    gateway.terminate();
    eventually(Duration::from_secs(5), || TcpStream::connect(gateway.address).is_err());
    gate.open();
    let answer = client.read_response();
    assert_eq!((answer.text().as_str(), answer.headers.get("connection")), ("late", Some("close")));
    client.assert_closed();
    assert_eq!(gateway.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn a_second_sigterm_ends_it_sooner() {
    let mut it = in_flight(|b| b.arg("--shutdown-grace-period-secs=60"));
    it.gateway.terminate();
    eventually(Duration::from_secs(5), || it.refuses_connections());
    crate::support::holds_for(Duration::from_millis(300), || it.gateway.is_running());
    let start = Instant::now();
    it.gateway.terminate();
    it.gateway.wait_exit(Duration::from_secs(5));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn the_grace_period_bounds_the_drain() {
    let mut it = in_flight(|b| b.arg("--shutdown-grace-period-secs=0.5"));
    let start = Instant::now();
    it.gateway.terminate();
    it.gateway.wait_exit(Duration::from_secs(5));
    let took = start.elapsed();
    assert!((Duration::from_millis(450)..Duration::from_secs(4)).contains(&took), "{took:?}");
    let rest = it.client.read_until_close();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a stream that was cut must not look whole");
}

// Load balancers and Kubernetes send requests for some seconds after they have sent the signal.
#[test]
fn until_the_delay_is_over_it_accepts_and_serves_and_says_that_it_goes() {
    let mut it = in_flight(|b| b.arg("--drain-delay-secs=60"));
    let (mut kept, mut unused) = (it.gateway.connect(), it.gateway.connect());
    assert_eq!(kept.get("/").headers.get("connection"), None);
    let mut h2 = H2::connect(&it.gateway);
    assert_eq!(h2.get("/").status, 200);
    it.gateway.terminate();
    eventually(LIMIT, || it.gateway.get("/readiness").status == 503);
    assert_eq!(it.gateway.get("/readiness").json()["reason"], "draining");
    assert_eq!(it.gateway.get("/health").status, 200, "it is alive");
    for client in [&mut kept, &mut unused, &mut it.gateway.connect()] {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.headers.get("connection")), (200, Some("close")));
        client.assert_closed();
    }
    assert_eq!((h2.get("/").status, h2.goaway()), (200, None));
    it.gateway.terminate();
    eventually(LIMIT, || it.refuses_connections());
    assert!(it.gateway.is_running(), "the second signal ends the delay, not the drain");
    assert!(h2.ends_within(LIMIT) && h2.goaway().is_some());
    it.finish.open();
    it.client.end_stream();
    assert_eq!(it.gateway.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn the_delay_ends_by_itself() {
    let worker = Worker::echo();
    let mut gateway = Gateway::builder().worker(&worker).arg("--drain-delay-secs=3").start();
    let start = Instant::now();
    gateway.terminate();
    eventually(LIMIT, || gateway.get("/readiness").status == 503);
    assert_eq!(gateway.wait_exit(Duration::from_secs(10)).code(), Some(0));
    assert!((Duration::from_millis(2900)..Duration::from_secs(10)).contains(&start.elapsed()), "{:?}", start.elapsed());
}
