//! What is counted of modules: `/metrics` and `GET /wasm` agree, nothing is lost, and strangers invent no series.

use crate::support::{Component, Files, Gateway, Metrics, Module, Worker, eventually, obliging};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

/// Asserts that the totals of `GET /wasm` are the sums of `/metrics`; the number of executions.
#[track_caller]
fn assert_agreed(gateway: &Gateway) -> u64 {
    let (listed, metrics) = (gateway.modules()["metrics"].take(), gateway.metrics());
    let executions = metrics.of("smg_wasm_executions_total");
    let (good, bad): (Vec<_>, Vec<_>) =
        executions.partition(|series| ["continue", "modify", "reject"].contains(&series.label("outcome")));
    let sum = |series: &[&crate::support::Series]| series.iter().map(|series| series.value).sum::<f64>();
    assert_eq!(listed["successful_executions"].as_f64(), Some(sum(&good)), "{listed}");
    assert_eq!(listed["failed_executions"].as_f64(), Some(sum(&bad)), "{listed}");
    assert_eq!(listed["total_executions"].as_f64(), Some(sum(&good) + sum(&bad)), "{listed}");
    assert_eq!(metrics.sum("smg_wasm_execution_seconds_count", &[]), sum(&good) + sum(&bad));
    let seconds = metrics.sum("smg_wasm_execution_seconds_sum", &[]);
    let listed_ms = listed["total_execution_time_ms"].as_f64().expect("a number");
    assert!((seconds * 1e3 - listed_ms).abs() <= 1.0, "{seconds} s, {listed_ms} ms");
    listed["total_executions"].as_u64().expect("a number")
}

fn count(metrics: &Metrics, hook: &str, outcome: &str) -> f64 {
    metrics.sum("smg_wasm_executions_total", &[("module", "hostile"), ("hook", hook), ("outcome", outcome)])
}

#[test]
fn every_outcome_is_counted_under_its_hook() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile().set("limits", json!({ "execution_ms": 200, "body_bytes": 2000 })));
    let behaviours = ["trap", "exit:0", "recurse", "spin", "set-header:bad name=1"];
    for behaviour in ["", "set-header:x-a=1", "reject:403"].iter().chain(&behaviours).filter(|it| !it.is_empty()) {
        gateway.provoke(behaviour);
        gateway.provoke_response(behaviour);
    }
    gateway.request("GET", "/", &[("X-Long", &"x".repeat(3000))], b"");
    let metrics = gateway.metrics();
    for hook in ["on-request", "on-response"] {
        for kind in ["trap", "exit", "stack", "timeout", "output"] {
            assert_eq!(count(&metrics, hook, kind), 1.0, "{hook} {kind}");
        }
    }
    assert_eq!(count(&metrics, "on-request", "reject"), 1.0);
    assert_eq!(count(&metrics, "on-request", "modify"), 1.0);
    assert_eq!(
        count(&metrics, "on-request", "continue"),
        8.0,
        "the seven whose answer was to be provoked, and the long one"
    );
    assert_eq!(count(&metrics, "on-response", "modify"), 2.0, "to reject a response is to edit its status");
    assert_eq!(count(&metrics, "on-response", "body_too_large"), 1.0);
    assert_eq!(assert_agreed(&gateway), 7 + 8 + 9);
}

#[test]
fn totals_agree_and_never_go_down_when_modules_come_and_go() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--shards=2").start();
    let files = Files::new();
    let mut last = 0;
    for n in 0..10 {
        let name = format!("m{}", n % 3);
        let uuid = gateway.add(&Module::new(&name, &files.component(&name, &Component::marking(&name))));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..5).for_each(|_| assert_eq!(gateway.get("/").status, 200)));
            }
        });
        let total = assert_agreed(&gateway);
        assert_eq!(total, last + 40);
        gateway.remove(&uuid);
        assert_eq!(assert_agreed(&gateway), total, "as soon as it is removed");
        eventually(Duration::from_secs(3), || {
            gateway.metrics().of("smg_wasm_executions_total").all(|s| !s.label("module").starts_with('m'))
        });
        assert_eq!(assert_agreed(&gateway), total, "and when it is gone");
        last = total;
    }
}

#[test]
fn the_time_of_a_call_falls_into_its_bucket() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile().at(&["OnRequest"]));
    gateway.provoke("spin-ms:60");
    let metrics = gateway.metrics();
    let bucket = |le| metrics.sum("smg_wasm_execution_seconds_bucket", &[("module", "hostile"), ("le", le)]);
    assert_eq!((bucket("0.05"), bucket("1"), bucket("+Inf")), (0.0, 1.0, 1.0));
    assert!(
        metrics.of("smg_wasm_execution_seconds_bucket").any(|series| series.label("le") == "0.000001"),
        "from a microsecond"
    );
    let seconds = metrics.sum("smg_wasm_execution_seconds_sum", &[("hook", "on-request")]);
    assert!((0.06..1.0).contains(&seconds), "{seconds}");
}

