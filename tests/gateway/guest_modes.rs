//! How long a guest lives and who shares it. Cases 21 and 22 of section 3.

use crate::support::{Component, Files, Gate, Gateway, Module, Worker, count, counts, eventually, obliging, told};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

#[test]
fn by_default_nothing_leaks_from_one_request_to_the_next() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).arg("--shards=1").start();
    gateway.add(&Module::hostile());
    for _ in 0..5 {
        assert_eq!(told(&gateway, &worker, "recall|remember:secret", "x-recall"), "nothing");
        assert_eq!(count(&gateway, &worker), 1);
    }
    let mut client = gateway.connect();
    for _ in 0..5 {
        client.send_request("GET", "/", &[("X-Hostile", "recall|remember:secret")], b"");
        assert_eq!(client.read_response().status, 200);
        assert_eq!(worker.wait_for_request().headers.get("x-recall"), Some("nothing"), "on one connection neither");
    }
    assert!(counts(&gateway, 8, 10).iter().all(|count| *count == 1));
}

#[test]
fn by_default_one_guest_has_both_hooks_of_a_request() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    let clients = ["a", "b", "c", "d"];
    std::thread::scope(|scope| {
        for name in clients {
            let gateway = &gateway;
            scope.spawn(move || {
                for n in 0..10 {
                    let remember = format!("remember:{name}{n}");
                    let headers = [("X-Hostile", &*remember), ("X-Answer", "X-Hostile-Response: recall|count")];
                    let answer = gateway.request("GET", "/", &headers, b"");
                    assert_eq!(answer.headers.get("x-recall"), Some(&*format!("{name}{n}")));
                    assert_eq!(answer.headers.get("x-count"), Some("1"));
                }
            });
        }
    });
}

#[test]
fn after_a_failure_on_the_request_the_response_gets_a_new_guest() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile().set("on_failure", json!("open")));
    for end in ["trap", "set-header:bad name=1", "exit:0"] {
        let behaviour = format!("remember:poison|{end}");
        let headers = [("X-Hostile", &*behaviour), ("X-Answer", "X-Hostile-Response: recall")];
        assert_eq!(gateway.request("GET", "/", &headers, b"").headers.get("x-recall"), Some("nothing"), "{end}");
    }
}

#[test]
fn eighty_requests_in_flight_with_fifty_modules_each_are_all_answered() {
    let gate = Gate::new();
    let wait = gate.clone();
    let worker = Worker::new(move |_, conn| {
        wait.wait_within(Duration::from_secs(30));
        conn.answer(200, "");
    });
    let gateway = Gateway::with_modules(&worker).arg("--log-level=warn").start();
    let files = Files::new();
    let file = files.component("m", &Component::default());
    for n in 0..50 {
        gateway.add(&Module::new(&format!("m{n}"), &file).set("allow_duplicate", json!(true)));
    }
    // A model takes long to answer, and each request keeps its guests for it.
    let mut clients: Vec<_> = (0..80).map(|_| gateway.connect()).collect();
    clients.iter_mut().for_each(|client| client.send_request("GET", "/", &[], b""));
    eventually(Duration::from_secs(20), || {
        worker.requests().len() + gateway.modules()["metrics"]["failed_executions"].as_u64().unwrap_or(0) as usize >= 80
    });
    gate.open();
    let statuses: Vec<u16> = clients.iter_mut().map(|client| client.read_response().status).collect();
    assert_eq!(statuses, [200; 80], "{}", gateway.log());
}

#[test]
fn guests_of_finished_requests_are_gone() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    counts(&gateway, 8, 10);
    gateway.provoke("trap");
    eventually(Duration::from_secs(2), || {
        let metrics = gateway.metrics();
        metrics.sum("smg_wasm_instances", &[]) == 0.0 && metrics.sum("smg_wasm_memory_bytes", &[]) == 0.0
    });
}

#[test]
fn the_single_guest_counts_exactly_over_all_connections_and_shards() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).arg("--shards=2").start();
    gateway.add(&Module::hostile().at(&["OnResponse"]).set("instance", json!({ "mode": "single" })));
    let seen = counts(&gateway, 16, 25);
    assert_eq!(seen.iter().copied().collect::<BTreeSet<_>>(), (1..=400).collect(), "each number once");
    assert_eq!(gateway.metrics().sum("smg_wasm_instances", &[]), 1.0);
}

#[test]
fn the_single_guest_serves_both_hooks() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile().set("instance", json!({ "mode": "single" })));
    let headers = [("X-Hostile", "count"), ("X-Answer", "X-Hostile-Response: count")];
    for n in [2, 4, 6] {
        assert_eq!(gateway.request("GET", "/", &headers, b"").headers.get("x-count"), Some(&*n.to_string()));
    }
}

#[test]
fn a_client_that_leaves_does_not_lose_what_the_single_guest_knows() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile().at(&["OnRequest"]).set("instance", json!({ "mode": "single" })));
    assert_eq!(count(&gateway, &worker), 1);
    for left in 1..=5 {
        let mut leaving = gateway.connect();
        // What it prints says that its call has begun.
        leaving.send_request("GET", "/", &[("X-Hostile", "count|stdout:53|sleep-ms:50")], b"");
        eventually(Duration::from_secs(5), || gateway.log().matches("forged").count() == 2 * left);
        drop(leaving);
    }
    assert_eq!(count(&gateway, &worker), 7);
}

#[test]
fn the_single_guest_starts_anew_only_after_a_failure_or_a_new_deployment() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let module = Module::hostile().at(&["OnRequest"]).set("instance", json!({ "mode": "single" }));
    let uuid = gateway.add(&module);
    assert_eq!([(); 3].map(|()| count(&gateway, &worker)), [1, 2, 3]);
    gateway.add(&Module::new("other", &crate::support::guest("minimal")));
    assert_eq!(count(&gateway, &worker), 4, "another deployment does not touch it");
    gateway.provoke("trap").assert_error(503, "wasm_module_failed");
    assert_eq!(count(&gateway, &worker), 1);
    gateway.remove(&uuid);
    gateway.add(&module);
    assert_eq!(count(&gateway, &worker), 1);
}

#[test]
fn calls_queue_for_the_single_guest_and_not_for_ever() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let module = Module::hostile().at(&["OnRequest"]).set("instance", json!({ "mode": "single" }));
    let uuid = gateway.add(&module.set("limits", json!({ "execution_ms": 400 })));
    let mut sleeping: Vec<_> = (0..4).map(|_| gateway.connect()).collect();
    for client in &mut sleeping {
        client.send_request("GET", "/", &[("X-Hostile", "sleep-ms:250")], b"");
    }
    let statuses: Vec<u16> = sleeping.iter_mut().map(|client| client.read_response().status).collect();
    let good = statuses.iter().filter(|status| **status == 200).count();
    assert!((1..4).contains(&good), "{statuses:?}");
    assert_eq!(gateway.failures(&uuid, "busy"), 4 - good as u64, "{statuses:?}");
    assert_eq!(gateway.get("/").status, 200);
}
