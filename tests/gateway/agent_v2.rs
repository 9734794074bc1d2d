//! Version 2 of the agent protocol: the handshake, and many events at once on one connection.

use crate::support::{Agent, Decision, Event, Sentinel, Version, eventually, guest, handshake, kind, shake_hands};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

fn hostile() -> Agent {
    Agent::running(&guest("sentinel-hostile")).arg("--wasm-max-execution-time-ms=400").arg("--metrics-port=0").start()
}

/// An event whose guest never ends, within its 400 ms.
fn endless(id: &str) -> Event {
    Event::request().id(id).doing("loop")
}

fn quick(id: &str) -> Event {
    Event::request().id(id).replying(&json!({ "decision": "block", "status": 418 }))
}

fn busy(agent: &Agent) -> f64 {
    agent.metrics().sum("smg_wasm_instances", &[("state", "busy")])
}

#[test]
fn the_answer_to_a_handshake_has_all_that_a_proxy_needs() {
    let agent = hostile();
    let answer = shake_hands(&mut agent.frames(), &handshake());
    assert_eq!(
        (&answer["protocol_version"], &answer["success"], &answer["error"]),
        (&json!(2), &json!(true), &Value::Null)
    );
    assert_eq!(answer["encoding"], "json");
    let capabilities = &answer["capabilities"];
    assert_eq!(capabilities["supported_events"], json!([1, 3]));
    for text in ["agent_id", "name", "version"] {
        assert!(capabilities[text].as_str().is_some_and(|text| !text.is_empty()), "{text}: {answer}");
    }
    let features = &capabilities["features"];
    let flags = [
        "streaming_body",
        "websocket",
        "guardrails",
        "config_push",
        "metrics_export",
        "cancellation",
        "flow_control",
        "health_reporting",
    ];
    assert!(flags.iter().all(|flag| features[flag].is_boolean()), "{answer}");
    assert!(features["concurrent_requests"].as_u64().is_some_and(|count| count > 0), "{answer}");
    assert_eq!((&features["config_push"], &features["streaming_body"]), (&json!(true), &json!(false)));
    for limit in ["max_body_size", "max_concurrency", "preferred_chunk_size"] {
        assert!(capabilities["limits"][limit].is_u64(), "{limit}: {answer}");
    }
}

#[test]
fn handshakes_of_all_proxies_are_taken() {
    let agent = hostile();
    let without = |field: &str| {
        let mut handshake = handshake();
        handshake.as_object_mut().expect("an object").remove(field);
        handshake
    };
    let with = |field: &str, value: Value| {
        let mut handshake = handshake();
        handshake[field] = value;
        handshake
    };
    for handshake in [
        without("supported_encodings"),
        without("config"),
        with("supported_encodings", json!([])),
        with("supported_encodings", json!(["msgpack", "json"])),
        with("supported_versions", json!([1, 2, 3])),
        with("config", json!({ "pool-size": 2 })),
        with("anything", json!({ "more": [null] })),
    ] {
        let mut frames = agent.frames();
        let answer = shake_hands(&mut frames, &handshake);
        assert_eq!((&answer["success"], &answer["encoding"]), (&json!(true), &json!("json")), "{handshake}");
    }
}

#[test]
fn a_handshake_that_asks_for_something_else_is_refused_with_the_reason() {
    let agent = hostile();
    for (field, value, reason) in [
        ("supported_versions", json!([1]), "version"),
        ("supported_versions", json!([3, 4]), "version"),
        ("supported_versions", json!([]), "version"),
        ("supported_encodings", json!(["msgpack"]), "json"),
    ] {
        let mut handshake = handshake();
        handshake[field] = value;
        let mut frames = agent.frames();
        let answer = shake_hands(&mut frames, &handshake);
        assert_eq!(answer["success"], false, "{handshake}");
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(reason)), "{answer}");
        assert!(!answer["capabilities"]["features"].is_null(), "no field may be missing: {answer}");
        assert!(frames.ends_within(Duration::from_secs(5)), "{handshake}");
    }
    assert_eq!(agent.connect(Version::V2).ask(&quick("c")).decision, Decision::block(418, None, &[]));
}

