//! Guests that hand over or print more than there is room for: memory and log stay bounded.
//! Cases 8 and 19 of section 3.

use crate::support::{BUSY, Gateway, Module, Worker, eventually, holds_for, obliging};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// The most memory that the gateway has while `work` is done.
fn most_memory(gateway: &Gateway, work: impl FnOnce() + Send) -> u64 {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            done.store(true, Ordering::SeqCst);
            outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        let mut most = gateway.memory();
        while !done.load(Ordering::SeqCst) {
            most = most.max(gateway.memory());
            std::thread::sleep(Duration::from_millis(1));
        }
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        most
    })
}

#[test]
fn memory_stays_bounded_whatever_guests_hand_over() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::hostile());
    gateway.get("/");
    let before = gateway.memory();
    let behaviours = [
        "gigabyte",
        "alias:100",
        "alias:1000",
        "alias:100000",
        "claim:1073741824",
        "body-size:10485761",
        "headers:33000",
        "grow",
    ];
    let most = most_memory(&gateway, || {
        for behaviour in behaviours {
            for _ in 0..4 {
                gateway.provoke(behaviour).assert_error(503, "wasm_module_failed");
                gateway.provoke_response(behaviour).assert_error(503, "wasm_module_failed");
            }
        }
    });
    assert!(most < before + 2 * 64 * MIB, "{} MiB -> {} MiB, with guests of 64 MiB", before / MIB, most / MIB);
    let failures = gateway.meta(&uuid)["failures"].to_string();
    assert_eq!(gateway.failures(&uuid, "output") + gateway.failures(&uuid, "trap"), 8 * 8, "{failures}");
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn an_alias_of_a_mebibyte_many_times_over_is_cheap_to_refuse() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile().set("limits", json!({ "execution_ms": 500 })));
    for _ in 0..10 {
        let start = std::time::Instant::now();
        gateway.provoke("alias:1000000").assert_error(503, "wasm_module_failed");
        assert!(start.elapsed() < BUSY, "{:?}", start.elapsed());
    }
}

#[test]
fn what_a_guest_prints_is_cut_counted_and_labelled() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--wasm-max-execution-time-ms=10s").start();
    // What is printed to its end has all the time that a busy machine takes for it.
    let patient = gateway.add(&Module::hostile());
    let before = gateway.memory();
    let most = most_memory(&gateway, || {
        (0..3).for_each(|_| assert_eq!(gateway.provoke("stdout:100000").status, 200));
        gateway.remove(&patient);
        gateway.add(&Module::hostile().set("limits", json!({ "execution_ms": 300 })));
        for _ in 0..3 {
            let answer = gateway.provoke("stdout:500000000");
            assert_eq!(answer.status, 503, "its time runs out before it has printed a gigabyte");
        }
    });
    assert!(most < before + 40 * MIB, "{} MiB -> {} MiB", before / MIB, most / MIB);
    gateway.wait_for_log("forged");
    holds_for(Duration::from_millis(300), || gateway.log().len() < 100_000);
    let log = gateway.log();
    assert!(!log.contains('\x1b'), "no escape sequence reaches a terminal");
    for line in log.lines().filter(|line| line.contains("forged")) {
        assert!(line.contains("smg::guest") && line.contains("hostile"), "a line of its own: {line}");
        assert!(!line.starts_with('{'), "{line}");
    }
}

#[test]
fn a_forged_line_stays_a_string_in_a_json_log() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--log-json").start();
    gateway.add(&Module::new("a \"quoted\" name", &crate::support::guest("hostile")));
    gateway.provoke("stdout:200");
    gateway.wait_for_log("forged");
    eventually(Duration::from_secs(5), || gateway.log().contains("smg::access"));
    let mut printed = 0;
    for line in gateway.log().lines() {
        let parsed: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"));
        assert!(parsed.get("forged").is_none(), "{line}");
        if parsed["target"] == "smg::guest" {
            printed += 1;
            assert_eq!(parsed["module"], "a \"quoted\" name", "{line}");
            assert_eq!(parsed["level"], "INFO", "{line}");
        }
    }
    assert!(printed >= 2, "{}", gateway.log());
}

#[test]
fn a_line_without_an_end_is_printed_when_its_call_ends() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    gateway.provoke("stdout:15");
    let line = gateway.wait_for_log("smg::guest");
    assert!(line.contains("hostil"), "{line}");
}

#[test]
fn eight_guests_that_hold_all_their_memory_fit() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--wasm-max-execution-time-ms=20s").start();
    gateway.add(&Module::hostile());
    let before = gateway.memory();
    let most = most_memory(&gateway, || {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(gateway.provoke("leak-mb:50|sleep-ms:200").status, 200));
            }
        });
    });
    assert!(most < before + 8 * 64 * MIB + 64 * MIB, "{} MiB -> {} MiB", before / MIB, most / MIB);
    eventually(Duration::from_secs(3), || gateway.metrics().sum("smg_wasm_memory_bytes", &[]) == 0.0);
    eventually(Duration::from_secs(3), || gateway.memory() < before + 2 * 64 * MIB);
}
