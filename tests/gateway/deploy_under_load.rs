//! Modules come and go while requests are served. Cases 3 and 36 to 39 of section 3.

use crate::support::{Component, Files, Gate, Gateway, Module, Worker, eventually, guest};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Keeps `connections` clients asking while `work` is done; how many requests were answered. Each must be a 200 whose
/// marks of the response are those of its request, in reverse.
fn under_load(gateway: &Gateway, connections: usize, work: impl FnOnce()) -> usize {
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut client = gateway.connect();
                while !done.load(Ordering::SeqCst) {
                    let answer = client.get("/");
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    let mut seen = marks_seen(&answer.json());
                    seen.reverse();
                    assert_eq!(answer.headers.all("x-response-mark"), seen, "half a change");
                    answered.fetch_add(1, Ordering::SeqCst);
                    // Leaves the compiler a share of the processor.
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::SeqCst);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    answered.load(Ordering::SeqCst)
}

/// The marks of a request that the worker echoes.
fn marks_seen(echo: &serde_json::Value) -> Vec<String> {
    let headers = echo["headers"].as_array().expect("a list of pairs");
    let marks = headers.iter().filter(|pair| pair[0] == "x-request-mark");
    marks.map(|pair| pair[1].as_str().expect("a value").to_owned()).collect()
}

fn version(files: &Files, mark: &str) -> Module {
    Module::new(mark, &files.component(mark, &Component::marking(mark)))
}

#[test]
fn two_hundred_deployments_and_removals_lose_no_request_and_show_no_half_change() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--log-level=warn").start();
    let files = Files::new();
    let versions = ["v1", "v2"].map(|mark| version(&files, mark));
    let mut current = gateway.add(&versions[0]);
    let answered = under_load(&gateway, 4, || {
        for n in 1..=200 {
            let next = gateway.add(&versions[n % 2]);
            gateway.remove(&current);
            current = next;
        }
    });
    assert!(answered > 400, "{answered} requests were served meanwhile");
    assert_eq!(worker.broken(), [""; 0]);
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("smg_wasm_deploys_total", &[("outcome", "success")]), 201.0);
    assert_eq!(metrics.sum("smg_wasm_modules", &[]), 1.0);
    let counted = metrics.sum("smg_http_requests_total", &[("method", "GET"), ("path", "other")]);
    assert_eq!(counted, answered as f64, "each request was counted and answered");
}

#[test]
fn a_deployment_is_in_force_for_every_request_after_its_answer() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let module = version(&files, "m");
    // Connections of each shard that were there before.
    let mut clients: Vec<_> = (0..6).map(|_| gateway.connect()).collect();
    for _ in 0..20 {
        let uuid = gateway.add(&module);
        assert!(clients.iter_mut().all(|client| client.get("/").headers.has("x-response-mark")));
        gateway.remove(&uuid);
        assert!(clients.iter_mut().all(|client| !client.get("/").headers.has("x-response-mark")));
    }
}

#[test]
fn a_request_in_flight_finishes_on_the_modules_it_started_with() {
    let gate = Gate::new();
    let wait = gate.clone();
    let worker = Worker::new(move |_, conn| {
        wait.wait();
        conn.answer(200, "");
    });
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let old = gateway.add(&version(&files, "old"));
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[], b"");
    assert_eq!(worker.wait_for_request().headers.all("x-request-mark"), ["old"]);
    gateway.remove(&old);
    gateway.add(&version(&files, "new"));
    gate.open();
    assert_eq!(client.read_response().headers.all("x-response-mark"), ["old"]);
    assert_eq!(gateway.get("/").headers.all("x-response-mark"), ["new"]);
}

#[test]
fn a_guest_that_runs_while_its_module_is_removed_finishes() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    for mode in ["request", "pooled", "single"] {
        let uuid = gateway.add(&Module::hostile().set("instance", json!({ "mode": mode })));
        let mut client = gateway.connect();
        client.send_request("GET", "/", &[("X-Hostile", "sleep-ms:200|set-header:x-done=1")], b"");
        eventually(Duration::from_secs(5), || gateway.metrics().sum("smg_wasm_instances", &[]) > 0.0);
        gateway.remove(&uuid);
        assert_eq!(client.read_response().status, 200, "{mode}");
        assert_eq!(worker.wait_for_request().headers.get("x-done"), Some("1"), "{mode}");
        eventually(Duration::from_secs(5), || gateway.metrics().sum("smg_wasm_instances", &[]) == 0.0);
    }
}

#[test]
fn a_stream_outlives_its_module() {
    let gate = Gate::new();
    let worker = Worker::streaming(&gate);
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let uuid = gateway.add(&version(&files, "m"));
    let mut client = gateway.connect();
    client.begin_stream(&[]);
    gateway.remove(&uuid);
    gate.open();
    client.end_stream();
}

