//! What a deployment may say of a module besides its file: shown, bounded by the flags, and in force.

use crate::support::{Component, Files, Gateway, Module, Worker, guest, obliging};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[test]
fn a_deployment_that_says_nothing_has_the_flags_for_settings() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker)
        .arg("--wasm-max-memory-pages=700")
        .arg("--wasm-max-execution-time-ms=900")
        .arg("--wasm-max-body-size=5000")
        .arg("--wasm-on-failure=open")
        .arg("--wasm-pool-size=3")
        .start();
    let uuid = gateway.add(&Module::hostile());
    let settings = gateway.meta(&uuid)["settings"].take();
    assert_eq!(settings["limits"], json!({ "memory_pages": 700, "execution_ms": 900, "body_bytes": 5000 }));
    assert_eq!(settings["instance"], json!({ "mode": "request" }));
    assert_eq!((&settings["streaming"], &settings["config"]), (&json!("head"), &json!({})));
    assert_eq!(settings["on_failure"], json!({ "OnRequest": "open", "OnResponse": "open" }));
    assert_eq!(gateway.provoke("trap").status, 200, "open is in force");
    let pooled = Module::new("pooled", &guest("minimal")).set("instance", json!({ "mode": "pooled" }));
    let uuid = gateway.add(&pooled);
    assert_eq!(gateway.meta(&uuid)["settings"]["instance"]["size"], 3);
}

#[test]
fn settings_are_shown_as_they_were_said() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let said = [
        ("order", json!(-9_000_000_000_i64)),
        ("config", json!({ "keys": ["a", "ü"], "deep": { "n": 1.5 } })),
        ("match", json!({ "paths": ["/v1/*", "/x"], "methods": ["post", "GET"] })),
        ("instance", json!({ "mode": "pooled", "size": 7, "max_uses": 9 })),
        ("limits", json!({ "memory_pages": 64, "execution_ms": 20, "body_bytes": 1 })),
        ("streaming", json!("skip")),
    ];
    let module = said.iter().fold(Module::hostile(), |module, (field, value)| module.set(field, value.clone()));
    let uuid = gateway.add(&module);
    let settings = gateway.meta(&uuid)["settings"].take();
    for (field, value) in said {
        assert_eq!(settings[field], value, "{field}");
    }
}

#[test]
fn what_is_out_of_bounds_is_refused_and_names_the_field() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker)
        .arg("--wasm-max-execution-time-ms=50")
        .arg("--wasm-max-memory-pages=128")
        .arg("--wasm-max-body-size=1000")
        .start();
    let cases = [
        ("limits", json!({ "execution_ms": 51 }), "execution_ms"),
        ("limits", json!({ "execution_ms": 0 }), "execution_ms"),
        ("limits", json!({ "memory_pages": 129 }), "memory_pages"),
        ("limits", json!({ "memory_pages": 0 }), "memory_pages"),
        ("limits", json!({ "body_bytes": 1001 }), "body_bytes"),
        ("limits", json!({ "body_bytes": u64::MAX }), "body_bytes"),
        ("instance", json!({ "mode": "pooled", "size": 0 }), "size"),
        ("instance", json!({ "mode": "pooled", "size": 100_000 }), "size"),
        ("instance", json!({ "mode": "pooled", "max_uses": 0 }), "max_uses"),
        ("on_failure", json!({ "status": 200 }), "status"),
        ("on_failure", json!({ "status": 600 }), "status"),
        ("on_failure", json!({ "status": 399 }), "status"),
        ("match", json!({ "paths": ["v1"] }), "paths"),
        ("match", json!({ "paths": ["/a*b"] }), "paths"),
        ("match", json!({ "paths": ["/ok", ""] }), "paths"),
        ("match", json!({ "methods": ["GET POST"] }), "methods"),
        ("match", json!({ "methods": [""] }), "methods"),
    ];
    for (field, value, wanted) in cases {
        let error = gateway.refusal(&Module::hostile().set(field, value.clone()));
        assert!(error.contains(wanted), "{field}: {value}: {error}");
    }
    let most = json!({ "execution_ms": 50, "memory_pages": 128, "body_bytes": 1000 });
    gateway.add(&Module::hostile().set("limits", most));
}

