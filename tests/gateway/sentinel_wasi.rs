//! Core modules that link WASI, as larger languages' compilers make them: everything links, nothing is granted but
//! clocks, random numbers and the log.

use crate::support::{Files, Gateway, Module, Sentinel, Worker, eventually, guest};
use serde_json::json;
use std::time::Duration;

/// All of preview 1: each function with its parameters, `i` for i32 and `I` for i64. All but `proc_exit` give an error
/// number.
const PREVIEW_1: [(&str, &str); 46] = [
    ("args_get", "ii"),
    ("args_sizes_get", "ii"),
    ("environ_get", "ii"),
    ("environ_sizes_get", "ii"),
    ("clock_res_get", "ii"),
    ("clock_time_get", "iIi"),
    ("fd_advise", "iIIi"),
    ("fd_allocate", "iII"),
    ("fd_close", "i"),
    ("fd_datasync", "i"),
    ("fd_fdstat_get", "ii"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_fdstat_set_rights", "iII"),
    ("fd_filestat_get", "ii"),
    ("fd_filestat_set_size", "iI"),
    ("fd_filestat_set_times", "iIIi"),
    ("fd_pread", "iiiIi"),
    ("fd_prestat_get", "ii"),
    ("fd_prestat_dir_name", "iii"),
    ("fd_pwrite", "iiiIi"),
    ("fd_read", "iiii"),
    ("fd_readdir", "iiiIi"),
    ("fd_renumber", "ii"),
    ("fd_seek", "iIii"),
    ("fd_sync", "i"),
    ("fd_tell", "ii"),
    ("fd_write", "iiii"),
    ("path_create_directory", "iii"),
    ("path_filestat_get", "iiiii"),
    ("path_filestat_set_times", "iiiiIIi"),
    ("path_link", "iiiiiii"),
    ("path_open", "iiiiiIIii"),
    ("path_readlink", "iiiiii"),
    ("path_remove_directory", "iii"),
    ("path_rename", "iiiiii"),
    ("path_symlink", "iiiii"),
    ("path_unlink_file", "iii"),
    ("poll_oneoff", "iiii"),
    ("proc_exit", "i"),
    ("proc_raise", "i"),
    ("sched_yield", ""),
    ("random_get", "ii"),
    ("sock_accept", "iii"),
    ("sock_recv", "iiiiii"),
    ("sock_send", "iiiii"),
    ("sock_shutdown", "ii"),
];

/// Functions that may succeed for a guest to which nothing was granted.
const HARMLESS: [&str; 8] = [
    "args_get",
    "args_sizes_get",
    "environ_get",
    "environ_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "sched_yield",
    "random_get",
];

fn import(name: &str, parameters: &str) -> String {
    let kinds: String = parameters.chars().map(|kind| if kind == 'I' { " i64" } else { " i32" }).collect();
    let result = if name == "proc_exit" { "" } else { "(result i32)" };
    format!("(import \"wasi_snapshot_preview1\" \"{name}\" (func ${name} (param{kinds}) {result}))\n")
}

/// Calls that have `first` for a first argument, places in memory for the others, and must give an error or not.
fn calls(first: u32, of: impl Fn(&str) -> bool, or_else: &str) -> String {
    let call = |(name, parameters): &(&str, &str)| {
        let arguments: String = parameters
            .chars()
            .enumerate()
            .map(|(at, kind)| match (at, kind) {
                (0, _) => format!("(i32.const {first})"),
                (_, 'I') => "(i64.const 0)".to_owned(),
                _ => "(i32.const 64)".to_owned(),
            })
            .collect();
        format!("(if ({or_else} (call ${name} {arguments})) (then unreachable))\n")
    };
    PREVIEW_1.iter().filter(|(name, _)| of(name)).map(call).collect()
}

fn importing() -> Sentinel {
    Sentinel::default().items(&PREVIEW_1.map(|(name, parameters)| import(name, parameters)).concat())
}

fn with(module: &Sentinel, worker: &Worker) -> Gateway {
    let (gateway, files) = (Gateway::with_modules(worker).start(), Files::new());
    gateway.add(&Module::new("m", &files.sentinel("m", module)).at(&["OnRequest"]));
    gateway
}

#[test]
fn all_of_it_links_and_what_could_grant_something_gives_an_error() {
    let worker = Worker::echo();
    let denied = |name: &str| !HARMLESS.contains(&name) && name != "proc_exit";
    // Descriptor 3 is where the first directory would be.
    let checks = calls(3, denied, "i32.eqz");
    let handler = format!("(param i32 i32) (result i64) {checks} (i64.const 0)");
    let gateway = with(&importing().function("_initialize", &checks).function("on_request_headers", &handler), &worker);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn what_is_harmless_works_and_there_are_no_arguments_and_no_variables() {
    let worker = Worker::echo();
    let counts = "
        (i32.store (i32.const 0) (i32.const -1)) (i32.store (i32.const 4) (i32.const -1))
        (if (call $environ_sizes_get (i32.const 0) (i32.const 4)) (then unreachable))
        (if (i64.ne (i64.load (i32.const 0)) (i64.const 0)) (then unreachable))
        (i64.store (i32.const 0) (i64.const -1))
        (if (call $args_sizes_get (i32.const 0) (i32.const 4)) (then unreachable))
        (if (i64.ne (i64.load (i32.const 0)) (i64.const 0)) (then unreachable))";
    // After 2020 and before 2100; two draws of 16 bytes differ.
    let values = "
        (if (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 16)) (then unreachable))
        (if (i64.lt_u (i64.load (i32.const 16)) (i64.const 1577836800000000000)) (then unreachable))
        (if (i64.gt_u (i64.load (i32.const 16)) (i64.const 4102444800000000000)) (then unreachable))
        (if (call $random_get (i32.const 32) (i32.const 16)) (then unreachable))
        (if (call $random_get (i32.const 48) (i32.const 16)) (then unreachable))
        (if (i64.eq (i64.load (i32.const 32)) (i64.load (i32.const 48))) (then unreachable))";
    let checks = calls(0, |name| HARMLESS.contains(&name) && name != "sched_yield", "i32.ne (i32.const 0)");
    let handler = format!("(param i32 i32) (result i64) {checks} {counts} {values} (i64.const 0)");
    let gateway = with(&importing().function("on_request_headers", &handler), &worker);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn places_outside_of_memory_are_errors_and_no_more() {
    let worker = Worker::echo();
    let far = [
        "(call $clock_time_get (i32.const 0) (i64.const 0) (i32.const -4))",
        "(call $random_get (i32.const -4) (i32.const 8))",
        "(call $random_get (i32.const 0) (i32.const -1))",
        "(call $environ_sizes_get (i32.const -1) (i32.const 0))",
        "(call $fd_write (i32.const 1) (i32.const -8) (i32.const 1) (i32.const 0))",
        "(call $fd_write (i32.const 1) (i32.const 256) (i32.const 1) (i32.const 0))",
        "(call $fd_write (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 0))",
        "(call $fd_fdstat_get (i32.const 1) (i32.const -2))",
    ];
    let checks: String = far.iter().map(|call| format!("(if (i32.eqz {call}) (then unreachable))")).collect();
    let module = importing()
        .items("(data (i32.const 256) \"\\f0\\ff\\ff\\ff\\ff\\00\\00\\00\")")
        .function("on_request_headers", &format!("(param i32 i32) (result i64) {checks} (i64.const 0)"));
    let gateway = with(&module, &worker);
    assert_eq!(gateway.get("/").status, 200);
}

/// Writes `text` at 512 and its place at 256.
fn printing(text: &str, length: u32) -> Sentinel {
    let place: String = [512, length].iter().flat_map(|n| n.to_le_bytes()).map(|b| format!("\\{b:02x}")).collect();
    importing().items(&format!("(data (i32.const 512) \"{text}\") (data (i32.const 256) \"{place}\")"))
}

#[test]
fn what_is_printed_is_in_the_log_with_the_modules_name() {
    let worker = Worker::echo();
    let print =
        |fd: u32| format!("(drop (call $fd_write (i32.const {fd}) (i32.const 256) (i32.const 1) (i32.const 0)))");
    let handler = format!("(param i32 i32) (result i64) {} (i64.const 0)", print(1));
    let module = printing("one\\0atwo\\1b[31m\\0athree", 18)
        .function("on_request_headers", &handler)
        .function("on_configure", &format!("(param i32 i32) (result i32) {} (i32.const 0)", print(2)));
    let gateway = with(&module, &worker);
    gateway.wait_for_log("line=three");
    assert_eq!(gateway.get("/").status, 200);
    eventually(Duration::from_secs(5), || gateway.log().matches("line=three").count() >= 3);
    let log = gateway.log();
    assert!(log.lines().filter(|line| line.contains("line=one")).all(|line| line.contains("module=m")), "{log}");
    assert!(log.contains("line=\"two\\\\u{1b}[31m\"") && !log.contains('\u{1b}'), "{log}");
}

#[test]
fn a_flood_is_cut_off() {
    let worker = Worker::echo();
    let handler = "(param i32 i32) (result i64) (local $n i32)
        (loop $again
          (drop (call $fd_write (i32.const 1) (i32.const 256) (i32.const 1) (i32.const 0)))
          (local.set $n (i32.add (local.get $n) (i32.const 1)))
          (br_if $again (i32.lt_u (local.get $n) (i32.const 2000))))
        (i64.const 0)";
    let gateway = with(&printing(&"flood\\0a".repeat(100), 600).function("on_request_headers", handler), &worker);
    assert_eq!([(); 3].map(|()| gateway.get("/").status), [200; 3]);
    gateway.wait_for_log("flood");
    assert!(gateway.log().len() < 100_000, "{}", gateway.log().len());
}

#[test]
fn to_exit_is_a_failure_whatever_the_code() {
    let worker = Worker::echo();
    let (gateway, files) = (Gateway::with_modules(&worker).start(), Files::new());
    for code in [0, 1, 71, -1] {
        let handler = format!("(param i32 i32) (result i64) (call $proc_exit (i32.const {code})) (i64.const 0)");
        let module = importing().function("on_request_headers", &handler);
        let uuid = gateway.add(&Module::new("m", &files.sentinel("m", &module)).at(&["OnRequest"]));
        assert_eq!((gateway.get("/").status, gateway.failures(&uuid, "exit")), (500, 1), "{code}");
        gateway.remove(&uuid);
    }
}

/// AssemblyScript's strings: UTF-16, with the length in bytes before them.
fn string(at: u32, text: &str) -> String {
    let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let bytes = [&(units.len() as u32).to_le_bytes()[..], &units].concat();
    let escaped: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
    format!("(data (i32.const {}) \"{escaped}\")", at - 4)
}

#[test]
fn the_message_of_an_abort_is_in_the_log() {
    let worker = Worker::echo();
    let abort = |message: i32, file: i32| {
        let call = format!("(call $abort (i32.const {message}) (i32.const {file}) (i32.const 7) (i32.const 12))");
        Sentinel::default()
            .items("(import \"env\" \"abort\" (func $abort (param i32 i32 i32 i32)))")
            .items(&(string(1024, "no \u{20ac} left\nforged") + &string(2048, "~lib/rt.ts")))
            .function("on_request_headers", &format!("(param i32 i32) (result i64) {call} (i64.const 0)"))
    };
    let gateway = with(&abort(1024, 2048), &worker);
    let answer = gateway.get("/");
    assert_eq!((answer.status, answer.text().as_str()), (500, "Wasm Error"));
    let line = gateway.wait_for_log("no \u{20ac} left");
    assert!(!gateway.log().lines().any(|line| line.starts_with("forged")), "{line}");
    let failure = gateway.wait_for_log("a module failed");
    assert!(failure.contains("kind=\"trap\"") && failure.contains("~lib/rt.ts:7:12"), "{failure}");
    // Null and nonsense are places too.
    for (message, file) in [(0, 0), (-1, 3), (262_144, 262_140)] {
        assert_eq!(with(&abort(message, file), &worker).get("/").status, 500, "{message} {file}");
    }
}

#[test]
fn the_reactor_was_initialised_and_granted_nothing() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::new("reactor", &guest("sentinel-reactor")));
    for _ in 0..3 {
        assert_eq!(gateway.get("/").status, 200);
        let told = worker.wait_for_request().headers.get("x-reactor").expect("it ran").to_owned();
        let told: Vec<u32> = told.split(',').map(|number| number.parse().expect("a number")).collect();
        assert!(told[0] == 0 && told[1] != 0 && told[2] != 0, "variables, errors of two calls: {told:?}");
    }
    let said = |line: &str| gateway.log().matches(line).count();
    eventually(Duration::from_secs(5), || said("reactor: a request") == 3 && said("reactor: it was allowed") == 3);
    assert_eq!(gateway.modules()["modules"][0]["module_meta"]["attach_points"], json!([{ "Middleware": "OnRequest" }]));
}
