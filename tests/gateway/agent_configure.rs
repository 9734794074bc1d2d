//! What a proxy configures: applied for all connections, never refused for nonsense, refused only by the module.

use crate::support::{
    Agent, Decision, Event, Files, Proxy, Sentinel, Version, eventually, guest, handshake, shake_hands,
};
use serde_json::{Value, json};
use std::time::Duration;

fn hostile() -> Agent {
    Agent::running(&guest("sentinel-hostile")).start()
}

#[track_caller]
fn configure(proxy: &mut Proxy, config: &Value) {
    assert_eq!(proxy.ask(&Event::configure(config)).decision, Decision::Allow, "{config}");
}

/// The tags of a failure, which say whether the agent is open.
fn tags_of_failure(proxy: &mut Proxy) -> Vec<String> {
    proxy.ask(&Event::request().doing("trap")).audit.tags
}

const OPEN: [&str; 2] = ["wasm-error", "fail-open"];
const CLOSED: [&str; 1] = ["wasm-error"];

#[test]
fn fail_open_holds_for_every_connection_and_can_be_taken_back() {
    for version in Version::BOTH {
        let agent = hostile();
        let (mut proxy, mut other) = (agent.connect(version), agent.connect(version));
        assert_eq!(tags_of_failure(&mut proxy), CLOSED);
        configure(&mut proxy, &json!({ "pool-size": 4, "fail-open": true }));
        assert_eq!([tags_of_failure(&mut proxy), tags_of_failure(&mut other)], [OPEN, OPEN]);
        configure(&mut other, &json!({ "fail_open": false }));
        assert_eq!([tags_of_failure(&mut proxy), tags_of_failure(&mut other)], [CLOSED, CLOSED]);
    }
}

#[test]
fn a_handshake_may_bring_the_configuration() {
    let agent = hostile();
    let mut handshake = handshake();
    handshake["config"] = json!({ "fail-open": true, "pool-size": 2 });
    assert_eq!(shake_hands(&mut agent.frames(), &handshake)["success"], true);
    assert_eq!(tags_of_failure(&mut agent.connect(Version::V2)), OPEN);
}

#[test]
fn what_was_configured_before_stays_where_nothing_is_said() {
    for version in Version::BOTH {
        let agent = Agent::running(&guest("sentinel-hostile")).arg("--fail-open").start();
        let mut proxy = agent.connect(version);
        for config in [json!(null), json!({}), json!({ "pool-size": 2 }), json!({ "fail-open": null })] {
            configure(&mut proxy, &config);
            assert_eq!(tags_of_failure(&mut proxy), OPEN, "{config}");
        }
    }
}

#[test]
fn nonsense_is_allowed_and_changes_nothing() {
    for version in Version::BOTH {
        let agent = hostile();
        let mut proxy = agent.connect(version);
        for config in [
            json!([]),
            json!("fail-open"),
            json!(5),
            json!({ "fail-open": "yes" }),
            json!({ "fail-open": 1 }),
            json!({ "pool-size": 0 }),
            json!({ "pool-size": -1 }),
            json!({ "pool-size": 1.5 }),
            json!({ "pool-size": "many" }),
            json!({ "pool-size": 18_446_744_073_709_551_615_u64 }),
            json!({ "unknown": { "deep": [1] } }),
        ] {
            configure(&mut proxy, &config);
            assert_eq!(tags_of_failure(&mut proxy), CLOSED, "{config}");
        }
        let mut event = Event::configure(&json!(null));
        event.payload.as_object_mut().expect("an object").remove("config");
        assert_eq!(proxy.ask(&event).decision, Decision::Allow, "nothing at all");
        assert!(agent.log().contains("fail-open"), "what was ignored is logged: {}", agent.log());
    }
}

#[test]
fn nonsense_in_a_handshake_is_no_reason_to_refuse_it() {
    let agent = hostile();
    for config in [json!([]), json!("x"), json!(5), json!({ "pool-size": "many" })] {
        let mut handshake = handshake();
        handshake["config"] = config;
        assert_eq!(shake_hands(&mut agent.frames(), &handshake)["success"], true, "{handshake}");
    }
}

