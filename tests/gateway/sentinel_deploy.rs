//! Core modules of the Sentinel ABI are recognised by their exports, and what is wrong with one is said when it is
//! deployed.

use crate::support::{FOR_EVER, Files, Gateway, Module, Sentinel, Worker, guest};
use serde_json::json;

/// Each module with what the reason must contain.
#[track_caller]
fn refuses(cases: &[(&str, Sentinel, &[&str])]) {
    let (worker, files) = (Worker::echo(), Files::new());
    let gateway = Gateway::with_modules(&worker).start();
    let mut complaints = Vec::new();
    for (what, module, wanted) in cases {
        let error = gateway.refusal(&Module::new("m", &files.sentinel("m", module)));
        let missing = wanted.iter().filter(|it| !error.contains(**it));
        complaints.extend(missing.map(|it| format!("{what}: no {it:?} in {error:?}")));
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    assert_eq!(gateway.modules()["modules"], json!([]));
    assert_eq!(gateway.get("/").status, 200);
}

fn module() -> Sentinel {
    Sentinel::default()
}

fn without(name: &str) -> Sentinel {
    module().without(name)
}

#[test]
fn a_missing_export_is_named() {
    let neither = module().without("on_request_headers").without("on_response_headers");
    refuses(&[
        ("no memory", without("memory"), &["export", "memory"]),
        ("a memory of another name", module().part("memory", "(memory (export \"mem\") 4)"), &["export", "memory"]),
        ("no alloc", without("alloc"), &["export", "alloc"]),
        ("no dealloc", without("dealloc"), &["export", "dealloc"]),
        ("neither handler", neither, &["export", "on_request_headers", "on_response_headers"]),
    ]);
}

#[test]
fn an_export_of_another_type_is_named_with_the_right_one() {
    let typed = |name: &'static str, code: &str| module().function(name, code);
    let handler: &[&str] = &["on_request_headers", "(i32, i32) -> i64"];
    let response: &[&str] = &["on_response_headers", "(i32, i32) -> i64"];
    refuses(&[
        ("a 32-bit result", typed("on_request_headers", "(param i32 i32) (result i32) (i32.const 0)"), handler),
        ("no result", typed("on_request_headers", "(param i32 i32)"), handler),
        ("two results", typed("on_request_headers", "(param i32 i32) (result i64 i64) unreachable"), handler),
        ("a pointer only", typed("on_request_headers", "(param i32) (result i64) (i64.const 0)"), handler),
        ("64-bit places", typed("on_response_headers", "(param i64 i64) (result i64) (i64.const 0)"), response),
        ("an alloc of nothing", typed("alloc", "(result i32) (i32.const 0)"), &["alloc", "(i32) -> i32"]),
        ("a 64-bit alloc", typed("alloc", "(param i64) (result i64) (i64.const 0)"), &["alloc", "(i32) -> i32"]),
        ("a dealloc of one thing", typed("dealloc", "(param i32)"), &["dealloc", "(i32, i32)"]),
        (
            "a dealloc with a result",
            typed("dealloc", "(param i32 i32) (result i32) (i32.const 0)"),
            &["dealloc", "(i32, i32)"],
        ),
        (
            "a handler that is no function",
            module().part("on_request_headers", "(global (export \"on_request_headers\") i32 (i32.const 1))"),
            handler,
        ),
        (
            "a memory that is no memory",
            module().part("memory", "(memory 1) (global (export \"memory\") i32 (i32.const 1))"),
            &["memory"],
        ),
        ("an _initialize that wants something", typed("_initialize", "(param i32)"), &["_initialize", "()"]),
        ("an on_configure of another type", typed("on_configure", "(param i32 i32)"), &["on_configure", "-> i32"]),
    ]);
}

#[test]
fn an_import_that_is_not_offered_is_named() {
    let importing = |import: &str| module().items(import);
    let imported = module().part("memory", "(export \"memory\" (memory $m))");
    refuses(&[
        ("a function", importing("(import \"env\" \"log\" (func (param i32 i32)))"), &["import", "env", "log"]),
        ("a memory", imported.items("(import \"env\" \"mem\" (memory $m 1))"), &["import", "env", "mem"]),
        ("a global", importing("(import \"js\" \"now\" (global f64))"), &["import", "js", "now"]),
        (
            "another WASI",
            importing("(import \"wasi_snapshot_preview2\" \"fd_write\" (func (param i32)))"),
            &["import", "wasi_snapshot_preview2"],
        ),
        (
            "a function of WASI that there is not",
            importing("(import \"wasi_snapshot_preview1\" \"sock_open\" (func (result i32)))"),
            &["import", "sock_open"],
        ),
        (
            "one of another type",
            importing("(import \"wasi_snapshot_preview1\" \"fd_write\" (func (param i64) (result i32)))"),
            &["import", "fd_write"],
        ),
    ]);
}

#[test]
fn what_cannot_be_instantiated_is_refused() {
    let started = |code: &str| module().items(&format!("(func $s {code})")).part("zz start", "(start $s)");
    let initialized = |code: &str| module().function("_initialize", code);
    refuses(&[
        ("a start that traps", started("unreachable"), &["instantiate"]),
        ("an _initialize that traps", initialized("unreachable"), &["instantiate"]),
        ("an _initialize that never ends", initialized(FOR_EVER), &["timeout"]),
        ("too much memory", module().part("memory", "(memory (export \"memory\") 1025)"), &["memory"]),
        ("a wide memory", module().part("memory", "(memory (export \"memory\") i64 1)"), &["memory"]),
        ("two memories", module().items("(memory 1)"), &["memor"]),
    ]);
}

#[test]
fn a_core_module_of_another_kind_is_told_what_it_lacks() {
    let (worker, files) = (Worker::echo(), Files::new());
    let gateway = Gateway::with_modules(&worker).start();
    let all: &[&str] = &["memory", "alloc", "dealloc", "on_request_headers", "on_response_headers", "wasm32-wasip2"];
    let exporting = |names: &[&str]| names.iter().map(|name| format!("(func (export \"{name}\"))")).collect::<String>();
    for (what, text, wanted) in [
        ("an empty one", String::new(), all),
        ("a command", exporting(&["_start"]) + "(memory (export \"memory\") 1)", &all[1..]),
        ("a proxy-wasm filter", exporting(&["proxy_abi_version_0_2_1", "proxy_on_request_headers"]), all),
        ("a bare component's core", exporting(&["cabi_realloc", "on-request"]), all),
    ] {
        let error = gateway.refusal(&Module::new("m", &files.assemble("m", &format!("(module {text})"))));
        let missing: Vec<_> = wanted.iter().filter(|it| !error.contains(**it)).collect();
        assert!(missing.is_empty(), "{what}: no {missing:?} in {error:?}");
    }
}

#[test]
fn a_module_runs_where_it_has_a_handler_and_is_asked_for() {
    let files = Files::new();
    let (tag, nothing) = (json!({ "decision": "allow", "tags": ["called"] }), json!({ "decision": "allow" }));
    let [on_request, on_response] = ["on_request_headers", "on_response_headers"];
    let both = Sentinel::replying(&tag, &tag);
    let one = |missing| Sentinel::replying(&tag, &tag).without(missing);
    let points = ["OnRequest", "OnResponse"];
    let (request, response) = (&points[..1], &points[1..]);
    for (what, module, asked, runs_at, calls) in [
        ("both", both.clone(), &points[..], &points[..], 2),
        ("both", both.clone(), request, request, 1),
        ("both", both, response, response, 1),
        ("requests", one(on_response), &points, request, 1),
        ("responses", one(on_request), &points, response, 1),
        ("none of it", Sentinel::replying(&nothing, &tag), request, request, 0),
    ] {
        let worker = Worker::echo();
        let gateway = Gateway::with_modules(&worker).start();
        let uuid = gateway.add(&Module::new("m", &files.sentinel("m", &module)).at(asked));
        let shown = gateway.meta(&uuid);
        let points: Vec<_> = runs_at.iter().map(|point| json!({ "Middleware": point })).collect();
        assert_eq!((&shown["abi"], &shown["attach_points"]), (&json!("sentinel"), &json!(points)), "{what} {asked:?}");
        assert_eq!(gateway.get("/").status, 200, "{what} {asked:?}");
        assert_eq!(gateway.tagged("called"), calls, "{what} {asked:?}");
    }
}

#[test]
fn a_module_without_any_of_the_handlers_asked_for_is_refused() {
    let (worker, files) = (Worker::echo(), Files::new());
    let gateway = Gateway::with_modules(&worker).start();
    for (missing, point) in [("on_request_headers", "OnRequest"), ("on_response_headers", "OnResponse")] {
        let file = files.sentinel("m", &without(missing));
        let error = gateway.refusal(&Module::new("m", &file).at(&[point]));
        assert!(error.contains(missing) && error.contains(point), "{error}");
    }
}

#[test]
fn a_module_of_the_command_line_needs_no_attach_points() {
    let (worker, files) = (Worker::echo(), Files::new());
    let reply = json!({ "decision": "block", "status": 418 });
    let file = files.sentinel("m", &Sentinel::replying(&reply, &reply).without("on_response_headers"));
    let gateway = Gateway::with_modules(&worker).arg(format!("--wasm-module=m={file}")).start();
    assert_eq!(gateway.get("/").status, 418);
}

#[test]
fn what_it_is_and_how_it_runs_is_shown() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let settings = |uuid: &str| gateway.meta(uuid)["settings"].take();
    let uuid = gateway.add(&Module::sentinel());
    let shown = settings(&uuid);
    assert_eq!(shown["instance"], json!({ "mode": "pooled", "size": 4 }));
    assert_eq!((&shown["header_case"], &shown["failure_status"]), (&json!("title"), &json!(500)));
    assert_eq!(gateway.meta(&uuid)["abi"], "sentinel");
    gateway.remove(&uuid);
    let module = Module::sentinel().set("instance", json!({ "mode": "request" })).set("header_case", json!("lower"));
    let shown = settings(&gateway.add(&module.set("on_failure", json!({ "status": 502 }))));
    assert_eq!(shown["instance"], json!({ "mode": "request" }));
    assert_eq!((&shown["header_case"], &shown["failure_status"]), (&json!("lower"), &json!(502)));
}

