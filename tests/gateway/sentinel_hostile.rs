//! Sentinel modules that take all they can get, and the callers beside them; and modules that come and go under load.

use crate::support::{Files, Gateway, Module, Sentinel, Timings, Worker, eventually};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn busy(gateway: &Gateway) -> f64 {
    gateway.metrics().sum("smg_wasm_instances", &[("state", "busy")])
}

/// Keeps `count` connections asking for `behaviour` while `work` is done; what each is answered must be one of these.
fn beside(gateway: &Gateway, count: usize, behaviour: &str, statuses: &[u16], work: impl FnOnce()) -> usize {
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                let mut client = gateway.connect();
                while !done.load(Ordering::SeqCst) {
                    client.send_request("GET", "/beside", &[("X-Hostile", behaviour)], b"");
                    let answer = client.read_response();
                    assert!(statuses.contains(&answer.status), "{} {}", answer.status, answer.text());
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::SeqCst);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    answered.load(Ordering::SeqCst)
}

/// How long each of so many other requests to the same module took, on one connection.
#[track_caller]
fn timed(gateway: &Gateway, count: usize) -> Timings {
    let mut client = gateway.connect();
    Timings::of(count, || {
        client.send_request("GET", "/other", &[("X-Hostile", "count")], b"");
        let answer = client.read_response();
        assert_eq!((answer.status, answer.headers.has("x-count")), (200, true), "{}", answer.text());
    })
}

#[test]
fn ten_endless_loops_leave_other_callers_of_the_same_module_quick() {
    let worker = Worker::echo();
    for shards in [1, 2] {
        let gateway = Gateway::with_modules(&worker).arg(format!("--shards={shards}")).start();
        gateway.add(&Module::sentinel());
        beside(&gateway, 10, "loop", &[500], || {
            eventually(Duration::from_secs(5), || busy(&gateway) >= 10.0);
            let timings = timed(&gateway, 50);
            println!("gateway of {shards} shards, beside ten loops: {timings}");
            assert!(timings.usual() < Duration::from_millis(250), "{shards} shards: {timings}");
        });
        let timings = timed(&gateway, 50);
        println!("gateway of {shards} shards, after them: {timings}");
    }
}

#[test]
fn loops_end_at_their_limit_and_leave_nothing_behind() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::sentinel().set("limits", json!({ "execution_ms": 300 })));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| assert_eq!(gateway.provoke("loop").status, 500));
        }
    });
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!((gateway.failures(&uuid, "timeout"), busy(&gateway)), (10, 0.0));
    assert_eq!(timed(&gateway, 3).usual().as_secs(), 0);
}

#[test]
fn a_client_that_leaves_takes_its_loop_with_it() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--wasm-max-execution-time-ms=60000").start();
    gateway.add(&Module::sentinel());
    let mut leaving: Vec<_> = (0..3).map(|_| gateway.connect()).collect();
    leaving.iter_mut().for_each(|client| client.send_request("GET", "/", &[("X-Hostile", "loop")], b""));
    eventually(Duration::from_secs(5), || busy(&gateway) == 3.0);
    drop(leaving);
    eventually(Duration::from_secs(5), || busy(&gateway) == 0.0);
    assert_eq!(gateway.provoke("count").status, 200);
}

#[test]
fn leaks_of_64_mebibytes_end_with_their_guest() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::sentinel().at(&["OnRequest"]));
    let leak = || {
        assert_eq!(gateway.provoke("leak").status, 500);
        assert_eq!(gateway.provoke("leak-50").status, 200);
    };
    (0..5).for_each(|_| leak());
    let before = gateway.memory();
    (0..20).for_each(|_| leak());
    eventually(Duration::from_secs(5), || gateway.memory() < before + (64 << 20));
    assert_eq!(gateway.failures(&uuid, "trap"), 25);
    assert!(gateway.metrics().sum("smg_wasm_memory_bytes", &[]) <= f64::from(4 << 26));
    beside(&gateway, 4, "leak", &[500], || {
        let timings = timed(&gateway, 30);
        assert!(timings.usual() < Duration::from_secs(1), "{timings}");
    });
}

#[test]
fn it_can_be_exchanged_under_load_without_a_failed_request() {
    let (worker, files) = (Worker::echo(), Files::new());
    let gateway = Gateway::with_modules(&worker).arg("--log-level=warn").start();
    let marked = |mark: &str| {
        let edit = json!({ "decision": "allow", "add_response_headers": { "X-Mark": mark } });
        Module::new("m", &files.sentinel(mark, &Sentinel::replying(&edit, &edit)))
    };
    let versions = ["v1", "v2"].map(marked);
    let mut current = gateway.add(&versions[0]);
    let answered = beside(&gateway, 4, "-", &[200], || {
        for n in 1..=60 {
            gateway.remove(&current);
            assert!(!gateway.get("/").headers.has("x-mark"));
            current = gateway.add(&versions[n % 2]);
            assert_eq!(gateway.get("/").headers.get("x-mark"), Some(["v1", "v2"][n % 2]));
        }
    });
    assert!(answered > 200, "{answered}");
    assert_eq!(worker.broken(), [""; 0]);
    assert_eq!(gateway.metrics().sum("smg_wasm_executions_total", &[("outcome", "trap")]), 0.0);
}

#[test]
fn a_call_that_has_begun_ends_although_its_module_is_gone() {
    let (worker, files) = (Worker::echo(), Files::new());
    let gateway = Gateway::with_modules(&worker).start();
    for mode in ["pooled", "request", "single"] {
        let slow = Module::new("m", &files.sentinel("m", &Sentinel::slow(200))).at(&["OnRequest"]);
        let uuid = gateway.add(&slow.set("instance", json!({ "mode": mode })));
        let mut client = gateway.connect();
        client.send_request("GET", "/", &[], b"");
        eventually(Duration::from_secs(5), || busy(&gateway) == 1.0);
        gateway.remove(&uuid);
        assert_eq!(client.read_response().status, 200, "{mode}");
        eventually(Duration::from_secs(5), || gateway.metrics().sum("smg_wasm_instances", &[]) == 0.0);
    }
}