#[test]
fn what_is_no_handshake_ends_the_connection() {
    let agent = hostile();
    for first in [
        [&[kind::REQUEST], Event::request().payload.to_string().as_bytes()].concat(),
        [&[kind::PING], &b"{}"[..]].concat(),
        vec![kind::HANDSHAKE],
        [&[kind::HANDSHAKE], &b"nonsense"[..]].concat(),
        [&[kind::HANDSHAKE], &b"{}"[..]].concat(),
    ] {
        let mut frames = agent.frames();
        frames.send(&first);
        assert!(frames.ends_within(Duration::from_secs(5)), "{}", String::from_utf8_lossy(&first));
    }
}

#[test]
fn a_ping_is_answered_with_its_own_payload() {
    let agent = hostile();
    let mut proxy = agent.connect(Version::V2);
    for payload in [&b"{\"timestamp\":1}"[..], b"", b"\0\xffnot JSON"] {
        proxy.frames.send(&[&[kind::PING], payload].concat());
        assert_eq!(proxy.frames.read().expect("a pong"), Some([&[kind::PONG], payload].concat()));
    }
    proxy.send(&endless("slow"));
    proxy.frames.send(&[kind::PING]);
    assert_eq!(proxy.frames.read().expect("a pong"), Some(vec![kind::PONG]), "also while an event is worked on");
    assert_eq!(proxy.read().id(), "slow");
}

#[test]
fn a_quick_event_overtakes_a_slow_one() {
    let agent = Agent::running(&guest("sentinel-hostile")).arg("--wasm-max-execution-time-ms=3s").start();
    let mut proxy = agent.connect(Version::V2);
    let start = Instant::now();
    proxy.send(&endless("slow"));
    let asked: Vec<_> = (0..20).map(|n| format!("quick-{n}")).collect();
    asked.iter().for_each(|id| proxy.send(&quick(id)));
    let answered: BTreeSet<_> = (0..20).map(|_| proxy.read().id().to_owned()).collect();
    assert!(start.elapsed() < Duration::from_millis(2900), "{:?}", start.elapsed());
    assert_eq!(answered, asked.into_iter().collect());
    let slow = proxy.read();
    assert_eq!((slow.id(), &slow.decision), ("slow", &Decision::failed()));
}

#[test]
fn of_two_events_with_one_id_only_the_later_is_answered() {
    let agent = hostile();
    let (mut proxy, mut other) = (agent.connect(Version::V2), agent.connect(Version::V2));
    proxy.send(&endless("same"));
    other.send(&endless("same"));
    eventually(Duration::from_secs(5), || busy(&agent) == 2.0);
    proxy.send(&quick("same"));
    let reply = proxy.read();
    assert_eq!((reply.id(), &reply.decision), ("same", &Decision::block(418, None, &[])));
    // The first would have been answered by then.
    let reply = other.read();
    assert_eq!((reply.id(), &reply.decision), ("same", &Decision::failed()), "ids are a connection's own");
    assert!(proxy.frames.is_silent_for(Duration::from_millis(100)));
    assert_eq!(busy(&agent), 0.0);
    assert_eq!(proxy.ask(&quick("same")).decision, Decision::block(418, None, &[]), "and it may be used again");
}

#[test]
fn a_response_supersedes_the_request_of_its_id() {
    let agent = hostile();
    let mut proxy = agent.connect(Version::V2);
    proxy.send(&endless("same"));
    proxy.send(&Event::response().id("same"));
    assert_eq!(proxy.read().decision, Decision::Allow);
    assert!(proxy.frames.is_silent_for(Duration::from_millis(500)));
}

#[test]
fn events_without_an_id_supersede_nothing() {
    let agent = hostile();
    let mut proxy = agent.connect(Version::V2);
    proxy.send(&endless(""));
    proxy.send(&quick(""));
    let replies = [proxy.read(), proxy.read()];
    assert_eq!(
        replies.each_ref().map(|reply| &reply.decision),
        [&Decision::block(418, None, &[]), &Decision::failed()]
    );
}

