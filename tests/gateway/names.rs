//! Workers that have names instead of addresses (case 60), resolved by a scripted DNS server.

use crate::support::{Dns, Gateway, Reply, Worker, eventually};
use std::net::SocketAddr;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

/// Two workers with the same port, on different addresses.
fn pair() -> (Worker, Worker) {
    for _ in 0..50 {
        let one = Worker::echo();
        let other = SocketAddr::from(([127, 0, 0, 2], one.address.port()));
        if std::net::TcpListener::bind(other).is_ok() {
            return (one, Worker::echo_on(other));
        }
    }
    panic!("no port is free on both addresses");
}

fn before(dns: &Dns, port: u16) -> crate::support::Builder {
    Gateway::builder().worker_url(format!("http://w.test:{port}")).arg(format!("--dns-servers={}", dns.address))
}

#[test]
fn a_worker_keeps_its_address_while_its_name_fails_and_is_found_where_it_moves_to() {
    let (dns, (old, new)) = (Dns::start(), pair());
    dns.set("w.test", Reply::at("127.0.0.1", 1));
    let gateway = before(&dns, old.address.port()).start();
    for reply in [Reply::NoName, Reply::Failure] {
        dns.set("w.test", reply);
        dns.wait_for_more(4);
        assert_eq!(gateway.get("/").status, 200);
    }
    assert!(new.requests().is_empty());
    // The time to live is a second. The old worker still answers on the connections that it has: they must not be used
    // any more either.
    dns.set("w.test", Reply::at("127.0.0.2", 1));
    eventually(Duration::from_secs(4), || {
        gateway.get("/");
        !new.requests().is_empty()
    });
    let before = old.requests().len();
    for _ in 0..5 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!(old.requests().len(), before, "a request went to the old address");
}

#[test]
fn a_worker_at_several_addresses_gets_requests_at_each_that_listens() {
    let (dns, (one, other)) = (Dns::start(), pair());
    let everywhere = ["127.0.0.1", "127.0.0.2", "127.0.0.3"].map(|ip| ip.parse().unwrap());
    dns.set("w.test", Reply::At(everywhere.into(), 60));
    let gateway = before(&dns, one.address.port()).arg("--upstream-pool-idle-timeout-secs=0.001").start();
    eventually(LIMIT, || {
        assert_eq!(gateway.get("/").status, 200);
        !one.requests().is_empty() && !other.requests().is_empty()
    });
}

#[test]
fn one_address_of_twenty_that_listens_is_enough() {
    let (dns, (worker, other)) = (Dns::start(), pair());
    drop(other);
    let everywhere = (1..=20).map(|last| std::net::IpAddr::from([127, 0, 0, last])).collect();
    dns.set("w.test", Reply::At(everywhere, 60));
    let flags = ["--upstream-pool-idle-timeout-secs=0.001", "--shards=1", "--disable-retries"];
    let gateway = before(&dns, worker.address.port()).args(flags).start();
    for _ in 0..40 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!(gateway.metrics().sum("smg_worker_errors_total", &[]), 0.0);
}

#[test]
fn a_name_that_does_not_exist_fails_its_requests_at_once_and_joins_when_it_does() {
    let (dns, worker) = (Dns::start(), Worker::echo());
    let gateway = before(&dns, worker.address.port()).arg("--disable-health-check").start_unready();
    gateway.get("/").assert_error(502, "upstream_connection_failed");
    dns.set("w.test", Reply::at("127.0.0.1", 1));
    eventually(LIMIT, || gateway.get("/").status == 200);
}

#[test]
fn localhost_needs_no_server() {
    let (dns, worker) = (Dns::start(), Worker::echo());
    let url = format!("http://localhost:{}", worker.address.port());
    let gateway = Gateway::builder().worker_url(url).arg(format!("--dns-servers={}", dns.address)).start();
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(dns.questions(), []);
}
