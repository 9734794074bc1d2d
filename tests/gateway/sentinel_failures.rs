//! What becomes of a request when a Sentinel module fails.

use crate::support::{BEHAVIOURS, Gateway, Module, Worker, obliging};
use serde_json::json;
use std::time::{Duration, Instant};

fn module() -> Module {
    Module::sentinel().set("limits", json!({ "execution_ms": 250 }))
}

/// A request, or an answer of the worker's, that makes the guest do this.
fn provoke(gateway: &Gateway, hook: &str, behaviour: &str) -> crate::support::Response {
    let line = format!("X-Hostile: {behaviour}");
    let headers = if hook == "request" { ("X-Hostile", behaviour) } else { ("X-Answer", &*line) };
    gateway.request("GET", &format!("/{hook}/{behaviour}"), &[headers, ("X-Answer", "X-Secret: 1")], b"")
}

#[track_caller]
fn log_line(gateway: &Gateway, hook: &str, behaviour: &str) -> String {
    gateway.wait_for_log(&format!("path=/{hook}/{behaviour} "))
}

#[test]
fn every_failure_closes_by_default() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&module());
    for (behaviour, kind) in BEHAVIOURS {
        for hook in ["request", "response"] {
            let before = kind.map(|kind| gateway.failures(&uuid, kind));
            let answer = provoke(&gateway, hook, behaviour);
            let line = log_line(&gateway, hook, behaviour);
            let Some(kind) = kind else {
                assert_eq!((answer.status, answer.headers.get("x-secret")), (200, Some("1")), "{hook} {behaviour}");
                assert!(line.contains(" tags= "), "{line}");
                continue;
            };
            assert_eq!((answer.status, answer.text().as_str()), (500, "Wasm Error"), "{hook} {behaviour}");
            assert_eq!(answer.headers.get("content-type"), Some("text/plain; charset=utf-8"));
            assert_eq!(answer.headers.get("x-smg-error-code"), Some("wasm_module_failed"));
            assert!(!answer.headers.has("x-secret"), "{hook} {behaviour}");
            assert!(line.contains(" tags=wasm-error ") && line.contains(&format!("sentinel:{kind} ")), "{line}");
            assert_eq!(Some(gateway.failures(&uuid, kind)), before.map(|count| count + 1), "{hook} {behaviour} {kind}");
        }
    }
    let failed = BEHAVIOURS.iter().filter(|(_, kind)| kind.is_some()).count();
    assert_eq!(
        worker.requests().iter().filter(|r| r.target.starts_with("/request/")).count(),
        BEHAVIOURS.len() - failed
    );
    assert_eq!(gateway.tagged("wasm-error"), 2 * failed as u64);
    assert_eq!((gateway.tagged("fail-open"), gateway.load()), (0, 0));
}

#[test]
fn where_it_is_open_the_request_goes_on_as_if_the_module_were_not_there() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&module().set("on_failure", json!("open")));
    for (behaviour, kind) in BEHAVIOURS {
        for hook in ["request", "response"] {
            let answer = provoke(&gateway, hook, behaviour);
            assert_eq!((answer.status, answer.headers.get("x-secret")), (200, Some("1")), "{hook} {behaviour}");
            let tags = if kind.is_some() { "wasm-error,fail-open" } else { "" };
            let line = log_line(&gateway, hook, behaviour);
            assert!(line.contains(&format!(" tags={tags} ")), "{line}");
        }
    }
    assert_eq!(gateway.tagged("wasm-error"), gateway.tagged("fail-open"));
}

