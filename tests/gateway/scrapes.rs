//! The port for `/metrics` alone, to which everybody may connect: whoever takes nothing keeps nothing.

use crate::support::{Agent, Client, Gateway, Process, Worker, eventually, guest};
use std::net::SocketAddr;
use std::time::Duration;

/// Connections that there may be at once, and descriptors that a process may have opened otherwise meanwhile.
const MOST: usize = 32;
const OTHERS: usize = 16;

/// Makes 300 connections, and asks a hundred times on every other one, but reads nothing.
#[track_caller]
fn is_not_shut_out(process: &Process, metrics: SocketAddr) {
    let before = process.descriptors();
    let many = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    let takes_nothing = |at| {
        let mut client = Client::connect(metrics);
        // It may have been closed for a later one.
        let _ = client.try_send(if at % 2 == 0 { many.as_str() } else { "GET " });
        client
    };
    let clients: Vec<_> = (0..300).map(takes_nothing).collect();
    assert_eq!(Client::connect(metrics).get("/metrics").status, 200);
    eventually(Duration::from_secs(5), || process.descriptors() <= before + MOST + OTHERS);
    drop(clients);
}

#[test]
fn those_who_take_nothing_use_up_neither_places_nor_descriptors() {
    let worker = Worker::echo();
    let flags = ["--prometheus-host=127.0.0.1", "--prometheus-port=0"];
    let gateway = Gateway::builder().worker(&worker).args(flags).start();
    is_not_shut_out(&gateway, gateway.metrics_address());
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn nor_those_of_an_agent() {
    let agent = Agent::running(&guest("sentinel-hostile")).arg("--metrics-port=0").start();
    let address = agent.wait_for_output("metrics on http://");
    let address = address.strip_suffix("/metrics").expect("a path").parse().expect("an address");
    is_not_shut_out(&agent, address);
}

#[test]
fn a_connection_is_for_one_scrape() {
    let gateway = Gateway::builder().args(["--prometheus-host=127.0.0.1", "--prometheus-port=0"]).start_unready();
    let mut client = Client::connect(gateway.metrics_address());
    client.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2));
    let answer = client.read_response();
    assert_eq!((answer.status, answer.headers.get("connection")), (200, Some("close")));
    client.assert_closed();
}
