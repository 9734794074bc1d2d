//! How long guests of the Sentinel ABI live, who shares them, and how they begin.

use crate::support::{FOR_EVER, Files, Gateway, Module, Sentinel, Worker, eventually, obliging};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// How many calls the guest has had, by its own count.
#[track_caller]
fn count(gateway: &Gateway) -> u64 {
    let answer = gateway.provoke("count");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.headers.get("x-count").expect("a count").parse().expect("a number")
}

fn only_one(worker: &Worker, points: &[&str]) -> Gateway {
    let gateway = Gateway::with_modules(worker).arg("--shards=1").start();
    let one = json!({ "mode": "pooled", "size": 1 });
    gateway.add(&Module::sentinel().at(points).set("instance", one).set("limits", json!({ "execution_ms": 300 })));
    gateway
}

/// The counts of `requests` on each of `connections` at once.
fn counts(gateway: &Gateway, connections: usize, requests: usize) -> Vec<u64> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..connections)
            .map(|_| scope.spawn(|| (0..requests).map(|_| count(gateway)).collect::<Vec<_>>()))
            .collect();
        clients.into_iter().flat_map(|client| client.join().expect("no assertion failed")).collect()
    })
}

#[test]
fn four_are_kept_by_default_and_their_memory_outlives_a_call() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--shards=1").start();
    let uuid = gateway.add(&Module::sentinel().at(&["OnRequest"]));
    let shown = gateway.modules()["modules"][0]["module_meta"]["settings"]["instance"].take();
    assert_eq!((shown, &gateway.meta(&uuid)["abi"]), (json!({ "mode": "pooled", "size": 4 }), &json!("sentinel")));
    assert_eq!([(); 5].map(|()| count(&gateway)), [1, 2, 3, 4, 5], "by one, as long as one is enough");
    let mut seen = counts(&gateway, 12, 20);
    seen.sort_unstable();
    let begun = seen.iter().filter(|count| **count == 1).count();
    // On a busy machine a call of this build may be so slow that it leaves its place to another guest.
    assert!(begun <= 19, "{begun} more began to count");
    eventually(Duration::from_secs(2), || gateway.metrics().sum("smg_wasm_instances", &[("state", "busy")]) == 0.0);
    let idle = gateway.metrics().sum("smg_wasm_instances", &[("state", "idle")]);
    assert!((begun.min(3) as f64 + 1.0..=4.0).contains(&idle), "{idle} are kept, {begun} began");
}

#[test]
fn it_starts_anew_after_the_calls_that_the_deployment_gives_it() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--shards=1").start();
    gateway.add(&Module::sentinel().set("instance", json!({ "mode": "pooled", "size": 1, "max_uses": 4 })));
    // Each request is two calls.
    assert_eq!([(); 4].map(|()| count(&gateway)), [1, 3, 1, 3]);
}

#[test]
fn one_that_failed_is_never_used_again() {
    let worker = obliging();
    let gateway = only_one(&worker, &["OnRequest", "OnResponse"]);
    for behaviour in ["trap", "stack", "loop", "length-max", "not-utf8", "not-json", "no-decision", "headers-many"] {
        assert!(count(&gateway) < count(&gateway), "before {behaviour}");
        assert_eq!(gateway.provoke(behaviour).status, 500, "{behaviour}");
        assert_eq!(count(&gateway), 1, "after {behaviour} of a request");
        assert_eq!(gateway.request("GET", "/", &[("X-Answer", &*format!("X-Hostile: {behaviour}"))], b"").status, 500);
        assert_eq!(count(&gateway), 1, "after {behaviour} of a response");
    }
    assert_eq!(gateway.ask_for(r#"{"decision":"block"}"#).status, 403);
    assert!(count(&gateway) > 1, "to block is no failure");
}

#[test]
fn one_that_cannot_free_memory_finishes_its_call_and_is_not_used_again() {
    let worker = obliging();
    let gateway = only_one(&worker, &["OnRequest"]);
    for behaviour in ["dealloc-trap", "grow"] {
        assert!(count(&gateway) < count(&gateway));
        assert_eq!(gateway.provoke(behaviour).status, 200, "{behaviour}");
        assert_eq!(count(&gateway), 1, "{behaviour}");
    }
}

#[test]
fn one_whose_memory_keeps_growing_starts_anew_before_it_fails() {
    let worker = Worker::echo();
    let gateway = only_one(&worker, &["OnRequest"]);
    let mut highest = 0;
    for _ in 0..30 {
        assert_eq!(gateway.provoke("leak-10").status, 200, "300 MiB in all, of 64");
        highest = highest.max(count(&gateway));
    }
    assert!((4..20).contains(&highest), "{highest} calls of one guest");
}

#[test]
fn every_block_is_given_back() {
    let worker = Worker::echo();
    let gateway = only_one(&worker, &["OnRequest"]);
    for _ in 0..5 {
        assert_eq!(gateway.ask_for(r#"{"decision":"block","body":"no"}"#).status, 403);
        gateway.provoke("zero-length");
    }
    let held = gateway.provoke("held");
    // An empty result is none, and is not given back.
    assert_eq!(held.headers.get("x-held"), Some("6"), "its input, and five results without length");
}

#[test]
fn in_mode_request_each_request_has_its_own_for_both_handlers() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::sentinel().set("instance", json!({ "mode": "request" })));
    for _ in 0..3 {
        assert_eq!(count(&gateway), 1);
        let headers = [("X-Hostile", "count"), ("X-Answer", "X-Hostile: count")];
        assert_eq!(gateway.request("GET", "/", &headers, b"").headers.get("x-count"), Some("2"));
    }
    eventually(Duration::from_secs(2), || gateway.metrics().sum("smg_wasm_instances", &[]) == 0.0);
}

#[test]
fn in_mode_single_there_is_one_for_all() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--shards=2").start();
    gateway.add(&Module::sentinel().at(&["OnRequest"]).set("instance", json!({ "mode": "single" })));
    let seen = counts(&gateway, 8, 20);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), (1..=160).collect(), "each number once");
    assert_eq!(gateway.provoke("trap").status, 500);
    assert_eq!(count(&gateway), 1);
}