#[test]
fn twenty_deployments_of_one_name_at_once_have_one_winner() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let modules: Vec<_> = (0..20)
        .map(|n| {
            let mark = n.to_string();
            Module::new("m", &files.component(&mark, &Component::marking(&mark))).json().clone()
        })
        .collect();
    let results: Vec<serde_json::Value> = std::thread::scope(|scope| {
        let deploying: Vec<_> =
            modules.iter().map(|module| scope.spawn(|| gateway.try_deploy(module).json())).collect();
        deploying.into_iter().map(|one| one.join().expect("an answer")["modules"][0]["add_result"].take()).collect()
    });
    let winners: Vec<_> = results.iter().filter_map(|result| result["Success"].as_str()).collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    let losers = results.iter().filter_map(|result| result["Error"].as_str());
    assert!(losers.clone().count() == 19 && losers.clone().all(|error| error.contains(winners[0])), "{results:?}");
    let list = gateway.modules();
    assert_eq!(list["modules"].as_array().map(Vec::len), Some(1));
    assert_eq!(list["modules"][0]["module_uuid"], winners[0]);
    assert_eq!(gateway.get("/").headers.all("x-response-mark").len(), 1);
}

#[test]
fn twenty_deployments_of_as_many_names_at_once_all_win() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let modules: Vec<_> = (0..20).map(|n| version(&files, &n.to_string())).collect();
    let uuids: BTreeSet<String> = std::thread::scope(|scope| {
        let deploying: Vec<_> = modules.iter().map(|module| scope.spawn(|| gateway.add(module))).collect();
        deploying.into_iter().map(|one| one.join().expect("a uuid")).collect()
    });
    assert_eq!(uuids.len(), 20);
    assert_eq!(gateway.get("/").headers.all("x-response-mark").len(), 20);
}

#[test]
fn memory_comes_back_after_a_hundred_deployments_and_removals() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--log-level=warn").start();
    let round = |module: &Module| {
        let uuid = gateway.add(module);
        assert_eq!(gateway.get("/").status, 200);
        gateway.remove(&uuid);
    };
    // Little code, which compiles quickly, and a megabyte of data, which would be missed.
    let files = Files::new();
    let data = format!("(data (i32.const 40000) \"{}\")", "x".repeat(1_000_000));
    let file = files.component("m", &Component::marking("m").items(&data));
    let modes =
        ["request", "pooled", "single"].map(|mode| Module::new("m", &file).set("instance", json!({ "mode": mode })));
    (0..30).for_each(|n| round(&modes[n % 3]));
    eventually(Duration::from_secs(3), || gateway.metrics().sum("smg_wasm_instances", &[]) == 0.0);
    let before = gateway.memory();
    (0..100).for_each(|n| round(&modes[n % 3]));
    eventually(Duration::from_secs(3), || gateway.memory() < before + before / 10 + (4 << 20));
    assert_eq!(gateway.metrics().sum("smg_wasm_memory_bytes", &[]), 0.0);
}

#[test]
fn idle_shards_let_removed_modules_go() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--shards=4").start();
    let uuid =
        gateway.add(&Module::new("m", &guest("minimal")).set("instance", json!({ "mode": "pooled", "size": 8 })));
    let mut clients: Vec<_> = (0..8).map(|_| gateway.connect()).collect();
    assert!(clients.iter_mut().all(|client| client.get("/").status == 200));
    assert!(gateway.metrics().sum("smg_wasm_instances", &[]) >= 2.0, "on more than one shard");
    gateway.remove(&uuid);
    // Only the shard of this connection is asked anything.
    let mut one = gateway.connect();
    eventually(Duration::from_secs(3), || {
        one.send_request("GET", "/metrics", &[], b"");
        crate::support::Metrics::parse(&one.read_response().text()).sum("smg_wasm_instances", &[]) == 0.0
    });
}

#[test]
fn a_draining_gateway_lets_its_guests_finish() {
    let worker = Worker::echo();
    for mode in ["request", "pooled", "single"] {
        let mut gateway = Gateway::with_modules(&worker).start();
        gateway.add(&Module::hostile().set("instance", json!({ "mode": mode })));
        let mut client = gateway.connect();
        client.send_request("GET", "/", &[("X-Hostile", "sleep-ms:300|set-header:x-done=1")], b"");
        eventually(Duration::from_secs(5), || gateway.metrics().sum("smg_wasm_instances", &[]) > 0.0);
        gateway.terminate();
        assert_eq!(client.read_response().status, 200, "{mode}");
        drop(client);
        assert_eq!(gateway.wait_exit(Duration::from_secs(5)).code(), Some(0), "{mode}");
        assert_eq!(worker.wait_for_request().headers.get("x-done"), Some("1"), "{mode}");
    }
}