#[test]
fn an_event_that_is_cancelled_ends_and_is_not_answered() {
    let agent = Agent::running(&guest("sentinel-hostile"))
        .arg("--wasm-max-execution-time-ms=60000")
        .arg("--metrics-port=0")
        .start();
    let mut proxy = agent.connect(Version::V2);
    let cancel = |id: &str| [&[kind::CANCEL], json!({ "correlation_id": id }).to_string().as_bytes()].concat();
    proxy.send(&endless("a"));
    proxy.send(&endless("b"));
    eventually(Duration::from_secs(5), || busy(&agent) == 2.0);
    proxy.frames.send(&cancel("never-there"));
    proxy.frames.send(&cancel("a"));
    eventually(Duration::from_secs(5), || busy(&agent) == 1.0);
    proxy.frames.send(&cancel("b"));
    eventually(Duration::from_secs(5), || busy(&agent) == 0.0);
    assert_eq!(proxy.ask(&quick("c")).decision, Decision::block(418, None, &[]), "nothing came before it");
}

#[test]
fn a_connection_that_ends_takes_its_events_with_it() {
    let agent = Agent::running(&guest("sentinel-hostile"))
        .arg("--wasm-max-execution-time-ms=60000")
        .arg("--metrics-port=0")
        .start();
    for version in Version::BOTH {
        let mut proxies: Vec<_> = (0..3).map(|_| agent.connect(version)).collect();
        proxies.iter_mut().for_each(|proxy| proxy.send(&endless("c")));
        eventually(Duration::from_secs(5), || busy(&agent) == 3.0);
        drop(proxies);
        eventually(Duration::from_secs(5), || busy(&agent) == 0.0);
    }
}

#[test]
fn an_id_is_given_back_as_it_came_whatever_it_is() {
    let agent = hostile();
    let mut proxy = agent.connect(Version::V2);
    for id in ["3kQ9fZtVw2a", "", " ", "\"\\\r\n\u{0}\u{1b}", "caf\u{e9}\u{1f600}", &"x".repeat(100_000)] {
        assert_eq!(proxy.ask(&quick(id)).id(), id);
        assert_eq!(proxy.ask(&Event::response().id(id).doing("trap")).id(), id);
        assert_eq!(proxy.ask(&Event::other(0x14, "request_complete").id(id)).id(), id);
    }
}

#[test]
fn events_for_other_agents_are_allowed_and_frames_of_later_versions_ignored() {
    let agent = hostile();
    let mut proxy = agent.connect(Version::V2);
    for kind in [0x11, 0x13, 0x14, 0x15, 0x16] {
        assert_eq!(proxy.ask(&Event::other(kind, "other")).decision, Decision::Allow, "{kind:#x}");
    }
    for kind in [0x00, 0x02, 0x20, 0x30, 0x33, 0x42, 0x7f, 0xff] {
        proxy.frames.send(&[kind, b'{', b'}']);
    }
    assert_eq!(proxy.ask(&quick("c")).decision, Decision::block(418, None, &[]));
}

#[test]
fn an_id_may_be_in_the_metadata_alone() {
    let agent = hostile();
    let mut proxy = agent.connect(Version::V2);
    let payload = quick("inner").payload;
    assert!(payload.get("correlation_id").is_none());
    proxy.frames.send(&[&[kind::REQUEST], payload.to_string().as_bytes()].concat());
    assert_eq!(proxy.read().id(), "inner");
}

#[test]
fn a_handler_that_is_not_there_allows() {
    let files = crate::support::Files::new();
    let block = json!({ "decision": "block" });
    for (missing, status) in [("on_request_headers", [None, Some(403)]), ("on_response_headers", [Some(403), None])] {
        let file = files.sentinel(missing, &Sentinel::replying(&block, &block).without(missing));
        let agent = Agent::running(&file).start();
        for version in Version::BOTH {
            let mut proxy = agent.connect(version);
            let found = Event::both().map(|event| proxy.ask(&event).decision);
            let wanted =
                status.map(|status| status.map_or(Decision::Allow, |status| Decision::block(status, None, &[])));
            assert_eq!(found, wanted, "{missing} {version:?}");
        }
    }
}
