//! Guests that misbehave while they run: contained, counted for what they did, and never used again.
//! Cases 1, 2, 5, 6, 10, 11, 16, 18, 20 and 22 of section 3.

use crate::support::{Gateway, Module, Response, Worker, obliging};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What a guest does, and as which kind of failure that counts.
const ENDS: [(&str, &str); 21] = [
    ("spin", "timeout"),
    ("spin-ms:3600000", "timeout"),
    ("sleep-ms:3600000", "timeout"),
    ("trap", "trap"),
    ("panic", "trap"),
    ("exit:0", "exit"),
    ("exit:1", "exit"),
    ("recurse", "stack"),
    ("grow", "trap"),
    ("leak-mb:100", "trap"),
    ("claim:1073741824", "output"),
    ("claim:4294967295", "output"),
    ("wild", "output"),
    ("misaligned", "output"),
    ("bad-utf8:%ff%fe", "output"),
    ("bad-utf8:%ed%a0%80", "output"),
    ("bad-utf8:%c0%80", "output"),
    ("variant:3", "output"),
    ("variant:255", "output"),
    ("reject:99", "output"),
    ("reject:65535", "output"),
];

/// A gateway with a guest that is kept, as long as it may be, for the next request.
fn keeping(mode: Value) -> (Worker, Gateway, String) {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).arg("--shards=1").start();
    let module = Module::hostile().set("limits", json!({ "execution_ms": 300 }));
    let uuid = gateway.add(&module.set("instance", mode));
    (worker, gateway, uuid)
}

fn pooled() -> (Worker, Gateway, String) {
    keeping(json!({ "mode": "pooled", "size": 1 }))
}

/// Has the guest end in each way, by what `behave` asks of it, and looks after each whether all is well.
#[track_caller]
fn assert_contained(mode: Value, behave: impl Fn(&Gateway, &str) -> Response) {
    let (worker, mut gateway, uuid) = keeping(mode);
    let mut expected = json!({});
    for (behaviour, kind) in ENDS {
        assert_eq!(gateway.provoke("remember:poison|recall").status, 200);
        assert_eq!(
            worker.requests().pop().and_then(|r| r.headers.get("x-recall").map(str::to_owned)).as_deref(),
            Some("poison")
        );
        let start = Instant::now();
        let answer = behave(&gateway, behaviour);
        assert_eq!(answer.headers.get("x-smg-error-code"), Some("wasm_module_failed"), "{behaviour}: {answer:?}");
        assert_eq!(answer.status, 503, "{behaviour}");
        assert!(start.elapsed() < Duration::from_secs(3), "{behaviour}: {:?}", start.elapsed());
        assert_eq!(gateway.provoke("recall").status, 200, "the next one after {behaviour}");
        let recalled = worker.requests().pop().and_then(|r| r.headers.get("x-recall").map(str::to_owned));
        assert_eq!(recalled.as_deref(), Some("nothing"), "a guest is used again after {behaviour}");
        expected[kind] = Value::from(expected[kind].as_u64().unwrap_or(0) + 1);
        assert_eq!(gateway.meta(&uuid)["failures"], expected, "after {behaviour}");
    }
    for (kind, count) in expected.as_object().expect("an object") {
        assert_eq!(gateway.failures(&uuid, kind), count.as_u64().expect("a number"));
    }
    assert!(gateway.is_running());
    assert_eq!(gateway.load(), 0);
    let log = gateway.log();
    assert!(!log.lines().any(|line| line.contains("panicked at") && !line.contains("smg::guest")), "{log}");
}

#[test]
fn a_pooled_guest_that_ends_badly_on_a_request_is_contained() {
    assert_contained(json!({ "mode": "pooled", "size": 1 }), Gateway::provoke);
}

#[test]
fn a_single_guest_that_ends_badly_on_a_response_is_contained() {
    assert_contained(json!({ "mode": "single" }), Gateway::provoke_response);
}

#[test]
fn a_guest_that_asks_the_host_for_too_much_is_contained() {
    let too_much = ["random:4294967296", "random:18446744073709551615", "pollables:1000000", "poll:1000000"];
    let (_worker, mut gateway, uuid) = pooled();
    let memory = gateway.memory();
    for (n, behaviour) in too_much.into_iter().enumerate() {
        gateway.provoke(behaviour).assert_error(503, "wasm_module_failed");
        let failures = gateway.meta(&uuid)["failures"].take();
        let counted: u64 = failures.as_object().expect("an object").values().filter_map(Value::as_u64).sum();
        assert_eq!(counted, n as u64 + 1, "{behaviour}: {failures}");
    }
    assert!(gateway.memory() < memory + (64 << 20), "{memory} -> {}", gateway.memory());
    assert!(gateway.is_running());
}

#[test]
fn what_is_harmless_is_granted() {
    let (worker, gateway, _) = pooled();
    for (behaviour, name, wanted) in [
        ("random:1000", "x-random", "1000"),
        ("pollables:100", "x-pollables", "100"),
        ("poll:100", "x-polled", "100"),
        ("env", "x-env", "0,0"),
        ("fs", "x-fs", "denied"),
    ] {
        assert_eq!(gateway.provoke(behaviour).status, 200, "{behaviour}");
        assert_eq!(worker.wait_for_request().headers.get(name), Some(wanted), "{behaviour}");
    }
    for behaviour in ["spin-ms:20", "sleep-ms:20", "leak-mb:20", "stdout:1000"] {
        assert_eq!(gateway.provoke(behaviour).status, 200, "{behaviour}");
    }
}

#[test]
fn the_environment_and_the_files_of_the_gateway_are_out_of_reach() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).env("SECRET_TOKEN", "hunter2").start();
    gateway.add(&Module::hostile());
    gateway.provoke("env|fs");
    let seen = worker.wait_for_request().headers;
    assert_eq!((seen.get("x-env"), seen.get("x-fs")), (Some("0,0"), Some("denied")));
}

#[test]
fn handles_of_a_pooled_guest_do_not_pile_up_unseen() {
    let (_worker, gateway, uuid) = pooled();
    let statuses: Vec<u16> = (0..30).map(|_| gateway.provoke("pollables:100").status).collect();
    assert!(statuses.contains(&503), "3000 handles of one guest: {statuses:?}");
    assert_eq!(gateway.get("/").status, 200);
    assert!(gateway.meta(&uuid)["failures"].as_object().is_some_and(|kinds| !kinds.is_empty()));
}
