//! What is no module for this gateway is refused when it is deployed, with the reason, and not at the first request.
//! Cases 6, 7, 14 and 15 of section 3.

use crate::support::{Component, FOR_EVER, Files, Gateway, Module, Worker, guest};
use serde_json::json;
use std::time::{Duration, Instant};

/// Each file with what the reason must contain.
#[track_caller]
fn refuses(cases: &[(&str, String, &[&str])]) {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let mut complaints = Vec::new();
    for (what, file, wanted) in cases {
        let error = gateway.refusal(&Module::new("m", file));
        complaints.extend(
            wanted.iter().filter(|it| !error.contains(**it)).map(|it| format!("{what}: no {it:?} in {error:?}")),
        );
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    assert_eq!(gateway.modules()["modules"], json!([]));
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn what_is_no_webassembly_is_told_so_and_what_to_build() {
    let files = Files::new();
    let wasm = std::fs::read(guest("minimal")).unwrap();
    let artefact = [b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0", &[0; 4096][..]].concat();
    let wanted: &[&str] = &["not a", "component", "wasm32-wasip2"];
    refuses(&[
        ("text", files.write("text.wasm", b"hello"), wanted),
        ("an ELF file, as precompiled modules are", files.write("elf.wasm", artefact), wanted),
        ("the text format", files.write("wat.wasm", Component::default().text()), wanted),
        ("an archive", files.write("zip.wasm", b"PK\x03\x04"), wanted),
        ("half the magic number", files.write("half.wasm", &wasm[..6]), wanted),
        ("an unknown version", files.write("version.wasm", b"\0asm\x02\0\0\0"), wanted),
        ("one byte", files.write("one.wasm", b"\0"), wanted),
    ]);
}

#[test]
fn a_core_module_is_told_how_to_become_a_component() {
    let files = Files::new();
    let command = "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func (param i32))) (memory (export \"memory\") 1) (func (export \"_start\")))";
    let wanted: &[&str] = &["not a component", "wasm32-wasip2", "wasm-tools component new"];
    refuses(&[
        ("an empty module", files.assemble("empty", "(module)"), wanted),
        ("a wasip1 command", files.assemble("command", command), wanted),
    ]);
}

#[test]
fn a_damaged_component_is_not_valid() {
    let files = Files::new();
    let wasm = std::fs::read(guest("minimal")).unwrap();
    let truncated = |part: usize| files.write(&format!("{part}.wasm"), &wasm[..wasm.len() * part / 8]);
    let mut flipped = wasm.clone();
    for byte in flipped.iter_mut().skip(5000).step_by(97) {
        *byte ^= 0x55;
    }
    let wanted: &[&str] = &["not valid WebAssembly"];
    refuses(&[
        ("an eighth", truncated(1), wanted),
        ("a half", truncated(4), wanted),
        ("seven eighths", truncated(7), wanted),
        ("all but the last byte", files.write("last.wasm", &wasm[..wasm.len() - 1]), wanted),
        ("changed bytes", files.write("flipped.wasm", flipped), wanted),
        ("more bytes behind", files.write("behind.wasm", [&wasm[..], b"behind"].concat()), wanted),
    ]);
}

#[test]
fn a_missing_export_is_named() {
    let files = Files::new();
    const REQUEST: &str = "smg:gateway/middleware-on-request";
    const RESPONSE: &str = "smg:gateway/middleware-on-response";
    let only_request = Component::default().exports(Some(REQUEST), None);
    let only_response = Component::default().exports(None, Some(RESPONSE));
    let second_version = Component::default().exports(Some("smg:gateway/middleware-on-request@2.0.0"), Some(RESPONSE));
    let no_function = Component::default().exports(None, Some(RESPONSE)).text();
    let no_function = no_function.trim_end().strip_suffix(')').unwrap().to_owned()
        + "(instance $none) (export \"smg:gateway/middleware-on-request\" (instance $none)))";
    refuses(&[
        ("nothing", files.assemble("nothing", "(component)"), &["export", REQUEST, "OnRequest"]),
        ("no response hook", files.component("request", &only_request), &["export", RESPONSE, "OnResponse"]),
        ("no request hook", files.component("response", &only_response), &["export", REQUEST, "OnRequest"]),
        ("another version", files.component("version", &second_version), &["export", REQUEST]),
        ("the interface without its function", files.assemble("function", &no_function), &["export", REQUEST]),
    ]);
}

#[test]
fn a_module_with_one_hook_is_deployed_there() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let request = Component::marking("a").exports(Some("smg:gateway/middleware-on-request"), None);
    let response = Component::marking("b").exports(None, Some("smg:gateway/middleware-on-response"));
    gateway.add(&Module::new("a", &files.component("a", &request)).at(&["OnRequest"]));
    gateway.add(&Module::new("b", &files.component("b", &response)).at(&["OnResponse"]));
    assert_eq!(gateway.get("/").headers.all("x-response-mark"), ["b"]);
    assert_eq!(worker.wait_for_request().headers.all("x-request-mark"), ["a"]);
}

#[test]
fn a_hook_of_another_type_is_refused() {
    let files = Files::new();
    let text = Component::default().text();
    let changed = |name: &str, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        files.assemble(name, &text.replace(from, to))
    };
    let types: &[&str] = &["type"];
    refuses(&[
        ("a field of another name", changed("field", "\"request-id\"", "\"id\""), types),
        (
            "fields in another order",
            changed(
                "order",
                "(field \"path\" string) (field \"query\" string)",
                "(field \"query\" string) (field \"path\" string)",
            ),
            types,
        ),
        ("a signed status", changed("status", "(field \"status\" u16)", "(field \"status\" s16)"), types),
        ("a fourth case", changed("case", "(case \"continue\")", "(case \"continue\") (case \"more\")"), types),
        ("a case of another name", changed("name", "(case \"reject\" u16)", "(case \"deny\" u16)"), types),
    ]);
}

#[test]
fn an_import_that_is_not_offered_is_named() {
    let files = Files::new();
    let importing = |name: &str, interface: &str, function: &str| {
        let import = format!("(import {interface:?} (instance (export {function:?} (func))))");
        files.component(name, &Component::default().more(&import))
    };
    let root = Component::default().more("(import \"log\" (func (param \"text\" string)))");
    let core = Component::default().more("(import \"code\" (core module))");
    refuses(&[
        ("an unknown interface", importing("unknown", "acme:vault/keys", "key"), &["import", "acme:vault/keys"]),
        (
            "sockets",
            importing("tcp", "wasi:sockets/tcp-create-socket@0.2.0", "create-tcp-socket"),
            &["import", "wasi:sockets"],
        ),
        (
            "names",
            importing("dns", "wasi:sockets/ip-name-lookup@0.2.3", "resolve-addresses"),
            &["import", "wasi:sockets"],
        ),
        (
            "outgoing requests",
            importing("http", "wasi:http/outgoing-handler@0.2.0", "handle"),
            &["import", "wasi:http"],
        ),
        ("keys", importing("keys", "wasi:keyvalue/store@0.2.0-draft", "open"), &["import", "wasi:keyvalue"]),
        (
            "a version to come",
            importing("smg", "smg:gateway/limits@2.0.0", "take"),
            &["import", "smg:gateway/limits@2.0.0"],
        ),
        ("WASI to come", importing("wasi", "wasi:clocks/monotonic-clock@0.3.0", "now"), &["import", "wasi:clocks"]),
        ("a function", files.component("root", &root), &["import", "log"]),
        ("a core module", files.component("core", &core), &["import", "code"]),
    ]);
}

#[test]
fn the_usual_wasip2_set_links() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    for name in ["minimal", "auth", "logging", "ratelimit", "hostile"] {
        gateway.add(&Module::new(name, &guest(name)));
    }
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_module_that_cannot_be_instantiated_is_refused_in_time() {
    let files = Files::new();
    let spins = format!("(func $s {FOR_EVER}) (start $s)");
    let started = |name: &str, items: &str| files.component(name, &Component::default().items(items));
    let memory = |name: &str, memory: &str| files.component(name, &Component::default().memory(memory));
    let memories = "(memory (export \"memory\") 1) (memory 1)";
    let start = Instant::now();
    refuses(&[
        ("a start that never ends", started("spin", &spins), &["timeout"]),
        ("a start that traps", started("trap", "(func $s unreachable) (start $s)"), &["instantiate"]),
        ("all the memory there can be", memory("most", "(memory (export \"memory\") 65536)"), &["memory"]),
        ("one page too many", memory("more", "(memory (export \"memory\") 1025)"), &["memory"]),
        ("two memories", memory("two", memories), &["memor"]),
        ("a 64-bit memory", memory("wide", "(memory (export \"memory\") i64 1)"), &[]),
        ("a table of ten million", started("table", "(table 10000000 funcref)"), &["table"]),
        ("a hundred tables", started("tables", &"(table 1 funcref)".repeat(100)), &["table"]),
    ]);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn a_component_of_many_instances_is_refused() {
    let files = Files::new();
    let many = |name: &str, count: usize, each: &str| {
        let instances = format!("(core module $e {each})") + &"(core instance (instantiate $e))".repeat(count);
        files.component(name, &Component::default().more(&instances))
    };
    refuses(&[
        ("more instances than may be", many("instances", 10_000, ""), &["instance"]),
        ("more instances than there is room for", many("hundred", 100, ""), &["instance"]),
        ("five memories", many("memories", 5, "(memory 1)"), &["memor"]),
        ("ten tables", many("tables", 10, "(table 1 funcref)"), &["table"]),
    ]);
}
