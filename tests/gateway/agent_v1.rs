//! Version 1 of the agent protocol: one event at a time on a connection, each answered before the next.

use crate::support::{Agent, Decision, Event, Version, guest};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn hostile() -> Agent {
    Agent::running(&guest("sentinel-hostile")).arg("--wasm-max-execution-time-ms=300").start()
}

#[test]
fn answers_come_in_order_however_long_they_take() {
    let agent = hostile();
    let mut proxy = agent.connect(Version::V1);
    proxy.send(&Event::request().doing("loop"));
    for status in [418, 419, 420] {
        proxy.send(&Event::request().replying(&json!({ "decision": "block", "status": status })));
    }
    assert_eq!(proxy.read().decision, Decision::failed());
    for status in [418, 419, 420] {
        assert_eq!(proxy.read().decision, Decision::block(status, None, &[]));
    }
}

#[test]
fn ten_connections_are_independent() {
    let agent = Agent::running(&guest("sentinel-hostile")).arg("--wasm-max-execution-time-ms=3s").start();
    let mut slow: Vec<_> = (0..9).map(|_| agent.connect(Version::V1)).collect();
    let mut quick = agent.connect(Version::V1);
    let start = Instant::now();
    slow.iter_mut().for_each(|proxy| proxy.send(&Event::request().doing("loop")));
    for _ in 0..20 {
        assert_eq!(quick.ask(&Event::request()).decision, Decision::Allow);
    }
    assert!(start.elapsed() < Duration::from_millis(2900), "{:?}", start.elapsed());
    slow.iter_mut().for_each(|proxy| assert_eq!(proxy.read().decision, Decision::failed()));
}

#[test]
fn a_first_event_may_be_a_configuration_or_any_other() {
    let agent = hostile();
    let others =
        ["request_body_chunk", "response_body_chunk", "request_complete", "web_socket_frame", "guardrail_inspect"];
    for event in others.map(|name| Event::other(0, name)) {
        let mut proxy = agent.connect(Version::V1);
        assert_eq!(proxy.ask(&event).decision, Decision::Allow, "{}", event.name());
        assert_eq!(proxy.ask(&Event::configure(&json!({ "fail-open": false }))).decision, Decision::Allow);
        assert_eq!(proxy.ask(&Event::request().doing("trap")).decision, Decision::failed());
    }
}

#[test]
fn what_is_no_event_ends_its_connection_without_an_answer() {
    let agent = hostile();
    let good = json!({ "version": 1, "event_type": "request_headers", "payload": Event::request().payload });
    let with = |field: &str, value: Value| {
        let mut message = good.clone();
        message[field] = value;
        message.to_string()
    };
    for message in [
        with("version", json!(2)),
        with("version", json!("1")),
        with("event_type", json!(null)),
        "{}".to_owned(),
        "{".to_owned(),
        "{\"version\":1}".to_owned(),
        format!("{good}{good}"),
    ] {
        let mut proxy = agent.connect(Version::V1);
        proxy.frames.send(message.as_bytes());
        assert!(proxy.frames.ends_within(Duration::from_secs(5)), "{message:.80}");
    }
    let mut proxy = agent.connect(Version::V1);
    assert_eq!(proxy.ask(&Event::request()).decision, Decision::Allow);
    proxy.frames.send(b"{}");
    assert!(proxy.frames.ends_within(Duration::from_secs(5)), "later too");
    assert_eq!(agent.connect(Version::V1).ask(&Event::request()).decision, Decision::Allow);
}

#[test]
fn json_may_be_written_in_any_way() {
    let agent = hostile();
    let mut proxy = agent.connect(Version::V1);
    let payload = Event::request().replying(&json!({ "decision": "block" })).payload;
    proxy.frames.send(
        format!("{{\n \"payload\" : {payload}, \"more\": {{}}, \"event_type\": \"\\u0072equest_headers\",\t\"version\":1 }}  ")
            .as_bytes(),
    );
    assert_eq!(proxy.read().decision, Decision::block(403, None, &[]));
}