#[test]
fn a_module_sees_only_the_paths_and_methods_it_matches() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let deploy = |name: &str, applies: Value| {
        gateway.add(&Module::new(name, &files.component(name, &Component::marking(name))).set("match", applies));
    };
    deploy("all", json!({}));
    deploy("none-said", json!({ "paths": [], "methods": [] }));
    deploy("v1", json!({ "paths": ["/v1/*", "/exact"] }));
    deploy("prefix", json!({ "paths": ["/v*"] }));
    deploy("post", json!({ "methods": ["post"] }));
    deploy("both", json!({ "paths": ["/v1/*"], "methods": ["GET", "PUT"] }));
    let cases: [(&str, &str, &[&str]); 14] = [
        ("GET", "/", &["all", "none-said"]),
        ("GET", "/v1", &["all", "none-said", "v1", "prefix", "both"]),
        ("GET", "/v1/a/b?c=/d", &["all", "none-said", "v1", "prefix", "both"]),
        ("PUT", "/v1/a", &["all", "none-said", "v1", "prefix", "both"]),
        ("POST", "/v1x", &["all", "none-said", "prefix", "post"]),
        ("POST", "/v1/", &["all", "none-said", "v1", "prefix", "post"]),
        ("GET", "/exact?query", &["all", "none-said", "v1"]),
        ("GET", "/exact/more", &["all", "none-said"]),
        ("GET", "/V1/a", &["all", "none-said"]),
        // Case 34: what is judged is what is sent on, byte for byte.
        ("GET", "//v1/a", &["all", "none-said"]),
        ("GET", "/%761/a", &["all", "none-said"]),
        ("GET", "/./v1/a", &["all", "none-said"]),
        ("GET", "/x/..;/v1/a", &["all", "none-said"]),
        ("GET", "/v1/../exact", &["all", "none-said", "v1", "prefix", "both"]),
    ];
    for (method, path, wanted) in cases {
        let answer = gateway.request(method, path, &[], b"");
        assert_eq!(worker.wait_for_request().headers.all("x-request-mark"), wanted, "{method} {path}");
        let reversed: Vec<_> = wanted.iter().rev().copied().collect();
        assert_eq!(answer.headers.all("x-response-mark"), reversed, "{method} {path}");
    }
}

#[test]
fn the_time_limit_of_a_deployment_is_in_force() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--wasm-max-execution-time-ms=60000").start();
    let uuid = gateway.add(&Module::hostile().set("limits", json!({ "execution_ms": 40 })));
    for behaviour in ["spin", "sleep-ms:3600000"] {
        let start = Instant::now();
        gateway.provoke(behaviour).assert_error(503, "wasm_module_failed");
        let took = start.elapsed();
        assert!(took >= Duration::from_millis(40) && took < Duration::from_secs(10), "{behaviour}: {took:?}");
    }
    assert_eq!(gateway.failures(&uuid, "timeout"), 2);
}

#[test]
fn the_memory_limit_of_a_deployment_is_in_force() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile().set("limits", json!({ "memory_pages": 160 })));
    assert_eq!(gateway.provoke("leak-mb:5").status, 200);
    assert_eq!(gateway.provoke("leak-mb:11").status, 503, "160 pages are 10 MiB");
    let error = gateway.refusal(&Module::new("small", &guest("minimal")).set("limits", json!({ "memory_pages": 1 })));
    assert!(error.contains("memory"), "a module that needs more from the start: {error}");
}

#[test]
fn the_body_limit_of_a_deployment_is_in_force_on_both_sides() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::hostile().set("limits", json!({ "body_bytes": 1000 })));
    gateway.request("POST", "/", &[], &[b'x'; 1001]).assert_error(413, "request_body_too_large");
    assert!(worker.requests().is_empty());
    assert_eq!(gateway.request("POST", "/", &[], &[b'x'; 1000]).status, 200);
    gateway.provoke("body-size:1001").assert_error(503, "wasm_module_failed");
    gateway.provoke_response("body-size:1001").assert_error(503, "wasm_module_failed");
    assert_eq!(gateway.failures(&uuid, "output"), 2);
    assert_eq!(gateway.provoke_response("body-size:1000").body, [b'b'; 1000]);
    let long = "x".repeat(1000);
    let answer = gateway.request("GET", "/", &[("X-Long", &long)], b"");
    answer.assert_error(503, "wasm_module_failed");
    assert_eq!(gateway.failures(&uuid, "body_too_large"), 1, "the echo is longer than 1000 bytes");
}

#[test]
fn the_stack_limit_of_the_flags_is_in_force() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--wasm-max-stack-size=65536").start();
    let uuid = gateway.add(&Module::hostile());
    assert_eq!(gateway.get("/").status, 200);
    gateway.provoke("recurse").assert_error(503, "wasm_module_failed");
    assert_eq!(gateway.failures(&uuid, "stack"), 1);
}