#[test]
fn what_the_flag_says_holds_where_the_deployment_says_nothing() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).arg("--wasm-on-failure=open").start();
    for (on_failure, statuses) in [
        (None, [200, 200]),
        (Some(json!("closed")), [500, 500]),
        (Some(json!({ "OnRequest": "closed" })), [500, 200]),
        (Some(json!({ "OnResponse": "closed", "status": 599 })), [200, 599]),
        (Some(json!({ "OnRequest": "closed", "OnResponse": "closed", "status": 403 })), [403, 403]),
    ] {
        let module = on_failure.iter().fold(module(), |module, said| module.set("on_failure", said.clone()));
        let uuid = gateway.add(&module);
        for (hook, status) in ["request", "response"].into_iter().zip(statuses) {
            let answer = provoke(&gateway, hook, "trap");
            assert_eq!(answer.status, status, "{on_failure:?} {hook}");
            assert_eq!(answer.text() == "Wasm Error", status != 200, "{on_failure:?} {hook}");
        }
        gateway.remove(&uuid);
    }
}

#[test]
fn what_alloc_gives_is_not_believed() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).arg("--shards=1").start();
    let uuid = gateway.add(&module().at(&["OnRequest"]).set("instance", json!({ "mode": "pooled", "size": 1 })));
    for (behaviour, kind) in [("alloc-zero", "output"), ("alloc-outside", "output"), ("alloc-trap", "trap")] {
        let before = gateway.failures(&uuid, kind);
        assert_eq!(gateway.provoke(behaviour).status, 200, "it is about the next call");
        let answer = gateway.provoke("count");
        assert_eq!((answer.status, answer.text().as_str()), (500, "Wasm Error"), "{behaviour}");
        assert_eq!(gateway.failures(&uuid, kind), before + 1, "{behaviour}");
        let answer = gateway.provoke("count");
        assert_eq!((answer.status, answer.headers.get("x-count")), (200, Some("1")), "{behaviour}");
    }
}

#[test]
fn a_failure_is_logged_with_the_id_of_its_request_and_its_kind() {
    let worker = Worker::echo();
    for (behaviour, kind, cause) in [
        ("trap", "trap", "unreachable"),
        ("loop", "timeout", "timeout"),
        ("length-max", "output", "4294967295"),
        ("not-json", "output", "not a JSON object"),
    ] {
        let gateway = Gateway::with_modules(&worker).start();
        gateway.add(&module());
        gateway.request("GET", "/", &[("X-Hostile", behaviour), ("X-Request-Id", "r-1\"2")], b"");
        let line = gateway.wait_for_log("a module failed");
        for part in ["module=sentinel", "hook=\"on-request\"", "id=\"r-1\\\"2\" ", &format!("kind=\"{kind}\""), cause] {
            assert!(line.contains(part), "no {part} in {line}");
        }
    }
}

#[test]
fn the_client_is_told_nothing_of_the_cause() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&module());
    let answer = gateway.request("HEAD", "/", &[("X-Hostile", "trap"), ("X-Request-Id", "r-1")], b"");
    assert_eq!((answer.status, answer.text().as_str(), answer.headers.get("x-request-id")), (500, "", Some("r-1")));
    let mut client = gateway.connect();
    for behaviour in ["trap", "not-json", "trap"] {
        client.send_request("POST", "/", &[("X-Hostile", behaviour)], b"unread");
        let answer = client.read_response();
        assert_eq!((answer.status, answer.text().as_str()), (500, "Wasm Error"));
        let told: Vec<_> = answer.headers.iter().map(|(name, _)| name.to_lowercase()).collect();
        assert_eq!(told, ["content-type", "x-smg-error-code", "x-request-id", "content-length", "date"]);
    }
}

#[test]
fn the_time_limit_is_the_deployments() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&module());
    for hook in ["request", "response"] {
        let start = Instant::now();
        assert_eq!(provoke(&gateway, hook, "loop").status, 500);
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(250) && took < Duration::from_secs(10), "{hook}: {took:?}");
    }
}

#[test]
fn a_misspelt_behaviour_is_seen() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&module());
    assert_eq!((provoke(&gateway, "request", "x").status, provoke(&gateway, "response", "x").status), (418, 418));
}
