//! What becomes of a request when a guest fails. Cases 2, 3, 29, 30 and 31 of section 3.

use crate::support::{Component, Files, Gateway, Module, Worker, eventually, holds_for, obliging};
use serde_json::json;
use std::time::{Duration, Instant};

#[test]
fn a_failed_guest_closes_by_default() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let before = gateway.add(&Module::new("before", &files.component("before", &Component::marking("before"))));
    let uuid = gateway.add(&Module::hostile());
    let after = gateway.add(&Module::new("after", &files.component("after", &Component::marking("after"))));
    let answer = gateway.request("POST", "/", &[("X-Hostile", "trap"), ("X-Request-Id", "r-1")], b"body");
    answer.assert_error(503, "wasm_module_failed");
    assert_eq!(answer.headers.get("x-request-id"), Some("r-1"));
    assert!(!answer.headers.has("x-response-mark"));
    assert!(!answer.text().contains("hostile") && !answer.text().contains("unreachable"), "{}", answer.text());
    assert!(worker.requests().is_empty());
    assert_eq!(gateway.failures(&uuid, "trap"), 1);
    assert_eq!((&gateway.meta(&before)["access_count"], &gateway.meta(&after)["access_count"]), (&json!(1), &json!(0)));
}

#[test]
fn a_failed_guest_goes_on_where_the_deployment_says_so() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let uuid = gateway.add(&Module::hostile().set("on_failure", json!("open")));
    gateway.add(&Module::new("after", &files.component("after", &Component::marking("after"))));
    let answer = gateway.request("POST", "/x", &[("X-Hostile", "set-header:x-lost=1|body:lost|trap")], b"body");
    assert_eq!((answer.status, answer.headers.get("x-response-mark")), (200, Some("after")));
    let seen = worker.wait_for_request();
    assert_eq!(
        (seen.headers.has("x-lost"), seen.headers.get("x-request-mark"), seen.body),
        (false, Some("after"), b"body".to_vec())
    );
    assert_eq!(gateway.failures(&uuid, "trap"), 1);
}

#[test]
fn a_failure_on_a_response_hides_the_workers_answer() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::hostile());
    let headers =
        [("X-Answer", "X-Hostile-Response: trap"), ("X-Answer", "X-Secret: 1"), ("X-Answer", "Set-Cookie: a=1")];
    let answer = gateway.request("GET", "/secret", &headers, b"");
    answer.assert_error(503, "wasm_module_failed");
    assert!(!answer.headers.has("x-secret") && !answer.headers.has("set-cookie") && !answer.text().contains("secret"));
    let metrics = gateway.metrics();
    let labels = |hook, outcome| [("module", "hostile"), ("hook", hook), ("outcome", outcome)];
    assert_eq!(metrics.sum("smg_wasm_executions_total", &labels("on-response", "trap")), 1.0);
    assert_eq!(metrics.sum("smg_wasm_executions_total", &labels("on-request", "continue")), 1.0);
    assert_eq!(gateway.failures(&uuid, "trap"), 1);
    assert_eq!(gateway.load(), 0, "the worker's answer is let go");
}

#[test]
fn each_hook_can_have_a_policy_of_its_own() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    for (on_failure, request, response) in [
        (json!({ "OnRequest": "open", "OnResponse": "closed", "status": 500 }), 200, 500),
        (json!({ "OnRequest": "closed", "OnResponse": "open", "status": 403 }), 403, 200),
        (json!({ "OnRequest": "open" }), 200, 503),
        (json!({ "status": 599 }), 599, 599),
        (json!({}), 503, 503),
        (json!("closed"), 503, 503),
        (json!("open"), 200, 200),
    ] {
        let uuid = gateway.add(&Module::hostile().set("on_failure", on_failure.clone()));
        let statuses = (gateway.provoke("trap").status, gateway.provoke_response("trap").status);
        assert_eq!(statuses, (request, response), "{on_failure}");
        gateway.remove(&uuid);
    }
}

#[test]
fn a_deployment_that_says_nothing_follows_the_flag_and_one_that_says_something_does_not() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--wasm-on-failure=open").start();
    let uuid = gateway.add(&Module::hostile());
    assert_eq!(gateway.provoke("trap").status, 200);
    gateway.remove(&uuid);
    let uuid = gateway.add(&Module::hostile().set("on_failure", json!({ "OnRequest": "closed" })));
    assert_eq!(gateway.provoke("trap").status, 503);
    gateway.remove(&uuid);
    gateway.add(&Module::hostile().set("on_failure", json!("closed")));
    assert_eq!(gateway.provoke("trap").status, 503);
}