#[test]
fn the_size_of_the_pool_is_applied() {
    let files = Files::new();
    // Longer than a slice, so that they run side by side.
    let file = files.sentinel("slow", &Sentinel::slow(20));
    for version in Version::BOTH {
        let agent = Agent::running(&file).arg("--pool-size=3").arg("--metrics-port=0").start();
        let idle_after = |size: Option<u64>| {
            let mut proxies: Vec<_> = (0..8).map(|_| agent.connect(version)).collect();
            if let Some(size) = size {
                configure(&mut proxies[7], &json!({ "pool-size": size }));
            }
            proxies.iter_mut().for_each(|proxy| proxy.send(&Event::request()));
            proxies.iter_mut().for_each(|proxy| assert_eq!(proxy.read().decision, Decision::Allow));
            eventually(Duration::from_secs(2), || instances(&agent, "busy") == 0.0);
            instances(&agent, "idle")
        };
        assert_eq!(idle_after(None), 3.0, "{version:?}");
        assert_eq!(idle_after(Some(5)), 5.0, "{version:?}");
        assert_eq!(idle_after(Some(1)), 1.0, "{version:?}");
    }
}

fn instances(agent: &Agent, state: &str) -> f64 {
    agent.metrics().sum("smg_wasm_instances", &[("state", state)])
}

/// Refuses a configuration of 30 bytes or more.
fn particular() -> Sentinel {
    let code = "(param i32) (param $length i32) (result i32) (i32.ge_u (local.get $length) (i32.const 30))";
    Sentinel::replying(&json!({ "decision": "block", "status": 418 }), &json!({ "decision": "allow" }))
        .function("on_configure", code)
}

#[test]
fn what_the_module_refuses_is_refused_and_the_old_configuration_stays() {
    let files = Files::new();
    let file = files.sentinel("particular", &particular());
    let unwanted = json!({ "rules": "abcdefghijklmnopqrstuvwxyz", "fail-open": true });
    for version in Version::BOTH {
        let agent = Agent::running(&file).start();
        let mut proxy = agent.connect(version);
        let reply = proxy.ask(&Event::configure(&unwanted));
        let Decision::Block { status: 500, body: Some(body), .. } = &reply.decision else { panic!("{reply:?}") };
        assert!(body.contains("configuration") && body.contains("refused with 1"), "{body}");
        agent.wait_for_log("a configuration was refused by the module");
        let teapot = Decision::block(418, None, &[]);
        assert_eq!(proxy.ask(&Event::request()).decision, teapot, "the connection and the module go on");
        configure(&mut proxy, &json!({ "rules": "few", "pool-size": 2, "fail-open": false }));
        assert_eq!(proxy.ask(&Event::request()).decision, teapot);
    }
    let agent = Agent::running(&file).start();
    let mut handshake = handshake();
    handshake["config"] = unwanted;
    let answer = shake_hands(&mut agent.frames(), &handshake);
    assert_eq!(answer["success"], false);
    assert!(answer["error"].as_str().is_some_and(|error| error.contains("refused with 1")), "{answer}");
}

#[test]
fn the_guard_is_configured_by_the_proxy() {
    let agent = Agent::running(&guest("sentinel-guard")).start();
    for version in Version::BOTH {
        let mut proxy = agent.connect(version);
        let mut status = |path: &str| match proxy.ask(&Event::request().set("uri", json!(path))).decision {
            Decision::Block { status, .. } => status,
            _ => 200,
        };
        assert_eq!([status("/admin/x"), status("/inner/x")], [401, 200]);
        configure(&mut agent.connect(version), &json!({ "protected_paths": ["/inner"], "pool-size": 2 }));
        assert_eq!([status("/admin/x"), status("/inner/x")], [200, 401]);
        let refused = agent.connect(version).ask(&Event::configure(&json!({ "protected_paths": ["inner"] })));
        assert!(matches!(refused.decision, Decision::Block { status: 500, .. }), "{refused:?}");
        assert_eq!(status("/inner/x"), 401);
        configure(&mut agent.connect(version), &json!({ "protected_paths": ["/admin"] }));
    }
}

#[test]
fn the_same_configuration_from_four_connections_keeps_what_the_guests_know() {
    let agent = hostile();
    let config = json!({ "pool-size": 1, "fail-open": true, "more": "x" });
    let count = |proxy: &mut Proxy| {
        let reply = proxy.ask(&Event::request().doing("count"));
        format!("{:?}", reply.response_headers)
    };
    let mut proxy = agent.connect(Version::V2);
    configure(&mut proxy, &config);
    assert!(count(&mut proxy).contains("\"1\""));
    for _ in 0..3 {
        configure(&mut agent.connect(Version::V2), &config);
    }
    assert!(count(&mut proxy).contains("\"2\""));
}
