//! Case 63: thousands of connections that say nothing, or not enough, cost little and keep nobody out.

use crate::support::{Client, Gateway, Worker, eventually};
use rustix::process::{Resource, getrlimit};
use std::time::{Duration, Instant};

/// As many as a test may hold beside others, and a gateway without being short of descriptors.
fn many() -> usize {
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(most / 4).unwrap_or(usize::MAX).min(5000)
}

fn open(gateway: &Gateway) -> f64 {
    gateway.metrics().sum("smg_http_connections_active", &[])
}

/// A hundred requests of somebody else; a busy machine forgives two.
#[track_caller]
fn is_served(gateway: &Gateway) {
    let mut client = gateway.connect();
    let mut slow = Vec::new();
    for _ in 0..100 {
        let start = Instant::now();
        assert_eq!(client.get("/fine").status, 200);
        slow.extend(Some(start.elapsed()).filter(|took| *took > Duration::from_millis(100)));
    }
    assert!(slow.len() <= 2, "{slow:?}");
}

#[test]
fn idle_connections_are_small_and_in_nobodys_way() {
    let worker = Worker::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    let gateway = Gateway::before(&worker);
    // What is made once is made.
    (0..50).for_each(|_| assert_eq!(gateway.get("/").status, 200));
    let (count, before) = (many(), gateway.memory());
    let idle: Vec<Client> = std::iter::repeat_with(|| {
        let mut client = gateway.connect();
        assert_eq!(client.get("/").status, 200);
        client
    })
    .take(count)
    .collect();
    assert!(open(&gateway) >= count as f64);
    let each = gateway.memory().saturating_sub(before) / count as u64;
    assert!(each < 12 << 10, "{each} bytes for an idle connection");
    is_served(&gateway);
    drop(idle);
    eventually(Duration::from_secs(5), || open(&gateway) == 1.0);
}

// CVE-2007-6750.
#[test]
fn heads_that_never_end_keep_nobody_out_and_end() {
    let worker = Worker::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    let gateway = Gateway::builder().worker(&worker).arg("--header-read-timeout-secs=3").start();
    let count = many();
    let mut slow: Vec<Client> = std::iter::repeat_with(|| {
        let mut client = gateway.connect();
        client.send("GET / HTTP/1.1\r\nHost:");
        client
    })
    .take(count)
    .collect();
    assert!(open(&gateway) >= count as f64, "the first have ended before the last came");
    is_served(&gateway);
    eventually(Duration::from_secs(8), || open(&gateway) == 1.0);
    assert!(slow.iter_mut().all(|client| client.ends_within(Duration::from_secs(1))));
    is_served(&gateway);
}