#[test]
fn the_case_of_headers_is_no_setting_of_components() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    for case in ["lower", "title"] {
        let error = gateway.refusal(&Module::new("m", &guest("minimal")).set("header_case", json!(case)));
        assert!(error.contains("header_case") && error.contains("smg-v1"), "{error}");
    }
    for case in ["Title", "upper", ""] {
        let answer = gateway.try_deploy(Module::sentinel().set("header_case", json!(case)).json());
        assert_eq!(answer.status, 422, "{}", answer.text());
        assert!(answer.text().contains("header_case"), "{}", answer.text());
    }
    gateway.add(&Module::new("m", &guest("minimal")));
}

#[test]
fn a_case_that_is_no_text_is_a_wrong_field() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    for (field, value) in [("header_case", json!(1)), ("header_case", json!([])), ("streaming", json!(true))] {
        let answer = gateway.try_deploy(Module::sentinel().set(field, value).json());
        assert_eq!((answer.status, answer.text().contains(field)), (422, true), "{}", answer.text());
    }
}

#[test]
fn the_limits_of_the_gateway_are_the_flags() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--wasm-pool-size=9").start();
    let uuid = gateway.add(&Module::sentinel());
    assert_eq!(gateway.meta(&uuid)["settings"]["instance"]["size"], 9);
}
