//! Guests that are used again and again, as many as the pool holds. Cases 21 and 22 of section 3.

use crate::support::{Gateway, Module, Worker, count, counts, eventually, obliging, told};
use serde_json::json;
use std::time::Duration;

#[test]
fn a_pooled_guest_keeps_its_state_until_it_has_had_its_uses() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--shards=1").start();
    gateway.add(
        &Module::hostile().at(&["OnRequest"]).set("instance", json!({ "mode": "pooled", "size": 1, "max_uses": 3 })),
    );
    let seen: Vec<u64> = (0..7).map(|_| count(&gateway, &worker)).collect();
    assert_eq!(seen, [1, 2, 3, 1, 2, 3, 1]);
    told(&gateway, &worker, "remember:kept|recall", "x-recall");
    assert_eq!(told(&gateway, &worker, "recall", "x-recall"), "kept");
}

#[test]
fn a_pooled_guest_that_failed_is_not_used_again() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--shards=1").start();
    let limits = json!({ "execution_ms": 300 });
    let module = Module::hostile().at(&["OnRequest"]).set("limits", limits);
    gateway.add(&module.set("instance", json!({ "mode": "pooled", "size": 1 })));
    for end in [
        "trap",
        "exit:0",
        "spin",
        "sleep-ms:60000",
        "recurse",
        "reject:99",
        "set-header:bad name=1",
        "claim:1000000000",
    ] {
        assert_eq!(told(&gateway, &worker, "count|remember:x|recall", "x-recall"), "x");
        assert_eq!(count(&gateway, &worker), 2, "before {end}");
        gateway.provoke(end).assert_error(503, "wasm_module_failed");
        assert_eq!(told(&gateway, &worker, "recall", "x-recall"), "nothing", "after {end}");
    }
    assert_eq!(gateway.provoke("count|reject:403").status, 403);
    assert_eq!(count(&gateway, &worker), 2, "to reject is no failure");
}

#[test]
fn a_pooled_guest_whose_memory_has_grown_starts_anew() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--shards=1").start();
    gateway.add(&Module::hostile().at(&["OnRequest"]).set("instance", json!({ "mode": "pooled", "size": 1 })));
    for _ in 0..40 {
        assert_eq!(gateway.provoke("leak-mb:5").status, 200, "200 MiB in all, of 64");
    }
}

#[test]
fn a_pool_holds_as_many_guests_as_it_is_told() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile().set("instance", json!({ "mode": "pooled", "size": 4 })));
    let mut seen = counts(&gateway, 16, 25);
    seen.sort_unstable();
    let firsts = seen.iter().filter(|count| **count == 1).count();
    // On a busy machine a call of this build may be so slow that it leaves its place to another guest.
    assert!((1..=20).contains(&firsts), "{firsts} guests began to count");
    eventually(Duration::from_secs(2), || {
        let metrics = gateway.metrics();
        let idle = metrics.sum("smg_wasm_instances", &[("state", "idle")]);
        (firsts.min(4) as f64..=4.0).contains(&idle) && metrics.sum("smg_wasm_instances", &[("state", "busy")]) == 0.0
    });
}

#[test]
fn a_call_waits_for_a_guest_of_the_pool_and_not_for_ever() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--shards=1").start();
    let module = Module::hostile().at(&["OnRequest"]).set("limits", json!({ "execution_ms": 800 }));
    let uuid = gateway.add(&module.set("instance", json!({ "mode": "pooled", "size": 1 })));
    // Four may be slow beside the one that has the place. The next five get their turn when those are ended.
    let mut spinning: Vec<_> = (0..12).map(|_| gateway.connect()).collect();
    for client in &mut spinning {
        client.send_request("GET", "/", &[("X-Hostile", "spin")], b"");
    }
    for client in &mut spinning {
        client.read_response().assert_error(503, "wasm_module_failed");
    }
    assert!(gateway.failures(&uuid, "timeout") >= 5, "{}", gateway.meta(&uuid)["failures"]);
    assert!(gateway.failures(&uuid, "busy") >= 1, "{}", gateway.meta(&uuid)["failures"]);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn slow_guests_leave_their_place_in_the_pool() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--shards=1").start();
    let module = Module::hostile().at(&["OnRequest"]).set("limits", json!({ "execution_ms": 1000 }));
    gateway.add(&module.set("instance", json!({ "mode": "pooled", "size": 1 })));
    let mut slow: Vec<_> = (0..4).map(|_| gateway.connect()).collect();
    for client in &mut slow {
        client.send_request("GET", "/", &[("X-Hostile", "sleep-ms:900")], b"");
    }
    eventually(Duration::from_secs(2), || gateway.metrics().sum("smg_wasm_instances", &[("state", "busy")]) == 4.0);
    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 200);
    }
    let waiting = gateway.metrics().sum("smg_wasm_instances", &[("state", "busy")]);
    assert_eq!(waiting, 4.0, "nobody waited for one of them");
    slow.iter_mut().for_each(|client| assert_eq!(client.read_response().status, 200));
    eventually(Duration::from_secs(2), || {
        let metrics = gateway.metrics();
        let guests = |state| metrics.sum("smg_wasm_instances", &[("state", state)]);
        guests("busy") == 0.0 && guests("idle") == 1.0
    });
}

#[test]
fn a_client_that_leaves_gives_its_pooled_guests_place_back() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--shards=1").start();
    let module = Module::hostile().set("limits", json!({ "execution_ms": 1000 }));
    gateway.add(&module.set("instance", json!({ "mode": "pooled", "size": 2 })));
    for _ in 0..20 {
        let mut leaving = gateway.connect();
        leaving.send_request("GET", "/", &[("X-Hostile", "sleep-ms:900")], b"");
        drop(leaving);
    }
    eventually(Duration::from_secs(5), || gateway.metrics().sum("smg_wasm_instances", &[("state", "busy")]) == 0.0);
    assert_eq!(gateway.get("/").status, 200);
}
