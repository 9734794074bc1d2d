//! Modules that no compiler makes: they are deployed, and misbehave when they are called.
//! Cases 4, 5, 6, 7 and 10 of section 3.

use crate::support::{BUSY, Component, FOR_EVER, Files, Gateway, Module, Worker, eventually};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Deploys each component by itself; its calls must fail, as one of these kinds, and nothing else must happen.
#[track_caller]
fn assert_fails(cases: &[(&str, Component, &[&str])]) {
    let worker = Worker::echo();
    let mut gateway = Gateway::with_modules(&worker).arg("--wasm-max-execution-time-ms=10s").start();
    let files = Files::new();
    let mut complaints = Vec::new();
    for (n, (what, component, kinds)) in cases.iter().enumerate() {
        let module = Module::new(&format!("m{n}"), &files.component(&format!("m{n}"), component));
        // What fails in another way must not run out of time first, however busy the machine is.
        let limits = if *kinds == ["timeout"] { json!({ "execution_ms": 200 }) } else { json!({}) };
        let module = module.set("limits", limits).set("match", json!({ "paths": ["/m"] }));
        let uuid = gateway.add(&module);
        let start = Instant::now();
        for _ in 0..2 {
            let answer = gateway.get("/m");
            if (answer.status, answer.headers.get("x-smg-error-code")) != (503, Some("wasm_module_failed")) {
                complaints.push(format!("{what}: answered {} {}", answer.status, answer.text()));
            }
        }
        let took = start.elapsed();
        let failures = gateway.meta(&uuid)["failures"].take();
        let counted: u64 = kinds.iter().filter_map(|kind| failures[kind].as_u64()).sum();
        if counted != 2 || took > BUSY {
            complaints.push(format!("{what}: {failures}, wanted {kinds:?}, in {took:?}"));
        }
        assert_eq!(gateway.get("/").status, 200, "after {what}");
        gateway.remove(&uuid);
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    assert!(gateway.is_running());
    eventually(BUSY, || gateway.metrics().sum("smg_wasm_instances", &[]) == 0.0);
}

#[test]
fn a_loop_anywhere_ends_at_the_time_limit() {
    let spin = Component::default;
    assert_fails(&[
        ("in the request hook", spin().on_request(FOR_EVER), &["timeout"]),
        ("in the response hook", spin().on_response(FOR_EVER), &["timeout"]),
        ("in the allocator", spin().realloc(FOR_EVER), &["timeout"]),
        ("after the result was read", spin().post_return("(loop $again (br $again))"), &["timeout"]),
        (
            "copying memory",
            spin().on_request(
                "(loop $again (memory.fill (i32.const 0) (i32.const 7) (i32.const 1048576)) (br $again)) (unreachable)",
            ),
            &["timeout"],
        ),
    ]);
}

#[test]
fn a_trap_anywhere_is_a_failure() {
    let deep = "(func $f (param i64 i64) (result i64) (i64.add (call $f (local.get 1) (local.get 0)) (local.get 0)))";
    let recurses =
        Component::default().items(deep).on_request("(drop (call $f (i64.const 1) (i64.const 2))) (i32.const 0)");
    assert_fails(&[
        ("in the request hook", Component::default().on_request("(unreachable)"), &["trap"]),
        ("in the response hook", Component::default().on_response("(unreachable)"), &["trap"]),
        ("in the allocator", Component::default().realloc("(unreachable)"), &["trap"]),
        ("after the result was read", Component::default().post_return("(unreachable)"), &["trap"]),
        ("a division by zero", Component::default().on_request("(i32.div_u (i32.const 1) (i32.const 0))"), &["trap"]),
        ("a load out of bounds", Component::default().on_request("(i32.load (i32.const -4))"), &["trap"]),
        ("an endless recursion", recurses, &["stack"]),
    ]);
}

#[test]
fn an_allocator_that_lies_is_a_failure() {
    let at = |address: &str| Component::default().realloc(&format!("(i32.const {address})"));
    assert_fails(&[
        ("beyond memory", at("0x7ffffff0"), &["trap", "output"]),
        ("at the very end of memory", at("0xfffffff8"), &["trap", "output"]),
        ("at an odd address", at("32769"), &["trap", "output"]),
    ]);
}

#[test]
fn a_result_that_lies_is_a_failure() {
    let at = |address: &str| Component::default().on_request(&format!("(i32.const {address})"));
    let holding = |words: &str| {
        Component::default().items(&format!("(data (i32.const 1024) \"{words}\")")).on_request("(i32.const 1024)")
    };
    assert_fails(&[
        ("beyond memory", at("0x7ffffff0"), &["output"]),
        ("across the end of memory", at("0x000ffff8"), &["output"]),
        ("at an odd address", at("1025"), &["output"]),
        ("a case that is none", holding("\\03\\00\\00\\00"), &["output"]),
        ("an option that is neither", holding("\\02\\00\\00\\00\\02\\00\\00\\00"), &["output"]),
        (
            "more headers than there is memory",
            holding("\\02\\00\\00\\00\\00\\00\\00\\00\\00\\08\\00\\00\\ff\\ff\\ff\\0f"),
            &["output"],
        ),
        (
            "so many that their size overflows",
            holding("\\02\\00\\00\\00\\00\\00\\00\\00\\00\\08\\00\\00\\ff\\ff\\ff\\ff"),
            &["output"],
        ),
    ]);
}

#[test]
fn memory_and_tables_end_at_their_limits_and_a_guest_can_live_with_it() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    // Of 64 MiB, which are 1024 pages, 16 are there from the start.
    let must = |condition: &str| format!("(if (i32.eqz {condition}) (then unreachable))");
    let refused = |grow: &str| must(&format!("(i32.eq {grow} (i32.const -1))"));
    let granted = |grow: &str| must(&format!("(i32.ne {grow} (i32.const -1))"));
    let memory = |pages: u32| format!("(memory.grow (i32.const {pages}))");
    let table = |elements: u32| format!("(table.grow $t (ref.null func) (i32.const {elements}))");
    let body = |checks: &[String]| checks.concat() + "(i32.const 0)";
    for (what, checks) in [
        ("4 GiB", vec![refused(&memory(65_520)), granted(&memory(1))]),
        ("the last page", vec![granted(&memory(1008)), refused(&memory(1))]),
        ("one page too many", vec![refused(&memory(1009)), granted(&memory(1008)), refused(&memory(1))]),
        ("a thousand million elements", vec![refused(&table(1_000_000_000))]),
        ("elements after a refusal", vec![refused(&table(1_000_000_000)), granted(&table(1))]),
        ("elements one by one", vec![granted(&table(10_000)), refused(&table(10_000)), granted(&table(1_000))]),
    ] {
        let component = Component::default().items("(table $t 10 funcref)").on_request(&body(&checks));
        let uuid = gateway.add(&Module::new("m", &files.component("m", &component)));
        let answer = gateway.get("/");
        assert_eq!(answer.status, 200, "{what}: {}", gateway.meta(&uuid)["failures"]);
        gateway.remove(&uuid);
    }
}