#[test]
fn labels_are_bounded_whatever_clients_and_guests_send() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    for n in 0..50 {
        let method = format!("M{n}");
        gateway.request(&method, &format!("/path{n}"), &[("X-Hostile", "set-header:x-a=1")], b"");
        gateway.provoke(&format!("reject:{}", 400 + n));
        gateway.provoke(&format!("exit:{n}"));
    }
    let answer = gateway.get("/metrics").text();
    let wasm: BTreeSet<&str> =
        answer.lines().filter(|line| line.starts_with("smg_wasm") && !line.contains("bucket")).collect();
    assert!(wasm.len() < 20, "{wasm:?}");
    let metrics = gateway.metrics();
    let methods: BTreeSet<&str> = metrics.of("smg_http_requests_total").map(|series| series.label("method")).collect();
    let paths: BTreeSet<&str> = metrics.of("smg_http_requests_total").map(|series| series.label("path")).collect();
    assert!(methods.len() < 12 && paths.len() < 30, "{methods:?} {paths:?}");
}

#[test]
fn removed_modules_share_one_label() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let file = files.component("m", &Component::marking("m"));
    for n in 0..30 {
        let uuid = gateway.add(&Module::new(&format!("name{n}"), &file));
        gateway.get("/");
        gateway.remove(&uuid);
    }
    eventually(Duration::from_secs(3), || {
        let metrics = gateway.metrics();
        let names: BTreeSet<&str> =
            metrics.of("smg_wasm_executions_total").map(|series| series.label("module")).collect();
        names.len() == 1 && metrics.of("smg_wasm_instances").count() == 0
    });
    assert_eq!(assert_agreed(&gateway), 60);
}

#[test]
fn no_name_of_a_module_makes_a_series_appear_twice() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let file = files.component("m", &Component::marking("m"));
    for name in ["(removed)", "m", "(removed)"] {
        let uuid = gateway.add(&Module::new(name, &file));
        gateway.get("/");
        let text = gateway.get("/metrics").text();
        let series: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(series, _)| series)
            .collect();
        let distinct: BTreeSet<&str> = series.iter().copied().collect();
        let twice = distinct.iter().find(|name| series.iter().filter(|other| other == name).count() > 1);
        assert_eq!(twice, None, "Prometheus refuses a scrape that has a series twice");
        gateway.remove(&uuid);
        assert_agreed(&gateway);
    }
}

#[test]
fn deployments_are_counted_by_their_outcome() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let deploys = |outcome| gateway.metrics().sum("smg_wasm_deploys_total", &[("outcome", outcome)]);
    assert_eq!((deploys("success"), deploys("refused")), (0.0, 0.0));
    let uuid = gateway.add(&Module::hostile());
    gateway.refusal(&Module::hostile());
    gateway.refusal(&Module::new("m", &files.write("m.wasm", b"nonsense")));
    gateway.refusal(
        &Module::new("m", &files.component("m", &Component::default())).set("limits", json!({ "memory_pages": 0 })),
    );
    assert_eq!((deploys("success"), deploys("refused")), (1.0, 3.0));
    assert_eq!(gateway.metrics().sum("smg_wasm_modules", &[]), 1.0);
    gateway.remove(&uuid);
    assert_eq!(gateway.metrics().sum("smg_wasm_modules", &[]), 0.0);
}

#[test]
fn guests_are_gauged_while_they_live() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[("X-Hostile", "leak-mb:10|sleep-ms:300")], b"");
    eventually(Duration::from_secs(3), || {
        let metrics = gateway.metrics();
        metrics.sum("smg_wasm_instances", &[("module", "hostile"), ("state", "busy")]) == 1.0
            && metrics.sum("smg_wasm_memory_bytes", &[("module", "hostile")]) > 10e6
    });
    assert_eq!(client.read_response().status, 200);
    eventually(Duration::from_secs(3), || {
        let metrics = gateway.metrics();
        metrics.sum("smg_wasm_instances", &[]) == 0.0 && metrics.sum("smg_wasm_memory_bytes", &[]) == 0.0
    });
}

#[test]
fn a_strange_name_is_escaped() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let name = "a \"quoted\\ name";
    gateway.add(&Module::new(name, &crate::support::guest("minimal")));
    gateway.get("/");
    let text = gateway.get("/metrics").text();
    assert!(text.contains(r#"module="a \"quoted\\ name""#), "{text}");
}
