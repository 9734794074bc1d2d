//! Guests that spin, and the requests beside them. Case 1 of section 3; the precise percentile is a bench.

use crate::support::{BUSY, Component, Files, Gateway, Module, Timings, Worker};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Keeps `count` guests spinning on connections of their own while `work` is done.
fn while_spinning(gateway: &Gateway, count: usize, behaviour: &str, work: impl FnOnce()) {
    let (done, begun) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                let mut client = gateway.connect();
                while !done.load(Ordering::SeqCst) {
                    client.send_request("GET", "/spin", &[("X-Hostile", behaviour)], b"");
                    begun.fetch_add(1, Ordering::SeqCst);
                    client.read_response().assert_error(503, "wasm_module_failed");
                }
            });
        }
        crate::support::eventually(Duration::from_secs(5), || begun.load(Ordering::SeqCst) >= count);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::SeqCst);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Sends `count` requests on one kept connection; how long each took.
#[track_caller]
fn timed(gateway: &Gateway, count: usize) -> Timings {
    let mut client = gateway.connect();
    Timings::of(count, || assert_eq!(client.get("/other").status, 200))
}

#[test]
fn fifty_requests_are_answered_while_eight_guests_spin() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--shards=2").start();
    gateway.add(&Module::hostile());
    while_spinning(&gateway, 8, "spin", || {
        let took = timed(&gateway, 50);
        assert!(took.usual() < Duration::from_millis(250), "{took}");
    });
}

#[test]
fn one_shard_serves_others_too_while_its_guests_spin_and_sleep() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--shards=1").start();
    gateway.add(&Module::hostile());
    for behaviour in ["spin", "sleep-ms:3600000", "spin-ms:3600000"] {
        while_spinning(&gateway, 8, behaviour, || {
            let took = timed(&gateway, 50);
            assert!(took.usual() < Duration::from_millis(250), "{behaviour}: {took}");
        });
    }
}

#[test]
fn operations_on_whole_memories_do_not_hold_a_shard_for_long() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--shards=1").start();
    let files = Files::new();
    let fills =
        "(loop $again (memory.fill (i32.const 0) (i32.const 7) (i32.const 65000000)) (br $again)) (unreachable)";
    let component = Component::default().memory("(memory (export \"memory\") 1000)").on_request(fills);
    let module = Module::new("m", &files.component("m", &component)).set("match", json!({ "paths": ["/spin"] }));
    gateway.add(&module.at(&["OnRequest"]));
    while_spinning(&gateway, 4, "", || {
        let took = timed(&gateway, 30);
        // One fill of 62 MiB can't be interrupted.
        assert!(took.usual() < Duration::from_secs(1), "{took}");
    });
}

#[test]
fn the_control_plane_answers_while_guests_spin() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    while_spinning(&gateway, 8, "spin", || {
        for n in 0..3 {
            let start = Instant::now();
            let name = format!("m{n}");
            let other = gateway.add(&Module::new(&name, &crate::support::guest("minimal")));
            gateway.modules();
            gateway.metrics();
            gateway.remove(&other);
            assert!(start.elapsed() < BUSY, "{:?}", start.elapsed());
        }
    });
}

#[test]
fn spinners_end_at_their_limit_even_if_there_are_many() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::hostile().set("limits", json!({ "execution_ms": 200 })));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..30 {
            scope.spawn(|| gateway.provoke("spin").assert_error(503, "wasm_module_failed"));
        }
    });
    assert!(start.elapsed() < BUSY, "{:?}", start.elapsed());
    assert_eq!(gateway.failures(&uuid, "timeout"), 30);
}

#[test]
fn a_client_that_leaves_takes_its_spinning_guest_with_it() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--wasm-max-execution-time-ms=60000").start();
    gateway.add(&Module::hostile());
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[("X-Hostile", "spin")], b"");
    let guests = || gateway.metrics().sum("smg_wasm_instances", &[]);
    crate::support::eventually(Duration::from_secs(5), || guests() == 1.0);
    drop(client);
    crate::support::eventually(Duration::from_secs(5), || guests() == 0.0);
}
