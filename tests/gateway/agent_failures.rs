//! What the agent answers when its module fails, and what it says of it.

use crate::support::{Agent, BEHAVIOURS, Decision, Event, Version, guest};
use serde_json::{Value, json};
use std::time::Duration;

fn hostile(args: &[&str]) -> Agent {
    let agent = Agent::running(&guest("sentinel-hostile")).arg("--wasm-max-execution-time-ms=250");
    args.iter().fold(agent, |agent, arg| agent.arg(*arg)).start()
}

#[test]
fn every_failure_blocks_by_default_and_names_its_kind() {
    let agent = hostile(&["--metrics-port=0"]);
    for version in Version::BOTH {
        let mut proxy = agent.connect(version);
        for event in Event::both() {
            for (behaviour, kind) in BEHAVIOURS {
                let reply = proxy.ask(&event.clone().doing(behaviour));
                let what = format!("{version:?} {} {behaviour}: {reply:?}", event.name());
                assert!(reply.request_headers.is_empty() && reply.response_headers.is_empty(), "{what}");
                match kind {
                    Some(kind) => {
                        assert_eq!(reply.decision, Decision::failed(), "{what}");
                        assert_eq!(
                            (reply.tags(), &reply.audit.reason_codes),
                            (vec!["wasm-error"], &vec![kind.to_owned()]),
                            "{what}"
                        );
                    }
                    None => assert!(reply.decision == Decision::Allow && reply.tags().is_empty(), "{what}"),
                }
            }
        }
    }
    let failed = 4 * BEHAVIOURS.iter().filter(|(_, kind)| kind.is_some()).count();
    assert_eq!(agent.metrics().sum("smg_wasm_tags_total", &[("tag", "wasm-error")]), failed as f64);
}

#[test]
fn where_it_is_open_every_failure_allows_with_two_tags() {
    let agent = hostile(&["--fail-open"]);
    for version in Version::BOTH {
        let mut proxy = agent.connect(version);
        for event in Event::both() {
            for (behaviour, kind) in BEHAVIOURS {
                let reply = proxy.ask(&event.clone().doing(behaviour));
                let tags = if kind.is_some() { vec!["wasm-error", "fail-open"] } else { vec![] };
                assert_eq!((&reply.decision, reply.tags()), (&Decision::Allow, tags), "{version:?} {behaviour}");
                assert!(reply.request_headers.is_empty() && reply.response_headers.is_empty());
            }
        }
    }
}

#[test]
fn each_failure_is_logged_with_the_id_of_its_event() {
    let agent = hostile(&[]);
    for version in Version::BOTH {
        let mut proxy = agent.connect(version);
        for (event, behaviour, kind) in [
            (Event::request(), "trap", "trap"),
            (Event::response(), "loop", "timeout"),
            (Event::request(), "length-max", "output"),
        ] {
            let id = format!("{version:?}-{}-{behaviour}", event.name());
            proxy.ask(&event.clone().id(&id).doing(behaviour));
            let line = agent.wait_for_log(&format!("an event was not judged id={id} "));
            for part in ["ERROR", event.name(), kind] {
                assert!(line.contains(part), "no {part} in {line}");
            }
        }
    }
}

#[test]
fn an_id_cannot_forge_a_line_of_the_log() {
    let agent = hostile(&["--verbose"]);
    for version in Version::BOTH {
        agent.connect(version).ask(&Event::request().id("a\n2026 forged\u{1b}[2K").doing("trap"));
    }
    agent.wait_for_log("an event was not judged");
    let log = agent.log();
    assert!(!log.lines().any(|line| line.starts_with("2026 forged")) && !log.contains('\u{1b}'), "{log}");
}

#[test]
fn a_guest_that_failed_is_never_used_again() {
    let agent = hostile(&["--pool-size=1"]);
    let mut proxy = agent.connect(Version::V2);
    let mut count = |behaviour: &str| {
        proxy.ask(&Event::request().doing(behaviour));
        [(); 2].map(|()| format!("{:?}", proxy.ask(&Event::request().doing("count")).response_headers))
    };
    for (behaviour, _) in
        BEHAVIOURS.iter().filter(|(name, kind)| kind.is_some() || matches!(*name, "grow" | "dealloc-trap"))
    {
        let [first, second] = count(behaviour);
        assert!(first.contains("\"1\"") && second.contains("\"2\""), "after {behaviour}: {first} {second}");
    }
    let [first, _] = count("deep");
    assert!(first.contains("\"4\""), "{first}");
}

#[test]
fn an_event_that_http_could_not_carry_is_a_failure_and_no_more() {
    let agent = hostile(&[]);
    for version in Version::BOTH {
        let mut proxy = agent.connect(version);
        let [request, response] = Event::both();
        let bad: Vec<Event> = vec![
            request.clone().header("x bad", "1"),
            request.clone().header("", "1"),
            request.clone().header("x-bad", "a\r\nb"),
            request.clone().set("method", json!("GE T")),
            request.clone().set("method", json!("")),
            request.clone().set("uri", json!("")),
            request.clone().set("headers", json!([])),
            request.clone().set("headers", json!({ "a": "not a list" })),
            request.clone().set("headers", Value::Null),
            response.clone().set("status", json!(99)),
            response.clone().set("status", json!(70_000)),
            response.clone().set("status", json!("200")),
            response.clone().header("x bad", "1"),
        ];
        for event in bad {
            let reply = proxy.ask(&event);
            assert_eq!((&reply.decision, reply.tags()), (&Decision::failed(), vec!["wasm-error"]), "{event:?}");
        }
        assert_eq!(proxy.ask(&request).decision, Decision::Allow);
    }
}

#[test]
fn an_event_that_http_could_not_carry_is_logged_with_its_id() {
    let agent = hostile(&[]);
    for version in Version::BOTH {
        let id = format!("odd-{version:?}");
        agent.connect(version).ask(&Event::request().id(&id).set("method", json!("GE T")));
        let line = agent.wait_for_log(&format!("an event was not judged id={id} "));
        assert!(line.contains("`GE T` is not a method"), "{line}");
    }
}

#[test]
fn a_module_that_keeps_failing_is_answered_for_at_once_and_comes_back() {
    let agent = hostile(&["--metrics-port=0"]);
    let mut proxy = agent.connect(Version::V2);
    for _ in 0..60 {
        assert_eq!(proxy.ask(&Event::request().doing("trap")).decision, Decision::failed());
    }
    let rested = agent.metrics().sum("smg_wasm_executions_total", &[("outcome", "quarantined")]);
    assert!(rested > 0.0, "{rested}");
    crate::support::eventually(Duration::from_secs(5), || proxy.ask(&Event::request()).decision == Decision::Allow);
}
