//! What the agent counts, on a port of its own.

use crate::support::{Agent, Client, Event, Version, eventually, guest, run};
use serde_json::json;
use std::time::Duration;

#[test]
fn events_connections_tags_and_guests_are_counted() {
    let agent = Agent::running(&guest("sentinel-hostile")).arg("--metrics-port=0").start();
    let mut proxies = Version::BOTH.map(|version| agent.connect(version));
    for proxy in &mut proxies {
        for event in Event::both() {
            proxy.ask(&event);
            proxy.ask(&event.clone().replying(&json!({ "decision": "block", "tags": ["counted"] })));
        }
        proxy.ask(&Event::request().replying(&json!({ "decision": "redirect", "body": "/", "tags": ["counted"] })));
        proxy.ask(&Event::request().doing("trap"));
    }
    let metrics = agent.metrics();
    for protocol in ["v1", "v2"] {
        for (event, decision, count) in [
            ("request_headers", "allow", 1.0),
            ("request_headers", "block", 2.0),
            ("request_headers", "redirect", 1.0),
            ("response_headers", "allow", 1.0),
            ("response_headers", "block", 1.0),
        ] {
            let labels = [("protocol", protocol), ("event", event), ("decision", decision)];
            assert_eq!(metrics.sum("smg_agent_events_total", &labels), count, "{labels:?}");
        }
    }
    let module = ("module", "sentinel-hostile");
    let outcome = |outcome| metrics.sum("smg_wasm_executions_total", &[module, ("outcome", outcome)]);
    assert_eq!((outcome("continue"), outcome("reject"), outcome("trap")), (4.0, 6.0, 2.0));
    assert_eq!(metrics.sum("smg_wasm_tags_total", &[module, ("tag", "counted")]), 6.0);
    assert_eq!(metrics.sum("smg_agent_connections", &[]), 2.0);
    assert_eq!(metrics.of("smg_panics_total").map(|series| series.value).collect::<Vec<_>>(), [0.0]);
    drop(proxies);
    eventually(Duration::from_secs(5), || agent.metrics().sum("smg_agent_connections", &[]) == 0.0);
}

#[test]
fn only_metrics_are_there_and_only_if_asked_for() {
    let agent = Agent::running(&guest("sentinel-hostile")).arg("--metrics-port=0").start();
    let address = agent.wait_for_output("metrics on http://");
    assert!(address.starts_with("127.0.0.1:"), "to this machine alone: {address}");
    let address = address.strip_suffix("/metrics").expect("a path").parse().expect("an address");
    let answer = Client::connect(address).get("/metrics");
    assert!(answer.headers.get("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    assert_eq!(Client::connect(address).get("/").status, 404);
    let quiet = Agent::running(&guest("sentinel-hostile")).start();
    assert!(!quiet.stdout().contains("metrics"), "{}", quiet.stdout());
}

#[test]
fn a_port_in_use_is_said_and_no_socket_is_made() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let files = crate::support::Files::new();
    let socket = files.named("agent.sock");
    let args = ["agent", "--module", &guest("sentinel-hostile"), "--socket", &socket, "--metrics-port", &port];
    let ran = run(&args, &[]);
    assert!(ran.code == Some(1) && ran.stderr.contains(&port), "{:?} {}", ran.code, ran.stderr);
    assert!(!files.path("agent.sock").exists());
}