#[test]
fn the_memory_of_guests_is_counted_and_given_back() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--shards=1").start();
    let files = Files::new();
    let grows = Component::default().on_request("(drop (memory.grow (i32.const 84))) (i32.const 0)");
    let module = Module::new("m", &files.component("m", &grows)).at(&["OnRequest"]);
    let uuid = gateway.add(&module.set("instance", json!({ "mode": "pooled", "size": 1 })));
    gateway.get("/");
    assert_eq!(gateway.metrics().sum("smg_wasm_memory_bytes", &[("module", "m")]), 100.0 * 65_536.0);
    gateway.remove(&uuid);
    eventually(Duration::from_secs(2), || gateway.metrics().sum("smg_wasm_memory_bytes", &[]) == 0.0);
}

#[test]
fn a_component_may_speak_utf_16() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    for encoding in ["utf16", "latin1+utf16"] {
        let text = Component::default()
            .text()
            .replace("(memory (core memory $i", &format!("string-encoding={encoding} (memory (core memory $i"));
        let uuid = gateway.add(&Module::new("m", &files.assemble("m", &text)));
        let headers = [("X-Long", &*"x".repeat(20_000)), ("X-Latin", "caf\u{e9}")];
        assert_eq!(gateway.request("GET", "/", &headers, b"").status, 200, "{encoding}");
        assert_eq!(gateway.meta(&uuid)["access_count"], 2);
        gateway.remove(&uuid);
    }
}

#[test]
fn a_module_that_is_slow_to_start_is_slow_for_nobody_else() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--wasm-max-execution-time-ms=4s").start();
    let files = Files::new();
    let starts = Component::default().items(&format!("(func $s {FOR_EVER}) (start $s)"));
    let module = Module::new("m", &files.component("m", &starts)).json().clone();
    let mut deploying = gateway.connect();
    let body = json!({ "modules": [module] }).to_string();
    deploying.send_request("POST", "/wasm", &[("Content-Type", "application/json")], body.as_bytes());
    let mut client = gateway.connect();
    for _ in 0..100 {
        let start = Instant::now();
        assert_eq!(client.get("/").status, 200);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
    let start = Instant::now();
    assert_eq!(gateway.modules()["modules"], json!([]));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let answer = deploying.read_response();
    assert_eq!(answer.status, 400);
    let error: Value = answer.json()["modules"][0]["add_result"]["Error"].take();
    assert!(error.as_str().is_some_and(|error| error.contains("timeout")), "{error}");
}