#[test]
fn the_time_limit_covers_what_a_guest_waits_for() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).arg("--wasm-max-execution-time-ms=30s").start();
    let uuid = gateway.add(&Module::hostile().set("limits", json!({ "execution_ms": 100 })));
    for (n, answer) in [
        (1, &(|| gateway.provoke("sleep-ms:3600000")) as &dyn Fn() -> crate::support::Response),
        (2, &|| gateway.provoke_response("sleep-ms:3600000")),
        (3, &|| gateway.provoke("spin-ms:3600000")),
        (4, &|| gateway.provoke("sleep-ms:60|sleep-ms:60")),
    ] {
        let start = Instant::now();
        answer().assert_error(503, "wasm_module_failed");
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(100) && took < Duration::from_secs(10), "{n}: {took:?}");
        assert_eq!(gateway.failures(&uuid, "timeout"), n);
    }
    assert_eq!(gateway.provoke("sleep-ms:30").status, 200);
}

#[test]
fn a_thousand_calls_that_are_given_up_leave_nothing_behind() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::hostile().at(&["OnRequest"]).set("limits", json!({ "execution_ms": 3 })));
    let failed: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = gateway.connect();
                    let mut asked = |behaviour| {
                        client.send_request("GET", "/", &[("X-Hostile", behaviour)], b"");
                        client.read_response().status
                    };
                    // One that succeeds now and then keeps the breaker closed.
                    (0..150).filter(|n| asked(if n % 6 == 0 { "meta" } else { "sleep-ms:3600000" }) == 503).count()
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("no assertion failed")).sum()
    });
    assert!(failed >= 1000, "{failed}");
    assert!(gateway.failures(&uuid, "timeout") >= 1000, "{}", gateway.meta(&uuid)["failures"]);
    eventually(Duration::from_secs(2), || gateway.metrics().sum("smg_wasm_instances", &[]) == 0.0);
    assert_eq!(gateway.metrics().sum("smg_wasm_memory_bytes", &[]), 0.0);
    assert_eq!(gateway.provoke("meta").status, 200);
}

#[test]
fn a_module_that_keeps_failing_rests_and_comes_back() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--shards=1").start();
    let uuid = gateway.add(&Module::hostile());
    let mut client = gateway.connect();
    for _ in 0..60 {
        client.send_request("GET", "/", &[("X-Hostile", "trap")], b"");
        client.read_response().assert_error(503, "wasm_module_failed");
    }
    let (called, resting) = (gateway.failures(&uuid, "trap"), gateway.failures(&uuid, "quarantined"));
    assert!(called >= 50 && resting >= 1 && called + resting == 60, "{called} calls, {resting} refused");
    eventually(Duration::from_secs(5), || gateway.get("/").status == 200);
    holds_for(Duration::from_millis(100), || gateway.get("/").status == 200);
    assert_eq!(gateway.provoke("trap").status, 503, "one more failure is no reason to rest");
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_resting_module_that_is_open_lets_requests_pass() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--shards=1").start();
    let uuid = gateway.add(&Module::hostile().set("on_failure", json!("open")).at(&["OnRequest"]));
    for _ in 0..60 {
        assert_eq!(gateway.provoke("trap").status, 200);
    }
    assert!(gateway.failures(&uuid, "quarantined") >= 1);
}

#[test]
fn one_poisonous_caller_does_not_take_a_module_away_from_the_others() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--shards=1").start();
    let uuid = gateway.add(&Module::hostile().at(&["OnRequest"]));
    for n in 0..200 {
        let (behaviour, status) = if n % 10 == 0 { ("meta", 200) } else { ("trap", 503) };
        assert_eq!(gateway.provoke(behaviour).status, status, "{n}");
    }
    assert_eq!(gateway.failures(&uuid, "trap"), 180);
}

#[test]
fn a_module_that_always_fails_writes_few_lines() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--log-level=warn").start();
    gateway.add(&Module::hostile());
    let mut client = gateway.connect();
    for _ in 0..500 {
        client.send_request("GET", "/", &[("X-Hostile", "trap")], b"");
        assert_eq!(client.read_response().status, 503);
    }
    let first = gateway.wait_for_log("a module failed");
    assert!(first.contains("hostile") && first.contains("on-request") && first.contains("trap"), "{first}");
    holds_for(Duration::from_millis(300), || gateway.log().lines().count() <= 3);
    assert!(gateway.log().len() < 4096, "no backtrace: {}", gateway.log());
}

#[test]
fn the_access_log_names_the_modules_that_ran_and_what_they_did() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    gateway.add(&Module::new("marker", &files.component("marker", &Component::marking("m"))));
    gateway.add(&Module::hostile());
    gateway.request("GET", "/quiet", &[], b"");
    let line = gateway.wait_for_log("path=/quiet");
    assert!(line.contains(" modules=marker:modify,hostile:continue,hostile:continue,marker:modify "), "{line}");
    gateway.request("GET", "/failed", &[("X-Hostile", "trap")], b"");
    let line = gateway.wait_for_log("path=/failed");
    assert!(line.contains(" modules=marker:modify,hostile:trap ") && line.contains("wasm_module_failed"), "{line}");
}
