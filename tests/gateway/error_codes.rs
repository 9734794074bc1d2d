//! `x-smg-error-code` on what the admin API refuses and on what modules reject; every code is in `docs/errors.md`.

use crate::support::{Gateway, Module, Response, Worker, obliging};
use serde_json::json;

const ERRORS: &str = include_str!("../../docs/errors.md");

#[track_caller]
fn assert_listed(answer: &Response, code: &str) {
    assert_eq!(answer.headers.get("x-smg-error-code"), Some(code), "{} {}", answer.status, answer.text());
    let row = ERRORS.lines().find(|line| line.starts_with(&format!("| `{code}` |")));
    let row = row.unwrap_or_else(|| panic!("docs/errors.md has no row for {code}"));
    assert!(row.contains(&answer.status.to_string()), "{row}: {}", answer.status);
}

#[test]
fn every_refusal_of_the_admin_api_carries_its_code() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let (id, uuid) = ("0123456789abcdef", "00000000-0000-0000-0000-000000000000");
    let known = json!({ "url": worker.url() }).to_string();
    let missing = Module::new("a", "/nowhere.wasm").json().clone();
    let missing = json!({ "modules": [missing] }).to_string();
    let (worker_path, module_path) = (format!("/workers/{id}"), format!("/wasm/{uuid}"));
    for (method, path, body, code) in [
        ("PATCH", "/wasm", "{}", "method_not_allowed"),
        ("POST", "/wasm", "{", "invalid_json"),
        ("POST", "/wasm", "[]", "invalid_field"),
        ("POST", "/wasm", &missing, "module_not_deployed"),
        ("GET", "/wasm/x", "", "invalid_uuid"),
        ("GET", &module_path, "", "module_not_found"),
        ("DELETE", &module_path, "", "module_not_found"),
        ("DELETE", "/workers", "", "method_not_allowed"),
        ("POST", "/workers", "{", "invalid_json"),
        ("POST", "/workers", "{\"prio\":1}", "invalid_field"),
        ("POST", "/workers", "{\"url\":\"ftp://a\"}", "invalid_worker"),
        ("POST", "/workers", &known, "worker_exists"),
        ("GET", &worker_path, "", "worker_not_found"),
        ("DELETE", &worker_path, "", "worker_not_found"),
        ("POST", "/metrics", "", "method_not_allowed"),
    ] {
        let json = [("Content-Type", "application/json")];
        let answer = gateway.request(method, path, &json, body.as_bytes());
        assert_listed(&answer, code);
    }
    let text = [("Content-Type", "text/plain")];
    assert_listed(&gateway.request("POST", "/workers", &text, b"{}"), "unsupported_media_type");
    let stale = [("Content-Type", "application/json"), ("If-Match", "\"other\"")];
    assert_listed(&gateway.request("POST", "/workers", &stale, known.as_bytes()), "precondition_failed");
    let elsewhere = [("X-Forwarded-For", "10.0.0.1")];
    assert_listed(&gateway.request("GET", "/workers", &elsewhere, b""), "forbidden");
    let without = Gateway::before(&worker);
    assert_listed(&without.get("/wasm"), "wasm_not_enabled");
}

#[test]
fn a_rejection_by_a_module_carries_its_code() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    for status in [400, 401, 403, 429, 503, 599] {
        let answer = gateway.provoke(&format!("reject:{status}"));
        assert_eq!((answer.status, answer.headers.get("x-smg-error-code")), (status, Some("wasm_module_rejected")));
        let answer = gateway.provoke_response(&format!("reject:{status}"));
        assert_eq!((answer.status, answer.headers.get("x-smg-error-code")), (status, Some("wasm_module_rejected")));
    }
    assert!(ERRORS.contains("| `wasm_module_rejected` |"));
    // What is no error has no code, nor has an error of the worker's.
    for status in [200, 204, 301] {
        assert!(!gateway.provoke(&format!("reject:{status}")).headers.has("x-smg-error-code"), "{status}");
    }
    let answer = gateway.request("GET", "/", &[("X-Answer-Status", "404")], b"");
    assert_eq!((answer.status, answer.headers.has("x-smg-error-code")), (404, false));
    gateway.request("GET", "/rejected", &[("X-Hostile", "reject:403")], b"");
    let line = gateway.wait_for_log("path=/rejected");
    assert!(line.contains("status=403 error=\"wasm_module_rejected\""), "{line}");
    let metrics = gateway.get("/metrics").text();
    assert!(metrics.contains("status_code=\"599\",error_code=\"wasm_module_rejected\"} 2"), "{metrics}");
}