/// Gives back the deployment's `config` as its reply.
fn configured() -> Sentinel {
    let keep = "(param $at i32) (param $length i32) (result i32)
        (memory.copy (i32.const 1024) (local.get $at) (local.get $length))
        (global.set $length (local.get $length))
        (i32.eq (local.get $length) (i32.const 2))";
    let give = "(param i32 i32) (result i64)
        (i64.or (i64.const 4398046511104) (i64.extend_i32_u (global.get $length)))";
    Sentinel::default()
        .items("(global $length (mut i32) (i32.const 0))")
        .function("on_configure", keep)
        .function("on_request_headers", give)
}

#[test]
fn each_is_given_the_configuration_and_a_refusal_refuses_the_deployment() {
    let (worker, files) = (Worker::echo(), Files::new());
    let gateway = Gateway::with_modules(&worker).start();
    let module = Module::new("m", &files.sentinel("m", &configured()));
    for config in [
        json!({ "decision": "block", "status": 418, "deep": [{}, null, 1.5, "caf\u{e9}"] }),
        json!({ "decision": "deny", "status": 410 }),
    ] {
        for mode in ["pooled", "request", "single"] {
            let module = module.clone().set("config", config.clone()).set("instance", json!({ "mode": mode }));
            let uuid = gateway.add(&module);
            assert_eq!(gateway.meta(&uuid)["settings"]["config"], config);
            for _ in 0..3 {
                assert_eq!(Value::from(gateway.get("/").status), config["status"], "{mode}");
            }
            gateway.remove(&uuid);
        }
    }
    for module in [module.clone(), module.set("config", json!({}))] {
        let error = gateway.refusal(&module);
        assert!(error.contains("configuration") && error.contains("refused with 1"), "{error}");
    }
    assert_eq!(gateway.modules()["modules"], json!([]));
}

#[test]
fn a_configuration_that_cannot_be_taken_refuses_the_deployment() {
    let (worker, files) = (Worker::echo(), Files::new());
    let gateway = Gateway::with_modules(&worker).start();
    let taking =
        |code: &str| Sentinel::default().function("on_configure", &format!("(param i32 i32) (result i32) {code}"));
    for (what, module, wanted) in [
        ("it traps", taking("unreachable"), "instantiate"),
        ("it never ends", taking(FOR_EVER), "timeout"),
        ("it says -1", taking("(i32.const -1)"), "refused with -1"),
        (
            "there is no room",
            taking("(i32.const 0)").function("alloc", "(param i32) (result i32) (i32.const 0)"),
            "alloc",
        ),
        (
            "alloc is elsewhere",
            taking("(i32.const 0)").function("alloc", "(param i32) (result i32) (i32.const -8)"),
            "memory",
        ),
    ] {
        let error = gateway.refusal(&Module::new("m", &files.sentinel("m", &module)));
        assert!(error.contains(wanted), "{what}: {error}");
    }
}

#[test]
fn each_is_initialised_once_before_anything_else() {
    let files = Files::new();
    let check = "(if (i32.ne (global.get $begun) (i32.const 1)) (then unreachable))";
    let module = Sentinel::default()
        .items("(global $begun (mut i32) (i32.const 0))")
        .function("_initialize", "(global.set $begun (i32.add (global.get $begun) (i32.const 1)))")
        .function("on_configure", &format!("(param i32 i32) (result i32) {check} (i32.const 0)"))
        .function("alloc", &format!("(param i32) (result i32) {check} (i32.const 65536)"))
        .function("on_request_headers", &format!("(param i32 i32) (result i64) {check} (i64.const 0)"));
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    for mode in ["pooled", "request", "single"] {
        let module = Module::new("m", &files.sentinel("m", &module)).set("instance", json!({ "mode": mode }));
        let uuid = gateway.add(&module);
        assert_eq!([(); 4].map(|()| gateway.get("/").status), [200; 4], "{mode}");
        gateway.remove(&uuid);
    }
}
